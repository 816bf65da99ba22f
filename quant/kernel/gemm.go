package kernel

import (
	"lqa/quant/kernel/asm"
	"lqa/quant/qtype"
)

// tileRows is the height of the float GEMM's tile: four rows by eight columns
// keep eight accumulators, two weights and an activation in registers.
const tileRows = 4

// rowTiles runs tile over M rows, so many at a time, or one less in some tiles
// so that none is left: a row by itself takes most of a tile's time. Where M is
// too small for that, what is left goes one at a time.
func (e *emitter) rowTiles(m asm.Expr, rows int, tile func(rows int)) {
	left := e.let(m)
	tiles := e.let(asm.I32DivU(asm.I32Add(m, i32(rows-1)), i32(rows)))
	full := e.let(asm.I32Sub(tiles, asm.I32Sub(asm.I32Mul(tiles, i32(rows)), m)))
	e.If(asm.I32LtS(full, i32(0)), func() { e.Set(full, asm.I32DivU(m, i32(rows))) })
	e.While(full, func() {
		tile(rows)
		e.Bump(int32(-rows), left)
		e.Bump(-1, full)
	})
	if less := rows - 1; less > 1 {
		e.While(asm.I32GeS(left, i32(less)), func() {
			tile(less)
			e.Bump(int32(-less), left)
		})
	}
	e.While(left, func() {
		tile(1)
		e.Bump(-1, left)
	})
}

// manyRows is from where on a GEMM is cut into threads' shares by rows: layers
// of so many have few panels, and cutting 3 in two leaves one thread waiting.
const manyRows = 256

// cut gives this thread's share of a GEMM: panels from p to end, and count rows
// from first on.
func (e *emitter) cut(panels, m asm.Expr) (p, end, first, count asm.Expr) {
	p, end = e.share(panels)
	first, count = e.Local(asm.I32), e.let(m)
	e.If(asm.I32And(asm.I32GtS(m, i32(manyRows-1)), asm.I32GtS(e.n, i32(1))), func() {
		e.Set(p, i32(0))
		e.Set(end, panels)
		from, to := e.share(m)
		e.Set(first, from)
		e.Set(count, asm.I32Sub(to, from))
	})
	return p, end, first, count
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
	panelBytes := e.let(asm.I32Shl(asm.I32Add(k, i32(1)), i32(5)))
	kBytes := e.let(asm.I32Shl(k, i32(2)))
	rows, maxPanels := tileRows, 1
	if e.path.AFirst {
		rows, maxPanels = e.path.Rows, e.path.Panels
	}
	p, end, first, count := e.cut(panels, m)
	w0, wp, aEnd := e.Local(asm.I32), e.Locals(asm.I32, maxPanels), e.Local(asm.I32)
	a, y := e.Locals(asm.I32, rows), e.Local(asm.I32)
	acc := e.Locals(asm.V128, 2*maxPanels*rows)
	b, av := e.Locals(asm.V128, 2*maxPanels), e.Locals(asm.V128, rows)

	tile := func(rows, n int) {
		nv := 2 * n
		for r := 1; r < rows; r++ {
			e.Set(a[r], asm.I32Add(a[r-1], lda))
		}
		for i := range rows * nv {
			e.Set(acc[i], asm.F32x4Const(0))
		}
		e.Set(wp[0], w0)
		for j := 1; j < n; j++ {
			e.Set(wp[j], asm.I32Add(wp[j-1], panelBytes))
		}
		e.Set(aEnd, asm.I32Add(a[0], kBytes))
		load := func(v int) asm.Expr { return asm.V128Load(wp[v/2], uint32(32+v%2*16)) }
		mac := func(r, v int, a, b asm.Expr) { e.Set(acc[r*nv+v], mulAdd(a, b, acc[r*nv+v])) }
		e.While(asm.I32LtU(a[0], aEnd), func() {
			if e.path.AFirst {
				for r := range rows {
					e.Set(av[r], asm.V128Load32Splat(a[r], 0))
				}
				for v := range nv {
					e.Set(b[0], load(v))
					for r := range rows {
						mac(r, v, av[r], b[0])
					}
				}
			} else {
				for v := range nv {
					e.Set(b[v], load(v))
				}
				for r := range rows {
					e.Set(av[0], asm.V128Load32Splat(a[r], 0))
					for v := range nv {
						mac(r, v, av[0], b[v])
					}
				}
			}
			e.Bump(4, a[:rows]...)
			e.Bump(32, wp[:n]...)
		})
		e.Set(wp[0], w0) // the biases
		for j := 1; j < n; j++ {
			e.Set(wp[j], asm.I32Add(wp[j-1], panelBytes))
		}
		for r := range rows {
			for v := range nv {
				e.V128Store(y, uint32(16*v), clamp(asm.F32x4Add(acc[r*nv+v], asm.V128Load(wp[v/2], uint32(v%2*16))), lo, hi))
			}
			e.Add(ldy, y)
		}
		e.Set(a[0], asm.I32Add(asm.I32Sub(a[rows-1], kBytes), lda))
	}
	for n := maxPanels; n > 0; n-- {
		e.While(asm.I32LeS(asm.I32Add(p, i32(n)), end), func() {
			e.Set(w0, asm.I32Add(w, asm.I32Mul(p, panelBytes)))
			e.Set(a[0], asm.I32Add(a0, asm.I32Mul(first, lda)))
			e.Set(y, asm.I32Add(y0, asm.I32Add(asm.I32Mul(first, ldy), asm.I32Shl(p, i32(5)))))
			e.rowTiles(count, rows, func(rows int) { tile(rows, n) })
			e.Bump(int32(n), p)
		})
	}
}
