package kerneltest

import (
	"fmt"
	"math"
	"testing"

	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/qtype"
)

func layerNorm(t *testing.T, newHost func() device.Host) {
	for name, fill := range fills {
		for _, s := range []struct{ m, n int }{{1, 1}, {2, 5}, {3, 8}, {5, 17}, {4, 30}, {9, 192}, {2, 772}} {
			for _, inPlace := range []bool{false, true} {
				t.Run(fmt.Sprint(name, s, inPlace), func(t *testing.T) {
					newBench(t, newHost()).layerNorm(fill, s.m, s.n, inPlace)
				})
			}
		}
	}
}

func quickGELU(t *testing.T, newHost func() device.Host) {
	b := newBench(t, newHost())
	x := []float32{0, float32(math.Copysign(0, -1)), 1e-30, -1e-30, 1, -1, 10, -10, 100, -100, 1e4, -1e4, 1e30, -1e30, 1e-3, -1e-3}
	for v := float32(-8); v < 8; v += 0.0625 {
		x = append(x, v)
	}
	c := kernel.QuickGELU{X: b.out(4 * len(x)), N: len(x)}
	b.bufs[0].data = f32bytes(x)
	b.run(c)
	kernel.RefQuickGELU(x)
	same(t, "x", b.f32at(c.X, len(x)), x)
}

// attentionFills are what attention meets: random, equal rows, one token that
// takes all, zero, huge and tiny.
var attentionFills = []struct {
	name string
	fill func(b *bench, x []float32, a kernel.Attention)
}{
	{"random", func(b *bench, x []float32, _ kernel.Attention) { b.fill(x, -2, 2) }},
	{"equal", func(b *bench, x []float32, _ kernel.Attention) { b.fill(x, 1.5, 1.5) }},
	{"zero", func(*bench, []float32, kernel.Attention) {}},
	{"huge", func(b *bench, x []float32, a kernel.Attention) {
		for r := range a.T { // products of q and k stay finite
			b.fill(x[r*a.LDX:][:2*a.H*a.D], -1e17, 1e17)
			b.fill(x[r*a.LDX+2*a.H*a.D:][:a.H*a.D], -1e30, 1e30)
		}
	}},
	{"tiny", func(b *bench, x []float32, _ kernel.Attention) { b.fill(x, -1e-31, 1e-31) }},
	{"dominant", func(b *bench, x []float32, a kernel.Attention) {
		b.fill(x, -1, 1)
		w := a.H * a.D
		for r := range a.T {
			b.fill(x[r*a.LDX:][:w], 3, 4)
		}
		b.fill(x[a.T/2*a.LDX+w:][:w], 5, 6)
	}},
}

func attention(t *testing.T, newHost func() device.Host) {
	for _, f := range attentionFills {
		for _, s := range []struct{ t, h, d int }{{1, 1, 8}, {2, 3, 16}, {5, 2, 80}, {8, 1, 128}, {50, 2, 64}, {197, 1, 24}} {
			for _, mode := range []struct{ causal, float bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
				t.Run(fmt.Sprint(f.name, s, mode), func(t *testing.T) {
					b := newBench(t, newHost())
					w := s.h * s.d
					b.attention(kernel.Attention{T: s.t, To: s.t, H: s.h, D: s.d, LDX: 3*w + 4, LDY: w + 8, Causal: mode.causal, Float: mode.float}, f.fill)
				})
			}
		}
	}
}

func (b *bench) attention(a kernel.Attention, fill func(*bench, []float32, kernel.Attention)) {
	x := make([]float32, a.T*a.LDX)
	fill(b, x, a)
	a.X, a.Pack = b.f32(x), b.out(a.PackLen())
	a.Scratch, a.Y = b.out(a.ScratchLen()), b.out(4*a.T*a.LDY)
	b.run(kernel.AttentionPack(a), a)
	want := make([]float32, a.T*a.LDY)
	kernel.RefAttention(want, x, a)
	for i, v := range want {
		if math.IsNaN(float64(v)) {
			b.t.Fatalf("want[%d] is no number", i)
		}
	}
	got := b.f32at(a.Y, len(want))
	for r := a.From; r < a.To; r++ {
		same(b.t, fmt.Sprint("y, row ", r), got[r*a.LDY:], want[r*a.LDY:][:a.LDY])
	}
}

func (b *bench) layerNorm(fill func(*bench, []float32), m, n int, inPlace bool) {
	n8 := qtype.RoundUp(n, 8)
	ldx, ldy := n8+4, n8+8
	if inPlace {
		ldy = ldx
	}
	x := make([]float32, m*ldx)
	for r := range m {
		fill(b, x[r*ldx:r*ldx+n])
	}
	w := b.rows(2, n, n8, 2)
	c := kernel.LayerNorm{W: b.f32(w), X: b.f32(x), M: m, N: n, LDX: ldx, LDY: ldy, Eps: 1e-5}
	if inPlace {
		b.bufs[len(b.bufs)-1].output = true
		c.Y = c.X
	} else {
		c.Y = b.out(4 * m * ldy)
	}
	b.run(c)
	got, want := b.f32at(c.Y, m*ldy), make([]float32, n8)
	for r := range m {
		kernel.RefLayerNorm(want, x[r*ldx:r*ldx+n8], w, n, c.Eps)
		same(b.t, "y", got[r*ldy:], want)
		for i, v := range got[r*ldy+n : r*ldy+n8] {
			if v != 0 {
				b.t.Fatalf("padding %d of row %d is %v", i, r, v)
			}
		}
	}
}
