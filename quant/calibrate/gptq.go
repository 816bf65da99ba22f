package calibrate

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"
)

const (
	// damping is what is added to XᵀX's diagonal, as a share of its mean. The
	// paper has 0.01; on the shipped tower, with 24 and with 128 pictures, other
	// pictures' error is least between 0.03 and 0.1.
	damping = 0.03
	// mostDamping is where raising it ends. Sums in float32 need nothing near.
	mostDamping = 10
	// sweeps of refine: most comes with the first. Ten instead of three take
	// 0.3% more off the error.
	sweeps = 2
	// block is how many columns are rounded before the rest hears of their
	// errors. No group of a low-bit kind is longer.
	block = 128
)

// damped is XᵀX [K,K] as the methods use it: divided by its diagonal's mean,
// with damping. A channel that was never fed is one of little energy and no
// correlation, so its weights are rounded to nearest.
type damped struct {
	k int
	h []float32 // row-major
}

// damp checks a layer's statistics.
func damp(l *Layer, k int) (*damped, error) {
	if l.K != k || len(l.H) != k*(k+1)/2 {
		return nil, fmt.Errorf("%w: XᵀX has %d values for %d channels, the weight has %d", ErrHessian, len(l.H), l.K, k)
	}
	var mean float64
	for i := range k {
		v := l.At(i, i)
		if !(v >= 0) {
			return nil, fmt.Errorf("%w: channel %d has energy %v", ErrHessian, i, v)
		}
		mean += float64(v) / float64(k)
	}
	if mean == 0 {
		mean = 1
	}
	d := &damped{k, make([]float32, k*k)}
	at := 0
	for i := range k {
		for j := i; j < k; j++ {
			v := float64(l.H[at])
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("%w: %v at [%d,%d]", ErrHessian, v, i, j)
			}
			x := float32(v / mean)
			d.h[i*k+j], d.h[j*k+i] = x, x
			at++
		}
		d.h[i*k+i] += damping
	}
	return d, nil
}

// factor is what one column's rounding asks of the columns rounded before it.
// Columns stand in reverse: position K-1 is rounded first.
type factor struct {
	column []int     // [K] at a position
	unit   []float32 // [K,K] rows are positions p: U[p,q]/U[p,p] for q > p, the rest unused
	energy []float32 // [K] U[p,p]²
}

// factorize returns the Cholesky factor UᵀU of d, the channels of most energy
// rounded first. Where d is not positive definite, damping is raised.
func (d *damped) factorize() (*factor, error) {
	k := d.k
	f := &factor{column: make([]int, k), unit: make([]float32, k*k), energy: make([]float32, k)}
	for i := range f.column {
		f.column[i] = k - 1 - i
	}
	slices.SortStableFunc(f.column, func(a, b int) int { return cmp.Compare(d.h[a*k+a], d.h[b*k+b]) })
	u := make([]float64, k*k)
	for added := float32(damping); ; added *= 10 {
		for p, i := range f.column {
			row := d.h[i*k : (i+1)*k]
			for q := p; q < k; q++ {
				u[p*k+q] = float64(row[f.column[q]])
			}
		}
		if _, ok := lapack64.Potrf(blas64.Symmetric{N: k, Stride: k, Data: u, Uplo: blas.Upper}); ok {
			break
		}
		if added > mostDamping {
			return nil, fmt.Errorf("%w: no sum of squares, even with %.0f times the mean energy added", ErrHessian, added)
		}
		for i := range k {
			d.h[i*k+i] += float32(9 * added)
		}
	}
	for p := range k {
		diag := u[p*k+p]
		f.energy[p] = float32(diag * diag)
		for q := p + 1; q < k; q++ {
			f.unit[p*k+q] = float32(u[p*k+q] / diag)
		}
	}
	return f, nil
}

// gptq rounds w so that the layer's output stays: it lessens tr(E·H·Eᵀ), with
// E the error [N,K] and H what d holds.
//
// This is algorithm 1 of Frantar et al., "GPTQ: Accurate Post-Training
// Quantization for Generative Pre-trained Transformers" (ICLR 2023), with the
// activation order of their code, in the form that Chee et al., "QuIP: 2-Bit
// Quantization of Large Language Models With Guarantees" (NeurIPS 2023),
// theorem 6, show to be the same: a column is rounded after U's row times the
// errors of the columns before is added, where H = UᵀU. That needs no inverse.
// Departs: scales are those of the weights as they came (a group's columns are
// far apart in this order), searched with U's diagonal, squared, as weight;
// refine then improves codes and scales.
func (q *rounded) gptq(w []float32, d *damped) error {
	f, err := d.factorize()
	if err != nil {
		return err
	}
	k := q.k
	weight := make([]float32, k)
	for p, c := range f.column {
		weight[c] = f.energy[p]
	}
	inChunks(q.n, func(lo, hi int) {
		e := make([]float32, (hi-lo)*k) // errors, by position
		past := make([]float32, (hi-lo)*block)
		for r := lo; r < hi; r++ {
			q.fitRow(r, w[r*k:(r+1)*k], weight)
		}
		for end := k; end > 0; end -= block {
			start := max(0, end-block)
			dots(past, e, f.unit, k, end, start, end)
			for r := range hi - lo {
				e := e[r*k : (r+1)*k]
				for p := end - 1; p >= start; p-- {
					sum := past[r*block+p-start]
					row := f.unit[p*k+p+1 : p*k+end]
					for i, x := range e[p+1 : end] {
						sum += float32(x * row[i])
					}
					c := f.column[p]
					v := w[(lo+r)*k+c]
					scale := q.scales[(lo+r)*q.groups+c/q.group]
					code := q.code(v+sum, scale)
					q.codes[(lo+r)*k+c] = code
					e[p] = v - float32(scale*float32(code))
				}
			}
		}
	})
	q.refine(w, d)
	return nil
}

