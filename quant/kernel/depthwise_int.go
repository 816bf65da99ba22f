package kernel

import (
	"encoding/binary"
	"math"

	"lqa/quant/kernel/asm"
	"lqa/quant/qtype"
)

// DepthwiseCodes is a depthwise convolution between two ReLU6, on codes:
//
//	y[o,c] = round(ReLU6(Σ_ky Σ_kx x[i(o,ky,kx),c]·w[ky,kx,c] + bias[c]))
//
// with i and Pad as in Depthwise; what is outside the picture is zero. Integer
// sums are exact: |x·w| ≤ 127².
//
//	X [H][W][C] r7, C a multiple of 16    W PackDepthwise's bytes
//	Y [OutH][OutW][C]: with Low what QuantLow's Q is, with Starts as QuantLow
//	  writes them; without r16, Quant's Q
//	Scratch DepthwiseScratch bytes a thread
type DepthwiseCodes struct {
	X, W, Y, Starts, Scratch uint32
	Kernel, Stride, Pad      int
	Height, Width, C         int
	OutHeight, OutWidth      int
	Low                      qtype.Low // of the layer that reads Y; Bits 0: q8c
}

// Append implements Command.
func (c DepthwiseCodes) Append(l List) List {
	op := opDepthwiseWide3s1
	var u, p, zero int
	if c.Low.Bits != 0 {
		op, u, p, zero = opDepthwiseCodes3s1, unit(c.Low, c.C), period(c.Low.Bits), c.Low.Zero()
	}
	op += Op(c.Kernel - 3 + c.Stride - 1)
	return l.add(op, c.X, c.W, c.Y, c.Scratch, uint32(c.Pad), uint32(c.Height), uint32(c.Width), uint32(c.C),
		uint32(c.OutHeight), uint32(c.OutWidth), uint32(DepthwiseScratch(c.Kernel, c.Stride, c.OutWidth)),
		c.Starts, uint32(u), uint32(p), uint32(-zero))
}

// DepthwiseScratch is the bytes of scratch that a thread of DepthwiseCodes
// needs: of each column of a row of windows its taps, of 16 channels.
func DepthwiseScratch(kernel, stride, outWidth int) int {
	bytes := 64
	if kernel == 5 {
		bytes = 64 + 64 + 16
	}
	return depthwiseColumns(stride, outWidth)*bytes + 16
}

// depthwiseColumns are those of the widest window and three more.
func depthwiseColumns(stride, outWidth int) int { return (outWidth-1)*stride + 5 + 3 }

// codeRatio is the output's step of weight step and input step: 254/127.
const codeRatio = 2

// PackDepthwise lays out filters of q8r codes [C][Kernel²], scales and biases
// [C] for DepthwiseCodes: per four channels vectors of a channel's four taps,
// then four factors of the integer sum and four addends, in steps of the
// output. A vector holds a column of the window; of a 5×5 one its upper four
// taps, and two more the lowest row.
func PackDepthwise(codes []byte, scales, bias []float32, kernel int) []byte {
	var out []byte
	taps := kernel * kernel
	for c := 0; c < len(scales); c += 4 {
		vectors := func(n int, at func(i, j int) (y, x int)) {
			for i := range n {
				for ch := c; ch < c+4; ch++ {
					for j := range 4 {
						var v byte
						if y, x := at(i, j); y < kernel && x < kernel {
							v = codes[ch*taps+y*kernel+x]
						}
						out = append(out, v)
					}
				}
			}
		}
		vectors(kernel, func(i, j int) (int, int) { return j, i })
		if kernel == 5 {
			vectors(2, func(i, j int) (int, int) { return 4, 4*i + j })
		}
		for _, s := range scales[c : c+4] {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(s*codeRatio))
		}
		for _, b := range bias[c : c+4] {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(b*(254/6.0)))
		}
	}
	return out
}

// depthwiseBytes are PackDepthwise's for four channels.
func depthwiseBytes(kernel int) int {
	if kernel == 5 {
		return 16*7 + 32
	}
	return 16*3 + 32
}

// PackedDepthwiseLen is the length of PackDepthwise's result.
func PackedDepthwiseLen(kernel, c int) int { return c / 4 * depthwiseBytes(kernel) }

