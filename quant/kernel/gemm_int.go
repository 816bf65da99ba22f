package kernel

import (
	"lqa/quant/kernel/asm"
	"lqa/quant/qtype"
)

// GEMMQ8C multiplies quantized rows with q8c weights and finishes in float32:
//
//	y[m,n] = clamp(((Σ_k q[m,k]·c[n,k])·(scale[m]·s[n]) + zero[m]·sum[n]) + bias[n], Lo, Hi)
//	         with sum[n] = s[n]·Σ_k c[n,k]; with Add, what was in y is added
//
// The integer sum is exact: |q·c| ≤ 127², so K may be up to 133,000.
//
//	Q, S as Quant writes them       W qtype.Q8C's codes of [N,K]
//	Cols PackCols' panels           Y [M] rows of N8 float32, LDY floats apart
//	Scratch GEMMScratch bytes a thread
type GEMMQ8C struct {
	Q, S, W, Cols, Y, Scratch uint32
	M, K, N, LDY              int
	Lo, Hi                    float32
	Add                       bool
	// ReLU6 in and out, in place of S, and of Lo, Hi and Add.
	CodesIn, CodesOut bool
}

// Append implements Command.
func (c GEMMQ8C) Append(l List) List {
	op, size := opGEMMQ8C, 4
	if c.CodesOut {
		op, size = opGEMMQ8CCodes, 1
	}
	k4 := qtype.RoundUp(c.K, 4)
	return l.add(op, c.Q, c.S, 0, c.W, 0, c.Cols, c.Y, c.Scratch, uint32(c.M), uint32(k4), uint32((c.N+7)/8),
		uint32(c.LDY*size), uint32(k4), uint32(GEMMScratch(c.K)), mask(c.Add), bits(c.Lo), bits(c.Hi), 0, 0,
		mask(!c.CodesIn)&8, bits(relu6Scale), bits(relu6Zero))
}

// GEMMLow multiplies quantized rows with low-bit weights:
//
//	y[m,n] = clamp((f·scale[m] + zero[m]·sum[n]) + bias[n], Lo, Hi)
//	         with f = Σ_u s[n,u]·(Σ_{k in u} q[m,k]·(c[n,k] - Zero)), u from 0 upwards
//
// u are the groups, or halves of those of 128. Integer sums are exact.
//
//	Q, S, Starts as QuantLow writes them    W the tensor's bytes
//	Cols [panels][2][8] float32: sums (ColSums writes them), biases
//	Y [M] rows of N8 float32, LDY floats apart; with Add, what was there is added
//	Scratch GEMMScratch bytes a thread
type GEMMLow struct {
	Q, S, Starts, W, Cols, Y, Scratch uint32
	M, K, N, LDY                      int
	Low                               qtype.Low
	Lo, Hi                            float32
	Add                               bool
	// ReLU6 in and out, in place of S, and of Lo, Hi and Add.
	CodesIn, CodesOut bool
}

// Append implements Command.
func (c GEMMLow) Append(l List) List {
	op, size := lowOps[c.Low.Bits], 4
	if c.CodesOut {
		op, size = op+opGEMMQ4Codes-opGEMMQ4, 1
	}
	return l.add(op, c.Q, c.S, c.Starts, c.W+uint32(c.Low.ScaleBytes(c.N, c.K)), c.W, c.Cols, c.Y, c.Scratch,
		uint32(c.M), uint32(qtype.RoundUp(c.K, 4)), uint32((c.N+7)/8), uint32(c.LDY*size), uint32(unit(c.Low, c.K)),
		uint32(GEMMScratch(c.K)), mask(c.Add), bits(c.Lo), bits(c.Hi), uint32(c.Low.Groups(c.K)), uint32(c.Low.Group(c.K)),
		mask(!c.CodesIn)&8, bits(relu6Scale), bits(relu6Zero))
}

var lowOps = map[int]Op{4: opGEMMQ4, 5: opGEMMQ5, 6: opGEMMQ6, 7: opGEMMQ7}

