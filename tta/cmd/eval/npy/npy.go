// Package npy reads NumPy's .npy files, versions 1 to 3: arrays of numbers in C
// order, little-endian. It is strict, for files come from anywhere: what it does
// not know it refuses, and memory is taken as bytes arrive, not as a header
// promises.
//
// Format: numpy/lib/format.py, "Format Version 1.0" and following.
package npy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"lqa/quant/numeric"
)

var (
	ErrFormat    = errors.New("npy: not a .npy file as NumPy writes it")
	ErrTruncated = errors.New("npy: ends too early")
	ErrType      = errors.New("npy: unsupported type") // also: big-endian, Fortran order
	ErrTooLarge  = errors.New("npy: too large")
)

const (
	maxHeader = 1 << 16 // bytes; NumPy itself warns above 10,000
	maxDims   = 8
	// MaxBytes bounds an array: a million embeddings of width 1024 in float32.
	MaxBytes = 1 << 32
)

// Array is an array as it lies in the file.
type Array struct {
	Type  string // NumPy's descr: one of <f2 <f4 <f8 |i1 |u1 <i2 <u2 <i4 <u4 <i8 <u8
	Shape []int  // empty for a single number; its product is Len
	data  []byte
}

// types maps a descr to the bytes of a value.
var types = map[string]int{
	"<f2": 2, "<f4": 4, "<f8": 8, "|i1": 1, "|u1": 1, "<i2": 2, "<u2": 2, "<i4": 4, "<u4": 4, "<i8": 8, "<u8": 8,
}

// ReadFile reads the named file.
func ReadFile(name string) (*Array, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return a, nil
}

// Read reads one array, which ends where r ends.
//
// Errors: ErrFormat, ErrTruncated, ErrType, ErrTooLarge, and r's.
func Read(r io.Reader) (*Array, error) {
	var b [12]byte
	if err := full(r, b[:10]); err != nil {
		return nil, err
	}
	if string(b[:6]) != "\x93NUMPY" || b[6] < 1 || b[6] > 3 || b[7] != 0 {
		return nil, fmt.Errorf("%w: it starts with %q", ErrFormat, b[:8])
	}
	n := uint32(binary.LittleEndian.Uint16(b[8:]))
	if b[6] > 1 {
		if err := full(r, b[10:]); err != nil {
			return nil, err
		}
		n = binary.LittleEndian.Uint32(b[8:])
	}
	if n > maxHeader {
		return nil, fmt.Errorf("%w: a header of %d bytes", ErrTooLarge, n)
	}
	header := make([]byte, n)
	if err := full(r, header); err != nil {
		return nil, err
	}
	a, err := parse(string(header))
	if err != nil {
		return nil, err
	}
	size := int64(types[a.Type])
	for _, d := range a.Shape { // all at most MaxBytes: no product of two overflows
		if size *= int64(d); size > MaxBytes {
			return nil, fmt.Errorf("%w: %v of %s", ErrTooLarge, a.Shape, a.Type)
		}
	}
	var data bytes.Buffer // grows with what arrives
	switch got, err := io.Copy(&data, io.LimitReader(r, size+1)); {
	case err != nil:
		return nil, err
	case got < size:
		return nil, fmt.Errorf("%w: %d of %d bytes", ErrTruncated, got, size)
	case got > size:
		return nil, fmt.Errorf("%w: bytes behind the array", ErrFormat)
	}
	a.data = data.Bytes()
	return a, nil
}

func full(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return ErrTruncated
	}
	return err
}

// parse reads a header: a Python dict with the three keys, in any order.
func parse(s string) (*Array, error) {
	p := &parser{rest: s}
	a := new(Array)
	seen := map[string]bool{}
	p.want("{")
	for p.err == nil && !p.have("}") {
		key := p.text()
		if p.want(":"); seen[key] {
			p.fail("key " + key + " twice")
		}
		seen[key] = true
		switch key {
		case "descr":
			a.Type = p.text()
			if p.err == nil && types[a.Type] == 0 {
				return nil, fmt.Errorf("%w: %q", ErrType, a.Type)
			}
		case "fortran_order":
			if p.have("True") {
				return nil, fmt.Errorf("%w: Fortran order; np.ascontiguousarray changes it", ErrType)
			}
			p.want("False")
		case "shape":
			a.Shape = p.tuple()
		default:
			p.fail("key " + key)
		}
		if !p.have(",") {
			p.want("}")
			break
		}
	}
	if p.err == nil && len(seen) != 3 {
		p.fail("a key is missing")
	}
	if p.err == nil && strings.TrimLeft(p.rest, " ") != "\n" {
		p.fail("text behind it")
	}
	return a, p.err
}

