package kernel

import (
	"math"

	"lqa/quant/kernel/asm"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
)

// Attention is multi-head attention over rows of q|k|v. For head h and row i:
//
//	s[j] = (Σ_d q[i,d]·k[j,d])·(1/√D)
//	p[j] = exp(s[j] - max s), 0 under e⁻⁸⁷
//	y[i,d] = (Σ_j p[j]·v[j,d])·(1/Σ p)
//
// j runs over all T rows or, if Causal, over 0..i. It takes two commands, with
// a barrier between them: AttentionPack(a), then a.
//
//	X [T] rows of q, k, v, [H][D] float32 each, LDX floats apart
//	Y [T] rows of [H][D] float32, LDY floats apart
//	Pack, Scratch: PackLen and ScratchLen bytes
//
// D is a multiple of 8.
type Attention struct {
	X, Pack, Y, Scratch uint32
	T, H, D, LDX, LDY   int
	Causal              bool
}

// AttentionPack writes Pack, the keys and values of an Attention in panels of
// eight columns:
//
//	K [H][T8/8][D] × 8 rows (the last repeated), V [H][D/8][T] × 8 columns, by head
type AttentionPack Attention

// PackLen is the size of Pack in bytes.
func (a Attention) PackLen() int { return a.H * a.headLen() }

// headLen is what a head takes in Pack: keys, then values, T8·D floats each.
func (a Attention) headLen() int { return 8 * qtype.RoundUp(a.T, 8) * a.D }

// ScratchLen is the size of Scratch in bytes: scores of a tile for each of
// MaxThreads threads.
func (a Attention) ScratchLen() int { return MaxThreads * tileRows * 4 * qtype.RoundUp(a.T, 8) }

// Append implements Command.
func (a AttentionPack) Append(l List) List {
	return l.add(opAttentionPackF32, a.X, a.Pack, uint32(a.T), uint32(a.H), uint32(a.D), uint32(a.LDX*4))
}

// Append implements Command.
func (a Attention) Append(l List) List {
	var causal uint32
	if a.Causal {
		causal = 1
	}
	return l.add(opAttentionF32, a.X, a.Pack, a.Y, a.Scratch, uint32(a.T), uint32(a.H), uint32(a.D), uint32(a.LDX*4), uint32(a.LDY*4),
		causal, bits(a.scale()))
}

func (a Attention) scale() float32 { return 1 / float32(math.Sqrt(float64(a.D))) }

// RefAttention defines Attention.
func RefAttention(y, x []float32, a Attention) {
	w := a.H * a.D
	p := make([]float32, a.T)
	for i := range a.T {
		n := a.T
		if a.Causal {
			n = i + 1
		}
		for h := range a.H {
			q := x[i*a.LDX+h*a.D:][:a.D]
			top := float32(-math.MaxFloat32)
			for j := range n {
				p[j] = numeric.Dot(q, x[j*a.LDX+w+h*a.D:][:a.D]) * a.scale()
				top = max(top, p[j])
			}
			var s [8]float32
			for j := range n {
				p[j] = expOrZero(p[j] - top)
				s[j%8] += p[j]
			}
			inv := 1 / fold8(s)
			for d := range a.D {
				var acc float32
				for j := range n {
					acc += float32(p[j] * x[j*a.LDX+2*w+h*a.D+d])
				}
				y[i*a.LDY+h*a.D+d] = acc * inv
			}
		}
	}
}

// expOrZero is eˣ for x ≤ 0, and 0 where numeric.Exp saturates.
func expOrZero(x float32) float32 {
	if x > numeric.ExpMin {
		return numeric.Exp(x)
	}
	return 0
}

