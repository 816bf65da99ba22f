package calibrate

import (
	"fmt"
	"math"
	"slices"

	"lqa/quant/clip"
	"lqa/quant/kernel"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
)

// Trial says what Sensitivity tries.
type Trial struct {
	Pictures []Picture
	Texts    [][]int32   // token ids
	Labels   [][]float32 // [C][D], length 1, for logits of the pictures; may be nil
	// Kinds are the candidates for a layer's weight, float16 aside, which costs
	// no drift; nil means Candidates.
	Kinds func(spec clip.TensorSpec) []qtype.Kind
	// Round is how weights will be rounded; nil: to nearest. Guess, if not nil,
	// stands for it where a kind is not run to the end, in proportion: a method
	// that costs less, of which the errors are as those of Round from kind to kind.
	Round, Guess Rounder
	// Work is the most multiplications of a tower's runs to the end; 0 means Work.
	Work float64
	// Progress may be nil.
	Progress func(done, total int)
}

// Rounder quantizes a weight w [n,k] of the tensor of that name, as Round does.
type Rounder func(name string, kind qtype.Kind, w []float32, n, k int) ([]byte, error)

// Candidates are the kinds that a layer may have: text embeddings are the
// classifier, so an error there hits every picture, and a transformer's
// projections are small.
func Candidates(spec clip.TensorSpec) []qtype.Kind {
	if spec.Stage > 0 || spec.Default == qtype.F16 {
		return []qtype.Kind{qtype.Q8C, qtype.F16}
	}
	return []qtype.Kind{qtype.Q4, qtype.Q5, qtype.Q6, qtype.Q8C, qtype.F16}
}

// Measured is what rounding one linear layer alone does.
type Measured struct {
	Name  string // of its weight
	Shape []int
	Tried []Tried // by bytes
}

// Tried is one candidate. All figures are means over the pictures or texts.
type Tried struct {
	Kind  qtype.Kind
	Bytes int
	// Error is ‖y' - y‖/‖y‖ of the layer's output: weight and input rounded.
	Error float64
	// Drift is 1 - cosine of the embedding with the float model's.
	Drift float64
	// Logits is the root mean square of what changes in logits about their mean
	// over the labels, in units of the logits' own.
	Logits float64
	// Inferred: no run to the end was made, Drift and Logits follow from Error.
	Inferred bool
}

// Sensitivity rounds each linear layer alone, its input as the kernels round it,
// and measures what that does to the embeddings.
//
// A run from each layer to the end is half of a run of the whole tower on
// average: 48 layers of ViT-B/32 with 16 pictures are 1.7e12 multiplications for
// one kind, 170 s of one core. So what comes before the layer is run once and its
// buffers are kept for each picture; of the kinds as many are run to the end as
// Work allows, the coarsest always; and the other drifts follow from the
// layer's own error, which costs one product. For small errors drift goes with
// its square, and between two kinds that were run with the power that they show.
// (From the coarsest alone, inferred drifts are off by a factor of 1.3 in the
// root mean square of logarithms, at 8 bits 1.5, on EfficientNet-Lite0, and 1.25 on
// a small vision transformer; from one kind to the next drift falls fourfold.)
// Where one kind is too much for Work, fewer pictures are taken, down to 4.
//
// A layer alone is not quite what it is in its model: attention computes in
// integers once attn.in is quantized, and a block's activations are codes once all
// of it is. That cost is the same for all kinds, and is left out.
func (m *Model) Sensitivity(t Trial) ([]Measured, error) {
	if t.Kinds == nil {
		t.Kinds = Candidates
	}
	if t.Work <= 0 {
		t.Work = Work
	}
	if t.Round == nil {
		t.Round = func(_ string, kind qtype.Kind, w []float32, n, k int) ([]byte, error) {
			return Round(Nearest, kind, w, n, k, nil)
		}
	}
	for i, l := range t.Labels {
		if len(l) != m.cfg.Embed {
			return nil, fmt.Errorf("%w: label %d has %d values, want %d", ErrInput, i, len(l), m.cfg.Embed)
		}
	}
	var stages [2][]*Measured
	var all []*Measured
	for _, s := range m.cfg.Tensors() {
		if !s.Linear() || s.Stage == 0 && len(t.Pictures) == 0 || s.Stage > 0 && len(t.Texts) == 0 {
			continue
		}
		l, err := measured(s, t.Kinds(s))
		if err != nil {
			return nil, err
		}
		stages[s.Stage] = append(stages[s.Stage], l)
		all = append(all, l)
	}
	done := 0
	count := func() {
		done++
		if t.Progress != nil {
			t.Progress(done, len(all))
		}
	}
	pictures := &walk{m: m, t: &t, n: len(t.Pictures), start: m.pictureSteps(t.Pictures), other: t.Labels, done: count,
		resume: func(w *worker, _ int) (*clip.Steps, error) { return w.model.ImageSteps(), nil }}
	if err := pictures.run(stages[0]); err != nil {
		return nil, err
	}
	start := m.textSteps(t.Texts)
	texts := &walk{m: m.first(), t: &t, n: len(t.Texts), start: start, resume: start, other: pictures.float, across: true, done: count}
	if err := texts.run(stages[1]); err != nil {
		return nil, err
	}
	out := make([]Measured, len(all))
	for i, l := range all {
		out[i] = *l
	}
	return out, nil
}

