package calibrate

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"lqa/quant/qtype"
)

var scaled = []qtype.Kind{qtype.Q4, qtype.Q5, qtype.Q6, qtype.Q7, "q4g32", "q5g64", "q6g128", qtype.Q8C, qtype.Q8R}

func gauss(seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return x
}

// layerOf is the statistics of inputs x [N,K].
func layerOf(x []float32, k int) *Layer {
	l := &Layer{N: int64(len(x) / k), K: k, Max: make([]float32, k), H: make([]float32, 0, k*(k+1)/2)}
	for i := range k {
		for j := i; j < k; j++ {
			var sum float64
			for r := 0; r < len(x); r += k {
				sum += float64(x[r+i]) * float64(x[r+j])
				l.Max[i] = max(l.Max[i], x[r+i], -x[r+i])
			}
			l.H = append(l.H, float32(sum))
		}
	}
	return l
}

// inputs are rows [N,K] as a trained layer sees them: far fewer causes than
// channels, and channels of very different size.
func inputs(seed uint64, n, k int) []float32 {
	causes := k/8 + 1
	mix, size := gauss(100, k*causes), gauss(200, k)
	rng := rand.New(rand.NewPCG(seed, 2))
	x, z := make([]float32, n*k), make([]float32, causes)
	for r := range n {
		for i := range z {
			z[i] = float32(rng.NormFloat64())
		}
		for c := range k {
			v := 0.3 * float32(rng.NormFloat64())
			for i, y := range z {
				v += mix[c*causes+i] * y / float32(math.Sqrt(float64(causes)))
			}
			x[r*k+c] = v * float32(math.Exp(0.7*float64(size[c])))
		}
	}
	return x
}

// loss is tr(E·H·Eᵀ) by plain loops.
func loss(t *testing.T, kind qtype.Kind, b []byte, w []float32, n int, l *Layer) float64 {
	t.Helper()
	q := values(t, kind, b, n, l.K)
	var sum float64
	for r := range n {
		for i := range l.K {
			ei := float64(w[r*l.K+i]) - float64(q[r*l.K+i])
			for j := range l.K {
				sum += ei * float64(l.At(i, j)) * (float64(w[r*l.K+j]) - float64(q[r*l.K+j]))
			}
		}
	}
	return sum
}

// values checks the bytes of a tensor and returns what they stand for.
func values(t *testing.T, kind qtype.Kind, b []byte, n, k int) []float32 {
	t.Helper()
	x, err := kind.Dequantize(b, []int{n, k})
	if err != nil {
		t.Fatal(err)
	}
	if err := kind.CheckScales(b, []int{n, k}); err != nil {
		t.Fatal(err)
	}
	for i, v := range x {
		if v != v || math.IsInf(float64(v), 0) {
			t.Fatalf("%s: %v at %d", kind, v, i)
		}
	}
	return x
}

func must(t *testing.T, m Method, kind qtype.Kind, w []float32, n, k int, l *Layer) []byte {
	t.Helper()
	b, err := Round(m, kind, w, n, k, l)
	if err != nil {
		t.Fatalf("%s %s [%d,%d]: %v", m, kind, n, k, err)
	}
	return b
}

func TestMethod_Names(t *testing.T) {
	for _, m := range []Method{Nearest, Clipped, GPTQ} {
		if got, err := ParseMethod(m.String()); err != nil || got != m {
			t.Errorf("%s comes back as %v, %v", m, got, err)
		}
	}
	if _, err := ParseMethod("rtn"); !errors.Is(err, ErrMethod) {
		t.Errorf("rtn: %v", err)
	}
	if s := Method(7).String(); s != "Method(7)" {
		t.Error(s)
	}
}

// TestRound_Shapes: every method and kind, over odd shapes, with input rows
// fewer and more than channels.
func TestRound_Shapes(t *testing.T) {
	for _, s := range [][2]int{{1, 1}, {1, 4}, {3, 5}, {8, 27}, {17, 64}, {9, 129}, {5, 200}, {33, 268}} {
		n, k := s[0], s[1]
		w := gauss(uint64(n), n*k)
		clear(w[:k]) // a zero row
		l := layerOf(inputs(3, 70, k), k)
		for _, kind := range append([]qtype.Kind{qtype.F16}, scaled...) {
			for _, m := range []Method{Nearest, Clipped, GPTQ} {
				got := values(t, kind, must(t, m, kind, w, n, k, l), n, k)
				for c, v := range got[:k] {
					if v != 0 {
						t.Fatalf("%s %s %v: column %d of a zero row is %v", m, kind, s, c, v)
					}
				}
			}
		}
	}
}

