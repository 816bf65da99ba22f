package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// attention64 is Attention in float64.
func attention64(x []float32, a Attention) []float64 {
	y, p, w := make([]float64, a.T*a.H*a.D), make([]float64, a.T), a.H*a.D
	for h := range a.H {
		for i := range a.T {
			n := a.T
			if a.Causal {
				n = i + 1
			}
			top, sum := math.Inf(-1), 0.0
			for j := range n {
				p[j] = 0
				for d := range a.D {
					p[j] += float64(x[i*a.LDX+h*a.D+d]) * float64(x[j*a.LDX+w+h*a.D+d])
				}
				p[j] /= math.Sqrt(float64(a.D))
				top = max(top, p[j])
			}
			for j := range n {
				p[j] = math.Exp(p[j] - top)
				sum += p[j]
			}
			for j := range n {
				for d := range a.D {
					y[(i*a.H+h)*a.D+d] += p[j] / sum * float64(x[j*a.LDX+2*w+h*a.D+d])
				}
			}
		}
	}
	return y
}

// TestAttention_Float64 bounds the distance to float64, relative to an output
// row's length, on normal values, and on queries four times as long, whose
// scores spread as a trained model's do. Integers cost 4e-4 of a row on the mean;
// rounding the next layer's input to eight bits costs about 4e-3.
func TestAttention_Float64(t *testing.T) {
	for _, c := range []struct {
		float  bool
		spread float64 // of q
		bound  float64
	}{{true, 1, 1e-6}, {true, 4, 1e-5}, {false, 1, 1e-3}, {false, 4, 2e-3}} {
		for _, tokens := range []int{50, 197} {
			a := Attention{T: tokens, To: tokens, H: 2, D: 64, LDX: 3 * 128, LDY: 128, Float: c.float}
			rng := rand.New(rand.NewPCG(1, 2))
			x := make([]float32, a.T*a.LDX)
			for i := range x {
				x[i] = float32(rng.NormFloat64())
				if i%a.LDX < a.H*a.D {
					x[i] *= float32(c.spread)
				}
			}
			y := make([]float32, a.T*a.LDY)
			RefAttention(y, x, a)
			want := attention64(x, a)
			var worst, mean float64
			for r := 0; r < len(want); r += a.D {
				var diff, norm float64
				for d := range a.D {
					diff += math.Pow(float64(y[r+d])-want[r+d], 2)
					norm += want[r+d] * want[r+d]
				}
				e := math.Sqrt(diff / norm)
				worst, mean = max(worst, e), mean+e/float64(a.T*a.H)
			}
			t.Logf("float %v, spread %v, T %d: mean %.2g, worst %.2g", c.float, c.spread, tokens, mean, worst)
			if !(worst <= c.bound) {
				t.Errorf("float %v, spread %v, T %d: error %.2g over %.2g", c.float, c.spread, tokens, worst, c.bound)
			}
		}
	}
}

// TestSoftCodes: codes of p are what they stand for to half a code and 1e-4,
// and with the values they meet stay within int32 at the extreme, all tokens
// and all values alike.
func TestSoftCodes(t *testing.T) {
	for _, n := range []int{1, 2, 31, 32, 50, 197, 1000, maxTokens} {
		factor, poly := softFactor(n), softPoly
		for i := range poly {
			poly[i] *= factor
		}
		for x := float32(0); x > -20; x -= 0x1p-9 {
			want := float64(factor) * math.Exp2(float64(x))
			if got := softCode(x, &poly); math.Abs(float64(got)-want) > 0.5+1e-4*want || got > codeMax {
				t.Fatalf("%d tokens: code of 2^%v is %d, want %g", n, x, got, want)
			}
		}
		for _, x := range []float32{-math.MaxFloat32, float32(math.Inf(-1))} {
			if got := softCode(x, &poly); got != 0 {
				t.Errorf("%d tokens: code of 2^%v is %d", n, x, got)
			}
		}
		var most int64
		for x := float32(-1); x <= 0; x += 0x1p-12 {
			most = max(most, int64(softCode(x, &poly)))
		}
		v, q := make([]float32, n), make([]int16, n)
		for i := range v {
			v[i] = -3
		}
		refCodes(q, v, n, 1, 1, valueMax)
		var sum int64
		for _, c := range q {
			sum += most * int64(c)
		}
		if sum < math.MinInt32 || n > 31 && sum > -(1<<30) {
			t.Errorf("%d tokens: the sum is %d", n, sum)
		}
	}
}

// TestCodes_Exact: sums of products of codes stay within int32 and lose
// nothing but rounding, however long or lopsided the vectors.
func TestCodes_Exact(t *testing.T) {
	fills := map[string]func(i int) float32{
		"equal":     func(int) float32 { return 3 },
		"one":       func(i int) float32 { return float32(max(0, 1-i)) },
		"alternate": func(i int) float32 { return 1 - 2*float32(i%2) },
		"huge":      func(i int) float32 { return float32(1+i%3) * 1e37 },
		"tiny":      func(i int) float32 { return float32(1+i%3) * 1e-17 },
		"nothing":   func(i int) float32 { return 1e-19 },
	}
	for name, fill := range fills {
		for _, n := range []int{1, 2, 8, 64, 128, 1024} {
			x, q := make([]float32, n), make([]int16, n)
			for i := range x {
				x[i] = fill(i)
			}
			scale := refCodes(q, x, n, 1, 8, normMax)
			var square int64
			for i, v := range q {
				square += int64(v) * int64(v)
				if name == "huge" || name == "nothing" {
					continue // scaleMax and codesMin say no more than that it is large or small
				}
				if e := math.Abs(float64(v)*float64(scale) - float64(x[i])); e > 0.51*float64(scale) {
					t.Errorf("%s, %d values: code %d times %g is %g off %g", name, n, v, scale, e, x[i])
				}
			}
			if square > math.MaxInt32 {
				t.Errorf("%s, %d values: the square is %d", name, n, square)
			}
			if name != "nothing" && n > 8 && square < 1<<30 && name != "one" {
				t.Errorf("%s, %d values: the square is only %d", name, n, square)
			}
		}
	}
}
