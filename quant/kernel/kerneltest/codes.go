package kerneltest

import (
	"encoding/binary"
	"fmt"
	"testing"

	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/qtype"
)

// codes runs the middle of a convolutional block: what expands, the depthwise
// convolution and what reads it hand codes to each other.
func codes(t *testing.T, newHost func() device.Host) {
	for _, path := range paths(t, newHost) {
		for _, kind := range []qtype.Kind{"q8c", "q4", "q5", "q6", "q7"} {
			for _, size := range []int{3, 5} {
				for _, stride := range []int{1, 2} {
					for _, s := range []block{{1, 1, 8, 16, 8}, {2, 3, 5, 32, 9}, {9, 7, 16, 144, 24}, {5, 17, 88, 48, 12}} {
						for _, extreme := range []bool{false, true} {
							t.Run(fmt.Sprint(path, kind, size, stride, s, extreme), func(t *testing.T) {
								b := newBench(t, newHost())
								b.path = &path
								b.codes(kind, size, stride, s, extreme)
							})
						}
					}
				}
			}
		}
	}
}

type block struct{ height, width, in, wide, out int }

// codes runs a block whose weights are of that kind; extreme: sums as large as
// they get, of both signs.
func (b *bench) codes(kind qtype.Kind, size, stride int, s block, extreme bool) {
	outH, outW := (s.height+stride-1)/stride, (s.width+stride-1)/stride
	m, outM := s.height*s.width, outH*outW
	x := b.rows(m, s.in, qtype.RoundUp(s.in, 8), 3)
	filters, scales, bias := make([]byte, s.wide*size*size), b.rows(1, s.wide, s.wide, 0.01), b.rows(1, s.wide, s.wide, 6)
	for i := range filters {
		filters[i] = byte(b.rng.IntN(255) - 127)
	}
	expandBias := b.rows(1, s.wide, s.wide, 6)
	if extreme {
		for i := range scales {
			scales[i], bias[i], expandBias[i] = 65504, 0, 1e30
		}
		for i := range filters {
			filters[i] = byte(127 - i/(size*size)%2*254)
		}
	}
	packed := kernel.PackDepthwise(filters, scales, bias, size)

	expand := b.layer(kind, m, s.in, s.wide, expandBias)
	expand.input(x, qtype.RoundUp(s.in, 8), kernel.First{})
	wide := b.out(m * s.wide)
	project := b.layer(kind, outM, s.wide, s.out, b.rows(1, s.out, s.out, 1))
	ldy := qtype.RoundUp(s.out, 8)
	want := b.rows(outM, s.out, ldy, 1)
	y := b.inOut(f32bytes(want))
	c := kernel.DepthwiseCodes{X: wide, W: b.in(packed), Y: project.q, Starts: project.starts,
		Scratch: b.out(maxThreads * kernel.DepthwiseScratch(size, stride, outW)), Kernel: size, Stride: stride,
		Pad: max(0, (outH-1)*stride+size-s.height) / 2, Height: s.height, Width: s.width, C: s.wide,
		OutHeight: outH, OutWidth: outW, Low: expand.low}
	b.run(append(append(expand.before, project.before...), expand.gemm(wide, s.wide, false, true), c, project.gemm(y, ldy, true, false))...)

	q, rowScales := make([]int16, m*qtype.RoundUp(s.in, 4)), make([]float32, 2*m)
	for r := range m {
		k4 := qtype.RoundUp(s.in, 4)
		rowScales[2*r], rowScales[2*r+1] = kernel.RefQuant(q[r*k4:(r+1)*k4], x[r*qtype.RoundUp(s.in, 8):][:k4])
	}
	u := make([]byte, m*s.wide)
	if expand.low.Bits == 0 {
		kernel.RefGEMMQ8CCodes(u, q, rowScales, expand.weights, expand.cols, m, s.in, s.wide, s.wide)
	} else {
		kernel.RefGEMMLowCodes(u, q, rowScales, expand.weights, expand.cols, expand.low, m, s.in, s.wide, s.wide)
	}
	got := make([]byte, len(u))
	if err := b.dev.Read(wide, got); err != nil {
		b.t.Fatal(err)
	}
	for i := range u {
		if got[i] != u[i] {
			b.t.Fatalf("expand[%d] = %d, want %d", i, got[i], u[i])
		}
	}
	deep := make([]int16, outM*s.wide)
	kernel.RefDepthwiseCodes(deep, u, filters, scales, bias, c)
	if plain := expand.low.Bits == 0 || b.path.Form == kernel.Plain; plain {
		got := make([]byte, 2*len(deep))
		if err := b.dev.Read(c.Y, got); err != nil {
			b.t.Fatal(err)
		}
		for i, v := range deep {
			if g := int16(binary.LittleEndian.Uint16(got[2*i:])); g != v {
				b.t.Fatalf("depthwise[%d] = %d, want %d", i, g, v)
			}
		}
	} else {
		got := make([]byte, len(deep))
		if err := b.dev.Read(c.Y, got); err != nil {
			b.t.Fatal(err)
		}
		for i, v := range deep {
			if int8(got[i]) != int8(v) {
				b.t.Fatalf("depthwise[%d] = %d, want %d", i, int8(got[i]), v)
			}
		}
	}
	pair := kernel.ReLU6Row()
	rowScales = rowScales[:0]
	for range outM {
		rowScales = append(rowScales, pair[:]...)
	}
	project.ref(want, deep, rowScales, ldy, true)
	same(b.t, "y", b.f32at(y, len(want)), want)
}

// layer is a linear layer of random weights with its buffers.
type layer struct {
	b                  *bench
	m, k, n            int
	low                qtype.Low
	weights            []byte
	cols               []float32
	w, c, q, s, starts uint32
	scratch            uint32
	before             []kernel.Command
}

