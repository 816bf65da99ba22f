package kernel

import (
	"math"

	"lqa/quant/kernel/asm"
	"lqa/quant/numeric"
)

// nearest rounds half to even.
func nearest(x float32) float32 { return float32(math.RoundToEven(float64(x))) }

// Add is y[i] += x[i] over N float32, a multiple of 4: the residual.
type Add struct {
	Y, X uint32
	N    int
}

// Append implements Command.
func (c Add) Append(l List) List { return l.add(opAdd, c.Y, c.X, uint32(c.N/4)) }

// RefAdd defines Add.
func RefAdd(y, x []float32) {
	for i, v := range x {
		y[i] += v
	}
}

func emitAdd(e *emitter) {
	in := e.ints(3)
	i, end := e.share(in[2])
	y := e.let(asm.I32Add(in[0], asm.I32Shl(i, i32(4))))
	x := e.let(asm.I32Add(in[1], asm.I32Shl(i, i32(4))))
	e.For(i, end, 1, func() {
		e.V128Store(y, 0, asm.F32x4Add(asm.V128Load(y, 0), asm.V128Load(x, 0)))
		e.Bump(16, x, y)
	})
}

// Pool is the mean over pixels: y[c] = (Σ_m x[m,c])·(1/M), summed from m = 0
// upwards.
//
//	X [M][C8], Y [C8] float32
type Pool struct {
	X, Y uint32
	M, C int
}

// Append implements Command.
func (c Pool) Append(l List) List {
	return l.add(opPool, c.X, c.Y, uint32(c.M), uint32((c.C+7)/8*32), bits(1/float32(c.M)))
}

// RefPool defines Pool; c8 is the channel stride.
func RefPool(y, x []float32, m, c8 int) {
	inv := 1 / float32(m)
	for c := range c8 {
		var acc float32
		for r := range m {
			acc += x[r*c8+c]
		}
		y[c] = acc * inv
	}
}

func emitPool(e *emitter) {
	in := e.ints(4)
	x0, y, m, pixel := in[0], in[1], in[2], in[3]
	inv := e.splat(4)
	groups := e.let(asm.I32ShrU(pixel, i32(4)))
	g, end := e.share(groups)
	x, r := e.Local(asm.I32), e.Local(asm.I32)
	acc := e.Local(asm.V128)
	e.For(g, end, 1, func() {
		e.Set(x, asm.I32Add(x0, asm.I32Shl(g, i32(4))))
		e.Set(acc, asm.F32x4Const(0))
		e.Set(r, i32(0))
		e.For(r, m, 1, func() {
			e.Set(acc, asm.F32x4Add(acc, asm.V128Load(x, 0)))
			e.Add(pixel, x)
		})
		e.V128Store(asm.I32Add(y, asm.I32Shl(g, i32(4))), 0, asm.F32x4Mul(acc, inv))
	})
}

// Normalize scales each row of x to length 1 in place; a zero row stays zero.
// The square sum runs in four lanes, folded (0+2)+(1+3).
//
//	X [M] rows of N float32, N a multiple of 4 (padding zero)
type Normalize struct {
	X    uint32
	M, N int
}

// Append implements Command.
func (c Normalize) Append(l List) List { return l.add(opNormalize, c.X, uint32(c.M), uint32(c.N*4)) }

// RefNormalize defines Normalize for one row.
func RefNormalize(x []float32) {
	s := float32(math.Sqrt(float64(refDot4(x, x))))
	if s == 0 {
		return
	}
	inv := 1 / s
	for i := range x {
		x[i] *= inv
	}
}

// refDot4 is Σ a·b in four lanes, folded (0+2)+(1+3).
func refDot4(a, b []float32) float32 {
	var s [4]float32
	for i := range a {
		s[i%4] += float32(a[i] * b[i])
	}
	return (s[0] + s[2]) + (s[1] + s[3])
}

