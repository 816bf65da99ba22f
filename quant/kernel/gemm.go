package kernel

import (
	"lqa/quant/kernel/asm"
	"lqa/quant/qtype"
)

// tileRows is the height of the GEMM tile: four rows by eight columns keep
// eight accumulators, two weights and an activation in registers.
const tileRows = 4

// rowTiles runs tile over M rows, four at a time, then one at a time.
func (e *emitter) rowTiles(m asm.Expr, tile func(rows int)) {
	left := e.let(m)
	e.While(asm.I32GeS(left, i32(tileRows)), func() {
		tile(tileRows)
		e.Bump(-tileRows, left)
	})
	e.While(left, func() {
		tile(1)
		e.Bump(-1, left)
	})
}

// GEMMF32 is y[m,n] = clamp(Σ_k a[m,k]·w[n,k] + bias[n], Lo, Hi), summed from
// k = 0 upwards: layers that keep their precision.
//
//	A [M] rows of K float32, LDA floats apart    W PackF32's panels of [N,K]
//	Y [M] rows of N8 float32, LDY floats apart
type GEMMF32 struct {
	A, W, Y           uint32
	M, K, N, LDA, LDY int
	Lo, Hi            float32
}

// Append implements Command.
func (c GEMMF32) Append(l List) List {
	return l.add(opGEMMF32, c.A, c.W, c.Y, uint32(c.M), uint32(c.K), uint32((c.N+7)/8),
		uint32(c.LDA*4), uint32(c.LDY*4), bits(c.Lo), bits(c.Hi))
}

// PackF32 lays out w [N,K] and bias [N] for GEMMF32: per panel of eight
// columns the biases, then for each k the eight weights.
func PackF32(w, bias []float32, n, k int) []float32 {
	out := make([]float32, PackedF32Len(n, k))
	for c := range n {
		p := out[c/8*8*(k+1)+c%8:]
		p[0] = bias[c]
		for i := range k {
			p[8*(i+1)] = w[c*k+i]
		}
	}
	return out
}

// PackedF32Len is the length of PackF32's result.
func PackedF32Len(n, k int) int { return qtype.RoundUp(n, 8) * (k + 1) }

// RefGEMMF32 defines GEMMF32 for packed weights.
func RefGEMMF32(y, a, packed []float32, m, k, n, lda, ldy int, lo, hi float32) {
	for r := range m {
		for c := range qtype.RoundUp(n, 8) {
			p := packed[c/8*8*(k+1)+c%8:]
			var acc float32
			for i := range k {
				acc += float32(a[r*lda+i] * p[8*(i+1)])
			}
			y[r*ldy+c] = refClamp(acc+p[0], lo, hi)
		}
	}
}

func emitGEMMF32(e *emitter) {
	in := e.ints(8)
	a0, w, y0, m, k, panels, lda, ldy := in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7]
	lo, hi := e.splat(8), e.splat(9)
	p, end := e.share(panels)
	panelBytes := e.let(asm.I32Shl(asm.I32Add(k, i32(1)), i32(5)))
	kBytes := e.let(asm.I32Shl(k, i32(2)))
	wp, w0, aEnd := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	a, y := e.Locals(asm.I32, tileRows), e.Local(asm.I32)
	acc := e.Locals(asm.V128, 2*tileRows)
	b0, b1, av := e.Local(asm.V128), e.Local(asm.V128), e.Local(asm.V128)

	e.For(p, end, 1, func() {
		e.Set(w0, asm.I32Add(w, asm.I32Mul(p, panelBytes)))
		e.Set(a[0], a0)
		e.Set(y, asm.I32Add(y0, asm.I32Shl(p, i32(5))))
		e.rowTiles(m, func(rows int) {
			for r := 1; r < rows; r++ {
				e.Set(a[r], asm.I32Add(a[r-1], lda))
			}
			for r := range 2 * rows {
				e.Set(acc[r], asm.F32x4Const(0))
			}
			e.Set(wp, w0)
			e.Set(aEnd, asm.I32Add(a[0], kBytes))
			e.While(asm.I32LtU(a[0], aEnd), func() {
				e.Set(b0, asm.V128Load(wp, 32))
				e.Set(b1, asm.V128Load(wp, 48))
				for r := range rows {
					e.Set(av, asm.V128Load32Splat(a[r], 0))
					e.Set(acc[2*r], asm.F32x4Add(acc[2*r], asm.F32x4Mul(av, b0)))
					e.Set(acc[2*r+1], asm.F32x4Add(acc[2*r+1], asm.F32x4Mul(av, b1)))
				}
				e.Bump(4, a[:rows]...)
				e.Bump(32, wp)
			})
			for r := range rows {
				e.V128Store(y, 0, clamp(asm.F32x4Add(acc[2*r], asm.V128Load(w0, 0)), lo, hi))
				e.V128Store(y, 16, clamp(asm.F32x4Add(acc[2*r+1], asm.V128Load(w0, 16)), lo, hi))
				e.Add(ldy, y)
			}
			e.Set(a[0], asm.I32Add(asm.I32Sub(a[rows-1], kBytes), lda))
		})
	})
}

