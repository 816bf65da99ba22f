package kernel

import (
	"math"

	"lqa/quant/kernel/asm"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
)

// Attention is multi-head attention over rows of q|k|v. For head h and row i:
//
//	s[j] = (Σ_d q[i,d]·k[j,d])·(log2 e/√D)
//	p[j] = 2^(s[j] - max s), 0 from 2⁻¹²⁵ down
//	y[i,d] = (Σ_j p[j]·v[j,d]) / Σ p
//
// j runs over all T rows or, if Causal, over 0..i. It takes two commands, with
// a barrier between them: AttentionPack(a), then a.
//
// With Float both sums over products are float32. Without, what is multiplied
// (a row of q, of k, of p, a column of v) is rounded to int16 with a scale of
// its own, as normScale says, and the sums are exact. A column of v is scaled
// over all T rows, so even if Causal later rows have a part in its rounding.
//
//	X [T] rows of q, k, v, [H][D] float32 each, LDX floats apart
//	Y [T] rows of [H][D] float32, LDY floats apart
//	Pack, Scratch: PackLen and ScratchLen bytes
//
// Rows From to To - 1 of Y are what it is for; up to three rows about them are
// written too. D is a multiple of 8 up to 128; T is at most 1024. Float needs
// q·k finite.
type Attention struct {
	X, Pack, Y, Scratch         uint32
	T, H, D, LDX, LDY, From, To int
	Causal, Float               bool
}

// AttentionPack writes Pack, what an Attention multiplies, in panels of eight
// columns, head by head. With Float:
//
//	K [T8/8][D] × 8 rows (the last repeated), V [D/8][T] × 8 columns
//
// and without, int16 in pairs as i32x4.dot_i16x8 takes them, then the scales:
//
//	K [T8/8][D/2] × 8 rows × 2, V [D/8][T8/2] × 8 columns × 2 rows, Q [T8][D]
//	float32 of Q [T8], of K [T8], of V [D]
type AttentionPack Attention

// PackLen is the size of Pack in bytes.
func (a Attention) PackLen() int {
	t8 := qtype.RoundUp(a.T, 8)
	if a.Float {
		return a.H * 2 * 4 * t8 * a.D
	}
	return a.H * (3*2*t8*a.D + 4*(2*t8+a.D))
}

// ScratchLen is the size of Scratch in bytes, for MaxThreads threads.
func (a Attention) ScratchLen() int { return MaxThreads * a.scratch() }

// scratch is a thread's part: two scales a row, then the scores of a tile; or,
// for AttentionPack, eight rows of int16.
func (a Attention) scratch() int {
	return max(scratchHead+tileRows*4*qtype.RoundUp(a.T, 8), 8*2*a.D)
}

const scratchHead = 8 * tileRows

// Append implements Command.
func (a AttentionPack) Append(l List) List {
	op := opAttentionPackQN16
	if a.Float {
		op = opAttentionPackF32
	}
	return l.add(op, a.X, a.Pack, a.Scratch, uint32(a.T), uint32(a.H), uint32(a.D), uint32(a.LDX*4), uint32(Attention(a).scratch()),
		bits(normLimit(a.D)), bits(normLimit(a.T)))
}

// Append implements Command.
func (a Attention) Append(l List) List {
	op, causal := opAttentionQN16, uint32(0)
	if a.Float {
		op = opAttentionF32
	}
	if a.Causal {
		causal = 1
	}
	return l.add(op, a.X, a.Pack, a.Y, a.Scratch, uint32(a.T), uint32(a.H), uint32(a.D), uint32(a.LDX*4), uint32(a.LDY*4),
		uint32(a.scratch()), causal, bits(a.scale()), uint32(a.From/tileRows), uint32((a.To+tileRows-1)/tileRows-a.From/tileRows))
}

func (a Attention) scale() float32 { return float32(numeric.Log2e / math.Sqrt(float64(a.D))) }

