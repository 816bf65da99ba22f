package kernel

import (
	"lqa/quant/kernel/asm"
	"lqa/quant/numeric"
)

// Vote tells how alike rows of codes are to one: y[n] = e^(-β(1 - cos)), where
// cos = (x·key[n])·(scale[n]·scale), the product of codes exact. Of four rows
// that all have scale 0 nothing is read and nothing written: there are none.
//
//	X one float32, its scale, and from byte 16 on [K32] int16, its codes
//	Keys [N4] rows of K32 int8 (padding zero), Scales [N4], Y [N4] float32
type Vote struct {
	X, Keys, Scales, Y uint32
	N, K               int // K up to 1<<16: sums stay in int32
	Beta               float32
}

// VoteHead is where X's codes begin.
const VoteHead = 16

// Append implements Command.
func (c Vote) Append(l List) List {
	return l.add(opVote, c.X, c.Keys, c.Scales, c.Y, uint32((c.N+3)/4), uint32((c.K+31)/32*32), bits(-c.Beta))
}

// RefVote defines Vote for one row.
func RefVote(x, key []int8, xScale, scale, beta float32) float32 {
	var dot int32
	for k, v := range x {
		dot += int32(v) * int32(key[k])
	}
	cos := float32(float32(dot) * float32(scale*xScale))
	return numeric.Exp(float32(-beta * (1 - cos)))
}

func emitVote(e *emitter) {
	in := e.ints(6)
	x0, keys, scales, y, groups, k := in[0], in[1], in[2], in[3], in[4], in[5]
	beta := e.splat(6)
	g, end := e.share(groups)
	x, xEnd := e.Local(asm.I32), e.let(asm.I32Add(x0, asm.I32Shl(k, i32(1))))
	acc, t := e.Locals(asm.V128, 4), e.Local(asm.V128)
	s, xs := e.Local(asm.V128), e.let(asm.V128Load32Splat(x0, 0))
	exp := e.exp()
	key := e.let(asm.I32Add(keys, asm.I32Mul(asm.I32Shl(k, i32(2)), g)))
	e.Add(asm.I32Shl(g, i32(4)), scales, y)
	e.For(g, end, 1, func() {
		e.Set(s, asm.V128Load(scales, 0))
		e.If(asm.V128AnyTrue(s), func() {
			// Row after row: what comes from memory comes in its order there.
			for _, a := range acc {
				e.Set(a, asm.I32x4Const(0))
				e.Set(x, x0)
				e.While(asm.I32LtU(x, xEnd), func() {
					for i := range uint32(4) {
						e.Set(a, asm.I32x4Add(a, asm.I32x4DotI16x8S(asm.V128Load8x8S(key, 8*i), asm.V128Load(x, VoteHead+16*i))))
					}
					e.Bump(64, x)
					e.Bump(32, key)
				})
			}
			e.fold4(acc, t)
			e.Set(s, asm.F32x4Mul(asm.F32x4ConvertI32x4S(acc[0]), asm.F32x4Mul(s, xs)))
			exp(s, asm.F32x4Mul(beta, asm.F32x4Sub(asm.F32x4Const(1), s)))
			e.V128Store(y, 0, s)
		}, func() { e.Add(asm.I32Shl(k, i32(2)), key) })
		e.Bump(16, scales, y)
	})
}

// fold4 sets v[0] to the sums of the lanes of four vectors of int32, which it
// clobbers, and t too.
func (e *emitter) fold4(v []asm.Expr, t asm.Expr) {
	low := [16]byte{0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27}
	high := [16]byte{4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31}
	for i := 0; i < 4; i += 2 {
		e.Set(t, asm.I8x16Shuffle(v[i], v[i+1], low))
		e.Set(v[i], asm.I32x4Add(t, asm.I8x16Shuffle(v[i], v[i+1], high)))
	}
	e.Set(t, asm.I8x16Shuffle(v[0], v[2], [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23}))
	e.Set(v[0], asm.I32x4Add(t, asm.I8x16Shuffle(v[0], v[2], [16]byte{8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31})))
}