// RefDepthwiseCodes defines DepthwiseCodes: y are r8 or r16 codes.
func RefDepthwiseCodes(y []int16, x, codes []byte, scales, bias []float32, c DepthwiseCodes) {
	for oy := range c.OutHeight {
		for ox := range c.OutWidth {
			for ch := range c.C {
				var acc int32
				for ky := range c.Kernel {
					for kx := range c.Kernel {
						iy, ix := oy*c.Stride+ky-c.Pad, ox*c.Stride+kx-c.Pad
						if iy < 0 || iy >= c.Height || ix < 0 || ix >= c.Width {
							continue
						}
						acc += int32(x[(iy*c.Width+ix)*c.C+ch]) * int32(int8(codes[(ch*c.Kernel+ky)*c.Kernel+kx]))
					}
				}
				v := float32(float32(acc)*float32(scales[ch]*codeRatio)) + float32(bias[ch]*(254/6.0))
				y[(oy*c.OutWidth+ox)*c.C+ch] = int16(refReLU6(v, 254) - 127)
			}
		}
	}
}

// depthwiseStrip is how many pixels share a load of weights: seven divides the
// widths of a 224 picture's maps.
const depthwiseStrip = 7

// depthwise is DepthwiseCodes under construction.
type depthwise struct {
	*emitter
	kernel, stride        int
	wide                  bool       // outputs are int16
	from, t, h, w, y      asm.Expr   // pointers: columns of four channels, a strip's, and of its lowest row; weights; Y
	pixel                 asm.Expr   // bytes of one in Y
	v, acc                []asm.Expr // taps; per pixel one sum, for Plain two
	mul, add, most, shift asm.Expr
	r6                    *relu6
}