// ColSums writes the sums of GEMMLow's Cols: Σ_u s[n,u]·Σ_{k in u} (c[n,k] - Zero).
//
//	W the tensor's bytes, Cols as GEMMLow's, Scratch GEMMScratch bytes a thread
type ColSums struct {
	W, Cols, Scratch uint32
	K, N             int
	Low              qtype.Low
}

// Append implements Command.
func (c ColSums) Append(l List) List {
	return l.add(sumOps[c.Low.Bits], c.W+uint32(c.Low.ScaleBytes(c.N, c.K)), c.W, c.Cols, c.Scratch,
		uint32(qtype.RoundUp(c.K, 4)), uint32((c.N+7)/8), uint32(unit(c.Low, c.K)), uint32(GEMMScratch(c.K)),
		uint32(c.Low.Groups(c.K)), uint32(c.Low.Group(c.K)))
}

var sumOps = map[int]Op{4: opColSumsQ4, 5: opColSumsQ5, 6: opColSumsQ6, 7: opColSumsQ7}

func mask(on bool) uint32 {
	if on {
		return ^uint32(0)
	}
	return 0
}

// GEMMScratch is the bytes of scratch that a thread of an integer GEMM with
// inner dimension K needs: two panels of int16, two panels' scales for units
// of at least 16 k, and the sums of a tile.
func GEMMScratch(k int) int { return 36*qtype.RoundUp(k, 16) + tileScratch }

const tileScratch = 1024

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

// PackLowCols lays out the biases of GEMMLow's Cols.
func PackLowCols(bias []float32) []float32 {
	out := make([]float32, PackedLowColsLen(len(bias)))
	for c, v := range bias {
		out[c/8*16+8+c%8] = v
	}
	return out
}

// PackedLowColsLen is the length of PackLowCols' result.
func PackedLowColsLen(n int) int { return qtype.RoundUp(n, 8) * 2 }

// RefGEMMQ8C defines GEMMQ8C; y holds what is added where add is set.
func RefGEMMQ8C(y []float32, q []int16, s []float32, codes []byte, cols []float32, m, k, n, ldy int, lo, hi float32, add bool) {
	refGEMMQ8C(q, s, codes, cols, 1, m, k, n, func(r, c int, v float32) { refStore(&y[r*ldy+c], refClamp(v, lo, hi), add) })
}

// RefGEMMQ8CCodes defines GEMMQ8C with CodesOut: what is per column is taken
// to steps of the code beforehand.
func RefGEMMQ8CCodes(y []byte, q []int16, s []float32, codes []byte, cols []float32, m, k, n, ldy int) {
	refGEMMQ8C(q, s, codes, cols, codeSteps, m, k, n, func(r, c int, v float32) { y[r*ldy+c] = byte(refReLU6(v, 127)) })
}

func refGEMMQ8C(q []int16, s []float32, codes []byte, cols []float32, step float32, m, k, n int, put func(r, c int, v float32)) {
	k4 := qtype.RoundUp(k, 4)
	for r := range m {
		for c := range qtype.RoundUp(n, 8) {
			var acc int32
			for i := range k4 {
				acc += int32(q[r*k4+i]) * int32(int8(codes[qtype.PanelIndex(c, i, k)]))
			}
			p := cols[c/8*24+c%8:]
			v := float32(float32(acc) * float32(s[2*r]*float32(p[0]*step)))
			v = v + float32(s[2*r+1]*float32(p[8]*step))
			put(r, c, v+float32(p[16]*step))
		}
	}
}

func refStore(y *float32, v float32, add bool) {
	if !add {
		*y = 0
	}
	*y += v
}

// RefGEMMLow defines GEMMLow; w are the tensor's bytes, with padding.
func RefGEMMLow(y []float32, q []int16, s []float32, w []byte, cols []float32, low qtype.Low, m, k, n, ldy int, lo, hi float32, add bool) {
	refGEMMLow(q, s, w, cols, low, 1, m, k, n, func(r, c int, v float32) { refStore(&y[r*ldy+c], refClamp(v, lo, hi), add) })
}

