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
// is rounded to int16 and the sums are exact: a row of q or k, a column of v with
// a scale of its own, as normScale says, p with softFactor for all. A column of
// v is scaled over all T rows, so even if Causal later rows have a part in its
// rounding.
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
//	K [T8/8][D/2] × 8 rows × 2, V [D/8][T8/2] × 8 columns × 2 rows, Q as K
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

// scratch is a thread's part: of a row two scales and four greatest scores, then the scores of a tile; or,
// for AttentionPack, eight rows of int16.
func (a Attention) scratch() int { return max(scratchHead+tileRows*scoreRow, 8*2*a.D) }

const (
	scratchHead = 24 * tileRows
	// scoreRow is the bytes of a row of scores, for the most keys: a constant, so
	// that one pointer serves all rows. 64 more keep them apart in the cache.
	scoreRow  = 4*maxTokens + 64
	maxTokens = 1024
)

// Append implements Command.
func (a AttentionPack) Append(l List) List {
	op := opAttentionPackQN16
	if a.Float {
		op = opAttentionPackF32
	}
	return l.add(op, a.X, a.Pack, a.Scratch, uint32(a.T), uint32(a.H), uint32(a.D), uint32(a.LDX*4), uint32(Attention(a).scratch()),
		bits(normLimit(a.D, normMax)), bits(normLimit(a.T, valueMax)))
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
		uint32(a.scratch()), causal, bits(a.scale()), bits(softFactor(a.T)), uint32(a.From/tileRows), uint32((a.To+tileRows-1)/tileRows-a.From/tileRows))
}

func (a Attention) scale() float32 { return float32(numeric.Log2e / math.Sqrt(float64(a.D))) }

// Codes of int16 vectors. |Σ a·b| ≤ |a|·|b|, so two vectors of length normMax
// have a sum within int32; the distance to √2³¹ = 46340.9 is left for rounding,
// at most ½ in each of 1024 codes. Values have a quarter of that length and
// softmax four times: its codes are the ones that are short of bits. A stored scale is at most
// scaleMax: scores stay finite, and ones that large are all or nothing anyway.
const (
	normMax  = 46320
	valueMax = normMax / 4
	codeMax  = 32767
	codesMin = 0x1p-60 // a vector with no value over this has codes 0: its square underflows
	scaleMax = 1 << 45
)

// normScale gives the factor that takes x to its codes and the scale that
// takes them back, from x's greatest magnitude m and square = Σx²: codes are as
// large as their length (norm) and int16 (codeMax) allow. The length is at
// most m·√n, which serves where the square overflows; limit is that of normLimit.
func normScale(m, square, limit, norm float32) (factor, scale float32) {
	scale = max(float32(math.Sqrt(float64(square)))*(1/norm), m*(1.0/codeMax))
	scale = min(scale, m*limit)
	if m > codesMin {
		factor = 1 / scale
	}
	return factor, min(scale, scaleMax)
}

// normLimit is normScale's limit for n values.
func normLimit(n int, norm float32) float32 {
	return max(float32(math.Sqrt(float64(n)))/norm, 1.0/codeMax)
}

// softFactor takes the p of up to n keys to codes. As p ≤ 1.0001, their length
// is at most √n·(1.0001·softFactor + ½) ≤ 185,019 + 16, that of v's at most
// 11,580 + 16, and the product of the two 2,145,665,860 < 2³¹.
func softFactor(n int) float32 {
	return min(185000/float32(math.Sqrt(float64(n))), 32760)
}

// softPoly are the coefficients of 2ᶠ on |f| ≤ ½, lowest power first, to 7.5e-5
// of it: codes of p have 15 bits at most. Below softMin codes are 0.
var softPoly = [4]float32{0.99992806, 0.69326097, 0.24261113, 0.05517167}

const softMin = -17

// softCode is the code of 2ˣ, x ≤ 0; poly is softPoly times softFactor.
func softCode(x float32, poly *[4]float32) int32 {
	x = max(x, softMin)
	n := nearest(x)
	f := x - n
	y := float32((float32(poly[3]*f)+poly[2])*float32(f*f)) + (float32(poly[1]*f) + poly[0])
	return int32(nearest(math.Float32frombits(math.Float32bits(y) + uint32(int32(n))<<23)))
}

