package kernel

import "lqa/quant/kernel/asm"

// Behind ReLU6 a value is in 0..6, so it needs no scale of its own: it is one of
// evenly spaced steps. Between two kernels of a block it has one of two forms.
//
//	r7: uint8 u = round(x·127/6) in 0..127, so that zero, the padding of a
//	    convolution, is 0, and relaxed products of int8 weights are defined
//	r8: int8 q = round(x·254/6) - 127, what the integer GEMMs read, with one
//	    scale and zero point for all rows; r16 is the same, as int16
const (
	relu6Scale = 6.0 / 254
	relu6Zero  = 3
	codeSteps  = 127 / 6.0 // r7 codes of 1
)

// relu6 rounds to codes.
type relu6 struct{ magic, bits, zero asm.Expr }

func (e *emitter) relu6() *relu6 {
	return &relu6{e.let(asm.F32x4Const(nearestMagic)), e.let(asm.I32x4Const(int32(bits(nearestMagic)))), e.let(asm.F32x4Const(0))}
}

// round is x rounded, as int32: of a value that is too large some int32 above
// 2²², and of a negative one zero, so that saturation does the rest.
func (r *relu6) round(x asm.Expr) asm.Expr {
	return asm.I32x4Sub(asm.F32x4Add(asm.F32x4PMax(x, r.zero), r.magic), r.bits)
}

// store7 writes eight rounded values as r7.
func (e *emitter) store7(y asm.Expr, offset uint32, a, b asm.Expr) {
	x := asm.I16x8NarrowI32x4S(a, b)
	e.V128Store64Lane(y, offset, asm.I8x16MinU(asm.I8x16NarrowI16x8U(x, x), asm.I8x16Const(127)), 0)
}

// ReLU6Row is the scale and zero point of r8 and r16 codes.
func ReLU6Row() [2]float32 { return [2]float32{relu6Scale, relu6Zero} }

// refReLU6 is the nearest of steps + 1 codes for so many steps.
func refReLU6(x, steps float32) int { return int(nearest(refClamp(x, 0, steps))) }
