package calibrate

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"lqa/quant/clip"
	"lqa/quant/numeric"
)

// Alpha is how much of a channel's outliers Fold moves by default: half, in
// logarithms, so that activations and weights end up equally uneven.
const Alpha = 0.5

// edge is where channels go from what makes them to what reads them, by nothing
// but linear steps: channel c may be divided by s[c] on one side and multiplied
// on the other.
type edge struct {
	from []rowsOf // scaled by 1/s, weight and bias
	to   []string // linear layers, whose columns are scaled by s
	s    []float32

	mean  bool // a channel's size is its root mean square, not its maximum
	bound bool // something else makes or reads the channels: they stay
}

// rowsOf are rows of a layer, from first on; of a norm, its elements.
type rowsOf struct {
	layer string
	first int
}

// Fold moves outliers of activations into weights: where channels go straight
// from a norm, from the values of an attention or, in a convolutional tower, from
// the projections of a stage into linear layers, channel c is divided by
//
//	s[c] = max|x[c]|^alpha / max|w[c]|^(1-alpha)
//
// (G. Xiao et al., SmoothQuant, 2023, eq. 4), x being the input of those layers
// and w column c of their weights. In a convolutional tower, which has no outliers,
// the root mean square of x[c] stands for its maximum: what rounding a weight costs
// goes with it. (EfficientNet-Lite0, 24 pictures, all layers at 4 bits to nearest:
// cosine 0.58, balanced by maxima 0.62, by means 0.61, with alpha 0.75 0.65; at 5
// bits 0.894, 0.906, 0.908, 0.911.) The model computes the same, and what comes
// out can be stored as float16 if src can. Factors are scaled to a geometric mean
// of 1. What s knows of the layers follows; towers it has not seen stay as they
// are. It reads each weight that it changes, one at a time.
func Fold(cfg *clip.Config, src Source, s *Stats, alpha float32) (Source, error) {
	if !(alpha >= 0 && alpha <= 1) {
		return nil, fmt.Errorf("%w: alpha is %v, not in 0..1", ErrInput, alpha)
	}
	var edges []*edge
	for _, e := range edgesOf(cfg) {
		if slices.ContainsFunc(e.to, func(l string) bool { return s.Layer(l) == nil }) {
			continue
		}
		edges = append(edges, e)
	}
	f, err := balance(src, edges, func(e *edge, c int, made float32) float32 {
		var x float32
		for _, l := range e.to {
			if l := s.Layer(l); e.mean {
				x = max(x, float32(math.Sqrt(float64(l.At(c, c))/float64(max(1, l.N)))))
			} else {
				x = max(x, l.Max[c])
			}
		}
		return x
	}, alpha)
	if err != nil {
		return nil, err
	}
	for _, e := range edges {
		for _, l := range e.to {
			s.Layer(l).divide(e.s)
		}
	}
	return f, nil
}

// Equalize is Fold for a convolutional tower without pictures: channels of a
// stage are balanced by the weights that make and that read them,
//
//	s[c] = √(max|w_made[c]| / max|w_read[c]|)
//
// (M. Nagel et al., Data-Free Quantization Through Weight Equalization and Bias
// Correction, 2019, eq. 11). Statistics are to be collected afterwards. Other
// towers stay as they are.
//
// With pictures, Fold is better: rows have scales of their own here, so that what
// makes a channel is none the better for balance, and its weights say little of
// how large it is. (EfficientNet-Lite0 as above, 4 bits: cosine 0.51.)
func Equalize(cfg *clip.Config, src Source) (Source, error) {
	return balance(src, stages(&cfg.Image), func(_ *edge, _ int, made float32) float32 { return made }, 0.5)
}

// divide makes l what it is of rows with each column divided by its s.
func (l *Layer) divide(s []float32) {
	at := 0
	for i := range l.K {
		l.Max[i] /= s[i]
		for j := i; j < l.K; j++ {
			l.H[at] /= s[i] * s[j]
			at++
		}
	}
}

// balance sets the factors of edges, given the largest magnitude of each
// channel's activations, and returns the scaled tensors.
func balance(src Source, edges []*edge, spread func(e *edge, c int, made float32) float32, alpha float32) (Source, error) {
	f := &folded{Source: src, rows: map[string][]rowFactors{}, cols: map[string][]float32{}}
	for _, e := range edges {
		made, read, err := e.ranges(src)
		if err != nil {
			return nil, err
		}
		x := make([]float32, len(read))
		for c := range x {
			x[c] = spread(e, c, made[c])
		}
		e.s = factors(x, made, read, alpha)
		for _, r := range e.from {
			f.rows[r.layer] = append(f.rows[r.layer], rowFactors{r.first, e.s})
		}
		for _, l := range e.to {
			f.cols[l] = e.s
		}
	}
	return f, nil
}

// Factors stay within maxFactor, and move no channel's largest weight out of
// what float16 holds well.
const (
	maxFactor  = 0x1p10
	leastLarge = 0x1p-10 // a thousandth of it is a float16 with ten bits
	mostLarge  = 0x1p15
)

