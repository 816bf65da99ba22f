package kernel

import (
	"errors"
	"math"

	"lqa/quant/kernel/asm"
)

// resizeBits are the fraction bits of resize coefficients (Pillow,
// Resample.c, PRECISION_BITS).
const resizeBits = 32 - 8 - 2

// Resampling says how one direction of a picture is resized: output i reads
// Counts[i] inputs from Starts[i] on, weighted by the fixed-point
// Coefs[i·Taps:].
type Resampling struct {
	Taps   int
	Starts []int32
	Counts []int32
	Coefs  []int32
}

// MaxTaps bounds Resampling.Taps: a picture's short side is at most some
// thirty times its view's.
const MaxTaps = 128

// ErrResize says that a picture is too much larger than its view.
var ErrResize = errors.New("kernel: picture too large to resize")

// Bicubic is Pillow's antialiased bicubic (a = -0.5) from in to out samples,
// for the outputs first..first+count. The coefficients are Pillow's, bit for
// bit (Resample.c, precompute_coeffs and normalize_coeffs_8bpc).
func Bicubic(in, out, first, count int) (Resampling, error) {
	scale := float64(in) / float64(out)
	filter := max(scale, 1)
	support := 2 * filter
	r := Resampling{
		Taps:   int(math.Ceil(support))*2 + 1,
		Starts: make([]int32, count),
		Counts: make([]int32, count),
	}
	if r.Taps > MaxTaps {
		return r, ErrResize
	}
	r.Coefs = make([]int32, count*r.Taps)
	inv := 1 / filter
	k := make([]float64, r.Taps)
	for i := range count {
		center := float64((float64(first+i) + 0.5) * scale)
		lo := max(int(center-support+0.5), 0)
		hi := min(int(center+support+0.5), in)
		var sum float64
		for x := lo; x < hi; x++ {
			k[x-lo] = bicubic(float64((float64(x) - center + 0.5) * inv))
			sum += k[x-lo]
		}
		r.Starts[i], r.Counts[i] = int32(lo), int32(hi-lo)
		for x := range hi - lo {
			w := k[x]
			if sum != 0 {
				w /= sum
			}
			w = float64(w * (1 << resizeBits))
			if w < 0 {
				w -= 0.5
			} else {
				w += 0.5
			}
			r.Coefs[i*r.Taps+x] = int32(w)
		}
	}
	return r, nil
}

func bicubic(x float64) float64 {
	const a = -0.5
	x = math.Abs(x)
	switch {
	case x < 1:
		return float64(float64((float64((a+2)*x)-(a+3))*x)*x) + 1
	case x < 2:
		return float64((float64((float64((x-5)*x)+8)*x) - 4) * a)
	}
	return 0
}

// Words returns the table that ResizeH and ResizeV read: per output its first
// input times unit and its count, then all coefficients. unit is the bytes
// between inputs.
func (r Resampling) Words(unit int) []uint32 {
	out := make([]uint32, 0, len(r.Starts)*2+len(r.Coefs))
	for i, s := range r.Starts {
		out = append(out, uint32(int(s)*unit), uint32(r.Counts[i]))
	}
	for _, c := range r.Coefs {
		out = append(out, uint32(c))
	}
	return out
}

// ResizeWords is the largest length of Words for count outputs.
func ResizeWords(count int) int { return count * (2 + MaxTaps) }

// ResizeH resizes rows of RGBA pixels:
//
//	y[r,i] = clip8((2²¹ + Σ_t x[r,start_i+t]·coef[i,t]) >> 22)
//
// Table is Words(4). X points at the first row; rows are Stride bytes apart.
//
//	X [Rows] RGBA rows, Y [Rows][Count] RGBA
type ResizeH struct {
	X, Y, Table         uint32
	Rows, Stride, Count int
	Taps                int
}

// Append implements Command.
func (c ResizeH) Append(l List) List {
	return l.add(opResizeH, c.X, c.Y, c.Table, uint32(c.Rows), uint32(c.Stride), uint32(c.Count), uint32(c.Taps*4))
}

