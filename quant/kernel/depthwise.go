package kernel

import "lqa/quant/kernel/asm"

// Depthwise is a depthwise convolution, each channel with its own filter:
//
//	y[o,c] = clamp(bias[c] + Σ_ky Σ_kx x[i(o,ky,kx),c]·w[ky,kx,c], Lo, Hi)
//
// with i(o,ky,kx) = Stride·o + k - Pad in both directions; taps outside the
// picture are left out. Padding after the picture follows from OutH and OutW.
//
//	X [H][W][C8], W [1 + Kernel²][C8] (biases, then taps), Y [OutH][OutW][C8], all float32
type Depthwise struct {
	X, W, Y             uint32
	Kernel, Stride, Pad int
	Height, Width, C    int
	OutHeight, OutWidth int
	Lo, Hi              float32
}

// Append implements Command.
func (c Depthwise) Append(l List) List {
	op := map[[2]int]Op{{3, 1}: opDepthwise3s1, {3, 2}: opDepthwise3s2, {5, 1}: opDepthwise5s1, {5, 2}: opDepthwise5s2}[[2]int{c.Kernel, c.Stride}]
	if op == opEnd {
		panic("kernel: no depthwise kernel of this size and stride")
	}
	return l.add(op, c.X, c.W, c.Y, uint32(c.Pad), uint32(c.Height), uint32(c.Width), uint32((c.C+7)/8*32),
		uint32(c.OutHeight), uint32(c.OutWidth), bits(c.Lo), bits(c.Hi))
}

// RefDepthwise defines Depthwise; c8 is the channel stride.
func RefDepthwise(y, x, w []float32, c Depthwise) {
	c8 := (c.C + 7) / 8 * 8
	for oy := range c.OutHeight {
		for ox := range c.OutWidth {
			for ch := range c8 {
				acc := w[ch]
				for ky := range c.Kernel {
					iy := oy*c.Stride + ky - c.Pad
					if iy < 0 || iy >= c.Height {
						continue
					}
					for kx := range c.Kernel {
						ix := ox*c.Stride + kx - c.Pad
						if ix < 0 || ix >= c.Width {
							continue
						}
						acc += float32(x[(iy*c.Width+ix)*c8+ch] * w[(1+ky*c.Kernel+kx)*c8+ch])
					}
				}
				y[(oy*c.OutWidth+ox)*c8+ch] = refClamp(acc, c.Lo, c.Hi)
			}
		}
	}
}

func emitDepthwise(kernel, stride int) func(e *emitter) {
	return func(e *emitter) {
		in := e.ints(9)
		x0, w0, y0, pad, height, width, pixel, outH, outW := in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8]
		lo, hi := e.splat(9), e.splat(10)
		rowBytes := e.let(asm.I32Mul(width, pixel))
		oy, end := e.share(outH)
		ox, iy, ix := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
		y, c, base, w := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
		tap, ky, kx, row := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
		acc0, acc1 := e.Local(asm.V128), e.Local(asm.V128)

		begin := func() { // accumulators start at the bias
			e.Set(w, asm.I32Add(w0, c))
			e.Set(acc0, asm.V128Load(w, 0))
			e.Set(acc1, asm.V128Load(w, 16))
		}
		mac := func(addr asm.Expr) {
			e.Add(pixel, w) // the weights of the next tap lie one channel stride on
			e.Set(acc0, asm.F32x4Add(acc0, asm.F32x4Mul(asm.V128Load(addr, 0), asm.V128Load(w, 0))))
			e.Set(acc1, asm.F32x4Add(acc1, asm.F32x4Mul(asm.V128Load(addr, 16), asm.V128Load(w, 16))))
		}
		finish := func() {
			e.V128Store(y, 0, clamp(acc0, lo, hi))
			e.V128Store(y, 16, clamp(acc1, lo, hi))
			e.Bump(32, y)
		}
		inside := func(v, limit asm.Expr) asm.Expr { // 0 ≤ v < limit, unsigned
			return asm.I32LtU(v, limit)
		}

		e.For(oy, end, 1, func() {
			e.Set(y, asm.I32Add(y0, asm.I32Mul(asm.I32Mul(oy, outW), pixel)))
			e.Set(iy, asm.I32Sub(asm.I32Mul(oy, i32(stride)), pad))
			e.Set(ox, i32(0))
			e.For(ox, outW, 1, func() {
				e.Set(ix, asm.I32Sub(asm.I32Mul(ox, i32(stride)), pad))
				e.Set(base, asm.I32Add(x0, asm.I32Add(asm.I32Mul(iy, rowBytes), asm.I32Mul(ix, pixel))))
				e.Set(c, i32(0))
				interior := asm.I32And(
					asm.I32And(asm.I32GeS(iy, i32(0)), asm.I32LeS(asm.I32Add(iy, i32(kernel)), height)),
					asm.I32And(asm.I32GeS(ix, i32(0)), asm.I32LeS(asm.I32Add(ix, i32(kernel)), width)))
				e.If(interior, func() {
					e.For(c, pixel, 32, func() {
						begin()
						e.Set(row, asm.I32Add(base, c))
						for range kernel {
							e.Set(tap, row)
							for i := range kernel {
								if i > 0 {
									e.Add(pixel, tap)
								}
								mac(tap)
							}
							e.Add(rowBytes, row)
						}
						finish()
					})
				}, func() {
					e.For(c, pixel, 32, func() {
						begin()
						e.Set(row, asm.I32Add(base, c))
						e.Set(ky, i32(0))
						e.For(ky, i32(kernel), 1, func() {
							e.Set(tap, row)
							e.Set(kx, i32(0))
							e.For(kx, i32(kernel), 1, func() {
								e.If(asm.I32And(inside(asm.I32Add(iy, ky), height), inside(asm.I32Add(ix, kx), width)),
									func() { mac(tap) },
									func() { e.Add(pixel, w) })
								e.Add(pixel, tap)
							})
							e.Add(rowBytes, row)
						})
						finish()
					})
				})
			})
		})
	}
}