// TestRound_Nearest: half a step at most, and the bytes that package qtype
// makes of the same values.
func TestRound_Nearest(t *testing.T) {
	const n, k = 9, 100
	w := gauss(4, n*k)
	for _, kind := range scaled {
		b := must(t, Nearest, kind, w, n, k, nil)
		got, g := values(t, kind, b, n, k), gridOf(kind, n, k)
		for r := range n {
			for i := range g.groups {
				from, to := g.columns(i)
				var top float64
				for _, v := range w[r*k+from : r*k+to] {
					top = max(top, math.Abs(float64(v)))
				}
				for c := from; c < to; c++ {
					if d := math.Abs(float64(w[r*k+c] - got[r*k+c])); d > 0.57*top/float64(g.reach) {
						t.Fatalf("%s [%d,%d] is off by %v of a step", kind, r, c, d*float64(g.reach)/top)
					}
				}
			}
		}
		q := newRounded(g) // the same through our own grid
		for i, v := range w {
			r, c := i/k, i%k
			from, to := g.columns(c / g.group)
			var top float32
			for _, v := range w[r*k+from : r*k+to] {
				top = max(top, v, -v)
			}
			s := half(top / g.reach)
			q.scales[r*g.groups+c/g.group], q.codes[i] = s, g.code(v, s)
		}
		if !bytes.Equal(b, q.encode(nil, kind)) {
			t.Errorf("%s: encode and package qtype differ", kind)
		}
	}
}

// TestRound_Order: on correlated inputs each method beats the one before, on
// the inputs it saw and on others.
func TestRound_Order(t *testing.T) {
	const n, k = 24, 144
	w := gauss(5, n*k)
	seen, fresh := layerOf(inputs(1, 600, k), k), layerOf(inputs(2, 600, k), k)
	for _, kind := range scaled {
		var last [2]float64
		for _, m := range []Method{Nearest, Clipped, GPTQ} {
			b := must(t, m, kind, w, n, k, seen)
			now := [2]float64{loss(t, kind, b, w, n, seen), loss(t, kind, b, w, n, fresh)}
			if m != Nearest && !(now[0] < last[0] && now[1] < last[1]) {
				t.Errorf("%s: %s has %.4g, %.4g, no better than %.4g, %.4g", kind, m, now[0], now[1], last[0], last[1])
			}
			if m == GPTQ && !(now[1] < last[1]/3) {
				t.Errorf("%s: GPTQ has %.4g of %.4g, it should gain more", kind, now[1], last[1])
			}
			last = now
		}
	}
}

// TestRound_ClippedPlain: without statistics the plain squared error falls.
func TestRound_ClippedPlain(t *testing.T) {
	const n, k = 24, 144
	w := gauss(6, n*k)
	plain := identity(k)
	for _, kind := range scaled {
		near := loss(t, kind, must(t, Nearest, kind, w, n, k, nil), w, n, plain)
		if got := loss(t, kind, must(t, Clipped, kind, w, n, k, nil), w, n, plain); !(got < near) {
			t.Errorf("%s: %v, nearest has %v", kind, got, near)
		}
	}
}

func identity(k int) *Layer {
	x := make([]float32, k*k)
	for i := range k {
		x[i*k+i] = 1
	}
	return layerOf(x, k)
}

// TestRound_NoCorrelation: with nothing to make up for, GPTQ is Clipped.
func TestRound_NoCorrelation(t *testing.T) {
	const n, k = 9, 144
	w := gauss(7, n*k)
	for _, kind := range scaled {
		if !bytes.Equal(must(t, Clipped, kind, w, n, k, identity(k)), must(t, GPTQ, kind, w, n, k, identity(k))) {
			t.Errorf("%s: GPTQ and Clipped differ", kind)
		}
	}
}

