// Package qtype defines how tensors are stored: kinds, sizes and byte layouts,
// with Quantize and Dequantize references in plain Go.
//
// The bytes of a tensor in a .shq file are the bytes the kernels read, so
// loading is a copy. All numbers are little-endian.
package qtype

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"lqa/quant/numeric"
)

// Kind names a storage type.
type Kind string

const (
	// F16 is IEEE half precision, row-major.
	F16 Kind = "f16"
	// Q8C is [N,K] int8 codes with one scale per output row n, in panels for
	// the GEMM kernels: w[n,k] ≈ scale[n]·code[n,k], codes in ±127.
	Q8C Kind = "q8c"
	// Q8R is [R,D] int8 codes, row-major, with one scale per row: tables that
	// are gathered from (token table, ready labels) and depthwise filters.
	Q8R Kind = "q8r"
	// U8 is opaque bytes: vocabularies and name lists, UTF-8.
	U8 Kind = "u8"
	// Q4, Q5, Q6 and Q7 are Low kinds.
	Q4 Kind = "q4"
	Q5 Kind = "q5"
	Q6 Kind = "q6"
	Q7 Kind = "q7"
)

// Linear reports whether a linear layer's weight [N,K] may be of this kind.
func (k Kind) Linear() bool {
	_, low := k.Low()
	return k == F16 || k == Q8C || low
}

// PanelCols is the number of output rows n (GEMM columns) a panel holds, and
// PanelK how many consecutive k stand together.
const (
	PanelCols = 8
	PanelK    = 4
)

// MaxRank bounds the rank of a shape.
const MaxRank = 4

// Errors of Size.
var (
	ErrKind  = errors.New("qtype: unknown kind")
	ErrShape = errors.New("qtype: bad shape")
)

// RoundUp returns the least multiple of m that is ≥ n.
func RoundUp(n, m int) int { return (n + m - 1) / m * m }

// ScaleBytes returns how many bytes of scales precede the codes of a tensor of
// this kind with n rows: float16 each, padded to 16 bytes.
func (k Kind) ScaleBytes(n int) int {
	switch k {
	case Q8C:
		return RoundUp(2*RoundUp(n, PanelCols), 16)
	case Q8R:
		return RoundUp(2*n, 16)
	}
	return 0
}

// Size returns the bytes a tensor of this kind and shape takes. It fails on an
// unknown kind, a rank over MaxRank, a dimension below 1, and a size over
// 2³¹-1, before anything is allocated.
func (k Kind) Size(shape []int) (int, error) {
	if len(shape) == 0 || len(shape) > MaxRank {
		return 0, fmt.Errorf("%w: rank %d", ErrShape, len(shape))
	}
	n := int64(1)
	for _, d := range shape {
		if d < 1 || int64(d) > math.MaxInt32 || n > math.MaxInt32/int64(d) {
			return 0, fmt.Errorf("%w: %v", ErrShape, shape)
		}
		n *= int64(d)
	}
	switch k {
	case U8:
	case F16:
		n *= 2
	case Q8C, Q8R:
		if len(shape) != 2 {
			return 0, fmt.Errorf("%w: %s needs rank 2, not %v", ErrShape, k, shape)
		}
		r, c := int64(shape[0]), int64(shape[1])
		if k == Q8C {
			r, c = (r+PanelCols-1)/PanelCols*PanelCols, (c+PanelK-1)/PanelK*PanelK
		}
		n = r*c + int64(shape[0])*2 + 64 // bound before ScaleBytes, exact below
		if n <= math.MaxInt32 {
			n = r*c + int64(k.ScaleBytes(shape[0]))
		}
	default:
		l, ok := k.Low()
		if !ok {
			return 0, fmt.Errorf("%w %q", ErrKind, string(k))
		}
		if len(shape) != 2 {
			return 0, fmt.Errorf("%w: %s needs rank 2, not %v", ErrShape, k, shape)
		}
		n = l.size(shape[0], shape[1])
	}
	if n > math.MaxInt32 {
		return 0, fmt.Errorf("%w: %v needs over 2 GiB", ErrShape, shape)
	}
	return int(n), nil
}

// PanelIndex returns where Q8C keeps code [n,k] of a tensor with inner
// dimension K, counted from the first code: panels of PanelCols rows; in a
// panel, steps of PanelK k; in a step, row after row.
func PanelIndex(n, k, K int) int {
	K = RoundUp(K, PanelK)
	return n/PanelCols*PanelCols*K + k/PanelK*PanelCols*PanelK + n%PanelCols*PanelK + k%PanelK
}

// QuantizeRow writes round(x/scale) for the float16 scale that maps the row's
// largest magnitude to 127, and returns that scale.
func QuantizeRow(dst []int8, x []float32) float32 {
	var m float32
	for _, v := range x {
		if a := float32(math.Abs(float64(v))); a > m { // not max, which js/wasm calls
			m = a
		}
	}
	scale := numeric.RoundFloat16(m / 127)
	if scale < 0x1p-24 { // zero row, or below the smallest half
		scale = 0x1p-24
	}
	for i, v := range x {
		code := math.RoundToEven(float64(v) / float64(scale))
		if code > 127 {
			code = 127
		} else if code < -127 {
			code = -127
		}
		dst[i] = int8(code)
	}
	return scale
}