// refine lessens tr(E·H·Eᵀ) by coordinate descent: code after code, and after
// a group's codes its scale, takes the value that is best given all others
// (Behdin et al., "QuantEase", 2023, for the codes). It never gets worse.
func (q *rounded) refine(w []float32, d *damped) {
	k := q.k
	inChunks(q.n, func(lo, hi int) {
		e := make([]float32, (hi-lo)*k)
		slope := make([]float32, (hi-lo)*block)
		for i := range e {
			r, c := lo+i/k, i%k
			e[i] = w[r*k+c] - float32(q.scales[r*q.groups+c/q.group]*float32(q.codes[r*k+c]))
		}
		for range sweeps {
			for i := range q.groups {
				from, to := q.columns(i)
				for start := from; start < to; start += block {
					end := min(to, start+block)
					dots(slope, e, d.h, k, 0, start, end)
					for r := range hi - lo {
						q.descend(lo+r, i, start, end, e[r*k:(r+1)*k], slope[r*block:(r+1)*block], d)
					}
				}
			}
		}
	})
}

// descend is refine's step for columns start to end of row r, which lie in one
// group. e is the row's error; slope, H·e of these columns, is spoilt.
func (q *rounded) descend(r, group, start, end int, e, slope []float32, d *damped) {
	k := q.k
	scale := &q.scales[r*q.groups+group]
	codes, e := q.codes[r*k+start:r*k+end], e[start:end]
	slope = slope[:len(codes)]
	h := func(i int) []float32 { return d.h[(start+i)*k+start : (start+i)*k+end] }
	move := func(i int, by float32) { // the error of column i grows
		e[i] += by
		for j, x := range h(i) {
			slope[j] += float32(x * by)
		}
	}
	for i, old := range codes {
		code := q.code(float32(*scale*float32(old))+slope[i]/h(i)[i], *scale)
		if code != old {
			codes[i] = code
			move(i, float32(*scale*float32(int(old)-int(code))))
		}
	}
	if from, to := q.columns(group); from < start || end < to {
		return // the scale is not these columns' alone
	}
	// The error along the scale is a parabola: -2·gain·x + bend·x².
	var gain, bend float64
	for i, c := range codes {
		if c == 0 {
			continue
		}
		gain += float64(float64(c) * float64(slope[i]))
		for j, x := range h(i) {
			bend += float64(float64(x) * float64(int(c)*int(codes[j])))
		}
	}
	next := half(*scale + float32(gain/bend))
	by := float64(next) - float64(*scale)
	if !(2*float64(by*gain) > float64(by*by)*bend) {
		return
	}
	for i, c := range codes {
		e[i] -= float32(float32(by) * float32(c))
	}
	*scale = next
}

// dots works out y[r,p-lo] = Σ x[r,c]·m[p,c] over columns c from first on, for
// positions p from lo to hi and all rows of x [R,K]. Rows of y are block long,
// m is [K,K]. Each sum goes up from first, so no tile changes it.
func dots(y, x, m []float32, k, first, lo, hi int) {
	for r := 0; r < len(x)/k; r += 2 {
		x0 := x[r*k+first : (r+1)*k]
		x1, y1 := x0, y[r*block:] // a last odd row is done twice
		if (r+1)*k < len(x) {
			x1, y1 = x[(r+1)*k+first:(r+2)*k], y[(r+1)*block:]
		}
		y0 := y[r*block:]
		p := lo
		for ; p+4 <= hi; p += 4 {
			m0, m1 := m[p*k+first:(p+1)*k], m[(p+1)*k+first:(p+2)*k]
			m2, m3 := m[(p+2)*k+first:(p+3)*k], m[(p+3)*k+first:(p+4)*k]
			x1, m0, m1, m2, m3 := x1[:len(x0)], m0[:len(x0)], m1[:len(x0)], m2[:len(x0)], m3[:len(x0)]
			var a0, a1, a2, a3, b0, b1, b2, b3 float32
			for i, a := range x0 {
				b := x1[i]
				v := m0[i]
				a0 += float32(a * v)
				b0 += float32(b * v)
				v = m1[i]
				a1 += float32(a * v)
				b1 += float32(b * v)
				v = m2[i]
				a2 += float32(a * v)
				b2 += float32(b * v)
				v = m3[i]
				a3 += float32(a * v)
				b3 += float32(b * v)
			}
			y0[p-lo], y0[p-lo+1], y0[p-lo+2], y0[p-lo+3] = a0, a1, a2, a3
			y1[p-lo], y1[p-lo+1], y1[p-lo+2], y1[p-lo+3] = b0, b1, b2, b3
		}
		for ; p < hi; p++ {
			m0 := m[p*k+first : (p+1)*k]
			var a0, b0 float32
			for i, v := range m0 {
				a0 += float32(x0[i] * v)
				b0 += float32(x1[i] * v)
			}
			y0[p-lo], y1[p-lo] = a0, b0
		}
	}
}
