// Package numeric holds the float functions that give the same bits on every
// platform: natively, under js/wasm and, written once more in SIMD, in the
// kernels. The functions of package math do not (assembly on some
// architectures, fused multiply-add on others), so nothing on a frame's way
// uses those.
//
// Every product is converted explicitly, float32(x*y) + z, which forbids the
// compiler to fuse it (Go specification, "Floating-point operators").
package numeric

import "math"

// Range reduction of Exp: x = n·ln2 + r, with ln2 in two parts so that n·ExpHi is exact.
const (
	Log2e = 1.44269504088896341
	ExpHi = 0.693359375
	ExpLo = -2.12194440e-4

	// ExpMin and ExpMax bound Exp's argument; beyond them it saturates, so
	// the result is always a normal, finite, positive number.
	ExpMin = -87.0
	ExpMax = 88.0
)

// ExpPoly are the coefficients of exp(r) ≈ 1 + r + r²·P(r) on |r| ≤ ln2/2,
// highest power first (Cephes, expf.c). The SIMD kernels use the same.
var ExpPoly = [6]float32{
	1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3,
	4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
}

// Exp returns eˣ with a relative error below 2e-7, for x clamped to
// [ExpMin, ExpMax]. NaN is not allowed in.
func Exp(x float32) float32 {
	n, r := expReduce(x)
	return ((expPoly(r) + r) + 1) * expPower(n)
}

// Exps writes Exp of each x to dst, which may be x, and returns their sum from
// the first on: under js/wasm in a third of the time, since a call there costs
// more than what Exp computes.
func Exps(dst, x []float32) (sum float32) {
	dst = dst[:len(x)]
	for i, x := range x {
		n, r := expReduce(x)
		y := float32(((expPoly(r) + r) + 1) * expPower(n))
		dst[i] = y
		sum += y
	}
	return sum
}

// nearestMagic added to a float below 2²² leaves its nearest integer, ties to
// even, in the low bits.
const nearestMagic = 3 << 22

// expReduce takes x = n·ln2 + r apart; n is plus nearestMagic. It and its like
// are small enough to be inlined, and have no min and max, which js/wasm calls.
func expReduce(x float32) (n, r float32) {
	if x < ExpMin {
		x = ExpMin
	} else if x > ExpMax {
		x = ExpMax
	}
	n = float32(x*Log2e) + nearestMagic
	whole := n - nearestMagic
	r = x - float32(whole*ExpHi)
	return n, r - float32(whole*ExpLo)
}

// expPoly is r²·P(r).
func expPoly(r float32) float32 {
	p := float32(ExpPoly[0]*r) + ExpPoly[1]
	p = float32(p*r) + ExpPoly[2]
	p = float32(p*r) + ExpPoly[3]
	p = float32(p*r) + ExpPoly[4]
	p = float32(p*r) + ExpPoly[5]
	return float32(float32(p*r) * r)
}

// expPower is 2ⁿ.
func expPower(n float32) float32 { return math.Float32frombits((math.Float32bits(n) + 127) << 23) }

// Exp2Min and Exp2Max bound Exp2's argument as ExpMin and ExpMax do Exp's.
const (
	Exp2Min = -125.0
	Exp2Max = 127.0
)

// Exp2Poly are the coefficients of 2ᶠ ≈ 1 + f·P(f) on |f| ≤ ½, lowest power
// first: a minimax fit of the relative error, 9.1e-8. The SIMD kernels use the
// same.
var Exp2Poly = [5]float32{6.931470037e-1, 2.402224243e-1, 5.550733581e-2, 9.671512991e-3, 1.326472848e-3}

// Exp2 returns 2ˣ with a relative error below 2e-7, for x clamped to [Exp2Min,
// Exp2Max]. NaN is not allowed in. It takes two thirds of Exp's operations and,
// by Estrin's scheme, half of its latency, which is what bounds a kernel.
func Exp2(x float32) float32 {
	x = min(max(x, Exp2Min), Exp2Max)
	n := float32(math.RoundToEven(float64(x)))
	f := x - n
	f2 := float32(f * f)
	hi := float32(Exp2Poly[4]*f) + Exp2Poly[3]
	lo := float32(Exp2Poly[2]*f) + Exp2Poly[1]
	y := float32((float32(hi*f2)+lo)*f2) + float32(Exp2Poly[0]*f) + 1
	return math.Float32frombits(math.Float32bits(y) + uint32(int32(n))<<23)
}

// Log returns ln x with a relative error below 2e-7 (absolute near 1) for
// positive normal x; zero and denormals count as the smallest normal number.
func Log(x float32) float32 {
	e, m := logReduce(x)
	return logSum(e, m, logHigh(m))
}