// measured is a layer with its candidates.
func measured(s clip.TensorSpec, kinds []qtype.Kind) (*Measured, error) {
	l := &Measured{Name: s.Name, Shape: s.Shape}
	for _, k := range kinds {
		if !k.Linear() {
			return nil, fmt.Errorf("%w: %s: no linear layer is stored as %q", ErrInput, s.Name, string(k))
		}
		bytes, err := k.Size(s.Shape)
		if err != nil {
			return nil, err
		}
		l.Tried = append(l.Tried, Tried{Kind: k, Bytes: bytes})
	}
	slices.SortStableFunc(l.Tried, func(a, b Tried) int { return a.Bytes - b.Bytes })
	return l, nil
}

// Work is Trial's default: two minutes of two cores at 8e9 a second.
const Work = 2e12

// walk is one tower's measurement, layer after layer.
type walk struct {
	m             *Model
	t             *Trial
	n             int // items
	start, resume input
	other         [][]float32 // embeddings of the other tower, for logits
	across        bool        // the items are the labels, and other the pictures
	done          func()

	float [][]float32 // [n] embeddings of the float model
	saved [][]byte    // [n] buffers, before the layer that it is at
	exact [][]float32 // [n] outputs of that layer
}

// run measures layers, which are all of the tower's in their order.
func (k *walk) run(layers []*Measured) error {
	if k.n == 0 || len(layers) == 0 {
		return nil
	}
	steps, err := k.start(k.m.workers[0], 0)
	if err != nil {
		return err
	}
	if len(steps.Linear) != len(layers) {
		panic("calibrate: a tower's layers are not its tensors")
	}
	// Work of one item, every layer once, for one kind.
	work, after := 0.0, 0.0
	for i := len(layers) - 1; i >= 0; i-- {
		c := steps.Linear[i].GEMM
		after += float64(float64(c.M) * float64(c.N) * float64(c.K))
		work += after
	}
	k.n = max(min(k.n, 4), min(k.n, int(k.t.Work/work)))
	runs := max(1, int(k.t.Work/(work*float64(k.n))))

	k.float, k.saved, k.exact = make([][]float32, k.n), make([][]byte, k.n), make([][]float32, k.n)
	err = k.m.share(k.n, func(w *worker, i int) error {
		steps, err := k.start(w, i)
		if err != nil {
			return err
		}
		first := steps.Linear[0].From
		k.saved[i], k.float[i] = make([]byte, steps.SaveBytes()), make([]float32, k.m.cfg.Embed)
		return firstOf(
			func() error { return steps.Run(0, first) },
			func() error { return steps.Save(k.saved[i]) },
			func() error { return steps.Run(first, steps.End) },
			func() error { return steps.Embedding(k.float[i]) })
	})
	if err != nil {
		return err
	}
	for i, l := range layers {
		if err := k.layer(i, l, runs); err != nil {
			return err
		}
		k.done()
	}
	return nil
}