// factors balances channels of activations up to x, made by weights up to made
// and read by weights up to read. A channel that is always zero or that nobody
// reads keeps 1.
func factors(x, made, read []float32, alpha float32) []float32 {
	s := make([]float32, len(x))
	alive := func(c int) bool { return x[c] > 0 && made[c] > 0 && read[c] > 0 }
	var sum float32
	n := 0
	for c := range s {
		if alive(c) {
			s[c] = float32(alpha*numeric.Log(x[c])) - float32((1-alpha)*numeric.Log(read[c]))
			sum, n = sum+s[c], n+1
		}
	}
	mean := sum / float32(max(1, n))
	for c := range s {
		if !alive(c) {
			s[c] = 1
			continue
		}
		hi := min(maxFactor, max(1, made[c]/leastLarge), max(1, mostLarge/read[c]))
		lo := max(1/maxFactor, min(1, made[c]/mostLarge), min(1, leastLarge/read[c]))
		s[c] = max(lo, min(hi, numeric.Exp(s[c]-mean)))
	}
	return s
}

// ranges are the largest magnitudes of each channel's rows in from and of its
// columns in to.
func (e *edge) ranges(src Source) (made, read []float32, err error) {
	for _, l := range e.to {
		shape, ok := src.Shape(l + ".weight")
		if !ok || len(shape) != 2 {
			return nil, nil, fmt.Errorf("%w: %s.weight is %v", clip.ErrTensor, l, shape)
		}
		w, err := src.Float32(l + ".weight")
		if err != nil {
			return nil, nil, err
		}
		if read == nil {
			read, made = make([]float32, shape[1]), make([]float32, shape[1])
		}
		for i, v := range w {
			c := i % shape[1]
			read[c] = max(read[c], v, -v)
		}
	}
	for _, r := range e.from {
		for _, part := range []string{".weight", ".bias"} {
			x, err := src.Float32(r.layer + part)
			if err != nil {
				return nil, nil, err
			}
			shape, _ := src.Shape(r.layer + part)
			cols := len(x) / shape[0]
			for i, v := range x[r.first*cols : (r.first+len(made))*cols] {
				made[i/cols] = max(made[i/cols], v, -v)
			}
		}
	}
	return made, read, nil
}

// folded is a Source with rows and columns scaled.
type folded struct {
	Source
	rows map[string][]rowFactors // of weight and bias, by layer
	cols map[string][]float32    // of the weight
}

type rowFactors struct {
	first int
	s     []float32 // divided by
}

// Float32 implements Source.
func (f *folded) Float32(name string) ([]float32, error) {
	x, err := f.Source.Float32(name)
	if err != nil {
		return nil, err
	}
	layer, weight := strings.CutSuffix(name, ".weight")
	if !weight {
		layer = strings.TrimSuffix(name, ".bias")
	}
	rows, cols := f.rows[layer], f.cols[layer]
	if rows == nil && (cols == nil || !weight) {
		return x, nil
	}
	shape, ok := f.Source.Shape(name)
	if !ok || len(shape) == 0 || shape[0] < 1 {
		return nil, fmt.Errorf("%w: %s is %v", clip.ErrTensor, name, shape)
	}
	x = slices.Clone(x) // it may be src's own
	width := len(x) / shape[0]
	for _, r := range rows {
		for i, s := range r.s {
			for j := range width {
				x[(r.first+i)*width+j] /= s
			}
		}
	}
	if weight && cols != nil {
		for i := range x {
			x[i] *= cols[i%width]
		}
	}
	return x, nil
}

// edgesOf lists the edges of both towers.
func edgesOf(cfg *clip.Config) []*edge {
	edges := stages(&cfg.Image)
	if len(cfg.Image.Blocks) == 0 {
		edges = transformer("image", &cfg.Image.Transformer, cfg.Image.Width, "image.post")
	}
	if cfg.Text.Layers > 0 {
		edges = append(edges, transformer("text", &cfg.Text.Transformer, cfg.Text.Width, "text.final")...)
	}
	return edges
}

func transformer(tower string, x *clip.Transformer, width int, last string) (edges []*edge) {
	add := func(from string, first int, to string) {
		edges = append(edges, &edge{from: []rowsOf{{from, first}}, to: []string{to}})
	}
	for i := range x.Layers {
		name := clip.LayerPrefix(tower, i)
		add(name+"norm1", 0, name+"attn.in")
		add(name+"attn.in", 2*width, name+"attn.out")
		add(name+"norm2", 0, name+"mlp.in")
	}
	add(last, 0, tower+".project")
	return edges
}

// stages are the residual streams of a convolutional tower: what the projections
// of a stage add up is read by the expansions of the next blocks. Elsewhere
// there is a ReLU6, which bounds what it passes.
func stages(im *clip.Image) (edges []*edge) {
	var e *edge
	for i, b := range im.Blocks {
		name := clip.BlockPrefix(i)
		residual := b.Stride == 1 && b.In == b.Out
		switch {
		case e == nil: // the stem's, behind its ReLU6
		case b.Expand == 1:
			e.bound = true
		default:
			e.to = append(e.to, name+"expand")
		}
		if e == nil || !residual {
			e = &edge{mean: true, bound: residual} // the first block: to what the stem makes
			edges = append(edges, e)
		}
		e.from = append(e.from, rowsOf{name + "project", 0})
	}
	if e != nil {
		e.to = append(e.to, "image.features")
	}
	return slices.DeleteFunc(edges, func(e *edge) bool { return e.bound })
}