// Quant quantizes each row of x to eight bits with a scale and a zero point
// found from the row: x ≈ zero + scale·q, q in ±127.
//
//	X [M] rows of K float32, LDX floats apart, readable up to K4
//	Q [M][K4] int16 (eight-bit values, widened for dot_i16x8)
//	S [M][2] float32: scale, zero
type Quant struct {
	X, Q, S   uint32
	M, K, LDX int
}

// Append implements Command.
func (c Quant) Append(l List) List {
	return l.add(opQuant, c.X, c.Q, c.S, uint32(c.M), uint32(qtype.RoundUp(c.K, 4)), uint32(c.LDX*4))
}

// quantMin is the least spread of a row that is worth codes: below it the row
// is constant and its zero point says all.
const quantMin = 1e-30

// RefQuant defines Quant for one row of K4 values.
func RefQuant(q []int16, x []float32) (scale, zero float32) {
	lo, hi := x[0], x[0]
	for _, v := range x {
		lo, hi = min(lo, v), max(hi, v)
	}
	zero = float32(0.5*lo) + float32(0.5*hi)
	var inv float32
	if spread := hi - lo; spread > quantMin {
		scale, inv = spread/254, 254/spread
	}
	for i, v := range x {
		q[i] = int16(nearest(refClamp(float32((v-zero)*inv), -127, 127)))
	}
	return scale, zero
}

func emitQuant(e *emitter) {
	in := e.ints(6)
	x0, q0, s0, m, k, ldx := in[0], in[1], in[2], in[3], in[4], in[5]
	row, end := e.share(m)
	x, q, s, xEnd, xEnd8 := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	lo, hi, v := e.Local(asm.V128), e.Local(asm.V128), e.Local(asm.V128)
	scale, zero, inv := e.Local(asm.F32), e.Local(asm.F32), e.Local(asm.F32)
	fLo, fHi := e.Local(asm.F32), e.Local(asm.F32)
	zeros, invs := e.Local(asm.V128), e.Local(asm.V128)

	code := func(v asm.Expr) asm.Expr {
		v = asm.F32x4Mul(asm.F32x4Sub(v, zeros), invs)
		v = clamp(v, asm.F32x4Const(-127), asm.F32x4Const(127))
		return asm.I32x4TruncSatF32x4S(asm.F32x4Nearest(v))
	}
	e.Set(q, asm.I32Add(q0, asm.I32Shl(asm.I32Mul(row, k), i32(1))))
	e.For(row, end, 1, func() {
		e.Set(x, asm.I32Add(x0, asm.I32Mul(row, ldx)))
		e.Set(xEnd, asm.I32Add(x, asm.I32Shl(k, i32(2))))
		e.Set(lo, asm.V128Load(x, 0))
		e.Set(hi, lo)
		e.While(asm.I32LtU(x, xEnd), func() {
			e.Set(v, asm.V128Load(x, 0))
			e.Set(lo, asm.F32x4PMin(lo, v))
			e.Set(hi, asm.F32x4PMax(hi, v))
			e.Bump(16, x)
		})
		e.reduce(lo, v, asm.F32x4PMin)
		e.reduce(hi, v, asm.F32x4PMax)
		e.Set(fLo, asm.F32x4Lane(0, lo))
		e.Set(fHi, asm.F32x4Lane(0, hi))
		e.Set(zero, asm.F32Add(asm.F32Mul(asm.F32Const(0.5), fLo), asm.F32Mul(asm.F32Const(0.5), fHi)))
		e.Set(fHi, asm.F32Sub(fHi, fLo))
		e.Set(scale, asm.F32Const(0))
		e.Set(inv, asm.F32Const(0))
		e.If(asm.F32Gt(fHi, asm.F32Const(quantMin)), func() {
			e.Set(scale, asm.F32Div(fHi, asm.F32Const(254)))
			e.Set(inv, asm.F32Div(asm.F32Const(254), fHi))
		})
		e.Set(zeros, asm.F32x4Splat(zero))
		e.Set(invs, asm.F32x4Splat(inv))

		e.Set(x, asm.I32Add(x0, asm.I32Mul(row, ldx)))
		e.Set(xEnd8, asm.I32Sub(xEnd, i32(16)))
		e.While(asm.I32LtU(x, xEnd8), func() {
			e.V128Store(q, 0, asm.I16x8NarrowI32x4S(code(asm.V128Load(x, 0)), code(asm.V128Load(x, 16))))
			e.Bump(32, x)
			e.Bump(16, q)
		})
		e.If(asm.I32LtU(x, xEnd), func() { // K4 is an odd number of fours
			e.Set(v, code(asm.V128Load(x, 0)))
			e.V128Store64Lane(q, 0, asm.I16x8NarrowI32x4S(v, v), 0)
			e.Bump(8, q)
		})
		e.Set(s, asm.I32Add(s0, asm.I32Shl(row, i32(3))))
		e.F32Store(s, 0, scale)
		e.F32Store(s, 4, zero)
	})
}

