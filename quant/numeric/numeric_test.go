package numeric

import (
	"hash/fnv"
	"math"
	"testing"
)

// TestAgainstFloat64 holds each function to the error its comment states.
func TestAgainstFloat64(t *testing.T) {
	relative := func(got float32, want float64) float64 { return math.Abs(float64(got)-want) / math.Abs(want) }
	absolute := func(got float32, want float64) float64 { return math.Abs(float64(got) - want) }
	for _, c := range []struct {
		name   string
		f      func(float32) float32
		want   func(float64) float64
		lo, hi float32
		err    func(float32, float64) float64
		bound  float64
	}{
		{"Exp", Exp, math.Exp, -87, 88, relative, 2e-7},
		{"Exp2", Exp2, math.Exp2, -125, 127, relative, 2e-7},
		{"Exp2", Exp2, math.Exp2, -1, 1, relative, 2e-7},
		{"Log", Log, math.Log, 1e-30, 1e-3, relative, 2e-7},
		{"Log", Log, math.Log, 2, 1e30, relative, 2e-7},
		{"Log", Log, math.Log, 0.5, 2, absolute, 2e-7},
		{"Tanh", Tanh, math.Tanh, -20, 20, absolute, 3e-7},
		{"Sigmoid", Sigmoid, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, -80, 80, relative, 4e-7},
		{"QuickGELU", QuickGELU, func(x float64) float64 { return x / (1 + math.Exp(-1.702*x)) }, -20, 20, absolute, 1e-6},
		{"GELU", GELU, func(x float64) float64 { return x / 2 * (1 + math.Erf(x/math.Sqrt2)) }, -20, 20, absolute, 1e-6},
	} {
		const n = 20000
		for i := range n {
			x := c.lo + (c.hi-c.lo)*float32(i)/n
			if e := c.err(c.f(x), c.want(float64(x))); !(e <= c.bound) {
				t.Fatalf("%s(%v) = %v, want %v: error %.2g over %.2g", c.name, x, c.f(x), c.want(float64(x)), e, c.bound)
			}
		}
	}
}

func TestSaturation(t *testing.T) {
	for _, x := range []float32{-1e38, -100, 100, 1e38, float32(math.Inf(1)), float32(math.Inf(-1))} {
		if y := Exp(x); !(y > 0) || math.IsInf(float64(y), 0) {
			t.Errorf("Exp(%v) = %v", x, y)
		}
		if y := Exp2(x); !(y > 0) || math.IsInf(float64(y), 0) {
			t.Errorf("Exp2(%v) = %v", x, y)
		}
		if y := Tanh(x); math.Abs(float64(y)) != 1 {
			t.Errorf("Tanh(%v) = %v", x, y)
		}
	}
	for _, x := range []float32{0, 1e-45, -1} {
		if y := Log(x); math.IsNaN(float64(y)) || math.IsInf(float64(y), 0) {
			t.Errorf("Log(%v) = %v", x, y)
		}
	}
}

// TestMany: Exps and Logs are Exp and Log of each, in place too.
func TestMany(t *testing.T) {
	for _, c := range []struct {
		name string
		many func(dst, x []float32)
		one  func(float32) float32
		x    []float32
	}{
		{"Exps", func(dst, x []float32) { Exps(dst, x) }, Exp, []float32{-1e38, -87, -20.5, -0.1, 0, 1e-40, 1, 30, 88, 1e38}},
		{"Logs", Logs, Log, []float32{-1, 0, 1e-45, 0x1p-126, 1e-9, 0.7, 0.71, 1, 1.0001, 3e38}},
	} {
		for n := range len(c.x) + 1 {
			got := append([]float32{}, c.x...)
			c.many(got, got[:n])
			for i, x := range c.x {
				if i < n {
					x = c.one(x)
				}
				if math.Float32bits(got[i]) != math.Float32bits(x) {
					t.Errorf("%s of %d values: [%d] = %v, want %v", c.name, n, i, got[i], x)
				}
			}
		}
	}
}

func TestExps_Sum(t *testing.T) {
	x := []float32{-3, 80, 0.1, -80, 60}
	var want float32
	for _, v := range x {
		want += Exp(v)
	}
	if got := Exps(x, x); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestSameBits hashes results over a sweep: the constant is one for all
// platforms, so a fused product or another rounding anywhere shows.
func TestSameBits(t *testing.T) {
	h := fnv.New64a()
	put := func(x float32) {
		b := math.Float32bits(x)
		h.Write([]byte{byte(b), byte(b >> 8), byte(b >> 16), byte(b >> 24)})
	}
	a, b := make([]float32, 97), make([]float32, 97)
	for i := range 4000 {
		x := float32(i-2000) / 64
		put(Exp(x))
		put(Log(x * x))
		put(Tanh(x))
		put(GELU(x))
		put(Sigmoid(x))
		put(Exp2(x))
		put(QuickGELU(x))
		a[i%97], b[(i*31)%97] = x, 1/(x+0.3)
	}
	put(Dot(a, b))
	put(Normalize(a))
	Softmax(b, a)
	put(b[5])
	const want = 0x9c70ab9c71ed413e
	if got := h.Sum64(); got != want {
		t.Errorf("hash %#x, want %#x", got, uint64(want))
	}
}

func TestNormalizeZero(t *testing.T) {
	x := []float32{0, 0}
	if n := Normalize(x); n != 0 || x[0] != 0 {
		t.Errorf("Normalize(0) = %v, %v", n, x)
	}
}

func TestFloat16(t *testing.T) {
	for _, x := range []float32{0, 1, -2, 65504, 6.1e-5, 5.96e-8, 0.333251953125} {
		b := AppendFloat16(nil, x)
		got := make([]float32, 1)
		FromFloat16(got, b)
		if want := RoundFloat16(x); got[0] != want {
			t.Errorf("%v → %v, want %v", x, got[0], want)
		}
	}
	if RoundFloat16(1+1.0/2048) != 1 { // a tie goes to even
		t.Error("half precision does not round to even")
	}
}
