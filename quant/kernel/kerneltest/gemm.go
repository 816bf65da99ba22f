package kerneltest

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/qtype"
)

// paths are all that the host can run, the ones for other hosts too, but for
// those that its compiler gets wrong: the engine drops them as well. How work is
// cut into threads is the same for all of them.
func paths(t *testing.T, newHost func() device.Host) []kernel.Path {
	h := newHost()
	if _, ok := h.(split); ok {
		return h.Paths()[:1]
	}
	all := append(kernel.Paths(false), kernel.Wazero, kernel.Path{Rows: 1, Panels: 1})
	var lists []kernel.List
	for _, kind := range []qtype.Kind{"q4", "q5", "q6"} {
		low, _ := kind.Low()
		lists = append(lists, kernel.GEMMLow{M: 12, K: 128, N: 32, LDY: 32, Low: low, Lo: -kernel.Inf, Hi: kernel.Inf}.Append(nil).End())
	}
	sound, err := device.Sound(h, h.Paths(), lists)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range h.Paths() {
		switch {
		case !slices.Contains(sound, p):
			t.Logf("this host computes wrongly with %v", p)
		case !slices.Contains(all, p):
			all = append(all, p)
		}
	}
	return all
}

func gemmQ8C(t *testing.T, newHost func() device.Host) {
	for _, path := range paths(t, newHost) {
		for _, s := range append(shapes, shape{6, 1248, 16}) {
			for _, extreme := range []bool{false, true} {
				for i, l := range limits {
					t.Run(fmt.Sprint(path, s, extreme, l), func(t *testing.T) {
						b := newBench(t, newHost())
						b.path = &path
						b.gemmQ8C(s, extreme, l.lo, l.hi, i > 0)
					})
				}
			}
		}
	}
}

func (b *bench) gemmQ8C(s shape, extreme bool, lo, hi float32, add bool) {
	k4, ldy := qtype.RoundUp(s.k, 4), qtype.RoundUp(s.n, 8)
	q := make([]int16, s.m*k4)
	codes := make([]int8, s.n*s.k)
	for i := range q {
		q[i] = int16(b.rng.IntN(255) - 127)
	}
	for i := range codes {
		codes[i] = int8(b.rng.IntN(255) - 127)
	}
	if extreme {
		for i := range k4 {
			q[i] = 127
		}
		for i := range s.k {
			codes[i] = -127
		}
	}
	scales, bias := b.rows(1, s.n, s.n, 0.01), b.rows(1, s.n, s.n, 1)
	w := qtype.AppendQ8CCodes(nil, scales, codes, s.n, s.k)[qtype.Q8C.ScaleBytes(s.n):]
	cols := kernel.PackCols(w, scales, bias, s.n, s.k)
	rowScales, want := b.rows(s.m, 2, 2, 0.1), b.rows(s.m, s.n, ldy, 1)
	qb := make([]byte, 0, 2*len(q))
	for _, v := range q {
		qb = binary.LittleEndian.AppendUint16(qb, uint16(v))
	}
	c := kernel.GEMMQ8C{Q: b.in(qb), S: b.f32(rowScales), W: b.in(w), Cols: b.f32(cols),
		Y: b.inOut(f32bytes(want)), Scratch: b.out(kernel.GEMMScratch(s.k) * maxThreads),
		M: s.m, K: s.k, N: s.n, LDY: ldy, Lo: lo, Hi: hi, Add: add}
	b.run(c)
	kernel.RefGEMMQ8C(want, q, rowScales, w, cols, s.m, s.k, s.n, ldy, lo, hi, add)
	same(b.t, "y", b.f32at(c.Y, len(want)), want)
}

// lowShapes add to shapes what low bits trip over: groups that end within a
// step of four steps, several units, segments that do not fill one.
var lowShapes = append(slices.Clone(shapes), shape{5, 88, 8}, shape{6, 144, 9}, shape{11, 192, 24}, shape{2, 132, 8}, shape{3, 268, 16}, shape{50, 64, 16})

