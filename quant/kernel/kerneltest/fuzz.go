package kerneltest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/qtype"
)

// Fuzz runs n cases of random kernels and shapes against the references; seed
// chooses them. A case that fails names itself, and so can be run again.
func Fuzz(t *testing.T, newHost func() device.Host, seed uint64, n int) {
	all := paths(t, newHost)
	for i := range n {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		path := pick(rng, all)
		upTo := func(n int) int { return 1 + rng.IntN(n) }
		s := shape{upTo(60), upTo(300), upTo(80)}
		if rng.IntN(8) == 0 { // so many rows are cut otherwise
			s = shape{250 + upTo(100), upTo(40), upTo(40)}
		}
		add := rng.IntN(2) == 0
		limit := pick(rng, limits)
		cases := []struct {
			what string
			run  func(b *bench)
		}{
			{"gemm_q8c", func(b *bench) { b.gemmQ8C(s, rng.IntN(4) == 0, limit.lo, limit.hi, add) }},
			{"gemm_low", func(b *bench) {
				b.gemmLow(pick(rng, lowKinds), s, pick(rng, []string{"random", "random", "least", "most"}), add)
			}},
			{"depthwise", func(b *bench) { b.depthwise(3+2*rng.IntN(2), upTo(2), upTo(20), upTo(20), upTo(40)) }},
			{"codes", func(b *bench) {
				b.codes(pick(rng, []qtype.Kind{"q8c", "q4", "q5", "q6", "q7"}), 3+2*rng.IntN(2), upTo(2), block{upTo(20), upTo(20), upTo(60), 16 * upTo(6), upTo(40)}, rng.IntN(4) == 0)
			}},
			{"layernorm", func(b *bench) {
				b.layerNorm(func(b *bench, x []float32) { b.fill(x, -3, 3) }, s.m, upTo(900), add)
			}},
			{"first", func(b *bench) {
				b.first(pick(rng, []qtype.Kind{"q8c", "q4", "q5", "q6", "q7"}), pick(rng, []kernel.Doing{kernel.DoGELU, kernel.DoQuickGELU, kernel.DoLayerNorm}), shape{s.m, 8 * upTo(40), s.n})
			}},
			{"attention", func(b *bench) {
				n, h, d := upTo(130), upTo(4), 8*upTo(16)
				from := rng.IntN(n)
				b.attention(kernel.Attention{T: n, From: from, To: from + upTo(n-from), H: h, D: d, LDX: 3*h*d + 4*rng.IntN(3), LDY: h*d + 4*rng.IntN(3), Causal: add, Float: rng.IntN(3) == 0},
					pick(rng, attentionFills).fill)
			}},
			{"softmax", func(b *bench) { b.softmax(upTo(1100), pick(rng, []float32{0.1, 5, 65504}), -5) }},
			{"vote", func(b *bench) { b.vote(upTo(70), upTo(600), pick(rng, []string{"random", "least", "most"})) }},
			{"dots", func(b *bench) { b.dots(upTo(70), upTo(600), 1) }},
			{"gate", func(b *bench) { b.gate(upTo(600), pick(rng, []float32{-9, -1, 0, 2, 12}), 3) }},
		}
		c := cases[pick(rng, []int{0, 1, 1, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10})]
		t.Run(fmt.Sprintf("%d %s %v", i, c.what, path), func(t *testing.T) {
			b := newBench(t, newHost())
			b.path, b.rng = &path, rng
			c.run(b)
		})
	}
}

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }
