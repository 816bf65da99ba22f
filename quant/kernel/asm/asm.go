// Package asm assembles WebAssembly modules: instructions as Go functions, an
// expression a nested call, a statement a method of Func; module bytes out.
//
// It knows WebAssembly (core 2.0 with SIMD, relaxed SIMD, and the tail of
// threads) and nothing of what is computed. Mistakes of the caller (operand
// types, unknown locals) are gathered with the caller's line and reported by
// Module.Bytes.
package asm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
)

// Type is a WebAssembly value type; its value is the binary encoding.
type Type byte

// Value types.
const (
	Void Type = 0x40 // no value
	I32  Type = 0x7f
	I64  Type = 0x7e
	F32  Type = 0x7d
	V128 Type = 0x7b
)

// String returns the type's name in the text format.
func (t Type) String() string {
	switch t {
	case Void:
		return "void"
	case I32:
		return "i32"
	case I64:
		return "i64"
	case F32:
		return "f32"
	case V128:
		return "v128"
	}
	return fmt.Sprintf("type(%#x)", byte(t))
}

// Expr is an expression: instructions that leave one value, or none for Void.
// It is a pointer, as emitters are mostly calls with expressions: with more to
// pass, their code is a third larger.
type Expr struct{ *expr }

type expr struct {
	typ   Type
	code  []byte
	local int // index + 1 when the expression is just a local
	err   error
}

// Type returns the type of the value that e leaves.
func (e Expr) Type() Type { return e.typ }

// where finds the line outside this package that is being run.
func where() string {
	for skip := 2; skip < 16; skip++ {
		pc, file, line, ok := runtime.Caller(skip)
		if !ok {
			break
		}
		name := runtime.FuncForPC(pc).Name()
		if !strings.Contains(name, "kernel/asm.") || strings.HasSuffix(file, "_test.go") {
			return fmt.Sprintf("%s:%d", file[strings.LastIndexByte(file, '/')+1:], line)
		}
	}
	return "unknown line"
}

func mistake(format string, args ...any) error {
	return fmt.Errorf("asm: %s: %s", where(), fmt.Sprintf(format, args...))
}

// build joins operands and an instruction, checking operand types.
func build(name string, out Type, instr []byte, want []Type, args []Expr) Expr {
	e := Expr{&expr{typ: out}}
	size := len(instr)
	for i, a := range args {
		if a.err != nil && e.err == nil {
			e.err = a.err
		}
		if a.typ != want[i] && e.err == nil {
			e.err = mistake("%s: operand %d is %v, not %v", name, i, a.typ, want[i])
		}
		size += len(a.code)
	}
	e.code = make([]byte, 0, size)
	for _, a := range args {
		e.code = append(e.code, a.code...)
	}
	e.code = append(e.code, instr...)
	return e
}