func emitDepthwiseCodes(kernel, stride int, wide bool) func(e *emitter) {
	return func(e *emitter) {
		in := e.ints(11)
		x0, w0, y0, pad, height, width, c, outH, outW := in[0], in[1], in[2], in[4], in[5], in[6], in[7], in[8], in[9]
		wide := wide || e.path.Form == Plain
		d := &depthwise{emitter: e, kernel: kernel, stride: stride, wide: wide, v: e.Locals(asm.V128, 8),
			t: e.Local(asm.I32), h: e.Local(asm.I32), w: e.Local(asm.I32), y: e.Local(asm.I32), from: e.Local(asm.I32),
			acc: e.Locals(asm.V128, 2*depthwiseStrip), mul: e.Local(asm.V128), add: e.Local(asm.V128), r6: e.relu6()}
		if wide {
			d.most, d.shift = e.let(asm.I16x8Const(254)), e.let(asm.I16x8Const(127))
			d.pixel = e.let(asm.I32Shl(c, i32(1)))
		} else {
			d.most, d.shift = e.let(asm.I8x16Const(254)), e.let(asm.I8x16Const(127))
			d.pixel = c
		}

		// Scratch: columns of taps, in a 5×5 window windows of its lowest row, and
		// that row; at the end a vector of zeros, which rows outside are.
		columns := e.let(asm.I32Add(asm.I32Mul(asm.I32Sub(outW, i32(1)), i32(stride)), i32(8)))
		cols := e.let(asm.I32Add(in[3], asm.I32Mul(e.tid, in[10])))
		zero := e.let(asm.I32Sub(asm.I32Add(cols, in[10]), i32(16)))
		lows := e.let(asm.I32Add(cols, asm.I32Shl(columns, i32(6))))
		low := e.let(asm.I32Add(lows, asm.I32Shl(columns, i32(6))))
		e.Set(d.t, cols)
		e.While(asm.I32LeU(d.t, zero), func() {
			e.V128Store(d.t, 0, asm.I32x4Const(0))
			e.Bump(16, d.t)
		})

		row, inc, at, step := e.Locals(asm.I32, kernel), e.Locals(asm.I32, kernel), e.Locals(asm.I32, kernel), e.Locals(asm.I32, kernel)
		oy, end := e.share(outH)
		i, k, r, block, wp, vEnd, left := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
		rowBytes := e.let(asm.I32Mul(width, c))
		yRow, yBlock, pixels := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
		var starts func(row, q asm.Expr)
		if !wide {
			starts = e.starts(asm.I32Mul(outH, outW), c, 11)
		}
		e.For(oy, end, 1, func() {
			for k := range kernel {
				e.Set(i, asm.I32Sub(asm.I32Add(asm.I32Mul(oy, i32(stride)), i32(k)), pad))
				e.Set(row[k], zero)
				e.Set(inc[k], i32(0))
				e.Set(step[k], i32(0))
				e.If(asm.I32LtU(i, height), func() {
					e.Set(row[k], asm.I32Add(x0, asm.I32Mul(i, rowBytes)))
					e.Set(inc[k], i32(16))
					e.Set(step[k], c)
				})
			}
			e.Set(yRow, asm.I32Add(y0, asm.I32Mul(asm.I32Mul(oy, outW), d.pixel)))
			e.Set(yBlock, yRow)
			e.Set(wp, w0)
			e.Set(block, c)
			e.While(block, func() {
				for k := range kernel {
					e.Set(at[k], row[k])
					e.Add(inc[k], row[k])
				}
				e.Set(d.t, asm.I32Add(cols, asm.I32Shl(pad, i32(6))))
				e.Set(r, asm.I32Add(low, asm.I32Shl(pad, i32(4))))
				e.Set(left, width)
				e.While(left, func() {
					for k := range kernel {
						e.Set(d.v[k], asm.V128Load(at[k], 0))
					}
					if kernel == 5 {
						e.V128Store(r, 0, d.v[4])
						e.Bump(16, r)
					} else {
						e.Set(d.v[3], asm.I32x4Const(0))
					}
					d.transpose(d.t)
					for k := range kernel {
						e.Add(step[k], at[k])
					}
					e.Bump(64, d.t)
					e.Bump(-1, left)
				})
				if kernel == 5 {
					e.Set(d.t, lows)
					e.Set(r, low)
					e.Set(left, asm.I32Sub(columns, i32(3)))
					e.While(left, func() {
						for k := range 4 {
							e.Set(d.v[k], asm.V128Load(r, uint32(16*k)))
						}
						d.transpose(d.t)
						e.Bump(16, r)
						e.Bump(64, d.t)
						e.Bump(-1, left)
					})
				}
				e.Set(d.from, cols)
				e.Set(vEnd, asm.I32Add(cols, i32(64)))
				e.While(asm.I32LtU(d.from, vEnd), func() {
					e.Set(d.w, wp)
					e.Set(d.mul, asm.V128Load(wp, uint32(depthwiseBytes(kernel)-32)))
					e.Set(d.add, asm.V128Load(wp, uint32(depthwiseBytes(kernel)-16)))
					e.Set(k, i32(0))
					strip := func(n int) {
						e.Set(d.t, asm.I32Add(d.from, asm.I32Mul(k, i32(64*stride))))
						if kernel == 5 {
							e.Set(d.h, asm.I32Add(d.t, asm.I32Sub(lows, cols)))
						}
						e.Set(d.y, asm.I32Add(yBlock, asm.I32Mul(k, d.pixel)))
						d.strip(n)
						e.Bump(int32(n), k)
					}
					e.If(asm.I32GeS(outW, i32(depthwiseStrip)), func() {
						e.While(asm.I32LtU(k, outW), func() { // the last strip goes over what is done
							e.min(k, k, asm.I32Sub(outW, i32(depthwiseStrip)))
							strip(depthwiseStrip)
						})
					}, func() {
						e.While(asm.I32LtU(k, outW), func() { strip(1) })
					})
					e.Bump(int32(depthwiseBytes(kernel)), wp)
					e.Bump(16, d.from)
					if wide {
						e.Bump(8, yBlock)
					} else {
						e.Bump(4, yBlock)
					}
				})
				e.Bump(-16, block)
			})
			if starts != nil {
				e.Set(pixels, asm.I32Mul(oy, outW))
				e.Set(left, outW)
				e.While(left, func() {
					starts(pixels, yRow)
					e.Add(c, yRow)
					e.Bump(1, pixels)
					e.Bump(-1, left)
				})
			}
		})
	}
}