func emitNormalize(e *emitter) {
	in := e.ints(3)
	x0, m, n := in[0], in[1], in[2]
	row, end := e.share(m)
	normalize := e.normalize()
	e.For(row, end, 1, func() { normalize(asm.I32Add(x0, asm.I32Mul(row, n)), n) })
}

// normalize returns an emitter of Normalize for one row of so many bytes.
func (e *emitter) normalize() func(row, bytes asm.Expr) {
	x, xEnd := e.Local(asm.I32), e.Local(asm.I32)
	acc, v := e.Local(asm.V128), e.Local(asm.V128)
	s := e.Local(asm.F32)
	return func(row, bytes asm.Expr) {
		e.Set(x, row)
		e.Set(xEnd, asm.I32Add(x, bytes))
		e.Set(acc, asm.F32x4Const(0))
		e.While(asm.I32LtU(x, xEnd), func() {
			e.Set(v, asm.V128Load(x, 0))
			e.Set(acc, mulAdd(v, v, acc))
			e.Bump(16, x)
		})
		e.reduce(acc, v, asm.F32x4Add)
		e.Set(s, asm.F32Sqrt(asm.F32x4Lane(0, acc)))
		e.If(asm.F32Gt(s, asm.F32Const(0)), func() {
			e.Set(acc, asm.F32x4Splat(asm.F32Div(asm.F32Const(1), s)))
			e.Set(x, asm.I32Sub(xEnd, bytes))
			e.While(asm.I32LtU(x, xEnd), func() {
				e.V128Store(x, 0, asm.F32x4Mul(asm.V128Load(x, 0), acc))
				e.Bump(16, x)
			})
		})
	}
}

// GELU is numeric.GELU of each of N float32 in place, N a multiple of 4.
type GELU struct {
	X uint32
	N int
}

// Append implements Command.
func (c GELU) Append(l List) List { return l.add(opGELU, c.X, uint32(c.N/4)) }

// RefGELU defines GELU.
func RefGELU(x []float32) {
	for i, v := range x {
		x[i] = numeric.GELU(v)
	}
}

func emitGELU(e *emitter) { e.each(e.gelu()) }

// gelu returns an emitter of dst = numeric.GELU(x), lane by lane; dst is not x.
func (e *emitter) gelu() func(dst, x asm.Expr) {
	t, sq, lo := e.Local(asm.V128), e.Local(asm.V128), e.Local(asm.V128)
	c, zero := e.consts(numeric.GELUPoly[:]...), e.consts(0)[0]
	return func(p, x asm.Expr) {
		e.Set(t, asm.F32x4Abs(x))
		e.Set(sq, asm.F32x4Mul(t, t))
		e.Set(lo, mulAdd(c[1], t, c[0]))
		e.Set(p, mulAdd(mulAdd(c[5], t, c[4]), sq, mulAdd(c[3], t, c[2])))
		e.Set(p, mulAdd(p, sq, lo))
		for range 5 {
			e.Set(p, asm.F32x4Mul(p, p))
		}
		e.Set(p, asm.F32x4Sub(asm.F32x4PMax(x, zero), asm.F32x4Div(t, p)))
	}
}

// each emits f over each vector, in place, of a command {X, N/4}.
func (e *emitter) each(f func(dst, x asm.Expr)) {
	in := e.ints(2)
	i, end := e.share(in[1])
	p := e.let(asm.I32Add(in[0], asm.I32Shl(i, i32(4))))
	e.Set(end, asm.I32Add(in[0], asm.I32Shl(end, i32(4))))
	x, y := e.Local(asm.V128), e.Local(asm.V128)
	e.While(asm.I32LtU(p, end), func() {
		e.Set(x, asm.V128Load(p, 0))
		f(y, x)
		e.V128Store(p, 0, y)
		e.Bump(16, p)
	})
}

// QuickGELU is numeric.QuickGELU of each of N float32 in place, N a multiple
// of 4.
type QuickGELU struct {
	X uint32
	N int
}

