package kernel

import (
	"encoding/binary"
	"math"

	"lqa/quant/kernel/asm"
	"lqa/quant/qtype"
)

// LayerNorm normalizes each row to mean 0 and variance 1, then scales and
// shifts it by column:
//
//	y[m,n] = ((x[m,n] - mean)·rstd)·gain[n] + bias[n]
//	         with rstd = 1/√(Σ(x - mean)²/N + Eps)
//
// Both sums run in eight lanes, folded to four, then (0+2)+(1+3).
//
//	X [M] rows of N8 float32 (padding zero), LDX floats apart
//	W [2][N8] float32: gains, biases (padding zero)
//	Y [M] rows of N8 float32, LDY floats apart; may be X
type LayerNorm struct {
	X, W, Y        uint32
	M, N, LDX, LDY int
	Eps            float32
}

// Append implements Command.
func (c LayerNorm) Append(l List) List {
	return l.add(opLayerNorm, c.X, c.W, c.Y, uint32(c.M), uint32(c.N/8*32), uint32(qtype.RoundUp(c.N, 8)*4),
		uint32(c.LDX*4), uint32(c.LDY*4), bits(float32(c.N%8)), bits(1/float32(c.N)), bits(c.Eps))
}

// RefLayerNorm defines LayerNorm for one row: y, x [N8], w [2][N8].
func RefLayerNorm(y, x, w []float32, n int, eps float32) {
	inv := 1 / float32(n)
	var s, q [8]float32
	for i, v := range x {
		s[i%8] += v
	}
	mean := fold8(s) * inv
	for i, v := range x[:n] {
		d := v - mean
		q[i%8] += float32(d * d)
	}
	rstd := 1 / float32(math.Sqrt(float64(float32(fold8(q)*inv)+eps)))
	for i, v := range x {
		y[i] = float32(float32((v-mean)*rstd)*w[i]) + w[len(x)+i]
	}
}

// fold8 adds eight lanes as the kernels do.
func fold8(s [8]float32) float32 {
	return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

// lanes is the vector i, i+1, i+2, i+3.
func lanes(i int) asm.Expr {
	var b [16]byte
	for l := range 4 {
		binary.LittleEndian.PutUint32(b[4*l:], bits(float32(i+l)))
	}
	return asm.V128Const(b)
}

// rowNorm is LayerNorm of a row under construction.
type rowNorm struct {
	*emitter
	inv, eps, mean, rstd, s0, s1, v, x, end asm.Expr
}

func (e *emitter) rowNorm(inv, eps asm.Expr) *rowNorm {
	v := e.Locals(asm.V128, 5)
	return &rowNorm{emitter: e, inv: inv, eps: eps, mean: v[0], rstd: v[1], s0: v[2], s1: v[3], v: v[4], x: e.Local(asm.I32), end: e.Local(asm.I32)}
}

// moments finds the mean of a row of so many bytes and the deviation of its
// first main bytes and, unless it is nil, of what rest looks at.
func (n *rowNorm) moments(x, bytes, main asm.Expr, rest func()) {
	e := n.emitter
	begin := func(bytes asm.Expr) {
		e.Set(n.x, x)
		e.Set(n.end, asm.I32Add(x, bytes))
		e.Set(n.s0, asm.F32x4Const(0))
		e.Set(n.s1, n.s0)
	}
	mean := func() asm.Expr { // of both sums, in all lanes
		e.Set(n.s0, asm.F32x4Add(n.s0, n.s1))
		e.reduce(n.s0, n.v, asm.F32x4Add)
		return asm.F32x4Mul(asm.F32x4Splat(asm.F32x4Lane(0, n.s0)), n.inv)
	}
	begin(bytes)
	e.While(asm.I32LtU(n.x, n.end), func() {
		e.Set(n.s0, asm.F32x4Add(n.s0, asm.V128Load(n.x, 0)))
		e.Set(n.s1, asm.F32x4Add(n.s1, asm.V128Load(n.x, 16)))
		e.Bump(32, n.x)
	})
	e.Set(n.mean, mean())
	begin(main)
	e.While(asm.I32LtU(n.x, n.end), func() {
		e.Set(n.v, asm.F32x4Sub(asm.V128Load(n.x, 0), n.mean))
		e.Set(n.s0, mulAdd(n.v, n.v, n.s0))
		e.Set(n.v, asm.F32x4Sub(asm.V128Load(n.x, 16), n.mean))
		e.Set(n.s1, mulAdd(n.v, n.v, n.s1))
		e.Bump(32, n.x)
	})
	if rest != nil {
		rest()
	}
	e.Set(n.rstd, asm.F32x4Sqrt(asm.F32x4Add(mean(), n.eps)))
	e.Set(n.rstd, asm.F32x4Div(asm.F32x4Const(1), n.rstd))
}

// normal is a vector of the row as it is to be, given its gains and biases.
func (n *rowNorm) normal(x, gain, bias asm.Expr) asm.Expr {
	return mulAdd(asm.F32x4Mul(asm.F32x4Sub(x, n.mean), n.rstd), gain, bias)
}

func emitLayerNorm(e *emitter) {
	in := e.ints(8)
	x0, w, y0, m, main, row8, ldx, ldy := in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7]
	tail := e.splat(8)
	n := e.rowNorm(e.splat(9), e.splat(10))
	row, end := e.share(m)
	x, y, xEnd, g, b := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	e.For(row, end, 1, func() {
		e.Set(x, asm.I32Add(x0, asm.I32Mul(row, ldx)))
		e.Set(xEnd, asm.I32Add(x, row8))
		n.moments(x, row8, main, func() {
			e.If(asm.I32LtU(n.x, xEnd), func() { // the padding has no part in the variance
				for i, sum := range []asm.Expr{n.s0, n.s1} {
					e.Set(n.v, asm.F32x4Sub(asm.V128Load(n.x, uint32(16*i)), n.mean))
					e.Set(n.v, asm.V128And(n.v, asm.F32x4Gt(tail, lanes(4*i))))
					e.Set(sum, mulAdd(n.v, n.v, sum))
				}
			})
		})
		e.Set(y, asm.I32Add(y0, asm.I32Mul(row, ldy)))
		e.Set(g, w)
		e.Set(b, asm.I32Add(w, row8))
		e.While(asm.I32LtU(x, xEnd), func() {
			for o := uint32(0); o < 32; o += 16 {
				e.V128Store(y, o, n.normal(asm.V128Load(x, o), asm.V128Load(g, o), asm.V128Load(b, o)))
			}
			e.Bump(32, x, y, g, b)
		})
	})
}
