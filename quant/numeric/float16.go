package numeric

import (
	"encoding/binary"

	"github.com/x448/float16"
)

// float16Table widens a half in one load: 256 KiB, five times faster than
// computing it under wasm.
var float16Table = func() *[1 << 16]float32 {
	t := new([1 << 16]float32)
	for i := range t {
		t[i] = float16.Frombits(uint16(i)).Float32()
	}
	return t
}()

// FromFloat16 widens little-endian IEEE 754 halves; src holds 2·len(dst) bytes.
func FromFloat16(dst []float32, src []byte) {
	if len(src) != 2*len(dst) {
		panic("numeric: FromFloat16 length mismatch")
	}
	for i := range dst {
		dst[i] = float16Table[binary.LittleEndian.Uint16(src[2*i:])]
	}
}

// AppendFloat16 appends x to b as little-endian IEEE 754 halves, rounded to
// nearest even.
func AppendFloat16(b []byte, x ...float32) []byte {
	for _, v := range x {
		b = binary.LittleEndian.AppendUint16(b, float16.Fromfloat32(v).Bits())
	}
	return b
}

// RoundFloat16 returns x rounded to half precision.
func RoundFloat16(x float32) float32 { return float16.Fromfloat32(x).Float32() }
