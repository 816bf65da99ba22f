package kernel

import "lqa/quant/kernel/asm"

// dotsRows is how many rows of Dots are worked on at once.
const dotsRows = 16

// Dots is numeric.Dot of one row and many: y[n] = Σ_k x[k]·w[n,k], summed from
// k = 0 upwards, one lane a row. GEMMF32 does that too, but its panels are so
// narrow that one row waits for its own sums and not for memory.
//
//	X [K] float32, W PackDots's panels of [N,K], Y [N16] float32
type Dots struct {
	X, W, Y uint32
	K, N    int
}

// Append implements Command.
func (c Dots) Append(l List) List {
	return l.add(opDots, c.X, c.W, c.Y, uint32(4*c.K), uint32((c.N+dotsRows-1)/dotsRows))
}

// PackDots lays out up to sixteen rows of K as one panel of Dots: for each k
// the rows' values.
func PackDots(rows [][]float32, k int) []float32 {
	out := make([]float32, dotsRows*k)
	for r, row := range rows {
		for i, v := range row {
			out[dotsRows*i+r] = v
		}
	}
	return out
}

func emitDots(e *emitter) {
	in := e.ints(5)
	x0, w, y, k, panels := in[0], in[1], in[2], in[3], in[4]
	p, end := e.share(panels)
	x, xEnd := e.Local(asm.I32), e.let(asm.I32Add(x0, k))
	acc, v := e.Locals(asm.V128, dotsRows/4), e.Local(asm.V128)
	e.Add(asm.I32Mul(p, asm.I32Shl(k, i32(4))), w)
	e.Add(asm.I32Shl(p, i32(6)), y)
	e.For(p, end, 1, func() {
		for _, a := range acc {
			e.Set(a, asm.F32x4Const(0))
		}
		e.Set(x, x0)
		e.While(asm.I32LtU(x, xEnd), func() {
			e.Set(v, asm.V128Load32Splat(x, 0))
			for i, a := range acc {
				e.Set(a, mulAdd(asm.V128Load(w, uint32(16*i)), v, a))
			}
			e.Bump(4, x)
			e.Bump(4*dotsRows, w)
		})
		for i, a := range acc {
			e.V128Store(y, uint32(16*i), a)
		}
		e.Bump(4*dotsRows, y)
	})
}