// reduce folds the four lanes of v with op: op(op(v0, v2), op(v1, v3)), left
// in lane 0; t is clobbered.
func (e *emitter) reduce(v, t asm.Expr, op func(a, b asm.Expr) asm.Expr) {
	e.Set(t, asm.I8x16Shuffle(v, v, [16]byte{8, 9, 10, 11, 12, 13, 14, 15}))
	e.Set(v, op(v, t))
	e.Set(t, asm.I8x16Shuffle(v, v, [16]byte{4, 5, 6, 7}))
	e.Set(v, op(v, t))
}

// GEMMQ8C multiplies quantized rows with q8c weights and finishes in float32:
//
//	y[m,n] = clamp(((Σ_k q[m,k]·c[n,k])·(scale[m]·s[n]) + zero[m]·sum[n]) + bias[n], Lo, Hi)
//	         with sum[n] = s[n]·Σ_k c[n,k]
//
// The integer sum is exact: |q·c| ≤ 127², so K may be up to 133,000.
//
//	Q, S as Quant writes them       W qtype.Q8C's codes of [N,K]
//	Cols PackCols' panels           Y [M] rows of N8 float32, LDY floats apart
//	Scratch 16·K4 bytes a thread
type GEMMQ8C struct {
	Q, S, W, Cols, Y, Scratch uint32
	M, K, N, LDY              int
	Lo, Hi                    float32
}

// Append implements Command.
func (c GEMMQ8C) Append(l List) List {
	return l.add(opGEMMQ8C, c.Q, c.S, c.W, c.Cols, c.Y, c.Scratch,
		uint32(c.M), uint32(qtype.RoundUp(c.K, 4)), uint32((c.N+7)/8), uint32(c.LDY*4), bits(c.Lo), bits(c.Hi))
}

// PackCols lays out what the epilogue of GEMMQ8C needs: per panel eight
// scales, eight weight sums, eight biases.
func PackCols(codes []byte, scales, bias []float32, n, k int) []float32 {
	out := make([]float32, PackedColsLen(n))
	for c := range n {
		var sum int32
		for i := range k {
			sum += int32(int8(codes[qtype.PanelIndex(c, i, k)]))
		}
		p := out[c/8*24+c%8:]
		p[0], p[8], p[16] = scales[c], scales[c]*float32(sum), bias[c]
	}
	return out
}

// PackedColsLen is the length of PackCols' result.
func PackedColsLen(n int) int { return qtype.RoundUp(n, 8) * 3 }

// RefGEMMQ8C defines GEMMQ8C.
func RefGEMMQ8C(y []float32, q []int16, s []float32, codes []byte, cols []float32, m, k, n, ldy int, lo, hi float32) {
	k4 := qtype.RoundUp(k, 4)
	for r := range m {
		for c := range qtype.RoundUp(n, 8) {
			var acc int32
			for i := range k4 {
				acc += int32(q[r*k4+i]) * int32(int8(codes[qtype.PanelIndex(c, i, k)]))
			}
			p := cols[c/8*24+c%8:]
			v := float32(float32(acc) * float32(s[2*r]*p[0]))
			v = v + float32(s[2*r+1]*p[8])
			y[r*ldy+c] = refClamp(v+p[16], lo, hi)
		}
	}
}

// pairUp brings the low halves of four columns' k4 groups together: k 0 and 1
// of columns 0..3, then k 2 and 3.
var pairUp = [16]byte{0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15}

// stepUnroll is how many k4 steps the inner loop of GEMMQ8C holds.
const stepUnroll = 4

