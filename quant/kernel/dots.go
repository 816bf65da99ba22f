package kernel

import "lqa/quant/kernel/asm"

// dotsRows is how many rows of Dots are worked on at once.
const dotsRows = 16

// Dots is numeric.Dot of one row and many: y[n] = Σ_k x[k]·w[n,k], summed from
// k = 0 upwards, one lane a row. GEMMF32 does that too, but its panels are so
// narrow that one row waits for its own sums and not for memory.
//
//	X [K4] float32 (padding zero), W PackDots's panels of [N,K4], Y [N16] float32
type Dots struct {
	X, W, Y uint32
	K, N    int
}

// Append implements Command.
func (c Dots) Append(l List) List {
	return l.add(opDots, c.X, c.W, c.Y, uint32((c.K+3)/4*16), uint32((c.N+dotsRows-1)/dotsRows))
}

// PackDots lays out up to sixteen rows of K as one panel of Dots: for each of K4
// k the rows' values.
func PackDots(rows [][]float32, k int) []float32 {
	out := make([]float32, dotsRows*((k+3)/4*4))
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
	acc, v, lane := e.Locals(asm.V128, dotsRows/4), e.Local(asm.V128), e.Local(asm.V128)
	e.Add(asm.I32Mul(p, asm.I32Shl(k, i32(4))), w)
	e.Add(asm.I32Shl(p, i32(6)), y)
	e.For(p, end, 1, func() {
		for _, a := range acc {
			e.Set(a, asm.F32x4Const(0))
		}
		e.Set(x, x0)
		e.While(asm.I32LtU(x, xEnd), func() {
			e.Set(v, asm.V128Load(x, 0))
			for k := range 4 { // not load32_splat, which is slow in wazero
				b := byte(4 * k)
				e.Set(lane, asm.I8x16Shuffle(v, v, [16]byte{b, b + 1, b + 2, b + 3, b, b + 1, b + 2, b + 3, b, b + 1, b + 2, b + 3, b, b + 1, b + 2, b + 3}))
				for i, a := range acc {
					e.Set(a, mulAdd(asm.V128Load(w, uint32(4*dotsRows*k+16*i)), lane, a))
				}
			}
			e.Bump(16, x)
			e.Bump(16*dotsRows, w)
		})
		for i, a := range acc {
			e.V128Store(y, uint32(16*i), a)
		}
		e.Bump(4*dotsRows, y)
	})
}
