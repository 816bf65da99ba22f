package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"lqa/quant/numeric"
)

// DType names how a file stores elements, in safetensors' words.
type DType string

// dtypeBytes holds every type of a whole number of bytes that safetensors
// knows; Float32 takes F64, F32, F16 and BF16.
var dtypeBytes = map[DType]int64{
	"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1,
	"U16": 2, "I16": 2, "F16": 2, "BF16": 2,
	"U32": 4, "I32": 4, "F32": 4,
	"U64": 8, "I64": 8, "F64": 8,
}

// float reports whether elements of the type can be read as float32.
func (d DType) float() bool { return d == "F64" || d == "F32" || d == "F16" || d == "BF16" }

// widen decodes little-endian elements of a float type; raw holds len(x) of
// them. Only F64 is rounded.
func (d DType) widen(x []float32, raw []byte) {
	switch d {
	case "F64":
		for i := range x {
			x[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:])))
		}
	case "F32":
		for i := range x {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
	case "F16":
		numeric.FromFloat16(x, raw)
	case "BF16":
		for i := range x {
			x[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(raw[2*i:])) << 16)
		}
	default:
		panic("checkpoint: widen of no float")
	}
}

// readFloats fills x with the elements that stand at byte off. It reads piece
// by piece: a tensor is in memory once.
func readFloats(r io.ReaderAt, off int64, d DType, x []float32) error {
	const piece = 1 << 16 // elements
	width := int(dtypeBytes[d])
	raw := make([]byte, min(len(x), piece)*width)
	for len(x) > 0 {
		n := min(len(x), piece)
		if err := readAt(r, raw[:n*width], off); err != nil {
			return err
		}
		d.widen(x[:n], raw[:n*width])
		x, off = x[n:], off+int64(n*width)
	}
	return nil
}

func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: at byte %d", ErrTruncated, off+int64(n))
	default:
		return fmt.Errorf("checkpoint: read: %w", err)
	}
}

// elements multiplies a shape out and reports whether the product, and width
// times it, fit an int64. A dimension of 0 leaves the others unbounded but for
// an int32's range.
func elements(shape []int64, width int64) (n int64, ok bool) {
	n = 1
	for _, d := range shape {
		if d < 0 || d > math.MaxInt32 || d > 0 && n > math.MaxInt64/width/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// maxRank is the most dimensions of a tensor.
const maxRank = 8