// TestRound_Degenerate: statistics that are no good basis give a valid weight,
// and the loss does not rise.
func TestRound_Degenerate(t *testing.T) {
	const n, k = 9, 72
	w := gauss(8, n*k)
	dead := inputs(3, 100, k)
	for i := range dead {
		if i%k%3 == 0 {
			dead[i] = 0
		}
	}
	ones := make([]float32, k)
	for i := range ones {
		ones[i] = 1
	}
	huge, tiny := gauss(9, 20*k), gauss(9, 20*k)
	for i := range huge {
		huge[i] *= 1e17
		tiny[i] *= 1e-21
	}
	// Rounded sums: no longer quite a sum of squares.
	rough := layerOf(inputs(3, 4, k), k)
	for i := range rough.H {
		rough.H[i] *= 1 + 0.05*float32(i%3-1)
	}
	for name, l := range map[string]*Layer{
		"zeros": layerOf(make([]float32, k), k), "one row": layerOf(ones, k), "dead channels": layerOf(dead, k),
		"one channel": layerOf(append(make([]float32, k-1), 5), k), "huge": layerOf(huge, k), "tiny": layerOf(tiny, k), "rough": rough,
	} {
		for _, kind := range scaled {
			near := loss(t, kind, must(t, Nearest, kind, w, n, k, l), w, n, l)
			got := loss(t, kind, must(t, GPTQ, kind, w, n, k, l), w, n, l)
			if name != "rough" && got > near*(1+1e-6) {
				t.Errorf("%s, %s: %v, nearest has %v", name, kind, got, near)
			}
		}
	}
}

// TestRound_DeadChannels: weights that nothing feeds stay near what they were.
func TestRound_DeadChannels(t *testing.T) {
	const n, k = 4, 64
	w, x := gauss(10, n*k), inputs(3, 300, k)
	for i := range x {
		if i%k >= k/2 {
			x[i] = 0
		}
	}
	got := values(t, qtype.Q6, must(t, GPTQ, qtype.Q6, w, n, k, layerOf(x, k)), n, k)
	for i, v := range got {
		if d := math.Abs(float64(v - w[i])); i%k >= k/2 && d > 0.1 {
			t.Errorf("[%d,%d]: %v became %v", i/k, i%k, w[i], v)
		}
	}
}

func TestRound_Extremes(t *testing.T) {
	const n, k = 2, 40
	l := layerOf(inputs(3, 100, k), k)
	for _, size := range []float32{1e-40, 1e-20, 1e-7, 1e-3, 1e4, 4e5} {
		w := gauss(11, n*k)
		for i := range w {
			w[i] *= size / 4
		}
		for _, m := range []Method{Nearest, Clipped, GPTQ} {
			for _, kind := range scaled {
				values(t, kind, must(t, m, kind, w, n, k, l), n, k)
			}
		}
	}
}