// RefGEMMLowCodes defines GEMMLow with CodesOut: what is per column is taken to
// steps of the code beforehand.
func RefGEMMLowCodes(y []byte, q []int16, s []float32, w []byte, cols []float32, low qtype.Low, m, k, n, ldy int) {
	refGEMMLow(q, s, w, cols, low, codeSteps, m, k, n, func(r, c int, v float32) { y[r*ldy+c] = byte(refReLU6(v, 127)) })
}

func refGEMMLow(q []int16, s []float32, w []byte, cols []float32, low qtype.Low, step float32, m, k, n int, put func(r, c int, v float32)) {
	k4 := qtype.RoundUp(k, 4)
	for r := range m {
		for c := range qtype.RoundUp(n, 8) {
			f := refLow(q[r*k4:(r+1)*k4], w, low, step, c, k, n)
			p := cols[c/8*16+c%8:]
			v := float32(f*s[2*r]) + float32(s[2*r+1]*float32(p[0]*step))
			put(r, c, v+float32(p[8]*step))
		}
	}
}

// refLow is f of GEMMLow for one row and column, times step.
func refLow(q []int16, w []byte, low qtype.Low, step float32, c, k, n int) float32 {
	codes, u := w[low.ScaleBytes(n, k):], unit(low, k)
	var f float32
	for from := 0; from < len(q); from += u {
		var acc int32
		for i := from; i < min(len(q), from+u); i++ {
			acc += int32(q[i]) * int32(low.Code(codes, c, i, k)-low.Zero())
		}
		if x := float32(float32(acc) * float32(low.Scale(w, c, from/low.Group(k), k)*step)); from == 0 {
			f = x
		} else {
			f += x
		}
	}
	return f
}

// RefColSums defines ColSums.
func RefColSums(cols []float32, w []byte, low qtype.Low, k, n int) {
	ones := make([]int16, qtype.RoundUp(k, 4))
	for i := range ones {
		ones[i] = 1
	}
	for c := range qtype.RoundUp(n, 8) {
		cols[c/8*16+c%8] = refLow(ones, w, low, 1, c, k, n)
	}
}

// pairUp brings the low halves of four columns' k4 groups together: k 0 and 1
// of columns 0..3, then k 2 and 3.
var pairUp = [16]byte{0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15}

// plainRows is the highest tile of Plain that does not spill in V8: products
// need a register of their own.
const plainRows = 5

// stepUnroll is how many steps the inner loop of an integer GEMM holds.
const stepUnroll = 4

// intGEMM is an integer GEMM under construction. Its inner loop goes in steps:
// of two k for Plain, whose operands are int16, of four for the others. A step
// is four bytes of an activation row and two vectors of a panel in either case.
type intGEMM struct {
	*emitter
	bits int // of a code; 8: q8c
	form Form

	step float32 // of the outputs: what scales are multiplied with

	codes, scales, k, group, repeat, panelBytes asm.Expr
	scratch, scaleAt                            asm.Expr // unpacked codes; unpacked scales
	src, dst, plane, left                       asm.Expr
	v                                           []asm.Expr
}

func newIntGEMM(e *emitter, bits int, form Form) *intGEMM {
	g := &intGEMM{emitter: e, bits: bits, form: form, step: 1}
	g.src, g.dst, g.plane, g.left = e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
	g.v = e.Locals(asm.V128, 4)
	return g
}

// setup derives what unpacking needs from arguments: k, codes, scales, and for
// low bits the number of groups and the group's length.
func (g *intGEMM) setup(k, codes, scales, unit, groups, group, scratch, scratchBytes asm.Expr) {
	e := g.emitter
	g.k, g.codes, g.scales, g.group = k, codes, scales, groups
	steps := asm.I32ShrU(k, i32(2))
	if g.bits >= 7 {
		g.panelBytes = e.let(asm.I32Shl(k, i32(3)))
	} else {
		g.panelBytes = e.let(asm.I32Add(asm.I32Shl(steps, i32(4)),
			asm.I32Mul(asm.I32ShrU(asm.I32Add(k, i32(15)), i32(4)), i32(16*(g.bits-4)))))
	}
	if g.bits < 8 {
		g.repeat = e.let(asm.I32DivU(group, unit))
	}
	g.scratch = e.let(asm.I32Add(scratch, asm.I32Mul(e.tid, scratchBytes)))
	g.scaleAt = e.let(asm.I32Add(g.scratch, asm.I32Shl(asm.I32And(asm.I32Add(k, i32(15)), i32(-16)), i32(5))))
}

