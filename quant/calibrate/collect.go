package calibrate

import (
	"fmt"

	"lqa/quant/clip"
	"lqa/quant/kernel"
)

// Stats is what was seen of a model at work.
type Stats struct {
	Pictures, Texts int
	// ImageMean [D] is the mean of the pictures' embeddings, each of length 1.
	ImageMean []float32

	layers map[string]*Layer
}

// Layer is what is known of a linear layer, by the name of its tensors without
// ".weight"; nil if its tower has seen nothing.
func (s *Stats) Layer(name string) *Layer { return s.layers[name] }

const (
	// maxRows bounds the rows of a layer in its H: beyond some times the
	// layer's width, more of them change little.
	maxRows = 8192
	// batch is how many pictures or texts are looked at before their rows are
	// added up: the order of sums must not depend on which host was faster.
	batch = 8
)

// Collect runs pictures through the image tower and texts, given as token ids,
// through the text tower, and gathers statistics of all linear layers. Of a
// layer with many rows those in H are chosen evenly. progress may be nil.
func (m *Model) Collect(pictures []Picture, texts [][]int32, progress func(done, total int)) (*Stats, error) {
	s := &Stats{Pictures: len(pictures), Texts: len(texts), layers: map[string]*Layer{}}
	done := 0
	count := func(n int) {
		done += n
		if progress != nil {
			progress(done, len(pictures)+len(texts))
		}
	}
	mean := make([]float64, m.cfg.Embed)
	err := m.collect(s, len(pictures), m.pictureSteps(pictures), func(seen []seen) {
		for _, v := range seen {
			for i, x := range v.embedding {
				mean[i] += float64(x)
			}
		}
		count(len(seen))
	})
	if err != nil {
		return nil, err
	}
	if len(pictures) > 0 {
		s.ImageMean = make([]float32, m.cfg.Embed)
		for i, v := range mean {
			s.ImageMean[i] = float32(v / float64(len(pictures)))
		}
	}
	return s, m.first().collect(s, len(texts), m.textSteps(texts), func(seen []seen) { count(len(seen)) })
}

// input makes item i what the tower will work on.
type input func(w *worker, i int) (*clip.Steps, error)

func (m *Model) pictureSteps(pictures []Picture) input {
	return func(w *worker, i int) (*clip.Steps, error) {
		if err := w.show(pictures[i]); err != nil {
			return nil, fmt.Errorf("picture %d: %w", i, err)
		}
		return w.model.ImageSteps(), nil
	}
}

func (m *Model) textSteps(texts [][]int32) input {
	return func(w *worker, i int) (*clip.Steps, error) {
		s, err := w.model.TextSteps(texts[i])
		if err != nil {
			return nil, fmt.Errorf("text %d: %w", i, err)
		}
		return s, nil
	}
}

// seen is what one item has shown, layer by layer.
type seen struct {
	layers    []layerRows
	embedding []float32
}

// layerRows is what was seen of a layer's input.
type layerRows struct {
	step clip.Step
	max  []float32 // [K]
	x    []float32 // [n][K], chosen
}

// collect adds n items of one tower to s, a batch at a time.
func (m *Model) collect(s *Stats, n int, input input, each func([]seen)) error {
	for first := 0; first < n; first += batch {
		some := make([]seen, min(batch, n-first))
		err := m.share(len(some), func(w *worker, i int) (err error) {
			some[i], err = w.see(input, first+i, max(1, maxRows/n), m.cfg.Embed)
			return err
		})
		if err != nil {
			return err
		}
		layers := some[0].layers
		for _, l := range layers {
			if k := l.step.GEMM.K; s.layers[l.step.Layer] == nil {
				s.layers[l.step.Layer] = &Layer{K: k, Max: make([]float32, k), H: make([]float32, k*(k+1)/2)}
			}
		}
		err = m.share(len(layers), func(w *worker, i int) error {
			l, x := s.layers[layers[i].step.Layer], []float32(nil)
			for _, v := range some {
				r := v.layers[i]
				x = append(x, r.x...)
				for c, v := range r.max {
					l.Max[c] = max(l.Max[c], v)
				}
			}
			l.N += int64(len(x) / l.K)
			return w.gram.add(w.dev, l, x)
		})
		if err != nil {
			return err
		}
		each(some)
	}
	return nil
}

// see runs item i and keeps at most so many rows of each layer's input.
func (w *worker) see(input input, i, most, embed int) (seen, error) {
	v := seen{embedding: make([]float32, embed)}
	steps, err := input(w, i)
	if err != nil {
		return v, err
	}
	from := 0
	var x []float32
	for _, step := range steps.Linear {
		if err := steps.Run(from, step.From); err != nil {
			return v, err
		}
		from = step.From
		if x, err = w.read(x, step.GEMM); err != nil {
			return v, err
		}
		v.layers = append(v.layers, choose(x, step, i, most))
	}
	if err := steps.Run(from, steps.End); err != nil {
		return v, err
	}
	return v, steps.Embedding(v.embedding)
}

// read reads the rows of c's input, LDA apart, into x's memory if they fit.
func (w *worker) read(x []float32, c kernel.GEMMF32) ([]float32, error) {
	n := c.M * c.LDA
	if cap(x) < n {
		x = make([]float32, n)
	}
	return x[:n], w.dev.ReadF32(c.A, x[:n])
}

// choose takes the largest magnitudes of all rows, and some of the rows: from
// item to item others.
func choose(x []float32, step clip.Step, item, most int) layerRows {
	c := step.GEMM
	r := layerRows{step: step, max: make([]float32, c.K)}
	for row := range c.M {
		for i, v := range x[row*c.LDA:][:c.K] {
			r.max[i] = max(r.max[i], v, -v)
		}
	}
	n := min(most, c.M)
	shift := item * 7919 % c.M // a prime: no tower has a grid of such a side
	r.x = make([]float32, 0, n*c.K)
	for i := range n {
		row := (i*c.M + shift) / n
		if n == c.M {
			row = i
		}
		r.x = append(r.x, x[row*c.LDA:][:c.K]...)
	}
	return r
}