func TestRound_Refuses(t *testing.T) {
	const n, k = 2, 8
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	with := func(at int, v float32) []float32 {
		w := gauss(1, n*k)
		w[at] = v
		return w
	}
	stats := func(spoil func(l *Layer)) *Layer {
		l := layerOf(gauss(2, 30*k), k)
		spoil(l)
		return l
	}
	fine, good := with(0, 1), stats(func(*Layer) {})
	for name, c := range map[string]struct {
		m    Method
		kind qtype.Kind
		w    []float32
		n, k int
		l    *Layer
		want error
	}{
		"method":       {7, qtype.Q4, fine, n, k, good, ErrMethod},
		"negative":     {-1, qtype.Q4, fine, n, k, good, ErrMethod},
		"kind":         {GPTQ, "q3", fine, n, k, good, qtype.ErrKind},
		"text":         {GPTQ, qtype.U8, fine, n, k, good, qtype.ErrKind},
		"no rows":      {GPTQ, qtype.Q4, nil, 0, k, good, qtype.ErrShape},
		"overflow":     {GPTQ, qtype.Q4, fine, math.MaxInt32, math.MaxInt32, good, qtype.ErrShape},
		"short":        {GPTQ, qtype.Q4, fine[1:], n, k, good, qtype.ErrShape},
		"nan":          {Nearest, qtype.Q4, with(3, nan), n, k, good, ErrWeight},
		"inf":          {Clipped, qtype.Q8C, with(3, -inf), n, k, nil, ErrWeight},
		"large":        {GPTQ, qtype.Q4, with(3, 6e5), n, k, good, ErrWeight},
		"large half":   {Nearest, qtype.F16, with(3, 7e4), n, k, nil, ErrWeight},
		"no stats":     {GPTQ, qtype.Q4, fine, n, k, nil, ErrHessian},
		"other K":      {GPTQ, qtype.Q4, fine, n / 2, 2 * k, good, ErrHessian},
		"short stats":  {Clipped, qtype.Q4, fine, n, k, stats(func(l *Layer) { l.H = l.H[1:] }), ErrHessian},
		"nan stats":    {GPTQ, qtype.Q4, fine, n, k, stats(func(l *Layer) { l.H[5] = nan }), ErrHessian},
		"nan diagonal": {Clipped, qtype.Q4, fine, n, k, stats(func(l *Layer) { l.H[0] = nan }), ErrHessian},
		"inf stats":    {GPTQ, qtype.Q4, fine, n, k, stats(func(l *Layer) { l.H[0] = inf }), ErrHessian},
		"negative sum": {GPTQ, qtype.Q4, fine, n, k, stats(func(l *Layer) { l.H[0] = -1 }), ErrHessian},
		"no square":    {GPTQ, qtype.Q4, fine, n, k, stats(func(l *Layer) { l.H[1] = 1e30 }), ErrHessian},
	} {
		if _, err := Round(c.m, c.kind, c.w, c.n, c.k, c.l); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestRound_Processors: the bytes do not hang on how many work.
func TestRound_Processors(t *testing.T) {
	const n, k = 70, 300 // Cholesky in several blocks
	w, l := gauss(12, n*k), layerOf(inputs(3, 200, k), k)
	for _, kind := range []qtype.Kind{qtype.Q4, qtype.Q8C} {
		want := must(t, GPTQ, kind, w, n, k, l)
		for _, procs := range []int{1, 2, 5} {
			was := runtime.GOMAXPROCS(procs)
			got := must(t, GPTQ, kind, w, n, k, l)
			runtime.GOMAXPROCS(was)
			if !bytes.Equal(got, want) {
				t.Errorf("%s: %d processors give other bytes", kind, procs)
			}
		}
	}
}

// TestRefine: with every step the loss falls, or stays.
func TestRefine(t *testing.T) {
	const n, k = 9, 144
	w := gauss(13, n*k)
	l := layerOf(inputs(3, 300, k), k)
	for i := range k { // the loss that is promised to fall has the damping in it
		l.H[i*k-i*(i-1)/2] *= 1.01
	}
	d, err := damp(l, k)
	if err != nil {
		t.Fatal(err)
	}
	for i := range k {
		for j := i; j < k; j++ {
			l.H[i*k-i*(i-1)/2+j-i] = d.h[i*k+j]
		}
	}
	for _, kind := range scaled {
		q := newRounded(gridOf(kind, n, k))
		q.clip(w, nil)
		last := loss(t, kind, q.encode(nil, kind), w, n, l)
		for i := range 4 {
			q.refine(w, d)
			now := loss(t, kind, q.encode(nil, kind), w, n, l)
			if now > last*(1+1e-5) || i == 0 && !(now < 0.9*last) {
				t.Errorf("%s, pass %d: %v after %v", kind, i, now, last)
			}
			last = now
		}
	}
}

// TestDots compares the tiles with a plain loop, in float64.
func TestDots(t *testing.T) {
	for _, s := range [][5]int{{1, 1, 0, 0, 1}, {1, 9, 2, 0, 9}, {2, 8, 8, 4, 8}, {3, 21, 5, 2, 13}, {16, 130, 64, 0, 64}} {
		rows, k, first, lo, hi := s[0], s[1], s[2], s[3], s[4]
		x, m, y := gauss(1, rows*k), gauss(2, k*k), make([]float32, rows*block)
		dots(y, x, m, k, first, lo, hi)
		for r := range rows {
			for p := lo; p < hi; p++ {
				var sum, size float64
				for c := first; c < k; c++ {
					v := float64(x[r*k+c]) * float64(m[p*k+c])
					sum += v
					size += math.Abs(v)
				}
				if d := math.Abs(sum - float64(y[r*block+p-lo])); d > float64(k)*0x1p-24*size {
					t.Fatalf("%v: [%d,%d] is %v, want %v", s, r, p, y[r*block+p-lo], sum)
				}
			}
		}
	}
}

// BenchmarkRound has the linear layers of ViT-B/32, and a pointwise one of the
// shipped tower.
func BenchmarkRound(b *testing.B) {
	for _, s := range [][2]int{{2304, 768}, {768, 768}, {3072, 768}, {768, 3072}, {192, 1152}} {
		n, k := s[0], s[1]
		w, x := gauss(14, n*k), gauss(15, 64*k)
		l := &Layer{N: 64, K: k, H: make([]float32, 0, k*(k+1)/2)}
		for i := range k {
			for j := i; j < k; j++ {
				var sum float32
				for r := range 64 {
					sum += x[r*k+i] * x[r*k+j]
				}
				l.H = append(l.H, sum)
			}
		}
		for _, m := range []Method{Clipped, GPTQ} {
			b.Run(fmt.Sprintf("%s/%dx%d", m, n, k), func(b *testing.B) {
				for b.Loop() {
					if _, err := Round(m, qtype.Q4, w, n, k, l); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n*k), "ns/weight")
			})
		}
	}
}