// unpack widens n panels from p on into the scratch, their vectors side by
// side, so that one pointer walks through all of them.
func (g *intGEMM) unpack(p asm.Expr, n int) {
	e := g.emitter
	for j := range n {
		e.Set(g.src, asm.I32Add(g.codes, asm.I32Mul(asm.I32Add(p, i32(j)), g.panelBytes)))
		e.Set(g.dst, asm.I32Add(g.scratch, i32(32*j)))
		e.Set(g.left, asm.I32ShrU(g.k, i32(2)))
		if g.bits == 8 {
			e.While(g.left, func() {
				for h := range 2 {
					e.Set(g.v[h], asm.V128Load(g.src, uint32(16*h)))
				}
				g.widen(0, n)
				e.Bump(32, g.src)
				e.Bump(int32(64*n), g.dst)
				e.Bump(-1, g.left)
			})
			continue
		}
		planes := g.bits == 5 || g.bits == 6
		if planes {
			e.Set(g.plane, asm.I32Add(g.src, asm.I32Shl(g.left, i32(4))))
		}
		// Four steps at a time: what lies beyond the last is read, and never used.
		e.While(asm.I32GtS(g.left, i32(0)), func() {
			for step := range 4 {
				if g.bits == 7 {
					for h := range 2 { // masked: what a file holds may not leave the bound
						e.Set(g.v[h], asm.V128And(asm.V128Load(g.src, uint32(32*step+16*h)), asm.I8x16Const(127)))
					}
				} else {
					e.Set(g.v[0], asm.V128Load(g.src, uint32(16*step)))
					e.Set(g.v[1], asm.V128And(asm.I16x8ShrU(g.v[0], i32(4)), asm.I8x16Const(15)))
					e.Set(g.v[0], asm.V128And(g.v[0], asm.I8x16Const(15)))
					for h := range 2 {
						g.high(step, h)
					}
				}
				if g.form == Plain {
					g.widen(step, n)
				} else {
					for h := range 2 {
						e.V128Store(g.dst, uint32(32*n*step+16*h), g.v[h])
					}
				}
			}
			if g.bits == 7 {
				e.Bump(128, g.src)
			} else {
				e.Bump(64, g.src)
			}
			if planes {
				e.Bump(int32(16*(g.bits-4)), g.plane)
			}
			if g.form == Plain {
				e.Bump(int32(256*n), g.dst)
			} else {
				e.Bump(int32(128*n), g.dst)
			}
			e.Bump(-4, g.left)
		})
		g.widenScales(p, j, n)
	}
}

// high adds the bits above the fourth to vector h of a step.
func (g *intGEMM) high(step, h int) {
	if g.bits == 4 {
		return
	}
	e := g.emitter
	j, per := 2*step+h, g.bits-4
	plane := asm.V128Load(g.plane, uint32(16*(j*per/8)))
	at := j * per % 8 // of the bits, in each byte; they go to bit 4
	bits := plane
	switch {
	case at < 4:
		bits = asm.I16x8Shl(plane, i32(4-at))
	case at > 4:
		bits = asm.I16x8ShrU(plane, i32(at-4))
	}
	e.Set(g.v[h], asm.V128Or(g.v[h], asm.V128And(bits, asm.I8x16Const(byte(1<<per-1)<<4))))
}

// widen writes a step's two vectors as int16, the zero point taken off.
func (g *intGEMM) widen(step, n int) {
	e := g.emitter
	low, high := asm.I16x8ExtendLowI8x16S, asm.I16x8ExtendHighI8x16S
	off := func(x asm.Expr) asm.Expr { return x }
	if g.bits < 8 {
		low, high = asm.I16x8ExtendLowI8x16U, asm.I16x8ExtendHighI8x16U
		off = func(x asm.Expr) asm.Expr { return asm.I16x8Sub(x, asm.I16x8Const(1<<(g.bits-1))) }
	}
	for h := range 2 {
		e.Set(g.v[h], asm.I8x16Shuffle(g.v[h], g.v[h], pairUp))
		e.V128Store(g.dst, uint32(64*n*step+16*h), off(low(g.v[h])))
		e.V128Store(g.dst, uint32(64*n*step+32*n+16*h), off(high(g.v[h])))
	}
}