// Codes of int16 vectors. |Σ a·b| ≤ |a|·|b|, so two vectors of length normMax
// have a sum within int32; the distance to √2³¹ = 46340.9 is left for rounding,
// at most ½ in each of 1024 codes. A stored scale is at most scaleMax: scores
// stay finite, and ones that large are all or nothing anyway.
const (
	normMax  = 46320
	codeMax  = 32767
	codesMin = 0x1p-60 // a vector with no value over this has codes 0: its square underflows
	scaleMax = 1 << 45
)

// normScale gives the factor that takes x to its codes and the scale that
// takes them back, from x's greatest magnitude m and square = Σx²: codes are as
// large as their length (normMax) and int16 (codeMax) allow. The length is at
// most m·√n, which serves where the square overflows; limit is that of normLimit.
func normScale(m, square, limit float32) (factor, scale float32) {
	scale = max(float32(math.Sqrt(float64(square)))*(1.0/normMax), m*(1.0/codeMax))
	scale = min(scale, m*limit)
	if m > codesMin {
		factor = 1 / scale
	}
	return factor, min(scale, scaleMax)
}

// normLimit is normScale's limit for n values.
func normLimit(n int) float32 { return max(float32(math.Sqrt(float64(n)))/normMax, 1.0/codeMax) }

// refCodes quantizes the n values x[0], x[stride], … and returns their scale.
// The squares are summed in so many lanes.
func refCodes(q []int16, x []float32, n, stride, lanes int) float32 {
	var m float32
	var s [8]float32
	for i := range n {
		v := x[i*stride]
		m = max(m, v, -v)
		s[i%lanes] += float32(v * v)
	}
	factor, scale := normScale(m, fold8(s), normLimit(n))
	for i := range n {
		q[i] = int16(nearest(float32(x[i*stride] * factor)))
	}
	return scale
}

func refDotCodes(a, b []int16) float32 {
	var sum int32
	for i, v := range a {
		sum += int32(v) * int32(b[i])
	}
	return float32(sum)
}

// RefAttention defines Attention.
func RefAttention(y, x []float32, a Attention) {
	for h := range a.H {
		a.refHead(y[h*a.D:], x[h*a.D:])
	}
}

func (a Attention) refHead(y, x []float32) {
	w := a.H * a.D
	var q, k, v [][]int16 // rows of q and k, columns of v
	var sq, sk, sv []float32
	if !a.Float {
		codes := func(x []float32, n, stride, lanes int) ([]int16, float32) {
			c := make([]int16, n)
			return c, refCodes(c, x, n, stride, lanes)
		}
		for j := range a.T {
			c, s := codes(x[j*a.LDX:], a.D, 1, 8)
			q, sq = append(q, c), append(sq, s)
			c, s = codes(x[j*a.LDX+w:], a.D, 1, 8)
			k, sk = append(k, c), append(sk, s)
		}
		for d := range a.D {
			c, s := codes(x[2*w+d:], a.T, a.LDX, 1)
			v, sv = append(v, c), append(sv, s)
		}
	}
	p, pq := make([]float32, a.T), make([]int16, a.T)
	for i := a.From; i < a.To; i++ {
		n := a.T
		if a.Causal {
			n = i + 1
		}
		top := float32(-math.MaxFloat32)
		for j := range n {
			if a.Float {
				p[j] = numeric.Dot(x[i*a.LDX:][:a.D], x[j*a.LDX+w:][:a.D]) * a.scale()
			} else {
				p[j] = refDotCodes(q[i], k[j]) * float32(float32(sq[i]*a.scale())*sk[j])
			}
			top = max(top, p[j])
		}
		var s, squares [8]float32
		for j := range n {
			p[j] = exp2OrZero(p[j] - top)
			s[j%8] += p[j]
			squares[j%8] += float32(p[j] * p[j])
		}
		inv, factor := 1/fold8(s), float32(0)
		if !a.Float {
			factor, _ = normScale(1, fold8(squares), 1) // p's greatest value is 1
			inv = 1 / float32(factor*fold8(s))
			for j := range n {
				pq[j] = int16(nearest(p[j] * factor))
			}
		}
		for d := range a.D {
			if !a.Float {
				y[i*a.LDY+d] = refDotCodes(pq[:n], v[d]) * float32(sv[d]*inv)
				continue
			}
			var acc float32
			for j := range n {
				acc += float32(p[j] * x[j*a.LDX+2*w+d])
			}
			y[i*a.LDY+d] = acc * inv
		}
	}
}

