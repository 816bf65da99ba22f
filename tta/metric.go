package tta

import (
	"math"

	"lqa/quant/numeric"
)

// metricRidge is what M = W·Wᵀ/σ + metricRidge·I has of the identity, σ the mean
// of W·Wᵀ's diagonal. Chosen as teaching's constants are.
const metricRidge = 0.1

// metricWidth bounds D: a metric takes D²/2 numbers and D³/6 products to make.
const metricWidth = 1 << 11

// Metric compares embeddings as an image tower spreads them: by x·M⁻¹·y (Mahalanobis)
// in place of x·y, M = W·Wᵀ with W [D, F] the tower's last layer. Features that differ
// alike, as those do that light, place and background move, differ most where W
// makes much of them; were features white, M would be the covariance of
// embeddings, and this the rule of linear discriminants (Fisher 1936). Of frames of
// one thing in different places it sees more of the thing. It needs no pictures.
type Metric struct {
	d int
	l []float32 // rows of L, L·Lᵀ = M, each up to the diagonal
}

// NewMetric makes the metric of embeddings of width d from w [d, F], or nil, where
// w is not of that shape, wider than 2,048 or zero.
func NewMetric(w []float32, d int) *Metric {
	if d < 1 || d > metricWidth || len(w) == 0 || len(w)%d != 0 {
		return nil
	}
	f := len(w) / d
	m := &Metric{d: d, l: make([]float32, d*(d+1)/2)}
	var trace float32
	for i := range d {
		row := m.row(i)
		cosines(row, w, w[i*f:(i+1)*f])
		trace += row[i]
	}
	unit := float32(d) / trace
	if !(unit > 0 && unit <= math.MaxFloat32) {
		return nil
	}
	// Cholesky, row by row. What is left of a diagonal is at least metricRidge but
	// for rounding.
	for i := range d {
		row := m.row(i)
		for j := range row {
			row[j] *= unit
		}
		row[i] += metricRidge
		for j := range i {
			other := m.row(j)
			row[j] = (row[j] - numeric.Dot(row[:j], other[:j])) / other[j]
		}
		left := max(row[i]-numeric.Dot(row[:i], row[:i]), metricRidge/2)
		row[i] = float32(math.Sqrt(float64(left))) // correctly rounded everywhere
	}
	return m
}

func (m *Metric) row(i int) []float32 { return m.l[i*(i+1)/2:][:i+1] }

// solve makes M⁻¹·x of x [D].
func (m *Metric) solve(x []float32) {
	for i := range x {
		row := m.row(i)
		x[i] = (x[i] - numeric.Dot(row[:i], x[:i])) / row[i]
	}
	for i := len(x) - 1; i >= 0; i-- {
		row := m.row(i)
		x[i] /= row[i]
		for j, l := range row[:i] {
			x[j] -= float32(l * x[i])
		}
	}
}
