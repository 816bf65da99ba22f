package clip

import (
	"lqa/quant/kernel"
	"lqa/quant/numeric"
)

// Tensors of the classifier beside an image tower's projection.
const (
	// PosteriorBias is the bias of its logits [Posterior].
	PosteriorBias = "image.posterior.bias"
	// PosteriorNames has a column for each class, and no bias [Embed, Posterior].
	PosteriorNames = "image.names.weight"
)

// RefPosterior is the end of an image tower with a classifier of K classes, in
// plain Go: dst [D] becomes the embedding of features f [F].
//
//	u = W f + b                     image.project [D+1, F]
//	p = softmax(C f + c)            image.posterior [K, F]
//	q = N p                         image.names [D, K]: an embedding of each class's name
//	e = norm(norm(u[:D]) + sigmoid(u[D])·q)
//
// q is not scaled to length 1: where p is spread over classes it is short, and
// counts for less.
func RefPosterior(dst, f, w, b, c, cBias, n []float32) {
	u, p := refLinear(w, f, b), refLinear(c, f, cBias)
	numeric.Softmax(p, p)
	q := refLinear(n, p, make([]float32, len(dst)))
	copy(dst, u)
	numeric.Normalize(dst)
	open := numeric.Sigmoid(u[len(dst)])
	for i, v := range q {
		dst[i] += float32(open * v)
	}
	numeric.Normalize(dst)
}

// refLinear is w·x + b in float64.
func refLinear(w, x, b []float32) []float32 {
	y := make([]float32, len(b))
	for i, v := range b {
		sum := float64(v)
		for j, v := range x {
			sum += float64(float64(w[i*len(x)+j]) * float64(v))
		}
		y[i] = float32(sum)
	}
	return y
}

// gated records RefPosterior of x, into buffer embedding.
func (t *tower) gated(im *Image, x uint32) {
	d := t.m.cfg.Embed
	y := t.buf(embedding, 4*stride(d+1))
	t.linear("image.project", x, y, 1, -kernel.Inf, kernel.Inf)
	p := t.buf("posterior", 4*stride(im.Posterior))
	t.linear("image.posterior", x, p, 1, -kernel.Inf, kernel.Inf)
	t.add(kernel.Softmax{X: p, N: im.Posterior})
	q := t.buf("names", 4*stride(d))
	t.linear("image.names", p, q, 1, -kernel.Inf, kernel.Inf)
	t.add(kernel.Gate{Y: y, Q: q, N: d})
}