// transpose writes v[0..3], each one tap of 16 channels, as four vectors of
// four channels' four taps.
func (d *depthwise) transpose(to asm.Expr) {
	low := [16]byte{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23}
	high, low2, high2 := low, [16]byte{}, [16]byte{}
	for i := range low {
		high[i] += 8
		low2[i] = byte(i/4*2 + i%2 + i%4/2*16)
		high2[i] = low2[i] + 8
	}
	v := d.v
	d.Set(v[5], asm.I8x16Shuffle(v[0], v[1], low))
	d.Set(v[6], asm.I8x16Shuffle(v[0], v[1], high))
	d.Set(v[0], asm.I8x16Shuffle(v[2], v[3], low))
	d.Set(v[1], asm.I8x16Shuffle(v[2], v[3], high))
	d.V128Store(to, 0, asm.I8x16Shuffle(v[5], v[0], low2))
	d.V128Store(to, 16, asm.I8x16Shuffle(v[5], v[0], high2))
	d.V128Store(to, 32, asm.I8x16Shuffle(v[6], v[1], low2))
	d.V128Store(to, 48, asm.I8x16Shuffle(v[6], v[1], high2))
}

// strip makes four channels of n pixels.
func (d *depthwise) strip(n int) {
	e, form := d.emitter, d.path.Form
	for p := range 2 * n {
		e.Set(d.acc[p], asm.I32x4Const(0))
	}
	b := d.v
	tap := func(i int, x asm.Expr, offset uint32) {
		if form == Plain {
			e.Set(b[0], asm.V128Load8x8S(d.w, uint32(16*i)))
			e.Set(b[1], asm.V128Load8x8S(d.w, uint32(16*i+8)))
		} else {
			e.Set(b[0], asm.V128Load(d.w, uint32(16*i)))
		}
		for p := range n {
			at := offset + uint32(64*d.stride*p)
			switch form {
			case Plain:
				for h := range 2 {
					acc := d.acc[2*p+h]
					e.Set(acc, asm.I32x4Add(acc, asm.I32x4DotI16x8S(asm.V128Load8x8U(x, at+uint32(8*h)), b[h])))
				}
			case Dot16:
				dot := asm.I16x8RelaxedDotI8x16I7x16S(b[0], asm.V128Load(x, at))
				e.Set(d.acc[p], asm.I32x4Add(d.acc[p], asm.I32x4ExtaddPairwiseI16x8S(dot)))
			case Dot32:
				e.Set(d.acc[p], asm.I32x4RelaxedDotI8x16I7x16AddS(b[0], asm.V128Load(x, at), d.acc[p]))
			}
		}
	}
	for kx := range d.kernel {
		tap(kx, d.t, uint32(64*kx))
	}
	if d.kernel == 5 {
		tap(5, d.h, 0)
		tap(6, d.h, 4*64)
	}
	if form == Plain {
		even := [16]byte{0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27}
		odd := even
		for i := range odd {
			odd[i] += 4
		}
		for p := range n {
			lo, hi := d.acc[2*p], d.acc[2*p+1]
			e.Set(d.acc[p], asm.I32x4Add(asm.I8x16Shuffle(lo, hi, even), asm.I8x16Shuffle(lo, hi, odd)))
		}
	}
	for p := range n {
		e.Set(d.acc[p], d.r6.round(mulAdd(asm.F32x4ConvertI32x4S(d.acc[p]), d.mul, d.add)))
	}
	pair := func(p int) asm.Expr { return asm.I16x8NarrowI32x4S(d.acc[p], d.acc[min(p+1, n-1)]) }
	for p := 0; p < n; p += 4 {
		if d.wide {
			for q := p; q < min(n, p+4); q += 2 {
				e.Set(b[0], asm.I16x8Sub(asm.I16x8MinS(pair(q), d.most), d.shift))
				for i := range min(2, n-q) {
					e.V128Store64Lane(d.y, 0, b[0], byte(i))
					e.Add(d.pixel, d.y)
				}
			}
			continue
		}
		e.Set(b[0], asm.I8x16Sub(asm.I8x16MinU(asm.I8x16NarrowI16x8U(pair(p), pair(min(p+2, n-1))), d.most), d.shift))
		for i := range min(4, n-p) {
			e.V128Store32Lane(d.y, 0, b[0], byte(i))
			e.Add(d.pixel, d.y)
		}
	}
}