func emitGEMMQ8C(e *emitter) {
	in := e.ints(10)
	q0, s0, w, cols, y0, scratch0, m, k, panels, ldy := in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8], in[9]
	lo, hi := e.splat(10), e.splat(11)
	p, end := e.share(panels)
	scratch := e.let(asm.I32Add(scratch0, asm.I32Mul(e.tid, asm.I32Shl(k, i32(4)))))
	rowBytes := e.let(asm.I32Shl(k, i32(1)))
	mainBytes := e.let(asm.I32And(rowBytes, i32(-8*stepUnroll)))
	wp, wEnd, bp, aEnd, s, col := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	a, y := e.Locals(asm.I32, tileRows), e.Local(asm.I32)
	acc := e.Locals(asm.V128, 2*tileRows)
	b0, b1, av := e.Local(asm.V128), e.Local(asm.V128), e.Local(asm.V128)

	e.For(p, end, 1, func() {
		// Widen the panel once; all row tiles read it from the scratch.
		e.Set(wp, asm.I32Add(w, asm.I32Mul(p, asm.I32Shl(k, i32(3)))))
		e.Set(wEnd, asm.I32Add(wp, asm.I32Shl(k, i32(3))))
		e.Set(bp, scratch)
		e.While(asm.I32LtU(wp, wEnd), func() {
			e.Set(b0, asm.V128Load(wp, 0))
			e.Set(b0, asm.I8x16Shuffle(b0, b0, pairUp))
			e.Set(b1, asm.V128Load(wp, 16))
			e.Set(b1, asm.I8x16Shuffle(b1, b1, pairUp))
			e.V128Store(bp, 0, asm.I16x8ExtendLowI8x16S(b0))
			e.V128Store(bp, 16, asm.I16x8ExtendLowI8x16S(b1))
			e.V128Store(bp, 32, asm.I16x8ExtendHighI8x16S(b0))
			e.V128Store(bp, 48, asm.I16x8ExtendHighI8x16S(b1))
			e.Bump(32, wp)
			e.Bump(64, bp)
		})
		e.Set(col, asm.I32Add(cols, asm.I32Mul(p, i32(96))))
		e.Set(a[0], q0)
		e.Set(s, s0)
		e.Set(y, asm.I32Add(y0, asm.I32Shl(p, i32(5))))
		e.rowTiles(m, func(rows int) {
			for r := 1; r < rows; r++ {
				e.Set(a[r], asm.I32Add(a[r-1], rowBytes))
			}
			for r := range 2 * rows {
				e.Set(acc[r], asm.I32x4Const(0))
			}
			steps := func(n int) {
				for pair := range 2 * n {
					e.Set(b0, asm.V128Load(bp, uint32(32*pair)))
					e.Set(b1, asm.V128Load(bp, uint32(32*pair+16)))
					for r := range rows {
						e.Set(av, asm.V128Load32Splat(a[r], uint32(4*pair)))
						e.Set(acc[2*r], asm.I32x4Add(acc[2*r], asm.I32x4DotI16x8S(av, b0)))
						e.Set(acc[2*r+1], asm.I32x4Add(acc[2*r+1], asm.I32x4DotI16x8S(av, b1)))
					}
				}
				e.Bump(int32(8*n), a[:rows]...)
				e.Bump(int32(64*n), bp)
			}
			e.Set(bp, scratch)
			e.Set(aEnd, asm.I32Add(a[0], mainBytes))
			e.While(asm.I32LtU(a[0], aEnd), func() { steps(stepUnroll) })
			e.Set(aEnd, asm.I32Add(asm.I32Sub(aEnd, mainBytes), rowBytes))
			e.While(asm.I32LtU(a[0], aEnd), func() { steps(1) })
			for r := range rows {
				e.Set(av, asm.V128Load32Splat(s, uint32(8*r)))
				e.Set(b0, asm.V128Load32Splat(s, uint32(8*r+4)))
				for h := range 2 {
					o := uint32(16 * h)
					v := asm.F32x4Mul(asm.F32x4ConvertI32x4S(acc[2*r+h]), asm.F32x4Mul(av, asm.V128Load(col, o)))
					v = asm.F32x4Add(v, asm.F32x4Mul(b0, asm.V128Load(col, 32+o)))
					e.V128Store(y, o, clamp(asm.F32x4Add(v, asm.V128Load(col, 64+o)), lo, hi))
				}
				e.Add(ldy, y)
			}
			e.Bump(int32(8*rows), s)
			e.Set(a[0], a[rows-1])
		})
	})
}