// widenScales writes the float32 scales of panel p + j, one row of eight for
// each unit.
func (g *intGEMM) widenScales(p asm.Expr, j, n int) {
	e := g.emitter
	e.Set(g.src, asm.I32Add(g.scales, asm.I32Mul(asm.I32Mul(asm.I32Add(p, i32(j)), g.group), i32(16))))
	e.Set(g.dst, asm.I32Add(g.scaleAt, i32(32*j)))
	e.Set(g.left, g.group)
	half := func(wide asm.Expr) asm.Expr { // positive and finite: shift into place, mend the exponent
		return asm.F32x4Mul(asm.I32x4Shl(wide, i32(13)), asm.F32x4Const(0x1p112*g.step))
	}
	e.While(g.left, func() {
		e.Set(g.v[2], asm.V128Load(g.src, 0))
		e.Set(g.v[3], half(asm.I32x4ExtendHighI16x8U(g.v[2])))
		e.Set(g.v[2], half(asm.I32x4ExtendLowI16x8U(g.v[2])))
		e.Set(g.plane, g.repeat)
		e.While(g.plane, func() {
			e.V128Store(g.dst, 0, g.v[2])
			e.V128Store(g.dst, 16, g.v[3])
			e.Bump(int32(32*n), g.dst)
			e.Bump(-1, g.plane)
		})
		e.Bump(16, g.src)
		e.Bump(-1, g.left)
	})
}

func emitColSums(bits int) func(e *emitter) {
	return func(e *emitter) {
		in := e.ints(10)
		g := newIntGEMM(e, bits, Plain)
		g.setup(in[4], in[0], in[1], in[6], in[8], in[9], in[3], in[7])
		cols, unit := in[2], in[6]
		p, end := e.share(in[5])
		bp, bEnd, uEnd, sc, out := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
		acc, sum := e.Locals(asm.V128, 2), e.Locals(asm.V128, 2)
		e.For(p, end, 1, func() {
			g.unpack(p, 1)
			e.Set(bp, g.scratch)
			e.Set(bEnd, asm.I32Add(bp, asm.I32Shl(g.k, i32(4))))
			e.Set(sc, g.scaleAt)
			for h := range 2 {
				e.Set(sum[h], asm.F32x4Const(0))
			}
			e.While(asm.I32LtU(bp, bEnd), func() {
				e.min(uEnd, asm.I32Add(bp, asm.I32Shl(unit, i32(4))), bEnd)
				for h := range 2 {
					e.Set(acc[h], asm.I32x4Const(0))
				}
				e.While(asm.I32LtU(bp, uEnd), func() {
					for h := range 2 {
						e.Set(acc[h], asm.I32x4Add(acc[h], asm.I32x4ExtaddPairwiseI16x8S(asm.V128Load(bp, uint32(16*h)))))
					}
					e.Bump(32, bp)
				})
				for h := range 2 {
					e.Set(sum[h], asm.F32x4Add(sum[h], asm.F32x4Mul(asm.F32x4ConvertI32x4S(acc[h]), asm.V128Load(sc, uint32(16*h)))))
				}
				e.Bump(32, sc)
			})
			e.Set(out, asm.I32Add(cols, asm.I32Shl(p, i32(6))))
			for h := range 2 {
				e.V128Store(out, uint32(16*h), sum[h])
			}
		})
	}
}

// intTile is the inner loop: rows of activations by nv vectors of weights.
type intTile struct {
	*emitter
	form       Form
	rows, nv   int
	a          []asm.Expr // pointers to the rows; the first counts
	acc, b, av []asm.Expr
	bp, end    asm.Expr // pointer to the weights; a local for run
}

