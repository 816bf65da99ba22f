package kernel

import (
	"math"

	"lqa/quant/kernel/asm"
	"lqa/quant/qtype"
)

// Quant quantizes each row of x to eight bits with a scale and a zero point
// found from the row: x ≈ zero + scale·q, q in ±127.
//
//	X [M] rows of K float32, LDX floats apart, readable up to K16
//	Q [M][K4] int16 (eight-bit values, widened for dot_i16x8)
//	S [M][2] float32: scale, zero
type Quant struct {
	X, Q, S   uint32
	M, K, LDX int
	First     First
}

// Append implements Command.
func (c Quant) Append(l List) List {
	return l.add(opQuant+Op(c.First.Do), append([]uint32{c.X, c.Q, c.S, uint32(c.M), uint32(qtype.RoundUp(c.K, 4)), uint32(c.LDX * 4),
		0, 0, 0, 0}, c.First.args(c.K)...)...)
}

// First is what Quant and QuantLow do to each row before they quantize it: what
// the command of that name would, but X stays as it is. K is then a multiple
// of 8.
type First struct {
	Do      Doing
	Scratch uint32  // FirstScratch bytes
	W       uint32  // of LayerNorm
	Eps     float32 // of LayerNorm
}

// Doing names what is done first.
type Doing int

// The order is that of the commands.
const (
	Nothing Doing = iota
	DoGELU
	DoQuickGELU
	DoLayerNorm
)

// FirstScratch is the bytes of scratch for MaxThreads threads: a row each.
func FirstScratch(k int) int { return MaxThreads * firstScratch(k) }

func firstScratch(k int) int { return 4 * qtype.RoundUp(k, 16) }

func (f First) args(k int) []uint32 {
	if f.Do == Nothing {
		return nil
	}
	return []uint32{f.Scratch, uint32(firstScratch(k)), f.W, bits(1 / float32(k)), bits(f.Eps)}
}

// QuantLow is Quant for GEMMLow. How it stores its codes is the Path's affair:
// as Quant does, or as [M][K16] int8 with the sums that take the weights' zero
// point out:
//
//	Starts [segments][M] words, QuantLowStarts bytes
type QuantLow struct {
	X, Q, S, Starts uint32
	M, K, LDX       int
	Low             qtype.Low
	First           First
}

// Append implements Command.
func (c QuantLow) Append(l List) List {
	return l.add(opQuantLow+Op(c.First.Do), append([]uint32{c.X, c.Q, c.S, uint32(c.M), uint32(qtype.RoundUp(c.K, 4)), uint32(c.LDX * 4),
		c.Starts, uint32(unit(c.Low, c.K)), uint32(period(c.Low.Bits)), uint32(-c.Low.Zero())}, c.First.args(c.K)...)...)
}

// QuantLowBytes is the size of Q.
func QuantLowBytes(m, k int) int { return max(2*m*qtype.RoundUp(k, 4), m*qtype.RoundUp(k, 16)) }

// QuantLowStarts is the size of Starts.
func QuantLowStarts(low qtype.Low, m, k int) int {
	u, p := unit(low, k), period(low.Bits)
	return 4 * m * ((qtype.RoundUp(k, 4) + u - 1) / u) * ((u + p - 1) / p)
}

// unit is how many k are summed as integers before a scale is applied: a group,
// or half of one of 128, so that no form has to carry more.
func unit(low qtype.Low, k int) int { return min(64, low.Group(k)) }

// period is how many k may be summed in int16 lanes. A lane sees half of them,
// and its sum starts at -zero·Σq, so that only Σ q·(code - zero) must fit: at
// most 127·8·32 = 127·16·16 = 127·32·8 = 127·64·4 = 32,512. What wraps on the way wraps
// back. Four k more, and the extremes overflow.
func period(bits int) int { return 64 >> (bits - 4) }

// quantMin is the least spread of a row that is worth codes: below it the row
// is constant and its zero point says all.
const quantMin = 1e-30

// RefQuant defines Quant and QuantLow for one row of K4 values.
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

func emitQuantLow(do Doing) func(e *emitter) {
	return func(e *emitter) {
		if e.path.Form == Plain {
			e.quant(16, do)
		} else {
			e.quant(8, do)
		}
	}
}

func emitQuant(do Doing) func(e *emitter) { return func(e *emitter) { e.quant(16, do) } }