// transpose turns four vectors, rows, into columns, in place; t are four more.
func (e *emitter) transpose(v, t []asm.Expr) {
	low := [16]byte{0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23}
	high := [16]byte{8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31}
	for i := range 2 {
		e.Set(t[2*i], asm.I8x16Shuffle(v[2*i], v[2*i+1], low))
		e.Set(t[2*i+1], asm.I8x16Shuffle(v[2*i], v[2*i+1], high))
	}
	for i := range 2 {
		e.Set(v[2*i], asm.I8x16Shuffle(t[i], t[i+2], [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23}))
		e.Set(v[2*i+1], asm.I8x16Shuffle(t[i], t[i+2], [16]byte{8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31}))
	}
}

// clampedRows sets rows to the numbers first, first+1, …, none above last: a
// tile that hangs over repeats the last row.
func (e *emitter) clampedRows(rows []asm.Expr, first, last asm.Expr) {
	for r, row := range rows {
		e.Set(row, asm.I32Add(first, i32(r)))
		e.If(asm.I32LtS(last, row), func() { e.Set(row, last) })
	}
}

func emitAttentionPackF32(e *emitter) {
	in := e.ints(6)
	x0, pack, t, h, d, ldx := in[0], in[1], in[2], in[3], in[4], in[5]
	panels := e.let(asm.I32ShrU(asm.I32Add(t, i32(7)), i32(3)))
	unit, end := e.share(asm.I32Mul(panels, h))
	last := e.let(asm.I32Sub(t, i32(1)))
	dBytes := e.let(asm.I32Shl(d, i32(2)))
	w := e.let(asm.I32Mul(h, dBytes))
	kLen := e.let(asm.I32Mul(asm.I32Shl(panels, i32(3)), dBytes))
	vPanel := e.let(asm.I32Shl(t, i32(5)))
	head, first, base, k, kEnd, v := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	row, left := e.Local(asm.I32), e.Local(asm.I32)
	x := e.Locals(asm.I32, 8)
	a, b := e.Locals(asm.V128, 4), e.Locals(asm.V128, 4)

	e.For(unit, end, 1, func() { // a head's eight rows
		e.Set(head, asm.I32DivU(unit, panels))
		e.Set(first, asm.I32Shl(asm.I32Sub(unit, asm.I32Mul(head, panels)), i32(3)))
		e.Set(base, asm.I32Add(x0, asm.I32Add(w, asm.I32Mul(head, dBytes)))) // this head's keys
		e.clampedRows(x, first, last)
		for r := range x {
			e.Set(x[r], asm.I32Add(base, asm.I32Mul(x[r], ldx)))
		}
		e.Set(v, asm.I32Add(pack, asm.I32Shl(asm.I32Mul(head, kLen), i32(1)))) // its part of Pack
		e.Set(k, asm.I32Add(v, asm.I32Mul(first, dBytes)))
		e.Set(kEnd, asm.I32Add(k, asm.I32Shl(dBytes, i32(3))))
		e.Set(v, asm.I32Add(asm.I32Add(v, kLen), asm.I32Shl(first, i32(5))))
		e.While(asm.I32LtU(k, kEnd), func() {
			for half := range 2 {
				for r := range 4 {
					e.Set(a[r], asm.V128Load(x[4*half+r], 0))
				}
				e.transpose(a, b)
				for i := range 4 {
					e.V128Store(k, uint32(32*i+16*half), a[i])
				}
			}
			e.Bump(16, x...)
			e.Bump(128, k)
		})
		e.Set(row, asm.I32Add(asm.I32Add(base, w), asm.I32Mul(first, ldx)))
		e.Set(left, asm.I32Sub(t, first))
		e.If(asm.I32LtS(i32(8), left), func() { e.Set(left, i32(8)) })
		e.While(left, func() {
			e.Set(x[0], row)
			e.Set(kEnd, asm.I32Add(row, dBytes))
			e.Set(k, v)
			e.While(asm.I32LtU(x[0], kEnd), func() {
				e.V128Store(k, 0, asm.V128Load(x[0], 0))
				e.V128Store(k, 16, asm.V128Load(x[0], 16))
				e.Bump(32, x[0])
				e.Add(vPanel, k)
			})
			e.Add(ldx, row)
			e.Bump(32, v)
			e.Bump(-1, left)
		})
	})
}