// AppendQ8C quantizes w [N,K], row-major, and appends its Q8C bytes to b.
func AppendQ8C(b []byte, w []float32, n, k int) []byte {
	codes := make([]int8, n*k)
	scales := make([]float32, n)
	for r := range n {
		scales[r] = QuantizeRow(codes[r*k:(r+1)*k], w[r*k:(r+1)*k])
	}
	return AppendQ8CCodes(b, scales, codes, n, k)
}

// AppendQ8CCodes appends the Q8C bytes of ready scales [N] and codes [N,K],
// row-major.
func AppendQ8CCodes(b []byte, scales []float32, codes []int8, n, k int) []byte {
	start := len(b)
	b = numeric.AppendFloat16(b, scales...)
	head := Q8C.ScaleBytes(n)
	body := RoundUp(n, PanelCols) * RoundUp(k, PanelK)
	b = append(b, make([]byte, head+body-(len(b)-start))...)
	out := b[start+head:]
	for r := range n {
		for c := range k {
			out[PanelIndex(r, c, k)] = byte(codes[r*k+c])
		}
	}
	return b
}

// AppendQ8R quantizes w [R,D], row-major, and appends its Q8R bytes to b.
func AppendQ8R(b []byte, w []float32, r, d int) []byte {
	codes := make([]int8, r*d)
	scales := make([]float32, r)
	for i := range r {
		scales[i] = QuantizeRow(codes[i*d:(i+1)*d], w[i*d:(i+1)*d])
	}
	return AppendQ8RCodes(b, scales, codes, r)
}

// AppendQ8RCodes appends the Q8R bytes of ready scales [R] and codes [R,D],
// row-major.
func AppendQ8RCodes(b []byte, scales []float32, codes []int8, r int) []byte {
	start := len(b)
	b = numeric.AppendFloat16(b, scales...)
	b = append(b, make([]byte, Q8R.ScaleBytes(r)-(len(b)-start))...)
	for _, c := range codes {
		b = append(b, byte(c))
	}
	return b
}

// Scales returns the n scales at the head of a Q8C or Q8R tensor's bytes.
func (k Kind) Scales(b []byte, n int) []float32 {
	s := make([]float32, n)
	numeric.FromFloat16(s, b[:2*n])
	return s
}

// Dequantize returns the tensor's values, row-major in its shape. b must have
// the length that Size gives. It is the definition of each kind.
func (k Kind) Dequantize(b []byte, shape []int) ([]float32, error) {
	size, err := k.Size(shape)
	if err != nil {
		return nil, err
	}
	if len(b) != size {
		return nil, fmt.Errorf("%w: %d bytes for %s %v, want %d", ErrShape, len(b), k, shape, size)
	}
	count := 1
	for _, d := range shape {
		count *= d
	}
	x := make([]float32, count)
	switch k {
	case F16:
		numeric.FromFloat16(x, b)
	case Q8C, Q8R:
		n, d := shape[0], shape[1]
		scales, codes := k.Scales(b, n), b[k.ScaleBytes(n):]
		for r := range n {
			for c := range d {
				i := r*d + c
				if k == Q8C {
					i = PanelIndex(r, c, d)
				}
				x[r*d+c] = scales[r] * float32(int8(codes[i]))
			}
		}
	case U8:
		for i, v := range b {
			x[i] = float32(v)
		}
	default:
		l, _ := k.Low()
		l.dequantize(x, b, shape[0], shape[1])
	}
	return x, nil
}

// Row writes row i of a Q8R or F16 tensor [rows, len(dst)] to dst, as Dequantize
// does.
func (k Kind) Row(dst []float32, b []byte, rows, i int) {
	if d := len(dst); k == F16 {
		numeric.FromFloat16(dst, b[2*i*d:2*(i+1)*d])
		return
	}
	var scale [1]float32
	numeric.FromFloat16(scale[:], b[2*i:2*i+2])
	codes := b[k.ScaleBytes(rows)+i*len(dst):]
	for j := range dst {
		dst[j] = scale[0] * float32(int8(codes[j]))
	}
}

// CheckScales reports whether the scales of a tensor of a scaled kind are all
// positive and finite. Padding must be zero. Kinds without scales pass.
func (k Kind) CheckScales(b []byte, shape []int) error {
	if l, ok := k.Low(); ok {
		return l.checkScales(b, shape[0], shape[1])
	}
	n := shape[0]
	head := b[:k.ScaleBytes(n)]
	for i := 0; i < len(head); i += 2 {
		h := binary.LittleEndian.Uint16(head[i:])
		switch {
		case i/2 < n && (h == 0 || h >= 0x7c00):
			return fmt.Errorf("qtype: scale %d is %#04x, not a positive finite half", i/2, h)
		case i/2 >= n && h != 0:
			return fmt.Errorf("qtype: scale padding %d is %#04x, not zero", i/2, h)
		}
	}
	return nil
}
