package npy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// file is a version 1 file of header and data, padded as NumPy does.
func file(header string, data ...byte) []byte {
	for (10+len(header)+1)%64 != 0 {
		header += " "
	}
	header += "\n"
	b := append([]byte("\x93NUMPY\x01\x00"), 0, 0)
	binary.LittleEndian.PutUint16(b[8:], uint16(len(header)))
	return append(append(b, header...), data...)
}

func head(descr, shape string) string {
	return fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr, shape)
}

func TestRead_Types(t *testing.T) {
	for _, c := range []struct {
		descr string
		data  []byte
		want  float32
		whole int64
	}{
		{"<f2", []byte{0x00, 0xbe}, -1.5, 0},
		{"<f4", []byte{0, 0, 0xc0, 0xbf}, -1.5, 0},
		{"<f8", []byte{0, 0, 0, 0, 0, 0, 0xf8, 0xbf}, -1.5, 0},
		{"|i1", []byte{0xfe}, -2, -2},
		{"|u1", []byte{0xfe}, 254, 254},
		{"<i2", []byte{0xfe, 0xff}, -2, -2},
		{"<u2", []byte{0xfe, 0xff}, 65534, 65534},
		{"<i4", []byte{0xfe, 0xff, 0xff, 0xff}, -2, -2},
		{"<u4", []byte{0xfe, 0xff, 0xff, 0xff}, 4294967294, 4294967294},
		{"<i8", []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, -2, -2},
		{"<u8", []byte{2, 0, 0, 0, 0, 0, 0, 0}, 2, 2},
	} {
		a, err := Read(bytes.NewReader(file(head(c.descr, "(1,)"), c.data...)))
		if err != nil {
			t.Errorf("%s: %v", c.descr, err)
			continue
		}
		if got := a.Floats(); !slices.Equal(got, []float32{c.want}) {
			t.Errorf("%s: %v, want %v", c.descr, got, c.want)
		}
		whole, err := a.Ints()
		if c.descr[1] == 'f' {
			if !errors.Is(err, ErrType) {
				t.Errorf("%s as integers: %v", c.descr, err)
			}
		} else if !slices.Equal(whole, []int64{c.whole}) {
			t.Errorf("%s: %v %v, want %v", c.descr, whole, err, c.whole)
		}
	}
	a, err := Read(bytes.NewReader(file(head("<u8", "(1,)"), 0, 0, 0, 0, 0, 0, 0, 0x80)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Ints(); !errors.Is(err, ErrType) {
		t.Errorf("2^63 as an int64: %v", err)
	}
	if f := a.Floats()[0]; f != 1<<63 {
		t.Errorf("2^63 as a float: %v", f)
	}
}

func TestRead_Refused(t *testing.T) {
	good := file(head("|u1", "(2, 3)"), 1, 2, 3, 4, 5, 6)
	if a, err := Read(bytes.NewReader(good)); err != nil || !slices.Equal(a.Shape, []int{2, 3}) || a.Len() != 6 {
		t.Fatalf("the good file: %v %v", a, err)
	}
	for i := range good {
		if _, err := Read(bytes.NewReader(good[:i])); !errors.Is(err, ErrTruncated) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
	huge := append([]byte("\x93NUMPY\x02\x00"), 0xff, 0xff, 0xff, 0xff)
	for name, c := range map[string]struct {
		file []byte
		want error
	}{
		"page":            {[]byte("<!doctype html><html>"), ErrFormat},
		"version 4":       {append([]byte("\x93NUMPY\x04\x00"), good[8:]...), ErrFormat},
		"more behind":     {append(slices.Clone(good), 7), ErrFormat},
		"huge header":     {huge, ErrTooLarge},
		"no keys":         {file("{}"), ErrFormat},
		"no shape":        {file("{'descr': '|u1', 'fortran_order': False}"), ErrFormat},
		"twice":           {file("{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': ()}", 1), ErrFormat},
		"other key":       {file("{'descr': '|u1', 'order': False, 'shape': ()}", 1), ErrFormat},
		"code":            {file("{'descr': '|u1', 'fortran_order': False, 'shape': (f(),)}", 1), ErrFormat},
		"not a tuple":     {file(head("|u1", "(1)"), 1), ErrFormat},
		"negative":        {file(head("|u1", "(-1,)"), 1), ErrFormat},
		"nine dimensions": {file(head("|u1", "(1, 1, 1, 1, 1, 1, 1, 1, 1)"), 1), ErrFormat},
		"text behind":     {file(head("|u1", "()")+"x", 1), ErrFormat},
		"escape":          {file(`{'descr': '|u\x31', 'fortran_order': False, 'shape': ()}`, 1), ErrFormat},
		"Fortran":         {file("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3)}", 1, 2, 3, 4, 5, 6), ErrType},
		"big-endian":      {file(head(">f4", "()"), 1, 2, 3, 4), ErrType},
		"objects":         {file(head("|O", "(1,)"), 1), ErrType},
		"overflow":        {file(head("<f4", "(4294967296, 4294967296)")), ErrTooLarge},
		"long number":     {file(head("<f4", "(99999999999999999999999,)")), ErrTooLarge},
		"promises 4 GiB":  {file(head("<f4", "(1073741824,)"), 1), ErrTruncated},
	} {
		if _, err := Read(bytes.NewReader(c.file)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// What a header promises costs nothing until it comes.
func TestRead_Allocates(t *testing.T) {
	b := file(head("<f4", "(1073741824,)"), 1, 2, 3)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	Read(bytes.NewReader(b))
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("%d bytes for a file of %d", got, len(b))
	}
}

// NumPy writes, we read, for every type, version and order of dimensions.
func TestRead_NumPy(t *testing.T) {
	python := os.Getenv("LQA_PYTHON")
	if python == "" {
		t.Skip("no Python: set LQA_PYTHON")
	}
	dir := t.TempDir()
	script := `
import sys, numpy as np
for v in (1, 2, 3):
    for d in "f2 f4 f8 i1 u1 i2 u2 i4 u4 i8 u8".split():
        with open(f"{sys.argv[1]}/{v}{d}.npy", "wb") as f:
            np.lib.format.write_array(f, np.arange(24).reshape(2, 3, 4).astype("<" + d), version=(v, 0))
np.save(sys.argv[1] + "/0.npy", np.float32(23))
np.save(sys.argv[1] + "/empty.npy", np.zeros((0, 5), "f4"))
`
	if out, err := exec.Command(python, "-c", script, dir).CombinedOutput(); err != nil {
		t.Skipf("Python without NumPy: %v %s", err, out)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "[123]*.npy"))
	if len(names) != 33 {
		t.Fatalf("%d files", len(names))
	}
	for _, name := range names {
		a, err := ReadFile(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if f := a.Floats(); !slices.Equal(a.Shape, []int{2, 3, 4}) || len(f) != 24 || f[23] != 23 || f[5] != 5 {
			t.Errorf("%s: %v %v", name, a.Shape, f)
		}
	}
	if a, err := ReadFile(filepath.Join(dir, "0.npy")); err != nil || len(a.Shape) != 0 || a.Floats()[0] != 23 {
		t.Errorf("a number: %v %v", a, err)
	}
	if a, err := ReadFile(filepath.Join(dir, "empty.npy")); err != nil || a.Len() != 0 || !slices.Equal(a.Shape, []int{0, 5}) {
		t.Errorf("an empty array: %v %v", a, err)
	}
	if _, err := ReadFile(filepath.Join(dir, "none.npy")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(file(head("<f2", "(2, 2)"), 1, 2, 3, 4, 5, 6, 7, 8))
	f.Add(file(`{"shape": (1,), "fortran_order": False, "descr": "<i8"}`, 1, 2, 3, 4, 5, 6, 7, 8))
	f.Add(file(head("|u1", "()"), 1))
	f.Add(file(head("<u8", "(0, 4294967296)")))
	two := file(head("|i1", "(3,)"), 1, 2, 3)
	f.Add(slices.Concat([]byte("\x93NUMPY\x02\x00"), two[8:10], []byte{0, 0}, two[10:]))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Read(bytes.NewReader(b))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "npy: ") {
				t.Fatalf("an error without its package: %v", err)
			}
			return
		}
		n := 1
		for _, d := range a.Shape {
			n *= d
		}
		if v := a.Floats(); len(v) != n || a.Len() != n {
			t.Fatalf("%d values for %v", len(v), a.Shape)
		}
		if v, err := a.Ints(); err == nil {
			for i, x := range a.Floats() {
				if math.Abs(float64(x)-float64(v[i])) > math.Abs(float64(v[i]))*1e-7 {
					t.Fatalf("%d and %v", v[i], x)
				}
			}
		}
	})
}
