package kernel

import (
	"lqa/quant/kernel/asm"
	"lqa/quant/numeric"
)

// GatherQ8R widens rows of a q8r table: y[t,d] = scale[id]·code[id,d].
//
//	IDs [T] uint32, Codes [R][D] int8, Scales [R] float32
//	Y [T] rows of D float32, D8 apart (padding is not written)
type GatherQ8R struct {
	IDs, Codes, Scales, Y uint32
	T, D                  int
}

// Append implements Command.
func (c GatherQ8R) Append(l List) List {
	return l.add(opGatherQ8R, c.IDs, c.Codes, c.Scales, c.Y, uint32(c.T), uint32(c.D), uint32((c.D+7)/8*32))
}

// RefGatherQ8R defines GatherQ8R.
func RefGatherQ8R(y []float32, ids []uint32, codes []byte, scales []float32, d int) {
	d8 := (d + 7) / 8 * 8
	for t, id := range ids {
		for i := range d {
			y[t*d8+i] = scales[id] * float32(int8(codes[int(id)*d+i]))
		}
	}
}

func emitGatherQ8R(e *emitter) {
	in := e.ints(7)
	ids, codes, scales, y0, tokens, d, stride := in[0], in[1], in[2], in[3], in[4], in[5], in[6]
	t, end := e.share(tokens)
	id, x, xEnd, xEnd4, y := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	s := e.Local(asm.V128)
	e.For(t, end, 1, func() {
		e.Set(id, asm.I32Load(asm.I32Add(ids, asm.I32Shl(t, i32(2))), 0))
		e.Set(s, asm.V128Load32Splat(asm.I32Add(scales, asm.I32Shl(id, i32(2))), 0))
		e.Set(x, asm.I32Add(codes, asm.I32Mul(id, d)))
		e.Set(xEnd, asm.I32Add(x, d))
		e.Set(xEnd4, asm.I32Add(x, asm.I32And(d, i32(-4))))
		e.Set(y, asm.I32Add(y0, asm.I32Mul(t, stride)))
		e.While(asm.I32LtU(x, xEnd4), func() {
			v := asm.I32x4ExtendLowI16x8S(asm.I16x8ExtendLowI8x16S(asm.V128Load32Zero(x, 0)))
			e.V128Store(y, 0, asm.F32x4Mul(s, asm.F32x4ConvertI32x4S(v)))
			e.Bump(4, x)
			e.Bump(16, y)
		})
		e.While(asm.I32LtU(x, xEnd), func() {
			e.F32Store(y, 0, asm.F32Mul(asm.F32x4Lane(0, s), asm.F32ConvertI32S(asm.I32Load8S(x, 0))))
			e.Bump(1, x)
			e.Bump(4, y)
		})
	})
}

// GatherF32 copies rows of a float32 table: the float path of GatherQ8R.
//
//	IDs [T] uint32, Table [R] rows of D8 float32, Y [T] rows of D8
type GatherF32 struct {
	IDs, Table, Y uint32
	T, D          int
}

// Append implements Command.
func (c GatherF32) Append(l List) List {
	return l.add(opGatherF32, c.IDs, c.Table, c.Y, uint32(c.T), uint32((c.D+7)/8*32))
}

func emitGatherF32(e *emitter) {
	in := e.ints(5)
	ids, table, y0, tokens, stride := in[0], in[1], in[2], in[3], in[4]
	t, end := e.share(tokens)
	x, y, yEnd := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	e.For(t, end, 1, func() {
		e.Set(x, asm.I32Add(table, asm.I32Mul(stride, asm.I32Load(asm.I32Add(ids, asm.I32Shl(t, i32(2))), 0))))
		e.Set(y, asm.I32Add(y0, asm.I32Mul(t, stride)))
		e.Set(yEnd, asm.I32Add(y, stride))
		e.While(asm.I32LtU(y, yEnd), func() {
			e.V128Store(y, 0, asm.V128Load(x, 0))
			e.Bump(16, x, y)
		})
	})
}

// SoftmaxPool is attention pooling with one learned query u:
//
//	y = Σ_t softmax_t(u·x[t])·x[t]
//
// Thread 0 alone computes it: a text has a handful of tokens.
//
//	X [T] rows of D8 float32 (padding zero), U [D8], Y [D8], Scratch [T] float32
type SoftmaxPool struct {
	X, U, Y, Scratch uint32
	T, D             int
}

// Append implements Command.
func (c SoftmaxPool) Append(l List) List {
	return l.add(opSoftmaxPool, c.X, c.U, c.Y, c.Scratch, uint32(c.T), uint32((c.D+7)/8*32))
}

// RefSoftmaxPool defines SoftmaxPool; d8 is the row stride.
func RefSoftmaxPool(y, x, u []float32, t, d8 int) {
	score := make([]float32, t)
	top := float32(-3e38)
	for i := range t {
		score[i] = refDot4(x[i*d8:(i+1)*d8], u)
		top = max(top, score[i])
	}
	var sum float32
	for i := range score {
		score[i] = numeric.Exp(score[i] - top)
		sum += score[i]
	}
	inv := 1 / sum
	for d := range d8 {
		var acc float32
		for i := range t {
			acc += float32(score[i] * x[i*d8+d])
		}
		y[d] = acc * inv
	}
}

func emitSoftmaxPool(e *emitter) {
	in := e.ints(6)
	x0, u0, y0, scratch, tokens, stride := in[0], in[1], in[2], in[3], in[4], in[5]
	t, p, u, xEnd, y, s := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	top, sum := e.Local(asm.F32), e.Local(asm.F32)
	acc, v := e.Local(asm.V128), e.Local(asm.V128)
	exp := e.exp()
	each := func(body func()) {
		e.Set(t, i32(0))
		e.Set(s, scratch)
		e.For(t, tokens, 1, func() {
			body()
			e.Bump(4, s)
		})
	}
	e.If(asm.I32Eqz(e.tid), func() {
		e.Set(top, asm.F32Const(-3e38))
		e.Set(p, x0)
		each(func() {
			e.Set(acc, asm.F32x4Const(0))
			e.Set(u, u0)
			e.Set(xEnd, asm.I32Add(p, stride))
			e.While(asm.I32LtU(p, xEnd), func() {
				e.Set(acc, mulAdd(asm.V128Load(p, 0), asm.V128Load(u, 0), acc))
				e.Bump(16, p, u)
			})
			e.reduce(acc, v, asm.F32x4Add)
			e.F32Store(s, 0, asm.F32x4Lane(0, acc))
			e.Set(top, asm.F32Max(top, asm.F32x4Lane(0, acc)))
		})
		e.Set(sum, asm.F32Const(0))
		each(func() {
			exp(acc, asm.F32x4Splat(asm.F32Sub(asm.F32Load(s, 0), top)))
			e.F32Store(s, 0, asm.F32x4Lane(0, acc))
			e.Set(sum, asm.F32Add(sum, asm.F32x4Lane(0, acc)))
		})
		e.Set(y, y0)
		e.Set(u, asm.I32Add(y0, stride))
		e.While(asm.I32LtU(y, u), func() {
			e.Set(acc, asm.F32x4Const(0))
			e.Set(p, asm.I32Add(x0, asm.I32Sub(y, y0)))
			each(func() {
				e.Set(acc, asm.F32x4Add(acc, asm.F32x4Mul(asm.V128Load32Splat(s, 0), asm.V128Load(p, 0))))
				e.Add(stride, p)
			})
			e.V128Store(y, 0, asm.F32x4Mul(acc, asm.F32x4Splat(asm.F32Div(asm.F32Const(1), sum))))
			e.Bump(16, y)
		})
	})
}