// Logs writes Log of each x to dst, which may be x: what Exps is to Exp.
func Logs(dst, x []float32) {
	dst = dst[:len(x)]
	for i, x := range x {
		e, m := logReduce(x)
		dst[i] = logSum(e, m, logHigh(m))
	}
}

// logReduce takes x = 2ᵉ·(1 + m) apart, √½ ≤ 1 + m < √2.
func logReduce(x float32) (e, m float32) {
	if x < 0x1p-126 {
		x = 0x1p-126
	}
	b := math.Float32bits(x)
	n := int32(b>>23) - 126
	m = math.Float32frombits(b&0x007fffff | 0x3f000000) // [0.5, 1)
	if m < 0.70710678118654752 {
		n--
		m += m
	}
	return float32(n), m - 1
}

// logHigh is the upper half of P(m), logSum the rest.
func logHigh(m float32) float32 {
	p := float32(logPoly[0]*m) + logPoly[1]
	p = float32(p*m) + logPoly[2]
	p = float32(p*m) + logPoly[3]
	p = float32(p*m) + logPoly[4]
	p = float32(p*m) + logPoly[5]
	p = float32(p*m) + logPoly[6]
	return p
}

func logSum(e, m, p float32) float32 {
	p = float32(p*m) + logPoly[7]
	p = float32(p*m) + logPoly[8]
	z := float32(m * m)
	y := float32(float32(p*m)*z) + float32(e*ExpLo)
	y -= float32(z * 0.5)
	return m + y + float32(e*ExpHi)
}

// logPoly are Cephes' logf coefficients, highest power first.
var logPoly = [9]float32{
	7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
	-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
}

// GELUPoly are the coefficients of Φ(-t)^(-1/32) ≈ P(t), lowest power
// first: t/P³² is t·Φ(-t) to within 1.8e-7 for all t ≥ 0. A root that high is
// nearly straight, and what rounding does to it grows 32 times at most, to
// 9e-7. The SIMD kernels use the same.
var GELUPoly = [6]float32{1.0218974351882935, 0.025477861985564232, 0.010485989041626453, 0.0014185109175741673, -8.088623872026801e-05, 2.0181918443995528e-05}

// GELU returns x·Φ(x), the exact form, with an absolute error below 1e-6, as
// max(x, 0) - |x|·Φ(-|x|). x is finite.
func GELU(x float32) float32 {
	t, top := float32(math.Abs(float64(x))), x
	if x < 0 {
		top = 0
	}
	t2 := float32(t * t)
	hi := float32(GELUPoly[5]*t) + GELUPoly[4]
	mid := float32(GELUPoly[3]*t) + GELUPoly[2]
	lo := float32(GELUPoly[1]*t) + GELUPoly[0]
	p := float32((float32(hi*t2)+mid)*t2) + lo
	for range 5 { // P³²; where that is infinite nothing is taken off
		p *= p
	}
	return top - t/p
}

// QuickGELUScale takes QuickGELU's argument to Exp2's: -1.702·log2 e.
const QuickGELUScale = -1.702 * Log2e

// QuickGELU returns x·sigmoid(1.702x), CLIP's activation, with an absolute
// error below 1e-6, as x/(1 + e^(-1.702x)).
func QuickGELU(x float32) float32 { return x / (1 + Exp2(float32(QuickGELUScale*x))) }

// Tanh returns the hyperbolic tangent with an absolute error below 3e-7.
func Tanh(x float32) float32 {
	e := Exp(min(float32(2*x), ExpMax/2))
	return 1 - 2/(e+1)
}

// Sigmoid returns 1/(1+e⁻ˣ).
func Sigmoid(x float32) float32 { return 1 / (1 + Exp(-x)) }

// Dot returns Σ a[k]·b[k], summed in float32 from k = 0 upwards. The slices
// have equal length.
func Dot(a, b []float32) float32 {
	if len(a) != len(b) {
		panic("numeric: Dot of unequal lengths")
	}
	var y float32
	for k, x := range a {
		y += float32(x * b[k])
	}
	return y
}

// Normalize scales x to length 1 in place and returns its length before. A
// zero vector stays zero.
func Normalize(x []float32) float32 {
	n := float32(math.Sqrt(float64(Dot(x, x)))) // correctly rounded everywhere
	if n == 0 {
		return 0
	}
	inv := 1 / n
	for i := range x {
		x[i] *= inv
	}
	return n
}

// Softmax writes the softmax of x to dst; dst may be x.
func Softmax(dst, x []float32) {
	if len(x) == 0 {
		return
	}
	m := x[0]
	for _, v := range x[1:] {
		if v > m {
			m = v
		}
	}
	dst = dst[:len(x)]
	for i, v := range x {
		dst[i] = v - m
	}
	sum := Exps(dst, dst)
	for i := range dst {
		dst[i] /= sum
	}
}
