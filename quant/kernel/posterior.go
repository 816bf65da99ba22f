package kernel

import (
	"lqa/quant/kernel/asm"
	"lqa/quant/numeric"
)

// What a classifier beside a projection needs: one row each, so thread 0 alone
// computes them.

// Softmax replaces a row by its softmax:
//
//	x[n] = e[n]·(1/Σ e)    with e[n] = exp(x[n] - max x)
//
// The sum runs in four lanes, folded (0+2)+(1+3).
//
//	X [N4] float32; what pads the row becomes zero
type Softmax struct {
	X uint32
	N int
}

// Append implements Command.
func (c Softmax) Append(l List) List { return l.add(opSoftmax, c.X, uint32(c.N*4), bits(float32(c.N))) }

// RefSoftmax defines Softmax; x is [N4].
func RefSoftmax(x []float32, n int) {
	top := float32(-3e38)
	for _, v := range x[:n] {
		top = max(top, v)
	}
	clear(x[n:])
	var s [4]float32
	for i, v := range x[:n] {
		x[i] = numeric.Exp(v - top)
		s[i%4] += x[i]
	}
	inv := 1 / ((s[0] + s[2]) + (s[1] + s[3]))
	for i := range x {
		x[i] *= inv
	}
}

func emitSoftmax(e *emitter) {
	in := e.ints(2)
	x, left := in[0], e.splat(2)
	p, end := e.Local(asm.I32), e.let(asm.I32Add(x, in[1]))
	top, sum, v := e.Local(asm.F32), e.Local(asm.V128), e.Local(asm.V128)
	exp := e.exp()
	e.If(asm.I32Eqz(e.tid), func() {
		e.Set(top, asm.F32Const(-3e38))
		e.Set(p, x)
		e.While(asm.I32LtU(p, end), func() {
			e.Set(top, asm.F32Max(top, asm.F32Load(p, 0)))
			e.Bump(4, p)
		})
		e.Set(sum, asm.F32x4Const(0))
		e.Set(p, x)
		e.While(asm.I32LtU(p, end), func() {
			exp(v, asm.F32x4Sub(asm.V128Load(p, 0), asm.F32x4Splat(top)))
			e.Set(v, asm.V128And(v, asm.F32x4Gt(left, lanes(0)))) // not what pads the row
			e.Set(sum, asm.F32x4Add(sum, v))
			e.V128Store(p, 0, v)
			e.Set(left, asm.F32x4Sub(left, asm.F32x4Const(4)))
			e.Bump(16, p)
		})
		e.reduce(sum, v, asm.F32x4Add)
		e.Set(sum, asm.F32x4Splat(asm.F32Div(asm.F32Const(1), asm.F32x4Lane(0, sum))))
		e.Set(p, x)
		e.While(asm.I32LtU(p, end), func() {
			e.V128Store(p, 0, asm.F32x4Mul(asm.V128Load(p, 0), sum))
			e.Bump(16, p)
		})
	})
}

// Gate adds to a direction what a gate lets through of another vector:
//
//	y = norm(norm(y[:N]) + sigmoid(y[N])·q)    norm: Normalize
//
//	Y [(N+1)4] float32, the gate behind the row (padding zero); becomes the row, the rest zero
//	Q [N4] float32 (padding zero)
type Gate struct {
	Y, Q uint32
	N    int
}

// Append implements Command.
func (c Gate) Append(l List) List {
	return l.add(opGate, c.Y, c.Q, uint32(c.N*4), uint32((c.N+3)/4*16))
}

// RefGate defines Gate; y is [(N+1)4].
func RefGate(y, q []float32, n int) {
	open := numeric.Sigmoid(y[n])
	y[n] = 0
	RefNormalize(y)
	for i, v := range q {
		y[i] += float32(open * v)
	}
	RefNormalize(y)
}

func emitGate(e *emitter) {
	in := e.ints(4)
	y, q, gate, n := in[0], in[1], e.let(asm.I32Add(in[0], in[2])), in[3]
	p, end := e.Local(asm.I32), e.let(asm.I32Add(y, n))
	open := e.Local(asm.V128)
	exp, normalize := e.exp(), e.normalize()
	e.If(asm.I32Eqz(e.tid), func() {
		exp(open, asm.F32x4Splat(asm.F32Sub(asm.F32Const(0), asm.F32Load(gate, 0))))
		e.Set(open, asm.F32x4Div(asm.F32x4Const(1), asm.F32x4Add(asm.F32x4Const(1), open)))
		e.F32Store(gate, 0, asm.F32Const(0))
		normalize(y, n)
		e.Set(p, y)
		e.While(asm.I32LtU(p, end), func() {
			e.V128Store(p, 0, mulAdd(open, asm.V128Load(q, 0), asm.V128Load(p, 0)))
			e.Bump(16, p, q)
		})
		normalize(y, n)
	})
}