func (t *intTile) mac(r, v int, a, b asm.Expr) {
	acc := t.acc[r*t.nv+v]
	switch t.form {
	case Plain:
		t.Set(acc, asm.I32x4Add(acc, asm.I32x4DotI16x8S(a, b)))
	case Dot16:
		t.Set(acc, asm.I16x8Add(acc, asm.I16x8RelaxedDotI8x16I7x16S(a, b)))
	case Dot32:
		t.Set(acc, asm.I32x4RelaxedDotI8x16I7x16AddS(a, b, acc))
	}
}

// steps multiplies n steps, four bytes of each row, and moves on.
func (t *intTile) steps(n int) {
	for step := range n {
		splat := func(r int) asm.Expr { return asm.V128Load32Splat(t.a[r], uint32(4*step)) }
		load := func(v int) asm.Expr { return asm.V128Load(t.bp, uint32(16*(t.nv*step+v))) }
		if t.path.AFirst {
			for r := range t.rows {
				t.Set(t.av[r], splat(r))
			}
			for v := range t.nv {
				t.Set(t.b[0], load(v))
				for r := range t.rows {
					t.mac(r, v, t.av[r], t.b[0])
				}
			}
			continue
		}
		for v := range t.nv {
			t.Set(t.b[v], load(v))
		}
		for r := range t.rows {
			t.Set(t.av[0], splat(r))
			for v := range t.nv {
				t.mac(r, v, t.av[0], t.b[v])
			}
		}
	}
	t.Bump(int32(4*n), t.a[:t.rows]...)
	t.Bump(int32(16*t.nv*n), t.bp)
}

// run multiplies up to end, a place in the first row.
func (t *intTile) run(end asm.Expr) {
	t.Set(t.end, asm.I32Add(t.a[0], asm.I32And(asm.I32Sub(end, t.a[0]), i32(-4*stepUnroll))))
	t.While(asm.I32LtU(t.a[0], t.end), func() { t.steps(stepUnroll) })
	t.While(asm.I32LtU(t.a[0], end), func() { t.steps(1) })
}

// Peak runs the inner loop of the path's integer GEMM over the same PeakK bytes
// of each row, which stay in the first cache: the roofline. Every turn is
// PeakMACs multiplications.
type Peak struct {
	X     uint32 // PeakBytes of anything
	Turns int
}

// Sizes of Peak.
const (
	PeakK     = 256
	PeakBytes = PeakK * (8 + 32)
)

// PeakMACs is the work of a turn.
func PeakMACs(p Path) int {
	perByte := 1
	if p.Form == Plain {
		perByte = 2 // a k has two bytes
	}
	return p.Rows * 8 * p.Panels * PeakK / perByte
}

// Append implements Command.
func (c Peak) Append(l List) List { return l.add(opPeak, c.X, uint32(c.Turns)) }

func emitPeak(e *emitter) {
	x, left := e.arg(0), e.arg(1)
	rows, nv := e.path.Rows, 2*e.path.Panels
	t := &intTile{emitter: e, form: e.path.Form, rows: rows, nv: nv, a: e.Locals(asm.I32, rows), acc: e.Locals(asm.V128, rows*nv),
		b: e.Locals(asm.V128, nv), av: e.Locals(asm.V128, rows), bp: e.Local(asm.I32), end: e.Local(asm.I32)}
	end := e.let(asm.I32Add(x, i32(PeakK)))
	e.While(left, func() {
		for r := range rows {
			e.Set(t.a[r], asm.I32Add(x, i32(PeakK*r)))
		}
		e.Set(t.bp, asm.I32Add(x, i32(PeakK*8)))
		t.run(end)
		e.Bump(-1, left)
	})
	for i, acc := range t.acc { // so that no compiler drops them
		e.V128Store(x, uint32(16*i), acc)
	}
}

