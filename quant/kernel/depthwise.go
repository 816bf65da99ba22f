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

// depthwiseBlocks are how many outputs beside each other are made at once, where
// all their taps lie between the left and the right edge: a row's weights, and
// inputs that several outputs read, are loaded once.
var depthwiseBlocks = []int{4, 2}

func emitDepthwise(kernel, stride int) func(e *emitter) {
	return func(e *emitter) {
		in := e.ints(9)
		x0, w0, y0, pad, height, width, pixel, outH, outW := in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8]
		lo, hi := e.splat(9), e.splat(10)
		rowBytes, tapRow := e.let(asm.I32Mul(width, pixel)), e.let(asm.I32Mul(pixel, i32(kernel)))
		oy, end := e.share(outH)
		ox, iy, ix, c := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
		y, base, taps, rows, cut, columns := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
		x, w, row, wRow, left, k := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
		acc, ws, v := e.Locals(asm.V128, 4), e.Locals(asm.V128, kernel), e.Local(asm.V128)
		mac := func(acc, a, b asm.Expr) { e.Set(acc, asm.F32x4Add(acc, asm.F32x4Mul(a, b))) }

		// inside leaves what of the taps from at on lies in 0..size: how many are
		// cut off before, and how many stay.
		inside := func(at, size, cut, count asm.Expr) {
			e.Set(cut, i32(0))
			e.If(asm.I32LtS(at, i32(0)), func() { e.Set(cut, asm.I32Sub(i32(0), at)) })
			e.Set(count, i32(kernel))
			e.If(asm.I32LtS(asm.I32Sub(size, at), i32(kernel)), func() { e.Set(count, asm.I32Sub(size, at)) })
			e.Set(count, asm.I32Sub(count, cut))
		}
		eachRow := func(body func()) {
			e.Set(left, rows)
			e.While(left, func() {
				e.Set(x, row)
				e.Set(w, wRow)
				body()
				e.Add(rowBytes, row)
				e.Add(tapRow, wRow)
				e.Bump(-1, left)
			})
		}
		// Both forms add an output's taps in the order of the reference.
		block := func(outputs int) { // four channels
			for o := range outputs {
				e.Set(acc[o], asm.V128Load(asm.I32Add(w0, c), 0))
			}
			e.Set(row, asm.I32Add(base, c))
			e.Set(wRow, asm.I32Add(taps, c))
			eachRow(func() {
				for i := range ws {
					e.Set(ws[i], asm.V128Load(w, 0))
					e.Add(pixel, w)
				}
				for column := range kernel + stride*(outputs-1) {
					e.Set(v, asm.V128Load(x, 0))
					for o := range outputs {
						if i := column - stride*o; i >= 0 && i < kernel {
							mac(acc[o], v, ws[i])
						}
					}
					e.Add(pixel, x)
				}
			})
			e.Set(x, asm.I32Add(y, c))
			for o := range outputs {
				e.V128Store(x, 0, clamp(acc[o], lo, hi))
				e.Add(pixel, x)
			}
		}
		one := func() { // eight channels, of the taps that are inside
			for h := range 2 {
				e.Set(acc[h], asm.V128Load(asm.I32Add(w0, c), uint32(16*h)))
			}
			e.Set(row, asm.I32Add(asm.I32Add(base, c), asm.I32Mul(cut, pixel)))
			e.Set(wRow, asm.I32Add(asm.I32Add(taps, c), asm.I32Mul(cut, pixel)))
			eachRow(func() {
				e.Set(k, columns)
				e.While(asm.I32GtS(k, i32(0)), func() {
					for h := range uint32(2) {
						mac(acc[h], asm.V128Load(x, 16*h), asm.V128Load(w, 16*h))
					}
					e.Add(pixel, x, w)
					e.Bump(-1, k)
				})
			})
			for h := range 2 {
				e.V128Store(asm.I32Add(y, c), uint32(16*h), clamp(acc[h], lo, hi))
			}
		}
		advance := func(outputs int) {
			e.Add(asm.I32Mul(pixel, i32(outputs)), y)
			e.Add(asm.I32Mul(pixel, i32(outputs*stride)), base)
			e.Bump(int32(outputs), ox)
			e.Bump(int32(outputs*stride), ix)
		}

		e.For(oy, end, 1, func() {
			e.Set(y, asm.I32Add(y0, asm.I32Mul(asm.I32Mul(oy, outW), pixel)))
			e.Set(iy, asm.I32Sub(asm.I32Mul(oy, i32(stride)), pad))
			inside(iy, height, cut, rows)
			e.Set(taps, asm.I32Add(asm.I32Add(w0, pixel), asm.I32Mul(cut, tapRow)))
			e.Set(ix, asm.I32Sub(i32(0), pad))
			e.Set(base, asm.I32Add(x0, asm.I32Add(asm.I32Mul(asm.I32Add(iy, cut), rowBytes), asm.I32Mul(ix, pixel))))
			e.Set(ox, i32(0))
			e.While(asm.I32LtS(ox, outW), func() {
				for _, n := range depthwiseBlocks {
					fits := asm.I32And(asm.I32LeS(asm.I32Add(ox, i32(n)), outW),
						asm.I32And(asm.I32GeS(ix, i32(0)), asm.I32LeS(asm.I32Add(ix, i32(kernel+stride*(n-1))), width)))
					e.While(fits, func() {
						e.Set(c, i32(0))
						e.For(c, pixel, 16, func() { block(n) })
						advance(n)
					})
				}
				e.If(asm.I32LtS(ox, outW), func() {
					inside(ix, width, cut, columns)
					e.Set(c, i32(0))
					e.For(c, pixel, 32, one)
					advance(1)
				})
			})
		})
	}
}