func (b *bench) layer(kind qtype.Kind, m, k, n int, bias []float32) *layer {
	l := &layer{b: b, m: m, k: k, n: n}
	values := b.rows(n, k, k, 0.3)
	l.low, _ = kind.Low()
	l.scratch = b.out(kernel.GEMMScratch(k) * maxThreads)
	l.q, l.s = b.out(kernel.QuantLowBytes(m, k)), b.out(8*m)
	if l.low.Bits == 0 {
		tensor := qtype.AppendQ8C(nil, values, n, k)
		l.weights = tensor[qtype.Q8C.ScaleBytes(n):]
		l.cols = kernel.PackCols(l.weights, qtype.Q8C.Scales(tensor, n), bias, n, k)
		l.w, l.c = b.in(l.weights), b.f32(l.cols)
		return l
	}
	l.weights = l.low.Append(nil, values, n, k)
	l.cols = kernel.PackLowCols(bias)
	l.w, l.c, l.starts = b.in(l.weights), b.inOut(f32bytes(l.cols)), b.out(kernel.QuantLowStarts(l.low, m, k))
	kernel.RefColSums(l.cols, l.weights, l.low, k, n)
	l.before = []kernel.Command{kernel.ColSums{W: l.w, Cols: l.c, Scratch: l.scratch, K: k, N: n, Low: l.low}}
	return l
}

// input adds the command that quantizes x, after what comes first.
func (l *layer) input(x []float32, ldx int, first kernel.First) {
	at := l.b.f32(x)
	if l.low.Bits == 0 {
		l.before = append(l.before, kernel.Quant{X: at, Q: l.q, S: l.s, M: l.m, K: l.k, LDX: ldx, First: first})
		return
	}
	l.before = append(l.before, kernel.QuantLow{X: at, Q: l.q, S: l.s, Starts: l.starts, M: l.m, K: l.k, LDX: ldx, Low: l.low, First: first})
}

func (l *layer) gemm(y uint32, ldy int, in, out bool) kernel.Command {
	if l.low.Bits == 0 {
		return kernel.GEMMQ8C{Q: l.q, S: l.s, W: l.w, Cols: l.c, Y: y, Scratch: l.scratch, M: l.m, K: l.k, N: l.n, LDY: ldy,
			Lo: -kernel.Inf, Hi: kernel.Inf, Add: !out, CodesIn: in, CodesOut: out}
	}
	return kernel.GEMMLow{Q: l.q, S: l.s, Starts: l.starts, W: l.w, Cols: l.c, Y: y, Scratch: l.scratch, M: l.m, K: l.k, N: l.n, LDY: ldy,
		Low: l.low, Lo: -kernel.Inf, Hi: kernel.Inf, Add: !out, CodesIn: in, CodesOut: out}
}

func (l *layer) ref(y []float32, q []int16, s []float32, ldy int, add bool) {
	if l.low.Bits == 0 {
		kernel.RefGEMMQ8C(y, q, s, l.weights, l.cols, l.m, l.k, l.n, ldy, -kernel.Inf, kernel.Inf, add)
	} else {
		kernel.RefGEMMLow(y, q, s, l.weights, l.cols, l.low, l.m, l.k, l.n, ldy, -kernel.Inf, kernel.Inf, add)
	}
}

// first runs layers whose rows go through something else before they are
// quantized.
func first(t *testing.T, newHost func() device.Host) {
	for _, path := range paths(t, newHost) {
		for _, kind := range []qtype.Kind{"q8c", "q4", "q6"} {
			for _, do := range []kernel.Doing{kernel.DoGELU, kernel.DoQuickGELU, kernel.DoLayerNorm} {
				for _, s := range []shape{{1, 8, 8}, {5, 24, 9}, {9, 192, 17}, {3, 776, 8}} {
					t.Run(fmt.Sprint(path, kind, do, s), func(t *testing.T) {
						b := newBench(t, newHost())
						b.path = &path
						b.first(kind, do, s)
					})
				}
			}
		}
	}
}

// first runs one such layer; s.k is a multiple of 8.
func (b *bench) first(kind qtype.Kind, do kernel.Doing, s shape) {
	ldx, ldy := s.k+8, qtype.RoundUp(s.n, 8)
	x, w := b.rows(s.m, s.k, ldx, 5), b.rows(2, s.k, s.k, 2)
	l := b.layer(kind, s.m, s.k, s.n, b.rows(1, s.n, s.n, 1))
	f := kernel.First{Do: do, Scratch: b.out(kernel.FirstScratch(s.k)), W: b.f32(w), Eps: 1e-5}
	l.input(x, ldx, f)
	want := b.rows(s.m, s.n, ldy, 1)
	y := b.inOut(f32bytes(want))
	b.run(append(l.before, l.gemm(y, ldy, false, false))...)

	q, rowScales, row := make([]int16, s.m*s.k), make([]float32, 2*s.m), make([]float32, s.k)
	for r := range s.m {
		copy(row, x[r*ldx:])
		switch do {
		case kernel.DoGELU:
			kernel.RefGELU(row)
		case kernel.DoQuickGELU:
			kernel.RefQuickGELU(row)
		case kernel.DoLayerNorm:
			kernel.RefLayerNorm(row, x[r*ldx:][:s.k], w, s.k, f.Eps)
		}
		rowScales[2*r], rowScales[2*r+1] = kernel.RefQuant(q[r*s.k:(r+1)*s.k], row)
	}
	same(b.t, "scale, zero", b.f32at(l.s, len(rowScales)), rowScales)
	l.ref(want, q, rowScales, ldy, true)
	same(b.t, "y", b.f32at(y, len(want)), want)
}