// ResizeV resizes columns: as ResizeH, but input t of output row i is row
// start_i + t of X. Table is Words(Width·4).
//
//	X [.][Width] RGBA, Y [Count][Width] RGBA
type ResizeV struct {
	X, Y, Table  uint32
	Width, Count int
	Taps         int
}

// Append implements Command.
func (c ResizeV) Append(l List) List {
	return l.add(opResizeV, c.X, c.Y, c.Table, uint32(c.Width), uint32(c.Count), uint32(c.Taps*4))
}

// RefResize defines one output byte of both: its inputs are step bytes apart.
func RefResize(x []byte, step int, coefs []int32) byte {
	acc := int32(1) << (resizeBits - 1)
	for t, c := range coefs {
		acc += int32(x[t*step]) * c
	}
	return byte(max(0, min(255, acc>>resizeBits)))
}

// resample is the shared inner loop: acc = Σ pixel·coef over count taps.
type resample struct {
	x, coef, left asm.Expr
	acc           asm.Expr
}

func (e *emitter) resample() resample {
	return resample{e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.V128)}
}

// pixel computes one output pixel and stores it to y.
func (e *emitter) pixel(r resample, y, step asm.Expr) {
	e.Set(r.acc, asm.I32x4Const(1<<(resizeBits-1)))
	e.While(r.left, func() {
		px := asm.I32x4ExtendLowI16x8U(asm.I16x8ExtendLowI8x16U(asm.V128Load32Zero(r.x, 0)))
		e.Set(r.acc, asm.I32x4Add(r.acc, asm.I32x4Mul(px, asm.V128Load32Splat(r.coef, 0))))
		e.Add(step, r.x)
		e.Bump(4, r.coef)
		e.Bump(-1, r.left)
	})
	e.Set(r.acc, asm.I32x4ShrS(r.acc, i32(resizeBits)))
	e.Set(r.acc, asm.I16x8NarrowI32x4S(r.acc, r.acc))
	e.V128Store32Lane(y, 0, asm.I8x16NarrowI16x8U(r.acc, r.acc), 0)
}

func emitResizeH(e *emitter) {
	in := e.ints(7)
	x0, y0, table, rows, stride, count, taps := in[0], in[1], in[2], in[3], in[4], in[5], in[6]
	row, end := e.share(rows)
	coefs := e.let(asm.I32Add(table, asm.I32Shl(count, i32(3))))
	i, x, y, b := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	r := e.resample()
	e.For(row, end, 1, func() {
		e.Set(x, asm.I32Add(x0, asm.I32Mul(row, stride)))
		e.Set(y, asm.I32Add(y0, asm.I32Shl(asm.I32Mul(row, count), i32(2))))
		e.Set(i, i32(0))
		e.Set(b, table)
		e.For(i, count, 1, func() {
			e.Set(r.x, asm.I32Add(x, asm.I32Load(b, 0)))
			e.Set(r.left, asm.I32Load(b, 4))
			e.Set(r.coef, asm.I32Add(coefs, asm.I32Mul(i, taps)))
			e.pixel(r, y, i32(4))
			e.Bump(4, y)
			e.Bump(8, b)
		})
	})
}

func emitResizeV(e *emitter) {
	in := e.ints(6)
	x0, y0, table, width, count, taps := in[0], in[1], in[2], in[3], in[4], in[5]
	i, end := e.share(count)
	coefs := e.let(asm.I32Add(table, asm.I32Shl(count, i32(3))))
	rowBytes := e.let(asm.I32Shl(width, i32(2)))
	x, y, b, yEnd := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	r := e.resample()
	e.For(i, end, 1, func() {
		e.Set(b, asm.I32Add(table, asm.I32Shl(i, i32(3))))
		e.Set(x, asm.I32Add(x0, asm.I32Load(b, 0)))
		e.Set(y, asm.I32Add(y0, asm.I32Mul(i, rowBytes)))
		e.Set(yEnd, asm.I32Add(y, rowBytes))
		e.While(asm.I32LtU(y, yEnd), func() {
			e.Set(r.x, x)
			e.Set(r.left, asm.I32Load(b, 4))
			e.Set(r.coef, asm.I32Add(coefs, asm.I32Mul(i, taps)))
			e.pixel(r, y, rowBytes)
			e.Bump(4, x, y)
		})
	})
}