// quant writes codes of that many bits.
func (e *emitter) quant(bits int, do Doing) {
	in := e.ints(6)
	x0, q0, s0, m, k, ldx := in[0], in[1], in[2], in[3], in[4], in[5]
	row, end := e.share(m)
	x, q, s, xEnd := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	lo, hi, v := e.Locals(asm.V128, 2), e.Locals(asm.V128, 2), e.Local(asm.V128)
	scale, zero, inv := e.Local(asm.F32), e.Local(asm.F32), e.Local(asm.F32)
	fLo, fHi := e.Local(asm.F32), e.Local(asm.F32)
	zeros, invs := e.Local(asm.V128), e.Local(asm.V128)
	kBytes := e.let(asm.I32Shl(k, i32(2)))

	// limits takes a value into account; i of one and the next differ, so that
	// neither waits for the other.
	limits := func(i int, v asm.Expr) {
		e.Set(lo[i], asm.F32x4PMin(lo[i], v))
		e.Set(hi[i], asm.F32x4PMax(hi[i], v))
	}
	// measure finds the limits of row x and where it lies when it is to be
	// quantized.
	var measure func()
	switch do {
	case Nothing:
		xEnd8 := e.Local(asm.I32)
		measure = func() {
			e.Set(xEnd, asm.I32Add(x, kBytes))
			e.Set(xEnd8, asm.I32Sub(xEnd, i32(16)))
			e.Set(lo[0], asm.V128Load(x, 0))
			e.Set(lo[1], lo[0])
			e.Set(hi[0], lo[0])
			e.Set(hi[1], lo[0])
			e.While(asm.I32LtU(x, xEnd8), func() {
				for i := range 2 {
					e.Set(v, asm.V128Load(x, uint32(16*i)))
					limits(i, v)
				}
				e.Bump(32, x)
			})
			e.If(asm.I32LtU(x, xEnd), func() {
				e.Set(v, asm.V128Load(x, 0))
				limits(0, v)
			})
			e.Set(x, asm.I32Sub(xEnd, kBytes))
		}
	default:
		to, scratch := e.Local(asm.I32), e.let(asm.I32Add(e.arg(10), asm.I32Mul(e.tid, e.arg(11))))
		var f func(i int, dst, x asm.Expr)
		begin := func() {}
		switch do {
		case DoGELU:
			gelu := e.gelu()
			f = func(_ int, dst, x asm.Expr) { gelu(dst, x) }
		case DoQuickGELU:
			gelu := e.quickGELU()
			f = func(_ int, dst, x asm.Expr) { gelu(dst, x) }
		case DoLayerNorm:
			n := e.rowNorm(e.splat(13), e.splat(14))
			w, g, b := e.arg(12), e.Local(asm.I32), e.Local(asm.I32)
			begin = func() {
				n.moments(x, kBytes, kBytes, nil)
				e.Set(g, w)
				e.Set(b, asm.I32Add(w, kBytes))
			}
			f = func(i int, dst, x asm.Expr) {
				e.Set(dst, n.normal(x, asm.V128Load(g, uint32(16*i)), asm.V128Load(b, uint32(16*i))))
				if i == 1 {
					e.Bump(32, g, b)
				}
			}
		}
		from := e.Local(asm.V128)
		measure = func() {
			begin()
			e.Set(to, scratch)
			e.Set(xEnd, asm.I32Add(scratch, kBytes))
			e.Set(lo[0], asm.F32x4Const(math.MaxFloat32))
			e.Set(lo[1], lo[0])
			e.Set(hi[0], asm.F32x4Const(-math.MaxFloat32))
			e.Set(hi[1], hi[0])
			e.While(asm.I32LtU(to, xEnd), func() {
				for i := range 2 {
					e.Set(from, asm.V128Load(x, uint32(16*i)))
					f(i, v, from)
					e.V128Store(to, uint32(16*i), v)
					limits(i, v)
				}
				e.Bump(32, x, to)
			})
			e.Set(x, scratch)
		}
	}

	// Adding the magic rounds, half to even, and leaves the integer in the low
	// bits. What rounding of inv puts beyond ±127 comes back to it here.
	magic, integer := e.consts(nearestMagic)[0], e.let(asm.I32x4Const(int32(math.Float32bits(nearestMagic))))
	code := func(v asm.Expr) asm.Expr {
		return asm.I32x4Sub(asm.F32x4Add(asm.F32x4Mul(asm.F32x4Sub(v, zeros), invs), magic), integer)
	}
	narrow := func(a, b asm.Expr) asm.Expr {
		a = asm.I16x8MaxS(asm.I16x8NarrowI32x4S(a, b), asm.I16x8Const(-127))
		return asm.I16x8MinS(a, asm.I16x8Const(127))
	}
	load := func(o uint32) asm.Expr { return code(asm.V128Load(x, o)) }
	var starts func(row, q asm.Expr)
	qRow := e.let(asm.I32Shl(k, i32(1)))
	if bits == 8 {
		e.Set(qRow, asm.I32And(asm.I32Add(k, i32(15)), i32(-16)))
		starts = e.starts(m, k, 6)
	}
	e.For(row, end, 1, func() {
		e.Set(x, asm.I32Add(x0, asm.I32Mul(row, ldx)))
		measure()
		e.Set(lo[0], asm.F32x4PMin(lo[0], lo[1]))
		e.Set(hi[0], asm.F32x4PMax(hi[0], hi[1]))
		e.reduce(lo[0], v, asm.F32x4PMin)
		e.reduce(hi[0], v, asm.F32x4PMax)
		e.Set(fLo, asm.F32x4Lane(0, lo[0]))
		e.Set(fHi, asm.F32x4Lane(0, hi[0]))
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

		e.Set(q, asm.I32Add(q0, asm.I32Mul(row, qRow)))
		if bits == 8 { // beyond K4 the codes are anything; nobody reads them
			e.While(asm.I32LtU(x, xEnd), func() {
				v := asm.I8x16NarrowI16x8S(asm.I16x8NarrowI32x4S(load(0), load(16)), asm.I16x8NarrowI32x4S(load(32), load(48)))
				e.V128Store(q, 0, asm.I8x16MaxS(v, asm.I8x16Const(0x81)))
				e.Bump(64, x)
				e.Bump(16, q)
			})
			starts(row, asm.I32Add(q0, asm.I32Mul(row, qRow)))
		} else {
			e.Set(xEnd, asm.I32Sub(xEnd, i32(16)))
			e.While(asm.I32LtU(x, xEnd), func() {
				e.V128Store(q, 0, narrow(load(0), load(16)))
				e.Bump(32, x)
				e.Bump(16, q)
			})
			e.If(asm.I32LeU(x, xEnd), func() { // K4 is an odd number of fours
				e.Set(v, load(0))
				e.V128Store64Lane(q, 0, narrow(v, v), 0)
			})
		}
		e.Set(s, asm.I32Add(s0, asm.I32Shl(row, i32(3))))
		e.F32Store(s, 0, scale)
		e.F32Store(s, 4, zero)
	})
}