// Append implements Command.
func (c QuickGELU) Append(l List) List { return l.add(opQuickGELU, c.X, uint32(c.N/4)) }

// RefQuickGELU defines QuickGELU.
func RefQuickGELU(x []float32) {
	for i, v := range x {
		x[i] = numeric.QuickGELU(v)
	}
}

func emitQuickGELU(e *emitter) { e.each(e.quickGELU()) }

// quickGELU returns an emitter of dst = numeric.QuickGELU(x), lane by lane; dst
// is not x.
func (e *emitter) quickGELU() func(dst, x asm.Expr) {
	exp2, c := e.exp2(), e.consts(numeric.QuickGELUScale, numeric.Exp2Min, numeric.Exp2Max, 1)
	return func(t, x asm.Expr) {
		e.Set(t, clamp(asm.F32x4Mul(c[0], x), c[1], c[2]))
		exp2(t, t)
		e.Set(t, asm.F32x4Div(x, asm.F32x4Add(c[3], t)))
	}
}

// nearestMagic added to a float below 2²² leaves its nearest integer, ties to
// even, in the low bits: rounding and conversion in one addition.
const nearestMagic = 3 << 22

// exp returns an emitter of dst = numeric.Exp(x), lane by lane.
func (e *emitter) exp() func(dst, x asm.Expr) {
	v, n, p := e.Local(asm.V128), e.Local(asm.V128), e.Local(asm.V128)
	magic := asm.F32x4Const(nearestMagic)
	return func(dst, x asm.Expr) {
		e.Set(v, clamp(x, asm.F32x4Const(numeric.ExpMin), asm.F32x4Const(numeric.ExpMax)))
		e.Set(p, mulAdd(v, asm.F32x4Const(numeric.Log2e), magic))
		e.Set(n, asm.F32x4Sub(p, magic))
		e.Set(v, asm.F32x4Sub(v, asm.F32x4Mul(n, asm.F32x4Const(numeric.ExpHi))))
		e.Set(v, asm.F32x4Sub(v, asm.F32x4Mul(n, asm.F32x4Const(numeric.ExpLo))))
		e.Set(n, asm.I32x4Add(asm.I32x4Shl(p, i32(23)), asm.F32x4Const(1))) // 2ⁿ
		e.Set(p, asm.F32x4Const(numeric.ExpPoly[0]))
		for _, c := range numeric.ExpPoly[1:] {
			e.Set(p, mulAdd(p, v, asm.F32x4Const(c)))
		}
		e.Set(p, asm.F32x4Add(mulAdd(asm.F32x4Mul(p, v), v, v), asm.F32x4Const(1)))
		e.Set(dst, asm.F32x4Mul(p, n))
	}
}

// exp2 returns an emitter of dst = numeric.Exp2(x) without its clamp: x is a
// local, overwritten; outside of Exp2Min..Exp2Max the result is arbitrary.
func (e *emitter) exp2() func(dst, x asm.Expr) {
	n, sq, lo := e.Local(asm.V128), e.Local(asm.V128), e.Local(asm.V128)
	c, k := e.consts(numeric.Exp2Poly[:]...), e.consts(nearestMagic, 1)
	magic, one := k[0], k[1]
	return func(dst, x asm.Expr) {
		e.Set(n, asm.F32x4Add(x, magic))
		e.Set(x, asm.F32x4Sub(x, asm.F32x4Sub(n, magic)))
		e.Set(sq, asm.F32x4Mul(x, x))
		e.Set(lo, mulAdd(c[2], x, c[1]))
		e.Set(lo, mulAdd(mulAdd(c[4], x, c[3]), sq, lo))
		e.Set(lo, asm.F32x4Add(mulAdd(lo, sq, asm.F32x4Mul(c[0], x)), one))
		e.Set(dst, asm.I32x4Add(lo, asm.I32x4Shl(n, i32(23))))
	}
}
