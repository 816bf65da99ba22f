package clip

import (
	"lqa/quant/kernel"
	"lqa/quant/numeric"
)

// Tensors of the branches beside an image tower's projection.
const (
	// PosteriorBias is the bias of the classifier's logits [Posterior].
	PosteriorBias = "image.posterior.bias"
	// PosteriorNames maps the posterior to the sum of its classes' names.
	PosteriorNames = "image.names.weight"
	widenTensor    = "image.widen.weight"
)

// unbiased reports whether a linear layer's weight is all of it.
func unbiased(name string) bool { return name == PosteriorNames || name == widenTensor }

// Head is the end of an image tower of F features and embeddings of width D.
type Head struct {
	W, B []float32 // image.project [D+1, F], [D+1]; without a posterior [D, F], [D]
	U, A []float32 // image.hidden [H, F], [H]; none: no GELU branch
	V    []float32 // image.widen [D, H]
	C, Z []float32 // image.posterior [K, F], [K]; none: no classifier
	N    []float32 // image.names [D, K]: an embedding of each class's name
}

// RefHead is the head in plain Go: dst [D] becomes the embedding of features f [F].
//
//	u = W f + b
//	h = norm(u[:D] + V gelu(U f + a))
//	q = N softmax(C f + z)
//	e = norm(h + sigmoid(u[D])·q)
//
// q is not scaled to length 1: where the posterior is spread over classes it is
// short, and counts for less.
func RefHead(dst, f []float32, w *Head) {
	u := refLinear(w.W, f, w.B)
	copy(dst, u)
	if len(w.A) > 0 {
		hidden := refLinear(w.U, f, w.A)
		for i, v := range hidden {
			hidden[i] = numeric.GELU(v)
		}
		for i, v := range refLinear(w.V, hidden, make([]float32, len(dst))) {
			dst[i] += v
		}
	}
	numeric.Normalize(dst)
	if len(w.Z) == 0 {
		return
	}
	p := refLinear(w.C, f, w.Z)
	numeric.Softmax(p, p)
	open := numeric.Sigmoid(u[len(dst)])
	for i, v := range refLinear(w.N, p, make([]float32, len(dst))) {
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

// head records RefHead of the pooled features x, into buffer embedding.
func (t *tower) head(im *Image, x uint32) {
	d := t.m.cfg.Embed
	y := t.buf(embedding, 4*stride(d+1))
	t.linear("image.project", x, y, 1, -kernel.Inf, kernel.Inf)
	if im.Hidden > 0 {
		h := t.buf("hidden", 4*stride(im.Hidden))
		t.linear("image.hidden", x, h, 1, -kernel.Inf, kernel.Inf)
		t.add(kernel.GELU{X: h, N: stride(im.Hidden)})
		t.linearAdd("image.widen", h, y, 1)
	}
	if im.Posterior == 0 {
		t.add(kernel.Normalize{X: y, M: 1, N: stride(d)})
		return
	}
	p := t.buf("posterior", 4*stride(im.Posterior))
	t.linear("image.posterior", x, p, 1, -kernel.Inf, kernel.Inf)
	t.add(kernel.Softmax{X: p, N: im.Posterior})
	q := t.buf("names", 4*stride(d))
	t.linear("image.names", p, q, 1, -kernel.Inf, kernel.Inf)
	t.add(kernel.Gate{Y: y, Q: q, N: d})
}