// starts takes Starts, unit, period and minus the zero point from arguments at
// on, and emits the sums of one row of int8 codes, segment by segment, times
// minus the weights' zero point. A step of four k falls into lanes of (k0, k1)
// and (k2, k3): Dot16 wants both sums as int16, Dot32 their total as int32.
func (e *emitter) starts(m, k asm.Expr, at int) func(row, q asm.Expr) {
	starts, unit, period, zero := e.arg(at), e.arg(at+1), e.arg(at+2), e.arg(at+3)
	if e.path.Form == Dot32 {
		e.Set(period, unit)
	}
	zeros := e.let(asm.I32x4Splat(zero))
	if e.path.Form == Dot16 {
		e.Set(zeros, asm.I16x8NarrowI32x4S(zeros, zeros))
	}
	q, qEnd, uEnd, sEnd, out, m4 := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.let(asm.I32Shl(m, i32(2)))
	acc, t := e.Local(asm.V128), e.Local(asm.V128)
	add := func(v asm.Expr) { e.Set(acc, asm.I16x8Add(acc, asm.I16x8ExtaddPairwiseI8x16S(v))) }
	return func(row, from asm.Expr) {
		e.Set(q, from)
		e.Set(qEnd, asm.I32Add(q, k))
		e.Set(out, asm.I32Add(starts, asm.I32Shl(row, i32(2))))
		e.While(asm.I32LtU(q, qEnd), func() {
			e.min(uEnd, asm.I32Add(q, unit), qEnd)
			e.While(asm.I32LtU(q, uEnd), func() {
				e.min(sEnd, asm.I32Add(q, period), uEnd)
				e.Set(acc, asm.I32x4Const(0))
				e.While(asm.I32LeU(asm.I32Add(q, i32(16)), sEnd), func() {
					add(asm.V128Load(q, 0))
					e.Bump(16, q)
				})
				e.While(asm.I32LtU(q, sEnd), func() {
					add(asm.V128Load32Zero(q, 0))
					e.Bump(4, q)
				})
				e.reduce2(acc, t)
				if e.path.Form == Dot32 {
					e.Set(acc, asm.I32x4Mul(asm.I32x4ExtaddPairwiseI16x8S(acc), zeros))
				} else {
					e.Set(acc, asm.I16x8Mul(acc, zeros))
				}
				e.V128Store32Lane(out, 0, acc, 0)
				e.Add(m4, out)
			})
		})
	}
}

// reduce2 folds pairs of int16: lanes 0 and 1 become the sums of the even and
// the odd lanes.
func (e *emitter) reduce2(v, t asm.Expr) {
	e.Set(t, asm.I8x16Shuffle(v, v, [16]byte{8, 9, 10, 11, 12, 13, 14, 15}))
	e.Set(v, asm.I16x8Add(v, t))
	e.Set(t, asm.I8x16Shuffle(v, v, [16]byte{4, 5, 6, 7}))
	e.Set(v, asm.I16x8Add(v, t))
}

// reduce folds the four lanes of v with op: op(op(v0, v2), op(v1, v3)), left
// in lane 0; t is clobbered.
func (e *emitter) reduce(v, t asm.Expr, op func(a, b asm.Expr) asm.Expr) {
	e.Set(t, asm.I8x16Shuffle(v, v, [16]byte{8, 9, 10, 11, 12, 13, 14, 15}))
	e.Set(v, op(v, t))
	e.Set(t, asm.I8x16Shuffle(v, v, [16]byte{4, 5, 6, 7}))
	e.Set(v, op(v, t))
}

// min sets dst to the lesser of a and b, unsigned.
func (e *emitter) min(dst, a, b asm.Expr) {
	e.Set(dst, a)
	e.If(asm.I32LtU(b, dst), func() { e.Set(dst, b) })
}