func emitAttentionF32(e *emitter) {
	in := e.ints(10)
	x0, pack, y0, scratch0, t, h, d, ldx, ldy, causal := in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8], in[9]
	scale := e.splat(10)
	tiles := e.let(asm.I32ShrU(asm.I32Add(t, i32(tileRows-1)), i32(2)))
	unit, end := e.share(asm.I32Mul(tiles, h))
	last := e.let(asm.I32Sub(t, i32(1)))
	dBytes := e.let(asm.I32Shl(d, i32(2)))
	sBytes := e.let(asm.I32Shl(asm.I32And(asm.I32Add(t, i32(7)), i32(-8)), i32(2)))
	kLen := e.let(asm.I32Mul(sBytes, d))
	vPanel := e.let(asm.I32Shl(t, i32(5)))
	scratch := e.let(asm.I32Add(scratch0, asm.I32Mul(e.tid, asm.I32Shl(sBytes, i32(2)))))
	head, limit, cols, k, v, b, s, sEnd := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	row, a, y := e.Locals(asm.I32, tileRows), e.Locals(asm.I32, tileRows), e.Locals(asm.I32, tileRows)
	acc, b0, b1, av := e.Locals(asm.V128, 2*tileRows), e.Local(asm.V128), e.Local(asm.V128), e.Local(asm.V128)
	inv := e.Locals(asm.V128, tileRows)
	mac := func(acc, a, b asm.Expr) asm.Expr { return mulAdd(a, b, acc) }
	exp := e.expWithin()
	aEnd := e.Local(asm.I32)

	// tile is acc[r] = Σ a[r]·b over a[0] to aBytes beyond it.
	tile := func(aBytes asm.Expr) {
		for i := range acc {
			e.Set(acc[i], asm.I32x4Const(0))
		}
		steps := func(n int) {
			for i := range n {
				e.Set(b0, asm.V128Load(b, uint32(32*i)))
				e.Set(b1, asm.V128Load(b, uint32(32*i+16)))
				for r := range tileRows {
					e.Set(av, asm.V128Load32Splat(a[r], uint32(4*i)))
					e.Set(acc[2*r], mac(acc[2*r], av, b0))
					e.Set(acc[2*r+1], mac(acc[2*r+1], av, b1))
				}
			}
			e.Bump(int32(4*n), a...)
			e.Bump(int32(32*n), b)
		}
		e.Set(aEnd, asm.I32Add(a[0], asm.I32And(aBytes, i32(-4*stepUnroll))))
		e.While(asm.I32LtU(a[0], aEnd), func() { steps(stepUnroll) })
		e.Set(aEnd, asm.I32Add(aEnd, asm.I32And(aBytes, i32(4*stepUnroll-1))))
		e.While(asm.I32LtU(a[0], aEnd), func() { steps(1) })
	}

	e.For(unit, end, 1, func() {
		e.Set(head, asm.I32DivU(unit, tiles))
		e.Set(k, asm.I32Add(pack, asm.I32Shl(asm.I32Mul(head, kLen), i32(1))))
		e.Set(v, asm.I32Add(k, kLen))
		e.Set(head, asm.I32Mul(head, dBytes))
		e.Set(row[0], asm.I32Shl(asm.I32Sub(unit, asm.I32Mul(asm.I32DivU(unit, tiles), tiles)), i32(2)))
		e.Set(limit, t)
		e.If(causal, func() { e.Set(limit, asm.I32Add(row[0], i32(tileRows))) })
		e.If(asm.I32LtS(t, limit), func() { e.Set(limit, t) })
		e.clampedRows(row, e.let(row[0]), last)
		for r := range row {
			e.Set(y[r], asm.I32Add(y0, asm.I32Add(head, asm.I32Mul(row[r], ldy))))
		}

		// Scores, a panel of eight keys at a time.
		e.Set(b, k)
		e.Set(s, scratch)
		e.Set(cols, i32(0))
		e.For(cols, limit, 8, func() {
			for r := range a {
				e.Set(a[r], asm.I32Add(x0, asm.I32Add(head, asm.I32Mul(row[r], ldx))))
			}
			tile(dBytes)
			e.Set(a[0], s)
			for r := range acc {
				e.V128Store(a[0], uint32(r%2*16), asm.F32x4Mul(acc[r], scale))
				if r%2 == 1 {
					e.Add(sBytes, a[0])
				}
			}
			e.Bump(32, s)
		})

		// Softmax, not yet divided by its sum.
		e.Set(s, scratch)
		for r := range row {
			e.Set(sEnd, asm.I32Add(s, asm.I32Shl(cols, i32(2))))
			e.Set(a[0], asm.I32Add(s, asm.I32Shl(limit, i32(2))))
			e.If(causal, func() { e.Set(a[0], asm.I32Add(s, asm.I32Shl(asm.I32Add(row[r], i32(1)), i32(2)))) })
			e.While(asm.I32LtU(a[0], sEnd), func() { // keys that this row does not see
				e.F32Store(a[0], 0, asm.F32Const(-math.MaxFloat32))
				e.Bump(4, a[0])
			})
			e.Set(acc[0], asm.F32x4Const(-math.MaxFloat32))
			e.Set(acc[1], acc[0])
			e.Set(a[0], s)
			e.While(asm.I32LtU(a[0], sEnd), func() {
				e.Set(acc[0], asm.F32x4PMax(acc[0], asm.V128Load(a[0], 0)))
				e.Set(acc[1], asm.F32x4PMax(acc[1], asm.V128Load(a[0], 16)))
				e.Bump(32, a[0])
			})
			e.Set(acc[0], asm.F32x4PMax(acc[0], acc[1]))
			e.reduce(acc[0], av, asm.F32x4PMax)
			e.Set(av, asm.F32x4Splat(asm.F32x4Lane(0, acc[0])))
			e.Set(acc[0], asm.F32x4Const(0))
			e.Set(acc[1], acc[0])
			e.Set(a[0], s)
			e.While(asm.I32LtU(a[0], sEnd), func() {
				for i := range 2 {
					e.Set(b0, asm.F32x4Sub(asm.V128Load(a[0], uint32(16*i)), av))
					e.Set(acc[2], asm.F32x4Gt(b0, asm.F32x4Const(numeric.ExpMin)))
					exp(b1, b0)
					e.Set(b1, asm.V128And(b1, acc[2]))
					e.V128Store(a[0], uint32(16*i), b1)
					e.Set(acc[i], asm.F32x4Add(acc[i], b1))
				}
				e.Bump(32, a[0])
			})
			e.Set(acc[0], asm.F32x4Add(acc[0], acc[1]))
			e.reduce(acc[0], av, asm.F32x4Add)
			e.Set(inv[r], asm.F32x4Splat(asm.F32Div(asm.F32Const(1), asm.F32x4Lane(0, acc[0]))))
			e.Add(sBytes, s)
		}

		// Values, a panel of eight columns at a time.
		e.Set(sEnd, asm.I32Add(y[0], dBytes))
		e.While(asm.I32LtU(y[0], sEnd), func() {
			e.Set(a[0], scratch)
			for r := 1; r < tileRows; r++ {
				e.Set(a[r], asm.I32Add(a[r-1], sBytes))
			}
			e.Set(b, v)
			tile(asm.I32Shl(limit, i32(2)))
			for r := range y {
				e.V128Store(y[r], 0, asm.F32x4Mul(acc[2*r], inv[r]))
				e.V128Store(y[r], 16, asm.F32x4Mul(acc[2*r+1], inv[r]))
			}
			e.Bump(32, y...)
			e.Add(vPanel, v)
		})
	})
}
