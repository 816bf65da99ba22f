package asm

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func TestEncode(t *testing.T) {
	f := NewModule().Func("f")
	x, v := f.Param(I32), f.Param(V128)
	for _, c := range []struct {
		e           Expr
		text, bytes string
	}{
		{I32Const(0), "i32.const 0", "4100"},
		{I32Const(63), "i32.const 63", "413f"},
		{I32Const(64), "i32.const 64", "41c000"}, // bit 6 is the sign: a second byte
		{I32Const(-64), "i32.const -64", "4140"},
		{I32Const(-65), "i32.const -65", "41bf7f"},
		{I32Const(-1 << 31), "i32.const -2147483648", "418080808078"},
		{F32Const(1.5), "f32.const 1.5", "430000c03f"},
		{I32Add(x, I32Const(1)), "local.get 0; i32.const 1; i32.add", "200041016a"},
		{V128Load(x, 16), "local.get 0; v128.load offset=16", "2000fd000010"},
		{V128Load32Splat(x, 200), "local.get 0; v128.load32_splat offset=200", "2000fd0900c801"},
		{I32x4DotI16x8S(v, v), "local.get 1; local.get 1; i32x4.dot_i16x8_s", "20012001fdba01"},
		{F32x4Mul(v, v), "local.get 1; local.get 1; f32x4.mul", "20012001fde601"},
		{F32x4Lane(3, v), "local.get 1; f32x4.extract_lane 3", "2001fd1f03"},
		{I8x16Shuffle(v, v, [16]byte{15, 31}), "local.get 1; local.get 1; i8x16.shuffle 15 31 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
			"20012001fd0d0f1f0000000000000000000000000000"},
		{I32x4RelaxedDotI8x16I7x16AddS(v, v, v), "local.get 1; local.get 1; local.get 1; i32x4.relaxed_dot_i8x16_i7x16_add_s", "200120012001fd9302"},
	} {
		if c.e.err != nil {
			t.Errorf("%s: %v", c.text, c.e.err)
		}
		if got := hex.EncodeToString(c.e.code); got != c.bytes {
			t.Errorf("%s: bytes %s, want %s", c.text, got, c.bytes)
		}
		if got, err := Disassemble(c.e.code); err != nil || got != c.text {
			t.Errorf("text %q (%v), want %q", got, err, c.text)
		}
	}
}

// TestTable checks that every declared instruction can be read back.
func TestTable(t *testing.T) {
	for code, o := range table {
		b := o.opcode()
		switch o.imm {
		case immMem:
			b = append(b, memarg(7)...)
		case immLane:
			b = append(b, 1)
		case immMemLane:
			b = append(append(b, memarg(7)...), 1)
		case immShuffle:
			b = append(b, make([]byte, 16)...)
		}
		if got, err := Disassemble(b); err != nil || !strings.HasPrefix(got, o.name) {
			t.Errorf("%#x: %q (%v), want %q", code, got, err, o.name)
		}
	}
	if _, err := Disassemble([]byte{0xff}); err == nil {
		t.Error("an unknown opcode was disassembled")
	}
}

// TestModule compares the smallest module with bytes written out by hand.
func TestModule(t *testing.T) {
	m := NewModule()
	m.ImportMemory("env", "m", 2, false)
	f := m.Func("f", I32)
	p := f.Param(I32)
	f.Return(I32Add(p, I32Const(1)))
	m.Export(f)
	got, err := m.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	want, _ := hex.DecodeString(strings.Join([]string{
		"0061736d01000000",                               // magic, version
		"0106" + "01" + "60017f017f",                     // one type: i32 → i32
		"020b" + "01" + "03656e76" + "016d" + "02010202", // memory, 2 pages to 2
		"0302" + "0100",                                  // one function of type 0
		"0705" + "01" + "0166" + "0000",
		"0a0a" + "01" + "08" + "00" + "2000" + "4101" + "6a" + "0f" + "0b",
	}, ""))
	if !bytes.Equal(got, want) {
		t.Errorf("module\n%x, want\n%x", got, want)
	}
}

// TestMistakes: every mistake of an emitter is reported, with its line.
func TestMistakes(t *testing.T) {
	for name, f := range map[string]func(m *Module, f *Func){
		"operand":   func(m *Module, f *Func) { f.Set(f.Local(I32), I32Add(I32Const(1), F32Const(1))) },
		"set":       func(m *Module, f *Func) { f.Set(f.Local(V128), I32Const(1)) },
		"no local":  func(m *Module, f *Func) { f.Set(I32Const(1), I32Const(1)) },
		"condition": func(m *Module, f *Func) { f.While(F32Const(1), func() {}) },
		"arguments": func(m *Module, f *Func) { f.Call(f, I32Const(1)) },
		"return":    func(m *Module, f *Func) { f.Return(I32Const(1)) },
		"late":      func(m *Module, f *Func) { f.Local(I32); f.Param(I32) },
	} {
		m := NewModule()
		f(m, m.Func("f"))
		if _, err := m.Bytes(); err == nil {
			t.Errorf("%s: no error", name)
		} else if !strings.Contains(err.Error(), "asm_test.go:") {
			t.Errorf("%s: %v does not name the line", name, err)
		}
	}
}