// uleb appends v as unsigned LEB128.
func uleb(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// sleb appends v as signed LEB128.
func sleb[T int32 | int64](b []byte, v T) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// I32Const is a constant.
func I32Const(v int32) Expr {
	return Expr{&expr{typ: I32, code: sleb([]byte{0x41}, v)}}
}

// I64Const is a constant.
func I64Const(v int64) Expr {
	return Expr{&expr{typ: I64, code: sleb([]byte{0x42}, v)}}
}

// F32Const is a constant, bit for bit.
func F32Const(v float32) Expr {
	return Expr{&expr{typ: F32, code: binary.LittleEndian.AppendUint32([]byte{0x43}, math.Float32bits(v))}}
}

// V128Const is a constant of 16 bytes.
func V128Const(b [16]byte) Expr {
	return Expr{&expr{typ: V128, code: append(uleb([]byte{0xfd}, 12), b[:]...)}}
}

// F32x4Const is a vector of four equal constants.
func F32x4Const(v float32) Expr {
	var b [16]byte
	for i := 0; i < 16; i += 4 {
		binary.LittleEndian.PutUint32(b[i:], math.Float32bits(v))
	}
	return V128Const(b)
}

// I8x16Const is a vector of sixteen equal constants.
func I8x16Const(v byte) Expr {
	var b [16]byte
	for i := range b {
		b[i] = v
	}
	return V128Const(b)
}

// I16x8Const is a vector of eight equal constants.
func I16x8Const(v int16) Expr {
	var b [16]byte
	for i := 0; i < 16; i += 2 {
		binary.LittleEndian.PutUint16(b[i:], uint16(v))
	}
	return V128Const(b)
}

// I32x4Const is a vector of four equal constants.
func I32x4Const(v int32) Expr {
	var b [16]byte
	for i := 0; i < 16; i += 4 {
		binary.LittleEndian.PutUint32(b[i:], uint32(v))
	}
	return V128Const(b)
}

// Func is one function under construction. Its parameters are declared before
// its other locals.
type Func struct {
	m       *Module
	index   uint32
	name    string
	params  []Type
	results []Type
	locals  []Type
	body    []byte
	depth   int // open blocks
}

// Module is a module under construction.
type Module struct {
	memory  *memory
	funcs   []*Func
	exports []string
	errs    []error
}

type memory struct {
	module, name string
	pages        uint32
	shared, own  bool
}

// NewModule returns an empty module.
func NewModule() *Module { return new(Module) }

// ImportMemory imports memory 0 with pages as its initial and largest size.
func (m *Module) ImportMemory(module, name string, pages uint32, shared bool) {
	m.memory = &memory{module: module, name: name, pages: pages, shared: shared}
}

// ExportMemory defines memory 0 with pages as its initial and largest size and
// exports it: the whole of a module that others import their memory from.
func (m *Module) ExportMemory(name string, pages uint32) {
	m.memory = &memory{name: name, pages: pages, own: true}
}

// Func declares a function with up to one result; its body follows through
// the methods of Func. A function may be called before its body is written.
func (m *Module) Func(name string, results ...Type) *Func {
	f := &Func{m: m, index: uint32(len(m.funcs)), name: name, results: results}
	m.funcs = append(m.funcs, f)
	return f
}

// Export makes f visible under its name.
func (m *Module) Export(f *Func) { m.exports = append(m.exports, f.name) }

func (m *Module) fail(err error) { m.errs = append(m.errs, err) }

// Bytes returns the module, or every mistake made on the way, joined.
func (m *Module) Bytes() ([]byte, error) {
	for _, f := range m.funcs {
		if f.depth != 0 {
			m.fail(fmt.Errorf("asm: function %s has an open block", f.name))
		}
	}
	if len(m.errs) > 0 {
		return nil, errors.Join(m.errs...)
	}
	section := func(out []byte, id byte, body []byte) []byte {
		return append(uleb(append(out, id), uint32(len(body))), body...)
	}
	str := func(b []byte, s string) []byte { return append(uleb(b, uint32(len(s))), s...) }

	out := []byte{0, 'a', 's', 'm', 1, 0, 0, 0}
	types := uleb(nil, uint32(len(m.funcs)))
	for _, f := range m.funcs {
		types = append(types, 0x60)
		types = uleb(types, uint32(len(f.params)))
		for _, t := range f.params {
			types = append(types, byte(t))
		}
		types = uleb(types, uint32(len(f.results)))
		for _, t := range f.results {
			types = append(types, byte(t))
		}
	}
	out = section(out, 1, types)
	if m.memory != nil && !m.memory.own {
		b := []byte{1}
		b = str(str(b, m.memory.module), m.memory.name)
		limits := byte(1)
		if m.memory.shared {
			limits = 3
		}
		b = append(b, 2, limits)
		b = uleb(uleb(b, m.memory.pages), m.memory.pages)
		out = section(out, 2, b)
	}
	decl := uleb(nil, uint32(len(m.funcs)))
	for i := range m.funcs {
		decl = uleb(decl, uint32(i)) // type i belongs to function i
	}
	out = section(out, 3, decl)
	count := uint32(len(m.exports))
	if m.memory != nil && m.memory.own {
		out = section(out, 5, uleb(uleb([]byte{1, 1}, m.memory.pages), m.memory.pages))
		count++
	}
	exports := uleb(nil, count)
	if m.memory != nil && m.memory.own {
		exports = append(str(exports, m.memory.name), 2, 0)
	}
	for _, name := range m.exports {
		for _, f := range m.funcs {
			if f.name == name {
				exports = uleb(append(str(exports, name), 0), f.index)
			}
		}
	}
	out = section(out, 7, exports)
	code := uleb(nil, uint32(len(m.funcs)))
	for _, f := range m.funcs {
		b := uleb(nil, uint32(len(f.locals)))
		for _, t := range f.locals {
			b = append(uleb(b, 1), byte(t))
		}
		b = append(append(b, f.body...), 0x0b)
		code = append(uleb(code, uint32(len(b))), b...)
	}
	return section(out, 10, code), nil
}

// Param declares the next parameter.
func (f *Func) Param(t Type) Expr {
	if len(f.locals) > 0 {
		f.m.fail(mistake("parameter of %s after a local", f.name))
	}
	f.params = append(f.params, t)
	return localExpr(len(f.params)-1, t)
}

// Local declares a local, zero at first.
func (f *Func) Local(t Type) Expr {
	f.locals = append(f.locals, t)
	return localExpr(len(f.params)+len(f.locals)-1, t)
}

// Locals declares n locals of one type.
func (f *Func) Locals(t Type, n int) []Expr {
	l := make([]Expr, n)
	for i := range l {
		l[i] = f.Local(t)
	}
	return l
}

func localExpr(index int, t Type) Expr {
	return Expr{&expr{typ: t, code: uleb([]byte{0x20}, uint32(index)), local: index + 1}}
}

// emit appends e to the body; its value, if any, must be consumed by after.
func (f *Func) emit(e Expr, after ...byte) {
	if e.err != nil {
		f.m.fail(e.err)
	}
	f.body = append(append(f.body, e.code...), after...)
}

// Set assigns e to local.
func (f *Func) Set(local, e Expr) {
	if local.local == 0 {
		f.m.fail(mistake("Set needs a local"))
		return
	}
	if local.typ != e.typ {
		f.m.fail(mistake("Set of a %v local to %v", local.typ, e.typ))
	}
	f.emit(e, uleb([]byte{0x21}, uint32(local.local-1))...)
}

// Add adds n to each i32 local.
func (f *Func) Add(n Expr, locals ...Expr) {
	for _, l := range locals {
		f.Set(l, I32Add(l, n))
	}
}

// Bump adds a constant to each i32 local.
func (f *Func) Bump(n int32, locals ...Expr) { f.Add(I32Const(n), locals...) }

func (f *Func) condition(cond Expr) {
	if cond.typ != I32 {
		f.m.fail(mistake("condition is %v, not i32", cond.typ))
	}
	f.emit(cond)
}

func (f *Func) open(op byte) {
	f.body = append(f.body, op, byte(Void))
	f.depth++
}

func (f *Func) end() {
	f.body = append(f.body, 0x0b)
	f.depth--
}

// If runs then when cond is not zero, and otherwise els, where there is one.
func (f *Func) If(cond Expr, then func(), els ...func()) {
	f.condition(cond)
	f.open(0x04)
	then()
	for _, e := range els {
		f.body = append(f.body, 0x05)
		e()
	}
	f.end()
}

// While repeats body as long as cond is not zero. The condition is tested
// before the loop and again at its end: one branch an iteration.
func (f *Func) While(cond Expr, body func()) {
	f.condition(cond)
	f.open(0x04)
	f.open(0x03)
	body()
	f.condition(cond)
	f.body = append(f.body, 0x0d, 0) // br_if 0
	f.end()
	f.end()
}

// For counts local from its present value up to, not including, end.
func (f *Func) For(local, end Expr, step int32, body func()) {
	f.While(I32LtS(local, end), func() {
		body()
		f.Bump(step, local)
	})
}

// Switch runs cases[i] for i = v and other for any value beyond.
func (f *Func) Switch(v Expr, cases []func(), other func()) {
	for range cases {
		f.open(0x02)
	}
	f.open(0x02) // inner block: falls to case 0
	f.open(0x02) // the table's own block: falls to other
	f.condition(v)
	f.body = uleb(append(f.body, 0x0e), uint32(len(cases)))
	for i := range cases {
		f.body = uleb(f.body, uint32(i+1))
	}
	f.body = append(f.body, 0)
	f.end()
	other()
	f.body = uleb(append(f.body, 0x0c), uint32(len(cases)))
	f.end()
	for i, c := range cases {
		c()
		f.body = uleb(append(f.body, 0x0c), uint32(len(cases)-1-i))
		f.end()
	}
}

// Call runs a function that returns nothing.
func (f *Func) Call(g *Func, args ...Expr) {
	e := Call(g, args...)
	if e.typ != Void {
		f.m.fail(mistake("Call of %s drops its result", g.name))
	}
	f.emit(e)
}

// Call is the value that g returns for args.
func Call(g *Func, args ...Expr) Expr {
	out := Void
	if len(g.results) == 1 {
		out = g.results[0]
	}
	if len(args) != len(g.params) {
		return Expr{&expr{typ: out, err: mistake("call of %s with %d arguments, not %d", g.name, len(args), len(g.params))}}
	}
	return build("call "+g.name, out, uleb([]byte{0x10}, g.index), g.params, args)
}

// Return ends the function; with a value where it has a result.
func (f *Func) Return(e ...Expr) {
	if len(e) != len(f.results) {
		f.m.fail(mistake("%s returns %d values, not %d", f.name, len(f.results), len(e)))
		return
	}
	for i, v := range e {
		if v.typ != f.results[i] {
			f.m.fail(mistake("%s returns %v, not %v", f.name, f.results[i], v.typ))
		}
		f.emit(v)
	}
	f.body = append(f.body, 0x0f)
}

// Unreachable traps.
func (f *Func) Unreachable() { f.body = append(f.body, 0x00) }