var lowKinds = []qtype.Kind{"q4", "q5", "q6", "q7", "q7g32", "q4g32", "q4g128", "q5g32", "q5g128", "q6g128"}

func gemmLow(t *testing.T, newHost func() device.Host) {
	for _, path := range paths(t, newHost) {
		for _, kind := range lowKinds {
			for _, s := range lowShapes {
				for _, fill := range []string{"random", "least", "most"} {
					t.Run(fmt.Sprint(path, kind, s, fill), func(t *testing.T) {
						b := newBench(t, newHost())
						b.path = &path
						b.gemmLow(kind, s, fill, fill == "most")
					})
				}
			}
		}
	}
}

// gemmLow runs the chain that a layer is: sums of the weights, quantization,
// GEMM. With "least" and "most" all activations but one are 127 and all codes
// at one end: the largest sums there are.
func (b *bench) gemmLow(kind qtype.Kind, s shape, fill string, add bool) {
	low, _ := kind.Low()
	k4, ldx, ldy := qtype.RoundUp(s.k, 4), qtype.RoundUp(s.k, 8), qtype.RoundUp(s.n, 8)
	x := b.rows(s.m, s.k, ldx, 3)
	codes := make([]byte, s.n*s.k)
	for i := range codes {
		switch fill {
		case "random":
			codes[i] = byte(b.rng.IntN(1 << low.Bits))
		case "most":
			codes[i] = 1<<low.Bits - 1
		}
	}
	if fill != "random" {
		for r := range s.m { // scale 1 and zero point 0: codes are the values
			for i := range s.k {
				x[r*ldx+i] = 127
			}
			x[r*ldx+s.k-1] = -127
		}
	}
	scales := make([]float32, s.n*low.Groups(s.k))
	for i := range scales {
		scales[i] = (b.rng.Float32() + 0.1) * 0.01
	}
	if fill == "random" {
		scales[0] = 0x1p-24 // subnormal as a half
	}
	w := low.AppendCodes(nil, scales, codes, s.n, s.k)
	cols := kernel.PackLowCols(b.rows(1, s.n, s.n, 1))
	want := b.rows(s.m, s.n, ldy, 1)

	sums := kernel.ColSums{W: b.in(w), Cols: b.inOut(f32bytes(cols)), Scratch: b.out(kernel.GEMMScratch(s.k) * maxThreads), K: s.k, N: s.n, Low: low}
	quant := kernel.QuantLow{X: b.f32(x), Q: b.out(kernel.QuantLowBytes(s.m, s.k)), S: b.out(8 * s.m),
		Starts: b.out(kernel.QuantLowStarts(low, s.m, s.k)), M: s.m, K: s.k, LDX: ldx, Low: low}
	gemm := kernel.GEMMLow{Q: quant.Q, S: quant.S, Starts: quant.Starts, W: sums.W, Cols: sums.Cols, Y: b.inOut(f32bytes(want)),
		Scratch: sums.Scratch, M: s.m, K: s.k, N: s.n, LDY: ldy, Low: low, Lo: -kernel.Inf, Hi: kernel.Inf, Add: add}
	b.run(sums, quant, gemm)

	kernel.RefColSums(cols, w, low, s.k, s.n)
	same(b.t, "cols", b.f32at(sums.Cols, len(cols)), cols)
	q, rowScales := make([]int16, s.m*k4), make([]float32, 2*s.m)
	for r := range s.m {
		rowScales[2*r], rowScales[2*r+1] = kernel.RefQuant(q[r*k4:(r+1)*k4], x[r*ldx:r*ldx+k4])
	}
	same(b.t, "scale, zero", b.f32at(quant.S, len(rowScales)), rowScales)
	kernel.RefGEMMLow(want, q, rowScales, w, cols, low, s.m, s.k, s.n, ldy, -kernel.Inf, kernel.Inf, add)
	same(b.t, "y", b.f32at(gemm.Y, len(want)), want)
}
