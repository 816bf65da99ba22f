package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func file(header string, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func open(b []byte) (*Safetensors, error) {
	return OpenSafetensors(bytes.NewReader(b), int64(len(b)), Limits{})
}

func TestSafetensors_Read(t *testing.T) {
	s, err := open(file(`{"__metadata__":{"licence":"MIT"},`+
		`"b":{"dtype":"BF16","shape":[2],"data_offsets":[12,16]},`+
		`"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},`+
		`"h":{"dtype":"F16","shape":[2,1],"data_offsets":[8,12]},`+
		`"none":{"dtype":"F32","shape":[0,7],"data_offsets":[12,12]},`+
		`"n":{"dtype":"I64","shape":[],"data_offsets":[16,24]},`+
		`"d":{"dtype":"F64","shape":[1],"data_offsets":[24,32]}}   `,
		0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0, // 1, -2.5
		0, 0x3c, 0, 0xc4, // 1, -4
		0x80, 0x3f, 0x49, 0x40, // 1, 3.140625
		7, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 4, 0xc0)) // -2.5
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Names(), []string{"a", "h", "none", "b", "n", "d"}; !slices.Equal(got, want) {
		t.Errorf("names %v, want %v", got, want)
	}
	if s.Metadata()["licence"] != "MIT" {
		t.Errorf("metadata %v", s.Metadata())
	}
	for name, want := range map[string][]float32{"a": {1, -2.5}, "h": {1, -4}, "b": {1, 3.140625}, "none": {}, "d": {-2.5}} {
		got, err := s.Float32(name)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
	}
	if _, err := s.Float32("n"); !errors.Is(err, ErrDType) {
		t.Errorf("I64: %v", err)
	}
	if _, err := s.Float32("zzz"); !errors.Is(err, ErrMissing) {
		t.Errorf("absent: %v", err)
	}
	if shape, ok := s.Shape("a"); !ok || !slices.Equal(shape, []int{1, 2}) {
		t.Errorf("shape %v, %v", shape, ok)
	}
}

func TestSafetensors_Refused(t *testing.T) {
	entry := func(shape, offsets string) string {
		return fmt.Sprintf(`{"a":{"dtype":"F32","shape":%s,"data_offsets":%s}}`, shape, offsets)
	}
	two := `{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":%s}}`
	for _, c := range []struct {
		name string
		file []byte
		want error
	}{
		{"empty", nil, ErrTruncated},
		{"seven bytes", make([]byte, 7), ErrTruncated},
		{"no header", file(""), ErrCorrupt},
		{"header over the limit", append([]byte{0, 0, 0, 0, 0, 0, 0, 0x80}, '{', '}'), ErrTooLarge},
		{"header over the file", []byte{100, 0, 0, 0, 0, 0, 0, 0, '{', '}'}, ErrTruncated},
		{"leading space", file(` {}`), ErrCorrupt},
		{"a list", file(`[]`), ErrCorrupt},
		{"cut JSON", file(`{"a":`), ErrCorrupt},
		{"two values", file(`{}{}`), ErrCorrupt},
		{"not UTF-8", file("{\"\xff\":{}}"), ErrCorrupt},
		{"bytes after", file(`{}`, 1), ErrCorrupt},
		{"data cut", file(entry("[2]", "[0,8]"), 1, 2, 3, 4), ErrTruncated},
		{"hole at the start", file(entry("[1]", "[4,8]"), make([]byte, 8)...), ErrCorrupt},
		{"hole between", file(fmt.Sprintf(two, "[5,9]"), make([]byte, 9)...), ErrCorrupt},
		{"overlap", file(fmt.Sprintf(two, "[2,6]"), make([]byte, 6)...), ErrCorrupt},
		{"same bytes twice", file(fmt.Sprintf(two, "[0,4]"), make([]byte, 4)...), ErrCorrupt},
		{"size and shape differ", file(entry("[3]", "[0,8]"), make([]byte, 8)...), ErrCorrupt},
		{"offsets backwards", file(entry("[0]", "[8,0]"), make([]byte, 8)...), ErrCorrupt},
		{"offset below zero", file(entry("[2]", "[-8,0]")), ErrCorrupt},
		{"three offsets", file(entry("[2]", "[0,8,8]"), make([]byte, 8)...), ErrCorrupt},
		{"dimension below zero", file(entry("[-2]", "[0,8]"), make([]byte, 8)...), ErrCorrupt},
		{"shape overflows", file(entry("[2147483647,2147483647,2147483647]", "[0,4]"), make([]byte, 4)...), ErrCorrupt},
		{"shape overflows after a zero", file(entry("[0,2147483648]", "[0,0]")), ErrCorrupt},
		{"shape is null", file(entry("null", "[0,4]"), make([]byte, 4)...), ErrCorrupt},
		{"fraction", file(entry("[1.5]", "[0,4]"), make([]byte, 4)...), ErrCorrupt},
		{"unknown dtype", file(`{"a":{"dtype":"F4","shape":[],"data_offsets":[0,4]}}`, make([]byte, 4)...), ErrCorrupt},
		{"field twice", file(`{"a":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}}`, make([]byte, 4)...), ErrCorrupt},
		{"field unknown", file(`{"a":{"dtype":"F32","x":1,"shape":[],"data_offsets":[0,4]}}`, make([]byte, 4)...), ErrCorrupt},
		{"field missing", file(`{"a":{"dtype":"F32","shape":[]}}`), ErrCorrupt},
		{"name twice", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 1, 2), ErrCorrupt},
		{"metadata twice", file(`{"__metadata__":{},"__metadata__":{}}`), ErrCorrupt},
		{"metadata of numbers", file(`{"__metadata__":{"a":1}}`), ErrCorrupt},
		{"entry is a number", file(`{"a":1}`), ErrCorrupt},
		{"deep JSON", file(`{"a":` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + `}`), ErrCorrupt},
	} {
		if _, err := open(c.file); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestSafetensors_Limits(t *testing.T) {
	b := file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}}`, make([]byte, 8)...)
	if _, err := OpenSafetensors(bytes.NewReader(b), int64(len(b)), Limits{Tensors: 1}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("tensors: %v", err)
	}
	s, err := OpenSafetensors(bytes.NewReader(b), int64(len(b)), Limits{TensorBytes: 4})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Float32("a"); !errors.Is(err, ErrTooLarge) {
		t.Errorf("tensor bytes: %v", err)
	}
	// A file that shrinks after it was opened.
	if s, err = OpenSafetensors(bytes.NewReader(b[:len(b)-1]), int64(len(b)), Limits{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Float32("a"); !errors.Is(err, ErrTruncated) {
		t.Errorf("shrunk: %v", err)
	}
}

func FuzzSafetensors(f *testing.F) {
	f.Add(file(`{}`))
	f.Add(file(`{"a":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]},"__metadata__":{"x":"y"}}`, 1, 2, 3, 4))
	f.Add(file(`{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"a":{}}`, 1, 2, 3, 4))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := OpenSafetensors(bytes.NewReader(b), int64(len(b)), Limits{HeaderBytes: 1 << 16, TensorBytes: 1 << 20})
		if err != nil {
			return
		}
		var total int64
		for _, info := range s.Tensors() {
			total += info.Elements() * dtypeBytes[info.DType]
			x, err := s.Float32(info.Name)
			if err == nil && int64(len(x)) != info.Elements() {
				t.Fatalf("%q: %d elements, want %d", info.Name, len(x), info.Elements())
			}
		}
		if total > math.MaxInt32 || int(total) > len(b) {
			t.Fatalf("%d bytes of tensors in a file of %d", total, len(b))
		}
	})
}