// refCodes quantizes the n values x[0], x[stride], … and returns their scale.
// The squares are summed in so many lanes.
func refCodes(q []int16, x []float32, n, stride, lanes int, norm float32) float32 {
	var m float32
	var s [8]float32
	for i := range n {
		v := x[i*stride]
		m = max(m, v, -v)
		s[i%lanes] += float32(v * v)
	}
	factor, scale := normScale(m, fold8(s), normLimit(n, norm), norm)
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
		codes := func(x []float32, n, stride, lanes int, norm float32) ([]int16, float32) {
			c := make([]int16, n)
			return c, refCodes(c, x, n, stride, lanes, norm)
		}
		for j := range a.T {
			c, s := codes(x[j*a.LDX:], a.D, 1, 8, normMax)
			q, sq = append(q, c), append(sq, s)
			c, s = codes(x[j*a.LDX+w:], a.D, 1, 8, normMax)
			k, sk = append(k, c), append(sk, s)
		}
		for d := range a.D {
			c, s := codes(x[2*w+d:], a.T, a.LDX, 1, valueMax)
			v, sv = append(v, c), append(sv, s)
		}
	}
	p, pq, poly := make([]float32, a.T), make([]int16, a.T), softPoly
	for i := range poly {
		poly[i] *= softFactor(a.T)
	}
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
		var s [8]float32
		var sum int32
		for j := range n {
			if a.Float {
				p[j] = exp2OrZero(p[j] - top)
				s[j%8] += p[j]
			} else {
				code := softCode(p[j]-top, &poly)
				pq[j] = int16(code)
				sum += code
			}
		}
		inv := 1 / (fold8(s) + float32(sum)) // one of the two is 0
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
func (e *emitter) normScale(factor, m, square, limit asm.Expr, norm float32) {
	e.Set(square, asm.F32x4Mul(asm.F32x4Sqrt(square), asm.F32x4Const(1/norm)))
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
		e.Set(s, asm.I32Add(asm.I32Add(p, asm.I32Mul(part, i32(3))), asm.I32Shl(first, i32(2))))
		e.Add(asm.I32Shl(part, i32(1)), k)
		for range 2 { // the queries, then the keys
			e.Set(q, scratch)
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
				e.normScale(factor, m, square, rowLimit, normMax)
				each(func() {
					e.V128Store(q, 0, codes(asm.V128Load(x, 0), asm.V128Load(x, 16), factor, factor, magic))
					e.Bump(16, q)
				})
				e.F32Store(s, 0, asm.F32x4Lane(0, m))
				e.Bump(4, s)
			})
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
			e.Set(k, asm.I32Add(p, asm.I32Mul(asm.I32Shl(first, i32(1)), d)))
			e.Add(w, base)
			e.Set(s, asm.I32Add(s, asm.I32Sub(asm.I32Shl(t8, i32(2)), i32(32))))
		}
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
		e.normScale(factor, m, square, columnLimit, valueMax)
		e.normScale(factor1, m1, square1, columnLimit, valueMax)
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
		scale, factor := e.splat(11), e.splat(12)
		firstTile, tiles := e.arg(13), e.arg(14)
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
		sumEnd := e.Local(asm.I32)
		aEnd, sum, seen, p := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
		top := e.Local(asm.V128)
		acc, b0, b1, av := e.Locals(asm.V128, 2*tileRows), e.Local(asm.V128), e.Local(asm.V128), e.Local(asm.V128)
		var softmax func(s, end, top asm.Expr) asm.Expr
		if float {
			softmax = e.softmax()
		} else {
			softmax = e.softmaxCodes(factor)
		}

		mac := func(acc, a, b asm.Expr) asm.Expr {
			if float {
				return mulAdd(a, b, acc)
			}
			return asm.I32x4Add(acc, asm.I32x4DotI16x8S(a, b))
		}
		// tile is acc[r] = Σ a[r]·b, aBytes of the first a, by so many steps of
		// four bytes of a row, after each of which a row's place in memory is step
		// bytes on. Of one pointer, rows are row bytes apart.
		tile := func(a []asm.Expr, aBytes asm.Expr, steps int, step, row uint32) {
			for i := range acc {
				e.Set(acc[i], asm.I32x4Const(0))
			}
			e.Set(aEnd, asm.I32Add(a[0], aBytes))
			e.While(asm.I32LtU(a[0], aEnd), func() {
				for i := range uint32(steps) {
					e.Set(b0, asm.V128Load(b, 32*i))
					e.Set(b1, asm.V128Load(b, 32*i+16))
					for r := range tileRows {
						if len(a) == 1 {
							e.Set(av, asm.V128Load32Splat(a[0], step*i+row*uint32(r)))
						} else {
							e.Set(av, asm.V128Load32Splat(a[r], step*i))
						}
						e.Set(acc[2*r], mac(acc[2*r], av, b0))
						e.Set(acc[2*r+1], mac(acc[2*r+1], av, b1))
					}
				}
				e.Bump(int32(step)*int32(steps), a...)
				e.Bump(int32(32*steps), b)
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
		const sumScale, scoreScale, topAt = 0, 4 * tileRows, 8 * tileRows
		tops := e.Locals(asm.V128, tileRows)

		e.For(unit, end, 1, func() {
			e.Set(head, asm.I32DivU(unit, tiles))
			e.Set(row[0], asm.I32Shl(asm.I32Add(firstTile, asm.I32Sub(unit, asm.I32Mul(head, tiles))), i32(2)))
			e.Set(k, asm.I32Add(pack, asm.I32Mul(head, headLen)))
			e.Set(v, asm.I32Add(k, part))
			e.Set(limit, t)
			e.If(causal, func() { e.Set(limit, asm.I32Add(row[0], i32(tileRows))) })
			e.If(asm.I32LtS(t, limit), func() { e.Set(limit, t) })
			if !float {
				e.Set(b, asm.I32Add(v, part)) // queries, a panel's front or back half
				e.Set(sq, asm.I32Add(b, part))
				e.Set(sk, asm.I32Add(sq, sBytes))
				e.Set(sv, asm.I32Add(sk, sBytes))
				e.Set(q[0], asm.I32Add(asm.I32Add(b, asm.I32Mul(asm.I32And(row[0], i32(-8)), asm.I32Shl(d, i32(1)))), asm.I32Shl(asm.I32And(row[0], i32(4)), i32(2))))
			}
			e.clampedRows(row, e.let(row[0]), last)
			e.Set(head, asm.I32Mul(head, dBytes))
			for r := range row {
				e.Set(y[r], asm.I32Add(y0, asm.I32Add(head, asm.I32Mul(row[r], ldy))))
				if float {
					e.Set(q[r], asm.I32Add(x0, asm.I32Add(head, asm.I32Mul(row[r], ldx))))
					e.F32Store(scratch, uint32(scoreScale+4*r), asm.F32x4Lane(0, scale))
				} else {
					e.F32Store(scratch, uint32(scoreScale+4*r), asm.F32Mul(asm.F32Load(asm.I32Add(sq, asm.I32Shl(row[r], i32(2))), 0), asm.F32x4Lane(0, scale)))
				}
			}

			// Scores, a panel of eight keys at a time.
			e.Set(b, k)
			e.Set(s, scores)
			for r := range tops {
				e.Set(tops[r], asm.F32x4Const(-math.MaxFloat32))
			}
			e.Set(cols, i32(0))
			e.For(cols, limit, 8, func() {
				if float {
					for r := range a {
						e.Set(a[r], q[r])
					}
					tile(a, dBytes, 1, 4, 0)
				} else {
					e.Set(a[0], q[0])
					tile(a[:1], asm.I32Shl(dBytes, i32(2)), 4, 32, 4)
				}
				for i := range acc {
					e.Set(acc[i], scaled(i, scoreScale, sk))
					e.V128Store(s, uint32(i/2*scoreRow+i%2*16), acc[i])
				}
				for r := range tops {
					e.Set(tops[r], asm.F32x4PMax(tops[r], asm.F32x4PMax(acc[2*r], acc[2*r+1])))
				}
				e.Bump(32, s, sk)
			})
			for r := range tops {
				e.V128Store(scratch, uint32(topAt+16*r), tops[r])
			}

			// Softmax, not yet divided by its sum: row after row.
			e.Set(s, scores)
			e.Set(sum, scratch)
			e.Set(seen, limit)
			e.If(causal, func() { e.Set(seen, asm.I32Add(row[0], i32(1))) })
			e.Set(sumEnd, asm.I32Add(scratch, i32(scoreScale)))
			e.While(asm.I32LtU(sum, sumEnd), func() {
				e.Set(sEnd, asm.I32Add(s, asm.I32Shl(cols, i32(2))))
				e.Set(p, asm.I32Add(s, asm.I32Shl(seen, i32(2))))
				e.While(asm.I32LtU(p, sEnd), func() { // keys that this row does not see
					e.F32Store(p, 0, asm.F32Const(-math.MaxFloat32))
					e.Bump(4, p)
				})
				e.If(asm.I32LtS(seen, limit), func() { e.Bump(1, seen) })
				// sums lie four bytes apart, tops sixteen
				e.Set(top, asm.V128Load(asm.I32Add(scratch, asm.I32Shl(asm.I32Sub(sum, scratch), i32(2))), topAt))
				e.If(causal, func() { // of those that it sees
					e.Set(top, asm.F32x4Const(-math.MaxFloat32))
					e.Set(p, s)
					e.While(asm.I32LtU(p, sEnd), func() {
						e.Set(top, asm.F32x4PMax(top, asm.V128Load(p, 0)))
						e.Bump(16, p)
					})
				})
				e.reduce(top, b0, asm.F32x4PMax)
				e.Set(top, asm.F32x4Splat(asm.F32x4Lane(0, top)))
				e.F32Store(sum, 0, asm.F32Div(asm.F32Const(1), softmax(s, sEnd, top)))
				e.Bump(4, sum)
				e.Bump(scoreRow, s)
			})

			// Values, a panel of eight columns at a time.
			e.Set(sEnd, asm.I32Add(y[0], dBytes))
			e.While(asm.I32LtU(y[0], sEnd), func() {
				e.Set(a[0], scores)
				e.Set(b, v)
				if float {
					tile(a[:1], asm.I32Shl(limit, i32(2)), 1, 4, scoreRow)
				} else { // beyond limit codes of p are 0
					tile(a[:1], asm.I32Shl(cols, i32(1)), 4, 4, scoreRow)
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

// softmax returns an emitter of 2^(x - top) over the scores from s to end, in
// place, eight at a time, and of their sum.
func (e *emitter) softmax() func(s, end, top asm.Expr) asm.Expr {
	exp2, least := e.exp2(), e.consts(numeric.Exp2Min)[0]
	p, x, y, mask, sum := e.Local(asm.I32), e.Local(asm.V128), e.Local(asm.V128), e.Local(asm.V128), e.Locals(asm.V128, 2)
	return func(s, end, top asm.Expr) asm.Expr {
		for i := range sum {
			e.Set(sum[i], asm.F32x4Const(0))
		}
		e.Set(p, s)
		e.While(asm.I32LtU(p, end), func() {
			for i := range sum {
				e.Set(x, asm.F32x4Sub(asm.V128Load(p, uint32(16*i)), top))
				e.Set(mask, asm.F32x4Gt(x, least))
				exp2(y, x)
				e.Set(y, asm.V128And(y, mask))
				e.V128Store(p, uint32(16*i), y)
				e.Set(sum[i], asm.F32x4Add(sum[i], y))
			}
			e.Bump(32, p)
		})
		e.Set(sum[0], asm.F32x4Add(sum[0], sum[1]))
		e.reduce(sum[0], x, asm.F32x4Add)
		return asm.F32x4Lane(0, sum[0])
	}
}

// softmaxCodes is softmax whose results are softCodes, one after the other from
// s on.
func (e *emitter) softmaxCodes(factor asm.Expr) func(s, end, top asm.Expr) asm.Expr {
	var poly [len(softPoly)]asm.Expr
	for i, c := range softPoly {
		poly[i] = e.let(asm.F32x4Mul(factor, asm.F32x4Const(c)))
	}
	c, zero := e.consts(nearestMagic, softMin), e.let(asm.I32x4Const(int32(bits(nearestMagic))))
	magic, least := c[0], c[1]
	p, to, n, sq, x, sum := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.V128), e.Local(asm.V128), e.Locals(asm.V128, 2), e.Locals(asm.V128, 2)
	return func(s, end, top asm.Expr) asm.Expr {
		for i := range sum {
			e.Set(sum[i], asm.I32x4Const(0))
		}
		e.Set(p, s)
		e.Set(to, s)
		e.While(asm.I32LtU(p, end), func() {
			for i, x := range x {
				e.Set(x, asm.F32x4PMax(asm.F32x4Sub(asm.V128Load(p, uint32(16*i)), top), least))
				e.Set(n, asm.F32x4Add(x, magic))
				e.Set(x, asm.F32x4Sub(x, asm.F32x4Sub(n, magic)))
				e.Set(sq, asm.F32x4Mul(x, x))
				e.Set(x, mulAdd(mulAdd(poly[3], x, poly[2]), sq, mulAdd(poly[1], x, poly[0])))
				e.Set(x, asm.F32x4Add(asm.I32x4Add(x, asm.I32x4Shl(n, i32(23))), magic))
				e.Set(x, asm.I32x4Sub(x, zero))
				e.Set(sum[i], asm.I32x4Add(sum[i], x))
			}
			e.V128Store(to, 0, asm.I16x8NarrowI32x4S(x[0], x[1]))
			e.Bump(32, p)
			e.Bump(16, to)
		})
		e.Set(sum[0], asm.I32x4Add(sum[0], sum[1]))
		e.reduce(sum[0], n, asm.I32x4Add)
		return asm.F32x4Lane(0, asm.F32x4ConvertI32x4S(sum[0]))
	}
}