// parser takes a header from its start; after the first error it only passes.
type parser struct {
	rest string
	err  error
}

func (p *parser) fail(what string) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: header: %.40s", ErrFormat, what)
	}
}

func (p *parser) have(token string) bool {
	rest, ok := strings.CutPrefix(strings.TrimLeft(p.rest, " "), token)
	if ok = ok && p.err == nil; ok {
		p.rest = rest
	}
	return ok
}

func (p *parser) want(token string) {
	if !p.have(token) {
		p.fail("no " + token)
	}
}

// text takes a string without escapes.
func (p *parser) text() string {
	quote := "'"
	if p.have(`"`) {
		quote = `"`
	} else {
		p.want(quote)
	}
	s, rest, ok := strings.Cut(p.rest, quote)
	if !ok || strings.ContainsAny(s, "\\\n") {
		p.fail("no end of a string")
		return ""
	}
	p.rest = rest
	return s
}

// tuple takes (), (n,) or (n, m, ...).
func (p *parser) tuple() []int {
	dims := []int{}
	p.want("(")
	for p.err == nil && !p.have(")") {
		if len(dims) == maxDims {
			p.fail("too many dimensions")
		}
		dims = append(dims, p.number())
		if !p.have(",") {
			if p.want(")"); len(dims) == 1 {
				p.fail("(n) is no tuple")
			}
			break
		}
	}
	return dims
}

// number takes a decimal up to MaxBytes.
func (p *parser) number() int {
	p.rest = strings.TrimLeft(p.rest, " ")
	n, digits := int64(0), 0
	for digits < len(p.rest) && '0' <= p.rest[digits] && p.rest[digits] <= '9' {
		if n = 10*n + int64(p.rest[digits]-'0'); n > MaxBytes {
			if p.err == nil {
				p.err = fmt.Errorf("%w: a dimension over %d", ErrTooLarge, int64(MaxBytes))
			}
			return 0
		}
		digits++
	}
	if digits == 0 {
		p.fail("no number")
	}
	p.rest = p.rest[digits:]
	return int(n)
}

// Len is the number of values.
func (a *Array) Len() int { return len(a.data) / types[a.Type] }

// Floats returns the values in C order as float32, rounded from <f8 and from
// integers. They may be infinite or not a number.
func (a *Array) Floats() []float32 {
	v := make([]float32, a.Len())
	if a.Type == "<f2" {
		numeric.FromFloat16(v, a.data)
		return v
	}
	for i := range v {
		switch a.Type {
		case "<f4":
			v[i] = math.Float32frombits(binary.LittleEndian.Uint32(a.data[4*i:]))
		case "<f8":
			v[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(a.data[8*i:])))
		case "<u8":
			v[i] = float32(binary.LittleEndian.Uint64(a.data[8*i:]))
		default:
			v[i] = float32(a.integer(i))
		}
	}
	return v
}

// Ints returns the values in C order, or ErrType: floats are not integers, even
// where they have no fraction, nor are numbers beyond 63 bits.
func (a *Array) Ints() ([]int64, error) {
	if a.Type[1] == 'f' {
		return nil, fmt.Errorf("%w: %s where integers are meant", ErrType, a.Type)
	}
	v := make([]int64, a.Len())
	for i := range v {
		if v[i] = a.integer(i); a.Type == "<u8" && v[i] < 0 {
			return nil, fmt.Errorf("%w: %d is too large an integer", ErrType, uint64(v[i]))
		}
	}
	return v, nil
}

func (a *Array) integer(i int) int64 {
	size := types[a.Type]
	var x uint64
	for k, b := range a.data[size*i : size*(i+1)] {
		x |= uint64(b) << (8 * k)
	}
	if a.Type[1] == 'i' {
		unused := 64 - 8*size
		return int64(x<<unused) >> unused
	}
	return int64(x)
}
