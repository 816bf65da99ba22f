//go:build !js

package site

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/tetratelabs/wazero"
)

// linked is a module as Go links it, but for what thin does not look at: an
// import, two types, one function, a table of elements, memory and data.
func linked(data []segment) []byte {
	b := []byte("\x00asm\x01\x00\x00\x00")
	add := func(id byte, body ...byte) {
		b = append(binary.AppendUvarint(append(b, id), uint64(len(body))), body...)
	}
	add(typeSection, 2, 0x60, 1, 0x7f, 0, 0x60, 0, 1, 0x7f)    // (i32)→(), ()→(i32)
	add(importSection, 1, 4, 'g', 'o', 'j', 's', 1, 'f', 0, 0) // of the first type
	add(funcSection, 1, 1)                                     // of the second
	add(4, 1, 0x70, 0, 1)                                      // a table of one
	add(5, 1, 0, 32)                                           // memory of 32 pages
	add(7, 2, 3, 'm', 'e', 'm', 2, 0, 3, 'r', 'u', 'n', 0, 1)  // exports
	add(9, 1, 0, 0x41, 0, 0x0b, 1, 1)                          // elements
	add(codeSection, 1, 4, 0, 0x41, 42, 0x0b)                  // 42
	add(dataSection, without(data, 0, 0)...)                   // all of it
	add(0, append([]byte("\x04name"), make([]byte, 3)...)...)  // custom, to be kept
	return b
}

// findfunctab is the table of so many functions at offset, as Go's linker cuts
// it into segments, the last together with what follows.
func findfunctab(offset, functions int, after []byte) (data []segment) {
	var bucket []byte
	for n := range functions << bucketsShift {
		bucket = binary.LittleEndian.AppendUint32(nil, uint32(n>>bucketsShift))
		if bytes.Count(bucket, []byte{0}) < 4 {
			data = append(data, segment{offset + n*bucketBytes, bytes.TrimRight(bucket, "\x00")})
		}
	}
	last := &data[len(data)-1]
	last.bytes = append(append(bucket, make([]byte, bucketBytes-4)...), after...)
	return data
}

// memoryOf runs the module's start and returns its memory and what run returns.
func memoryOf(t *testing.T, module []byte) ([]byte, uint64) {
	t.Helper()
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	t.Cleanup(func() { r.Close(ctx) })
	if _, err := r.NewHostModuleBuilder("gojs").NewFunctionBuilder().WithFunc(func(uint32) {}).Export("f").Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	m, err := r.Instantiate(ctx, module)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := m.Memory().Read(0, m.Memory().Size())
	result, err := m.ExportedFunction("run").Call(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return b, result[0]
}

func TestThin(t *testing.T) {
	const at, functions = 70_004, 300
	around := []segment{{4096, []byte("before")}, {at - 3, []byte{7, 8, 9}}}
	data := append(around, findfunctab(at, functions, []byte("after"))...)
	module := linked(data)
	got, err := thin(module)
	if err != nil {
		t.Fatal(err)
	}
	if most := 400; len(got) > most {
		t.Errorf("%d bytes of %d left, want at most %d", len(got), len(module), most)
	}
	want, answer := memoryOf(t, module)
	memory, result := memoryOf(t, got)
	if !bytes.Equal(memory, want) {
		t.Error("memory differs after the start")
	}
	if result != answer || answer != 42 {
		t.Errorf("run returns %d, before %d, want 42", result, answer)
	}
	if _, err := thin(got); !errors.Is(err, errWasm) {
		t.Errorf("a module with a start function: %v, want errWasm", err)
	}
}

// TestThin_None: another linker's module, whose table is not the one we know,
// stays.
func TestThin_None(t *testing.T) {
	few := findfunctab(1<<16, 40, nil)
	other := findfunctab(1<<16, 300, nil)
	for i := range other { // a step within each bucket
		other[i].bytes = append(append(bytes.Clone(other[i].bytes), make([]byte, 4-min(4, len(other[i].bytes)))...), 1)
	}
	for name, data := range map[string][]segment{"none": nil, "few": few, "other": other} {
		module := linked(data)
		if got, err := thin(module); err != nil || !bytes.Equal(got, module) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(module), err)
		}
	}
}

// TestThin_Cut: no prefix of a module passes, nor panics.
func TestThin_Cut(t *testing.T) {
	module := linked([]segment{{4096, []byte("data")}})
	end := len(module) - 10 // the custom section
	for n := range end {
		if _, err := thin(module[:n]); !errors.Is(err, errWasm) {
			t.Errorf("%d bytes: %v, want errWasm", n, err)
		}
	}
}