// Patch cuts a square RGBA view into patches of normalised RGB for a
// convolution as GEMM:
//
//	y[o,(ky,kx,c)] = byte·Mul[c] + Add[c], or 0 outside the view
//
//	X [Size][Size] RGBA, Y [Out²] rows of Kernel²·3 float32
type Patch struct {
	X, Y                      uint32
	Size, Kernel, Stride, Pad int
	Out                       int
	Mul, Add                  [3]float32
}

// Append implements Command.
func (c Patch) Append(l List) List {
	return l.add(opPatch, c.X, c.Y, uint32(c.Size), uint32(c.Kernel), uint32(c.Stride), uint32(c.Pad), uint32(c.Out),
		bits(c.Mul[0]), bits(c.Mul[1]), bits(c.Mul[2]), 0, bits(c.Add[0]), bits(c.Add[1]), bits(c.Add[2]), 0)
}

// RefPatch defines Patch.
func RefPatch(y []float32, x []byte, c Patch) {
	i := 0
	for oy := range c.Out {
		for ox := range c.Out {
			for ky := range c.Kernel {
				for kx := range c.Kernel {
					iy, ix := oy*c.Stride+ky-c.Pad, ox*c.Stride+kx-c.Pad
					for ch := range 3 {
						y[i] = 0
						if iy >= 0 && iy < c.Size && ix >= 0 && ix < c.Size {
							y[i] = float32(float32(x[(iy*c.Size+ix)*4+ch])*c.Mul[ch]) + c.Add[ch]
						}
						i++
					}
				}
			}
		}
	}
}

func emitPatch(e *emitter) {
	in := e.ints(7)
	x0, y0, size, kernel, stride, pad, out := in[0], in[1], in[2], in[3], in[4], in[5], in[6]
	mul, add := e.let(asm.V128Load(e.args, 28)), e.let(asm.V128Load(e.args, 44))
	rowBytes := e.let(asm.I32Mul(asm.I32Mul(out, i32(12)), asm.I32Mul(kernel, kernel)))
	oy, end := e.share(out)
	y := e.let(asm.I32Add(y0, asm.I32Mul(oy, rowBytes)))
	ox, ky, kx, ix, iy := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	v := e.Local(asm.V128)
	e.For(oy, end, 1, func() {
		e.Set(ox, i32(0))
		e.For(ox, out, 1, func() {
			e.Set(ky, i32(0))
			e.For(ky, kernel, 1, func() {
				e.Set(iy, asm.I32Sub(asm.I32Add(asm.I32Mul(oy, stride), ky), pad))
				e.Set(kx, i32(0))
				e.For(kx, kernel, 1, func() {
					e.Set(ix, asm.I32Sub(asm.I32Add(asm.I32Mul(ox, stride), kx), pad))
					e.Set(v, asm.F32x4Const(0))
					e.If(asm.I32And(asm.I32LtU(iy, size), asm.I32LtU(ix, size)), func() {
						px := asm.V128Load32Zero(asm.I32Add(x0, asm.I32Shl(asm.I32Add(asm.I32Mul(iy, size), ix), i32(2))), 0)
						px = asm.I32x4ExtendLowI16x8U(asm.I16x8ExtendLowI8x16U(px))
						e.Set(v, mulAdd(asm.F32x4ConvertI32x4S(px), mul, add))
					})
					e.V128Store64Lane(y, 0, v, 0)
					e.V128Store32Lane(y, 8, v, 2)
					e.Bump(12, y)
				})
			})
		})
	})
}