// emitIntGEMM writes the GEMM of weights of so many bits; with codes its
// outputs are ReLU6 codes of a byte, else float32.
func emitIntGEMM(bits int, codes7 bool) func(e *emitter) {
	return func(e *emitter) {
		form := e.path.Form
		if bits == 8 {
			form = Plain
		}
		g := newIntGEMM(e, bits, form)
		in := e.ints(14)
		q0, s0, starts, codes, scales, cols, y0, scratch, m, k, panels, ldy, unit := in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8], in[9], in[10], in[11], in[12]
		add, lo, hi := e.splat(14), e.splat(15), e.splat(16)
		var groups, group asm.Expr
		if bits < 8 {
			groups, group = e.arg(17), e.arg(18)
		}
		sStep := e.arg(19)
		e.If(asm.I32Eqz(sStep), func() { e.Set(s0, asm.I32Add(e.args, i32(4*20))) }) // one pair for all rows
		panelShift := i32(5)                                                         // of a row of Y
		var r6 *relu6
		if codes7 {
			panelShift, r6, g.step = i32(3), e.relu6(), codeSteps
		}
		g.setup(k, codes, scales, unit, groups, group, scratch, in[13])

		// In bytes of an activation row. With int8 rows, these are the k's themselves.
		rowBytes, rowStride, unitBytes := k, e.let(asm.I32And(asm.I32Add(k, i32(15)), i32(-16))), unit
		if form == Plain {
			rowBytes = e.let(asm.I32Shl(k, i32(1)))
			rowStride = rowBytes
			unitBytes = e.let(asm.I32Shl(unit, i32(1)))
		}
		m4 := e.let(asm.I32Shl(m, i32(2)))
		// What stays of a tile between units: float32 sums, then int32 sums; and
		// between them, with codes, what is per column.
		sums := e.let(asm.I32Add(g.scratch, asm.I32Sub(in[13], i32(tileScratch))))
		const ints, scaled = tileScratch / 2, tileScratch / 4

		rows, maxPanels := e.path.Rows, e.path.Panels
		if bits == 8 {
			rows = min(rows, plainRows)
		}
		p, end, first, count := e.cut(panels, m)
		a := e.Locals(asm.I32, rows)
		rowEnd, uEnd, sEnd, mEnd := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
		bp, sc, st, s, col, y, st0 := e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32), e.Local(asm.I32)
		acc := e.Locals(asm.V128, rows*2*maxPanels)
		b := e.Locals(asm.V128, 2*maxPanels)
		av := e.Locals(asm.V128, rows)

		colVectors := uint32(64)
		if bits == 8 {
			colVectors = 96
		}
		tile := func(rows, nv int) {
			at := func(r, v int) uint32 { return uint32(16 * (r*nv + v)) }
			each := func(f func(r, v int)) {
				for r := range rows {
					for v := range nv {
						f(r, v)
					}
				}
			}
			t := &intTile{emitter: e, form: form, rows: rows, nv: nv, a: a, acc: acc, b: b, av: av, bp: bp, end: mEnd}
			begin := func() {
				for r := range rows {
					first := asm.I32x4Const(0)
					if form != Plain {
						first = asm.V128Load32Splat(st, uint32(4*r))
					}
					e.Set(acc[r*nv], first)
					for v := 1; v < nv; v++ {
						e.Set(acc[r*nv+v], acc[r*nv])
					}
				}
				if form != Plain {
					e.Add(m4, st)
				}
			}

			for r := 1; r < rows; r++ {
				e.Set(a[r], asm.I32Add(a[r-1], rowStride))
			}
			e.Set(bp, g.scratch)
			e.Set(rowEnd, asm.I32Add(a[0], rowBytes))
			if bits == 8 {
				begin()
				t.run(rowEnd)
			} else {
				several := form == Dot16 && bits > 4 // segments in a unit
				e.Set(sc, g.scaleAt)
				e.Set(st, st0)
				empty := func() {
					if several {
						each(func(r, v int) { e.V128Store(sums, ints+at(r, v), asm.I32x4Const(0)) })
					}
				}
				empty()
				widened := func(r, v int) asm.Expr {
					if form != Dot16 {
						return acc[r*nv+v]
					}
					x := asm.I32x4ExtaddPairwiseI16x8S(acc[r*nv+v])
					if several {
						x = asm.I32x4Add(x, asm.V128Load(sums, ints+at(r, v)))
					}
					return x
				}
				e.While(asm.I32LtU(a[0], rowEnd), func() {
					e.min(uEnd, asm.I32Add(a[0], unitBytes), rowEnd)
					if several {
						e.Set(sEnd, asm.I32Add(a[0], i32(period(bits))))
						e.While(asm.I32LtU(sEnd, uEnd), func() {
							begin()
							t.run(sEnd)
							each(func(r, v int) { e.V128Store(sums, ints+at(r, v), widened(r, v)) })
							e.Bump(int32(period(bits)), sEnd)
						})
					}
					begin()
					t.run(uEnd)
					each(func(r, v int) {
						e.Set(acc[r*nv+v], asm.F32x4Mul(asm.F32x4ConvertI32x4S(widened(r, v)), asm.V128Load(sc, uint32(16*v))))
					})
					empty()
					e.If(asm.I32LtU(g.scaleAt, sc), func() {
						each(func(r, v int) { e.Set(acc[r*nv+v], asm.F32x4Add(asm.V128Load(sums, at(r, v)), acc[r*nv+v])) })
					})
					e.If(asm.I32LtU(a[0], rowEnd), func() {
						each(func(r, v int) { e.V128Store(sums, at(r, v), acc[r*nv+v]) })
					})
					e.Bump(int32(16*nv), sc)
				})
			}

			for r := range rows {
				e.Set(av[0], asm.V128Load32Splat(s, 0))
				e.Set(b[0], asm.V128Load32Splat(s, 4))
				e.Add(sStep, s)
				for v := range nv {
					c := uint32(v/2)*colVectors + uint32(v%2*16)
					var x asm.Expr
					if bits == 8 {
						x = asm.F32x4Mul(asm.F32x4ConvertI32x4S(acc[r*nv+v]), asm.F32x4Mul(av[0], asm.V128Load(col, c)))
						c += 32
					} else {
						x = asm.F32x4Mul(acc[r*nv+v], av[0])
					}
					x = asm.F32x4Add(x, asm.F32x4Mul(b[0], asm.V128Load(col, c)))
					x = asm.F32x4Add(x, asm.V128Load(col, c+32))
					if codes7 {
						e.Set(acc[r*nv+v], r6.round(x))
						if v%2 == 1 {
							e.store7(y, uint32(4*(v-1)), acc[r*nv+v-1], acc[r*nv+v])
						}
						continue
					}
					x = clamp(x, lo, hi)
					e.V128Store(y, uint32(16*v), asm.F32x4Add(x, asm.V128And(asm.V128Load(y, uint32(16*v)), add)))
				}
				e.Add(ldy, y)
			}
			e.Bump(int32(4*rows), st0)
			e.Set(a[0], asm.I32Add(asm.I32Sub(a[rows-1], rowBytes), rowStride))
		}
		body := func(n int) {
			g.unpack(p, n)
			if bits == 8 {
				e.Set(col, asm.I32Add(cols, asm.I32Mul(p, i32(96))))
			} else {
				e.Set(col, asm.I32Add(cols, asm.I32Shl(p, i32(6))))
			}
			if codes7 {
				for o := uint32(0); o < uint32(n)*colVectors; o += 16 {
					e.V128Store(sums, scaled+o, asm.F32x4Mul(asm.V128Load(col, o), asm.F32x4Const(codeSteps)))
				}
				e.Set(col, asm.I32Add(sums, i32(scaled)))
			}
			e.Set(a[0], asm.I32Add(q0, asm.I32Mul(first, rowStride)))
			e.Set(s, asm.I32Add(s0, asm.I32Mul(first, sStep)))
			e.Set(st0, asm.I32Add(starts, asm.I32Shl(first, i32(2))))
			e.Set(y, asm.I32Add(y0, asm.I32Add(asm.I32Mul(first, ldy), asm.I32Shl(p, panelShift))))
			e.rowTiles(count, rows, func(rows int) { tile(rows, 2*n) })
			e.Bump(int32(n), p)
		}
		for n := maxPanels; n > 0; n-- {
			e.While(asm.I32LeS(asm.I32Add(p, i32(n)), end), func() { body(n) })
		}
	}
}