// firstOf runs steps up to the first that fails.
func firstOf(steps ...func() error) error {
	for _, s := range steps {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}

// layer measures layer number at, so many kinds to the end.
func (k *walk) layer(at int, l *Measured, runs int) error {
	err := k.m.share(k.n, func(w *worker, i int) error {
		steps, err := k.resume(w, i)
		if err != nil {
			return err
		}
		s := steps.Linear[at]
		k.exact[i] = make([]float32, s.GEMM.M*s.GEMM.LDY)
		return firstOf(
			func() error { return steps.Load(k.saved[i]) },
			func() error {
				if at == 0 {
					return nil
				}
				return steps.Run(steps.Linear[at-1].From, s.From)
			},
			func() error { return steps.Save(k.saved[i]) },
			func() error { return steps.Run(s.From, s.To) },
			func() error { return w.dev.ReadF32(s.GEMM.Y, k.exact[i]) })
	})
	if err != nil {
		return err
	}
	weight, err := k.m.src.Float32(l.Name)
	if err != nil {
		return err
	}
	quantized := slices.DeleteFunc(slices.Clone(l.Tried), func(c Tried) bool { return c.Kind == qtype.F16 })
	run := toRun(len(quantized), runs)
	guess := make([]float64, len(quantized))
	for j := range quantized {
		c := &quantized[j]
		c.Inferred = !slices.Contains(run, j)
		if k.t.Guess != nil {
			g := Tried{Kind: c.Kind, Inferred: true}
			if err := k.round(at, l, weight, &g, k.t.Guess); err != nil {
				return err
			}
			guess[j] = g.Error
		}
		if k.t.Guess == nil || !c.Inferred {
			if err := k.round(at, l, weight, c, k.t.Round); err != nil {
				return err
			}
		}
	}
	if k.t.Guess != nil {
		scale(quantized, guess)
	}
	infer(quantized)
	for i := range l.Tried {
		for _, c := range quantized {
			if c.Kind == l.Tried[i].Kind {
				l.Tried[i] = c
			}
		}
	}
	return k.m.put(l.Name, weight)
}

// round rounds layer number at as c and tries that.
func (k *walk) round(at int, l *Measured, weight []float32, c *Tried, round Rounder) error {
	b, err := round(l.Name, c.Kind, weight, l.Shape[0], l.Shape[1])
	if err != nil {
		return fmt.Errorf("%s as %s: %w", l.Name, c.Kind, err)
	}
	rounded, err := c.Kind.Dequantize(b, l.Shape)
	if err != nil {
		return fmt.Errorf("%s as %s: %w", l.Name, c.Kind, err)
	}
	if err := k.m.put(l.Name, rounded); err != nil {
		return err
	}
	return k.try(at, c)
}

// scale fills in the errors of kinds that were only guessed: they are to the
// guess as that of the next kind that was run is to its own.
func scale(tried []Tried, guess []float64) {
	for j := range tried {
		if !tried[j].Inferred {
			continue
		}
		near := -1
		for i := range tried {
			if !tried[i].Inferred && (near < 0 || max(i-j, j-i) < max(near-j, j-near)) {
				near = i
			}
		}
		if guess[near] > 0 {
			tried[j].Error = tried[near].Error * guess[j] / guess[near]
		}
	}
}

// toRun are the indices of n kinds, coarsest first, that are run: the coarsest,
// then the next finest, whose errors are far apart, then the others.
func toRun(n, runs int) []int {
	order := []int{0}
	for _, i := range []int{n - 2, n - 1} {
		if !slices.Contains(order, i) && i > 0 {
			order = append(order, i)
		}
	}
	for i := range n {
		if !slices.Contains(order, i) {
			order = append(order, i)
		}
	}
	return order[:min(n, runs)]
}

// try measures one candidate, whose weight is in place.
func (k *walk) try(at int, c *Tried) error {
	diff, norm := make([]float64, k.n), make([]float64, k.n)
	got := make([][]float32, k.n)
	err := k.m.share(k.n, func(w *worker, i int) error {
		steps, err := k.resume(w, i)
		if err != nil {
			return err
		}
		if err := steps.Load(k.saved[i]); err != nil {
			return err
		}
		s := steps.Linear[at]
		x, err := w.read(nil, s.GEMM)
		if err != nil {
			return err
		}
		roundInput(x, s.GEMM, keepsCodes(k.m.cfg, s.Layer))
		y := make([]float32, len(k.exact[i]))
		err = firstOf(
			func() error { return w.dev.WriteF32(w.input, x) },
			func() error { return steps.RunOn(at, w.input) },
			func() error { return w.dev.ReadF32(s.GEMM.Y, y) })
		if err != nil {
			return err
		}
		for r := range s.GEMM.M {
			for n, want := range k.exact[i][r*s.GEMM.LDY:][:s.GEMM.N] {
				d := float64(y[r*s.GEMM.LDY+n]) - float64(want)
				diff[i] += float64(d * d)
				norm[i] += float64(float64(want) * float64(want))
			}
		}
		if c.Inferred {
			return nil
		}
		got[i] = make([]float32, k.m.cfg.Embed)
		return firstOf(
			func() error { return steps.Run(s.To, steps.End) },
			func() error { return steps.Embedding(got[i]) })
	})
	if err != nil {
		return err
	}
	c.Error = math.Sqrt(sum(diff) / max(sum(norm), math.SmallestNonzeroFloat64))
	if c.Inferred {
		return nil
	}
	for i, x := range got {
		c.Drift += drift(x, k.float[i]) / float64(k.n)
	}
	c.Logits = k.logits(got)
	return nil
}

func sum(x []float64) (s float64) {
	for _, v := range x {
		s += v
	}
	return s
}

// drift is 1 - cosine of two embeddings of length 1, without cancellation.
func drift(a, b []float32) (d float64) {
	for i, v := range a {
		e := float64(v) - float64(b[i])
		d += float64(e * e)
	}
	return d / 2
}

// logits compares the logits of got with those of the float model; 0 without
// the other tower's embeddings, or with one label.
func (k *walk) logits(got [][]float32) float64 {
	change := func(item, other int) float64 {
		var d float64
		for j, v := range k.other[other] {
			d += float64(float64(v) * (float64(got[item][j]) - float64(k.float[item][j])))
		}
		return d
	}
	own := func(item, other int) float64 { return float64(numeric.Dot(k.float[item], k.other[other])) }
	a, b := k.spread(change), k.spread(own)
	if b == 0 {
		return 0
	}
	return math.Sqrt(a / b)
}

// spread is the sum of squares of f about its mean over the labels, picture by
// picture.
func (k *walk) spread(f func(item, other int) float64) (total float64) {
	pictures, labels := k.n, len(k.other)
	at := f
	if k.across {
		pictures, labels = labels, pictures
		at = func(picture, label int) float64 { return f(label, picture) }
	}
	x := make([]float64, labels)
	for p := range pictures {
		for l := range labels {
			x[l] = at(p, l)
		}
		mean := sum(x) / float64(max(1, labels))
		for _, v := range x {
			total += float64((v - mean) * (v - mean))
		}
	}
	return total
}

// infer fills in what was not run, from the layers' errors.
func infer(tried []Tried) {
	var run []Tried
	for _, c := range tried {
		if !c.Inferred {
			run = append(run, c)
		}
	}
	for i := range tried {
		if c := &tried[i]; c.Inferred {
			c.Drift = along(run, c.Error, func(c Tried) float64 { return c.Drift }, 2)
			c.Logits = along(run, c.Error, func(c Tried) float64 { return c.Logits }, 1)
		}
	}
}

// along is what value is at an error: by the power that the two kinds on either
// side of it show, or from the nearest with the power of small errors.
func along(run []Tried, e float64, value func(Tried) float64, power float64) float64 {
	var below, above *Tried
	for i := range run {
		c := &run[i]
		if c.Error <= e && (below == nil || c.Error > below.Error) {
			below = c
		}
		if c.Error >= e && (above == nil || c.Error < above.Error) {
			above = c
		}
	}
	from := above
	if from == nil {
		from = below
	}
	v := value(*from)
	if v == 0 || e == 0 || from.Error == 0 {
		return 0
	}
	log := func(x float64) float64 { return float64(numeric.Log(float32(x))) }
	if below != nil && above != nil && below.Error < above.Error && below.Error > 0 && value(*below) > 0 {
		power = log(value(*above)/value(*below)) / log(above.Error/below.Error)
	}
	return v * float64(numeric.Exp(float32(power*log(e/from.Error))))
}

// roundInput rounds rows of a layer's input as the kernels do: to eight bits
// between the row's extremes or, behind a ReLU6 whose codes are kept, between 0
// and 6.
func roundInput(x []float32, c kernel.GEMMF32, codes bool) {
	q := make([]int16, qtype.RoundUp(c.K, 4)) // what pads a row is zero, and counts
	row := kernel.ReLU6Row()
	scale, zero := row[0], row[1]
	for r := range c.M {
		row := x[r*c.LDA:][:len(q)]
		if codes {
			for i, v := range row {
				q[i] = int16(math.RoundToEven(float64((v - zero) / scale)))
			}
		} else {
			scale, zero = kernel.RefQuant(q, row)
		}
		for i, v := range q[:c.K] {
			row[i] = zero + float32(scale*float32(v))
		}
	}
}

// keepsCodes reports whether the input of a layer is codes of ReLU6 in a model
// whose blocks are quantized.
func keepsCodes(cfg *clip.Config, layer string) bool {
	for i, b := range cfg.Image.Blocks {
		if layer == clip.BlockPrefix(i)+"project" {
			return b.Expand != 1 && b.In*b.Expand%16 == 0 // as clip.Layout has it
		}
	}
	return false
}
