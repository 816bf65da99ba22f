package tta

import (
	"math"
	"math/rand/v2"
	"testing"

	"lqa/quant/numeric"
)

// layer is a last layer [d, f] that makes much of the first few directions.
func layer(r *rand.Rand, d, f, loud int) []float32 {
	w := make([]float32, d*f)
	for i := range w {
		w[i] = float32(r.NormFloat64())
		if i/f < loud {
			w[i] *= 5
		}
	}
	return w
}

// testMetric is of width 64.
func testMetric() *Metric { return NewMetric(layer(rand.New(rand.NewPCG(8, 8)), 64, 96, 16), 64) }

// TestMetric_Solve: what solve makes, times M as float64 has it, is what it was given.
func TestMetric_Solve(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, shape := range [][2]int{{1, 3}, {7, 2}, {30, 31}, {64, 200}} {
		d, f := shape[0], shape[1]
		w := layer(r, d, f, d/4)
		m := NewMetric(w, d)
		gram := make([]float64, d*d)
		var trace float64
		for i := range d {
			for j := range d {
				for k := range f {
					gram[i*d+j] += float64(w[i*f+k]) * float64(w[j*f+k])
				}
			}
			trace += gram[i*d+i]
		}
		want := randomUnit(r, d)
		x := append([]float32(nil), want...)
		m.solve(x)
		got := make([]float32, d)
		for i := range d {
			sum := metricRidge * float64(x[i])
			for j := range d {
				sum += gram[i*d+j] * float64(d) / trace * float64(x[j])
			}
			got[i] = float32(sum)
		}
		near(t, "M·solve(x)", got, want, 1e-4)
	}
}

func TestNewMetric_None(t *testing.T) {
	inf := float32(math.Inf(1))
	for name, m := range map[string]*Metric{
		"nothing": NewMetric(nil, 4), "no width": NewMetric([]float32{1}, 0), "another shape": NewMetric(make([]float32, 7), 2),
		"zero": NewMetric(make([]float32, 8), 4), "not finite": NewMetric([]float32{inf, 1}, 2), "too large": NewMetric([]float32{1e30, 1}, 2),
		"too wide": NewMetric(make([]float32, metricWidth+1), metricWidth+1),
	} {
		if m != nil {
			t.Errorf("%s: a metric", name)
		}
	}
}

// TestTeach_Metric: places differ in directions that the last layer makes much of,
// things in others. What was taught in one place is known in others, better than
// by the cosine; a metric of another width changes nothing.
func TestTeach_Metric(t *testing.T) {
	const d, labels = 64, 4
	right := func(metric *Metric) (n int) {
		r := rand.New(rand.NewPCG(3, 3))
		s := newTestSession(t, labels, d, func(c *SessionConfig) {
			c.Adapter, c.Metric = "zeroshot", func() *Metric { return metric }
		})
		shown := func(thing []float32, noise float32) []float32 {
			f := make([]float32, d)
			for i := range f {
				f[i] = thing[i] + float32(noise*float32(r.NormFloat64()))/8
				if i < 16 {
					f[i] += float32(0.5 * float32(r.NormFloat64()))
				}
			}
			numeric.Normalize(f)
			return f
		}
		var out Result
		for range 20 {
			things := make([][]float32, labels)
			s.ResetAll()
			for l := range things {
				things[l] = randomUnit(r, d)
				if _, err := s.Teach(l, shown(things[l], 0.5)); err != nil {
					t.Fatal(err)
				}
			}
			for l, thing := range things {
				for range 10 {
					if err := s.Still(shown(thing, 0.5), &out); err != nil {
						t.Fatal(err)
					}
					if out.Adapted.Best() == l {
						n++
					}
				}
			}
		}
		return n
	}
	r := rand.New(rand.NewPCG(5, 5))
	by, without := right(NewMetric(layer(r, d, 96, 16), d)), right(nil)
	if by < without+80 || by < 600 {
		t.Errorf("%d of 800 right, by the cosine %d", by, without)
	}
	if other := right(NewMetric(layer(r, d/2, 96, 16), d/2)); other != without {
		t.Errorf("by a metric of another width %d of 800 right, by the cosine %d", other, without)
	}
}
