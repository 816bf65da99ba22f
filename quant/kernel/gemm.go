package kernel

import (
	"lqa/quant/kernel/asm"
	"lqa/quant/qtype"
)

// tileRows is the height of the float GEMM's tile: four rows by eight columns
// keep eight accumulators, two weights and an activation in registers.
const tileRows = 4

// rowTiles runs tile over M rows, so many at a time, then one at a time.
func (e *emitter) rowTiles(m asm.Expr, rows int, tile func(rows int)) {
	left := e.let(m)
	e.While(asm.I32GeS(left, i32(rows)), func() {
		tile(rows)
		e.Bump(int32(-rows), left)
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
		e.rowTiles(m, tileRows, func(rows int) {
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
