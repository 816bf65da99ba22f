// Package calibrate finds how a float model is best stored: statistics of what
// flows through it, outliers folded into its weights, quantizers, what each
// layer's rounding costs, and from that a plan. It is handed a host and its
// tensors, one at a time, so that it can run in a page.
package calibrate

// Layer is what was seen of the rows that come into one linear layer.
type Layer struct {
	N   int64     // rows in H
	K   int       // columns of a row
	Max []float32 // [K] the largest |x|, over all rows, those not in H too
	// H is XᵀX, the upper triangle, row-major: K values of row 0, K-1 of row
	// 1, and so on.
	H []float32
}

// At is element (i, j) of XᵀX.
func (l *Layer) At(i, j int) float32 {
	if i > j {
		i, j = j, i
	}
	return l.H[i*l.K-i*(i-1)/2+j-i]
}