// exp2OrZero is 2ˣ for x ≤ 0, and 0 where numeric.Exp2 saturates.
func exp2OrZero(x float32) float32 {
	if x > numeric.Exp2Min {
		return numeric.Exp2(x)
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
	in := e.ints(7)
	x0, pack, t, h, d, ldx := in[0], in[1], in[3], in[4], in[5], in[6]
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

// normScale emits the lanes of normScale: the scale goes over m, the factor to
// factor; square is clobbered.
func (e *emitter) normScale(factor, m, square, limit asm.Expr) {
	e.Set(square, asm.F32x4Mul(asm.F32x4Sqrt(square), asm.F32x4Const(1.0/normMax)))
	e.Set(square, asm.F32x4PMax(square, asm.F32x4Mul(m, asm.F32x4Const(1.0/codeMax))))
	e.Set(square, asm.F32x4PMin(square, asm.F32x4Mul(m, limit)))
	e.Set(factor, asm.V128And(asm.F32x4Div(asm.F32x4Const(1), square), asm.F32x4Gt(m, asm.F32x4Const(codesMin))))
	e.Set(m, asm.F32x4PMin(square, asm.F32x4Const(scaleMax)))
}

// codes is eight int16: lo times its factor, hi times its own, rounded.
func codes(lo, hi, factorLo, factorHi, magic asm.Expr) asm.Expr {
	round := func(v, factor asm.Expr) asm.Expr { return asm.I32x4Sub(mulAdd(v, factor, magic), magic) }
	return asm.I16x8NarrowI32x4S(round(lo, factorLo), round(hi, factorHi))
}

func emitAttentionPackQN16(e *emitter) {
	in := e.ints(8)
	x0, pack, scratch0, t, h, d, ldx, share := in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7]
	rowLimit, columnLimit := e.splat(8), e.splat(9)
	t8 := e.let(asm.I32And(asm.I32Add(t, i32(7)), i32(-8)))
	panels := e.let(asm.I32ShrU(t8, i32(3)))
	last := e.let(asm.I32Sub(t, i32(1)))
	dBytes := e.let(asm.I32Shl(d, i32(2)))
	w := e.let(asm.I32Mul(h, dBytes))
	part := e.let(asm.I32Shl(asm.I32Mul(t8, d), i32(1))) // of K, of V, of Q
	headLen := e.let(asm.I32Add(asm.I32Add(asm.I32Mul(part, i32(3)), asm.I32Shl(t8, i32(3))), dBytes))
	scratch := e.let(asm.I32Add(scratch0, asm.I32Mul(e.tid, share)))
	head, first, row, base, x, xEnd := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	p, q, s, k := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	a, b := e.Locals(asm.V128, 4), e.Locals(asm.V128, 4)
	m, m1, square, square1, v := e.Local(asm.V128), e.Local(asm.V128), e.Local(asm.V128), e.Local(asm.V128), e.Local(asm.V128)
	factor, factor1 := e.Local(asm.V128), e.Local(asm.V128)
	from := e.Locals(asm.I32, 8)
	magic := e.consts(nearestMagic)[0]

	measure := func() { // eight values' part in m and square
		for o, to := range [][2]asm.Expr{{m, square}, {m1, square1}} {
			e.Set(v, asm.V128Load(x, uint32(16*o)))
			e.Set(to[0], asm.F32x4PMax(to[0], asm.F32x4Abs(v)))
			e.Set(to[1], mulAdd(v, v, to[1]))
		}
	}

	unit, end := e.share(asm.I32Mul(panels, h))
	e.For(unit, end, 1, func() { // eight rows of a head's queries and keys
		e.Set(head, asm.I32DivU(unit, panels))
		e.Set(first, asm.I32Shl(asm.I32Sub(unit, asm.I32Mul(head, panels)), i32(3)))
		e.Set(base, asm.I32Add(x0, asm.I32Mul(head, dBytes)))
		e.Set(p, asm.I32Add(pack, asm.I32Mul(head, headLen)))
		e.Set(k, asm.I32Add(p, asm.I32Mul(asm.I32Shl(first, i32(1)), d)))
		e.Set(q, asm.I32Add(k, asm.I32Shl(part, i32(1))))
		e.Set(s, asm.I32Add(asm.I32Add(p, asm.I32Mul(part, i32(3))), asm.I32Shl(first, i32(2))))
		for range 2 { // the queries straight into Pack, the keys into the scratch
			e.Set(row, first)
			e.For(row, asm.I32Add(first, i32(8)), 1, func() {
				e.Set(x, row)
				e.If(asm.I32LtS(last, x), func() { e.Set(x, last) })
				e.Set(x, asm.I32Add(base, asm.I32Mul(x, ldx)))
				e.Set(xEnd, asm.I32Add(x, dBytes))
				each := func(body func()) {
					e.While(asm.I32LtU(x, xEnd), func() {
						body()
						e.Bump(32, x)
					})
					e.Set(x, asm.I32Sub(x, dBytes))
				}
				e.Set(m, asm.F32x4Const(0))
				e.Set(m1, m)
				e.Set(square, m)
				e.Set(square1, m)
				each(measure)
				e.Set(m, asm.F32x4PMax(m, m1))
				e.reduce(m, v, asm.F32x4PMax)
				e.Set(m, asm.F32x4Splat(asm.F32x4Lane(0, m)))
				e.Set(square, asm.F32x4Add(square, square1))
				e.reduce(square, v, asm.F32x4Add)
				e.Set(square, asm.F32x4Splat(asm.F32x4Lane(0, square)))
				e.normScale(factor, m, square, rowLimit)
				each(func() {
					e.V128Store(q, 0, codes(asm.V128Load(x, 0), asm.V128Load(x, 16), factor, factor, magic))
					e.Bump(16, q)
				})
				e.F32Store(s, 0, asm.F32x4Lane(0, m))
				e.Bump(4, s)
			})
			e.Set(q, scratch)
			e.Add(w, base)
			e.Set(s, asm.I32Add(s, asm.I32Sub(asm.I32Shl(t8, i32(2)), i32(32))))
		}
		e.Set(from[0], scratch)
		for r := 1; r < len(from); r++ {
			e.Set(from[r], asm.I32Add(from[r-1], asm.I32Shl(d, i32(1))))
		}
		e.Set(q, from[1])
		e.While(asm.I32LtU(from[0], q), func() { // eight codes of eight rows
			for half := range 2 {
				for r := range 4 {
					e.Set(a[r], asm.V128Load(from[4*half+r], 0))
				}
				e.transpose(a, b)
				for i := range 4 {
					e.V128Store(k, uint32(32*i+16*half), a[i])
				}
			}
			e.Bump(16, from...)
			e.Bump(128, k)
		})
	})

	e.Set(panels, asm.I32ShrU(d, i32(3)))
	unit, end = e.share(asm.I32Mul(panels, h))
	e.For(unit, end, 1, func() { // eight columns of a head's values
		e.Set(head, asm.I32DivU(unit, panels))
		e.Set(first, asm.I32Shl(asm.I32Sub(unit, asm.I32Mul(head, panels)), i32(3)))
		e.Set(base, asm.I32Add(asm.I32Add(x0, asm.I32Shl(w, i32(1))), asm.I32Add(asm.I32Mul(head, dBytes), asm.I32Shl(first, i32(2)))))
		e.Set(p, asm.I32Add(pack, asm.I32Mul(head, headLen)))
		e.Set(k, asm.I32Add(asm.I32Add(p, part), asm.I32Mul(asm.I32Shl(first, i32(1)), t8)))
		e.Set(s, asm.I32Add(asm.I32Add(p, asm.I32Mul(part, i32(3))), asm.I32Add(asm.I32Shl(t8, i32(3)), asm.I32Shl(first, i32(2)))))
		each := func(body func()) {
			e.Set(x, base)
			e.Set(row, i32(0))
			e.For(row, t, 1, func() {
				body()
				e.Add(ldx, x)
			})
		}
		e.Set(m, asm.F32x4Const(0))
		e.Set(m1, m)
		e.Set(square, m)
		e.Set(square1, m)
		each(measure)
		e.normScale(factor, m, square, columnLimit)
		e.normScale(factor1, m1, square1, columnLimit)
		e.V128Store(s, 0, m)
		e.V128Store(s, 16, m1)
		row8 := func(dst asm.Expr) {
			e.Set(dst, codes(asm.V128Load(x, 0), asm.V128Load(x, 16), factor, factor1, magic))
			e.Add(ldx, x)
		}
		pair := func() {
			e.V128Store(k, 0, asm.I8x16Shuffle(a[0], a[1], [16]byte{0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23}))
			e.V128Store(k, 16, asm.I8x16Shuffle(a[0], a[1], [16]byte{8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31}))
			e.Bump(32, k)
		}
		e.Set(x, base)
		e.Set(row, i32(0))
		e.For(row, last, 2, func() {
			row8(a[0])
			row8(a[1])
			pair()
		})
		e.If(asm.I32LtS(row, t), func() { // T is odd
			row8(a[0])
			e.Set(a[1], asm.I32x4Const(0))
			pair()
		})
	})
}

// emitAttention works on units of a head and a tile of four queries.
func emitAttention(float bool) func(e *emitter) {
	return func(e *emitter) {
		in := e.ints(11)
		x0, pack, y0, scratch0, t, h, d, ldx, ldy, share, causal := in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8], in[9], in[10]
		scale := e.splat(11)
		firstTile, tiles := e.arg(12), e.arg(13)
		unit, end := e.share(asm.I32Mul(tiles, h))
		last := e.let(asm.I32Sub(t, i32(1)))
		dBytes := e.let(asm.I32Shl(d, i32(2)))
		t8 := e.let(asm.I32And(asm.I32Add(t, i32(7)), i32(-8)))
		sBytes := e.let(asm.I32Shl(t8, i32(2)))
		scratch := e.let(asm.I32Add(scratch0, asm.I32Mul(e.tid, share)))
		scores := e.let(asm.I32Add(scratch, i32(scratchHead)))
		part, headLen, vPanel := e.let(asm.I32Mul(sBytes, d)), e.Local(asm.I32), e.Local(asm.I32)
		if float {
			e.Set(headLen, asm.I32Shl(part, i32(1)))
			e.Set(vPanel, asm.I32Shl(t, i32(5)))
		} else {
			e.Set(part, asm.I32ShrU(part, i32(1)))
			e.Set(headLen, asm.I32Add(asm.I32Add(asm.I32Mul(part, i32(3)), asm.I32Shl(t8, i32(3))), dBytes))
			e.Set(vPanel, asm.I32Shl(t8, i32(4)))
		}
		head, limit, cols, k, v, b, s, sEnd := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
		sq, sk, sv := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
		row, a, q, y := e.Locals(asm.I32, tileRows), e.Locals(asm.I32, tileRows), e.Locals(asm.I32, tileRows), e.Locals(asm.I32, tileRows)
		aEnd, sum, seen, p, pCodes := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
		top, mask := e.Local(asm.V128), e.Local(asm.V128)
		acc, b0, b1, av := e.Locals(asm.V128, 2*tileRows), e.Local(asm.V128), e.Local(asm.V128), e.Local(asm.V128)
		exp2, c := e.exp2(), e.consts(nearestMagic, numeric.Exp2Min)
		magic, least := c[0], c[1]

		mac := func(acc, a, b asm.Expr) asm.Expr {
			if float {
				return mulAdd(a, b, acc)
			}
			return asm.I32x4Add(acc, asm.I32x4DotI16x8S(a, b))
		}
		// tile is acc[r] = Σ a[r]·b, aBytes of each a. It is not unrolled: no
		// faster so, and V8 before Turboshaft hoists the loads of all steps and
		// spills.
		tile := func(aBytes asm.Expr) {
			for i := range acc {
				e.Set(acc[i], asm.I32x4Const(0))
			}
			e.Set(aEnd, asm.I32Add(a[0], aBytes))
			e.While(asm.I32LtU(a[0], aEnd), func() {
				e.Set(b0, asm.V128Load(b, 0))
				e.Set(b1, asm.V128Load(b, 16))
				for r := range tileRows {
					e.Set(av, asm.V128Load32Splat(a[r], 0))
					e.Set(acc[2*r], mac(acc[2*r], av, b0))
					e.Set(acc[2*r+1], mac(acc[2*r+1], av, b1))
				}
				e.Bump(4, a...)
				e.Bump(32, b)
			})
		}
		// scaled is acc[i] times its row's scale (rowScale bytes into the scratch)
		// and, for integers, its column's.
		scaled := func(i int, rowScale uint32, cols asm.Expr) asm.Expr {
			s := asm.V128Load32Splat(scratch, rowScale+uint32(i/2*4))
			if float {
				return asm.F32x4Mul(acc[i], s)
			}
			return asm.F32x4Mul(asm.F32x4ConvertI32x4S(acc[i]), asm.F32x4Mul(s, asm.V128Load(cols, uint32(i%2*16))))
		}
		const scoreScale, sumScale = 0, 4 * tileRows

		e.For(unit, end, 1, func() {
			e.Set(head, asm.I32DivU(unit, tiles))
			e.Set(row[0], asm.I32Shl(asm.I32Add(firstTile, asm.I32Sub(unit, asm.I32Mul(head, tiles))), i32(2)))
			e.Set(k, asm.I32Add(pack, asm.I32Mul(head, headLen)))
			e.Set(v, asm.I32Add(k, part))
			e.Set(limit, t)
			e.If(causal, func() { e.Set(limit, asm.I32Add(row[0], i32(tileRows))) })
			e.If(asm.I32LtS(t, limit), func() { e.Set(limit, t) })
			e.clampedRows(row, e.let(row[0]), last)
			e.Set(head, asm.I32Mul(head, dBytes))
			if !float {
				e.Set(b, asm.I32Add(v, part)) // queries
				e.Set(sq, asm.I32Add(b, part))
				e.Set(sk, asm.I32Add(sq, sBytes))
				e.Set(sv, asm.I32Add(sk, sBytes))
			}
			for r := range row {
				e.Set(y[r], asm.I32Add(y0, asm.I32Add(head, asm.I32Mul(row[r], ldy))))
				if float {
					e.Set(q[r], asm.I32Add(x0, asm.I32Add(head, asm.I32Mul(row[r], ldx))))
					e.F32Store(scratch, uint32(scoreScale+4*r), asm.F32x4Lane(0, scale))
				} else {
					e.Set(q[r], asm.I32Add(b, asm.I32Shl(asm.I32Mul(row[r], d), i32(1))))
					e.F32Store(scratch, uint32(scoreScale+4*r), asm.F32Mul(asm.F32Load(asm.I32Add(sq, asm.I32Shl(row[r], i32(2))), 0), asm.F32x4Lane(0, scale)))
				}
			}

			// Scores, a panel of eight keys at a time.
			e.Set(b, k)
			e.Set(s, scores)
			e.Set(cols, i32(0))
			e.For(cols, limit, 8, func() {
				for r := range a {
					e.Set(a[r], q[r])
				}
				if float {
					tile(dBytes)
				} else {
					tile(asm.I32ShrU(dBytes, i32(1)))
				}
				e.Set(a[0], s)
				for i := range acc {
					e.V128Store(a[0], uint32(i%2*16), scaled(i, scoreScale, sk))
					if i%2 == 1 {
						e.Add(sBytes, a[0])
					}
				}
				e.Bump(32, s, sk)
			})

			// Softmax, not yet divided by its sum: row after row.
			e.Set(s, scores)
			e.Set(sum, asm.I32Add(scratch, i32(sumScale)))
			e.Set(seen, limit)
			e.If(causal, func() { e.Set(seen, asm.I32Add(row[0], i32(1))) })
			e.While(asm.I32LtU(sum, scores), func() {
				e.Set(sEnd, asm.I32Add(s, asm.I32Shl(cols, i32(2))))
				e.Set(p, asm.I32Add(s, asm.I32Shl(seen, i32(2))))
				e.While(asm.I32LtU(p, sEnd), func() { // keys that this row does not see
					e.F32Store(p, 0, asm.F32Const(-math.MaxFloat32))
					e.Bump(4, p)
				})
				e.If(asm.I32LtS(seen, limit), func() { e.Bump(1, seen) })
				for i := range 4 {
					e.Set(acc[i], asm.F32x4Const(0))
				}
				e.Set(top, asm.F32x4Const(-math.MaxFloat32))
				e.Set(b0, top)
				e.Set(p, s)
				e.While(asm.I32LtU(p, sEnd), func() {
					e.Set(top, asm.F32x4PMax(top, asm.V128Load(p, 0)))
					e.Set(b0, asm.F32x4PMax(b0, asm.V128Load(p, 16)))
					e.Bump(32, p)
				})
				e.Set(top, asm.F32x4PMax(top, b0))
				e.reduce(top, b0, asm.F32x4PMax)
				e.Set(top, asm.F32x4Splat(asm.F32x4Lane(0, top)))
				e.Set(p, s)
				e.While(asm.I32LtU(p, sEnd), func() {
					for i := range 2 {
						e.Set(b0, asm.F32x4Sub(asm.V128Load(p, uint32(16*i)), top))
						e.Set(mask, asm.F32x4Gt(b0, least))
						exp2(b1, b0)
						e.Set(b1, asm.V128And(b1, mask))
						e.V128Store(p, uint32(16*i), b1)
						e.Set(acc[i], asm.F32x4Add(acc[i], b1))
						if !float {
							e.Set(acc[2+i], mulAdd(b1, b1, acc[2+i]))
						}
					}
					e.Bump(32, p)
				})
				e.Set(acc[0], asm.F32x4Add(acc[0], acc[1]))
				e.reduce(acc[0], b0, asm.F32x4Add)
				if !float {
					e.Set(acc[2], asm.F32x4Add(acc[2], acc[3]))
					e.reduce(acc[2], b0, asm.F32x4Add)
					e.Set(acc[2], asm.F32x4Splat(asm.F32x4Lane(0, acc[2])))
					e.Set(b0, asm.F32x4Const(1))
					e.normScale(av, b0, acc[2], asm.F32x4Const(1))
					e.Set(acc[0], asm.F32x4Mul(av, acc[0]))
					e.Set(p, s)
					e.Set(pCodes, s)
					e.While(asm.I32LtU(p, sEnd), func() { // codes over the front half
						e.V128Store(pCodes, 0, codes(asm.V128Load(p, 0), asm.V128Load(p, 16), av, av, magic))
						e.Bump(32, p)
						e.Bump(16, pCodes)
					})
				}
				e.F32Store(sum, 0, asm.F32Div(asm.F32Const(1), asm.F32x4Lane(0, acc[0])))
				e.Bump(4, sum)
				e.Add(sBytes, s)
			})

			// Values, a panel of eight columns at a time.
			e.Set(sEnd, asm.I32Add(y[0], dBytes))
			e.While(asm.I32LtU(y[0], sEnd), func() {
				e.Set(a[0], scores)
				for r := 1; r < tileRows; r++ {
					e.Set(a[r], asm.I32Add(a[r-1], sBytes))
				}
				e.Set(b, v)
				if float {
					tile(asm.I32Shl(limit, i32(2)))
				} else {
					tile(asm.I32Shl(asm.I32ShrU(asm.I32Add(limit, i32(1)), i32(1)), i32(2)))
				}
				for i := range acc {
					e.V128Store(y[i/2], uint32(i%2*16), scaled(i, sumScale, sv))
				}
				e.Bump(32, y...)
				e.Bump(32, sv)
				e.Add(vPanel, v)
			})
		})
	}
}
