package convert

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"lqa/quant/calibrate"
	"lqa/quant/clip"
	"lqa/quant/device"
	"lqa/quant/qtype"
)

// Calibration says how a float model is watched at work.
type Calibration struct {
	Hosts    []device.Host // to run it: at least one; more share the work
	Pictures []calibrate.Picture
	AsIs     bool                  // leave outliers where they are (calibrate.Fold)
	Progress func(done, total int) // may be nil
}

// Calibrated is a float model that was watched at work. Its Input gives the same
// embeddings as before and is easier to store: outliers are in the weights. It
// has the image mean.
type Calibrated struct {
	Input
	Stats *calibrate.Stats

	model    *calibrate.Model
	pictures []calibrate.Picture
	texts    [][]int32
	prompts  [][][]int32 // of each default label
	tried    map[calibrate.Method][]calibrate.Measured
	rounders map[calibrate.Method]calibrate.Rounder
}

// Calibrate watches in at work. Close frees the hosts.
func Calibrate(in Input, c Calibration) (_ *Calibrated, err error) {
	cfg, err := clip.ParseConfig(in.Config)
	if err != nil {
		return nil, err
	}
	cfg = cfg.Whole()
	texts, err := defaultTexts(cfg, in)
	if err != nil {
		return nil, err
	}
	src := in.Tensors
	m, err := calibrate.Open(c.Hosts[0], cfg, src, c.Hosts[1:]...)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	k := &Calibrated{model: m, pictures: c.Pictures, texts: some(slices.Concat(texts...), maxTexts), prompts: texts, tried: map[calibrate.Method][]calibrate.Measured{},
		rounders: map[calibrate.Method]calibrate.Rounder{}}
	stats, err := m.Collect(k.pictures, k.texts, c.Progress)
	if err != nil {
		return nil, err
	}
	if !c.AsIs {
		if src, err = calibrate.Fold(cfg, src, stats, calibrate.Alpha); err != nil {
			return nil, err
		}
		if err = m.Load(src); err != nil {
			return nil, err
		}
	}
	in.Tensors = src
	if stats.ImageMean != nil && !cfg.ImageMean {
		if in, err = WithImageMean(in, stats.ImageMean); err != nil {
			return nil, err
		}
	}
	k.Input, k.Stats = in, stats
	return k, nil
}

// Fit says how a watched model is stored.
type Fit struct {
	Method calibrate.Method // of rounding linear weights
	// Bytes is what the tensors that Count lets through may take in all, before
	// compression; Drift what the layers' drifts may add up to. 0: no such
	// bound. With either, kinds are chosen layer by layer, but for those that
	// Options.Kinds and Keep fix.
	Bytes int64
	Drift float64
	Count func(name string) bool // nil: all tensors
	// Progress tells of the layers that are tried; it may be nil.
	Progress func(done, total int)
}

// Options are o with f: a quantizer that knows the statistics and, with a budget, kinds
// and a plan.
func (c *Calibrated) Options(o Options, f Fit) (Options, error) {
	round := c.kept(f.Method)
	if f.Bytes > 0 || f.Drift > 0 {
		plan, err := c.plan(o, f, round)
		if err != nil {
			return o, err
		}
		if o.Plan, err = plan.AppendJSON(nil); err != nil {
			return o, err
		}
		o.Kinds = append(slices.Clone(o.Kinds), plan.Kinds()...)
	}
	o.Round = round
	return o, nil
}

// round is calibrate.Round with the statistics. Those of a posterior say what
// the pictures were of, which is nothing to round its names by: at 4 bits, with 24
// pictures or 128, GPTQ brings other pictures' mean cosine from 0.9990 to 0.9983 or
// 0.9976, the worst of 102 from 0.9986 to 0.987 or 0.985.
func (c *Calibrated) round(m calibrate.Method) calibrate.Rounder {
	return func(name string, kind qtype.Kind, w []float32, n, k int) ([]byte, error) {
		layer := c.Stats.Layer(strings.TrimSuffix(name, ".weight"))
		if name == clip.PosteriorNames {
			layer = nil
		}
		if layer == nil { // as of a tower that was not watched
			return calibrate.Round(min(m, calibrate.Clipped), kind, w, n, k, nil)
		}
		return calibrate.Round(m, kind, w, n, k, layer)
	}
}

// kept is round that keeps what it has made: a kind that was tried may be the
// one that is chosen.
func (c *Calibrated) kept(m calibrate.Method) calibrate.Rounder {
	if c.rounders[m] == nil {
		type weight struct {
			name string
			kind qtype.Kind
		}
		made, round := map[weight][]byte{}, c.round(m)
		c.rounders[m] = func(name string, kind qtype.Kind, w []float32, n, k int) ([]byte, error) {
			if b := made[weight{name, kind}]; b != nil {
				return b, nil
			}
			b, err := round(name, kind, w, n, k)
			made[weight{name, kind}] = b
			return b, err
		}
	}
	return c.rounders[m]
}

// plan tries kinds layer by layer and chooses.
func (c *Calibrated) plan(o Options, f Fit, round calibrate.Rounder) (calibrate.Plan, error) {
	tried := c.tried[f.Method]
	if tried == nil {
		labels := make([][]float32, len(c.prompts))
		var err error
		for i, prompts := range c.prompts {
			if labels[i], err = c.model.Embed(prompts); err != nil {
				return nil, fmt.Errorf("default label %d: %w", i, err)
			}
		}
		tried, err = c.model.Sensitivity(calibrate.Trial{Pictures: some(c.pictures, trialPictures), Texts: some(c.texts, trialPictures),
			Labels: labels, Round: round, Guess: c.round(min(f.Method, calibrate.Clipped)), Progress: f.Progress})
		if err != nil {
			return nil, err
		}
		c.tried[f.Method] = tried
	}
	b := calibrate.Budget{Bytes: f.Bytes, Drift: f.Drift, Fixed: slices.Clone(o.Kinds)}
	for _, p := range o.Keep {
		b.Fixed = append(b.Fixed, Choice{Pattern: p, Kind: qtype.F16})
	}
	if f.Bytes > 0 {
		planned := map[string]bool{}
		for _, t := range tried {
			planned[t.Name] = true
		}
		whole, err := Predict(c.Input, o)
		if err != nil {
			return nil, err
		}
		for _, t := range whole.Tensors {
			switch count := f.Count == nil || f.Count(t.Name); {
			case count && !planned[t.Name]:
				b.Bytes -= int64(t.Bytes) // it takes what it takes
			case !count && planned[t.Name]:
				b.Bytes += int64(t.Bytes) // it is no part of the budget: it stays as it is
				b.Fixed = append(b.Fixed, Choice{Pattern: t.Name, Kind: t.Kind})
			}
		}
		if b.Bytes <= 0 {
			return nil, fmt.Errorf("%w: what is no linear weight takes %d bytes more than allowed", calibrate.ErrBudget, -b.Bytes)
		}
	}
	return calibrate.Allocate(tried, b)
}

// trialPictures are how many pictures, and texts, layers are tried on.
const trialPictures = 16

// Close frees the hosts.
func (c *Calibrated) Close() error { return c.model.Close() }

// defaultTexts are the prompts of each default label as token ids: ordinary
// texts, such as the text tower will see.
func defaultTexts(cfg *clip.Config, in Input) ([][][]int32, error) {
	vocab, err := in.vocab(cfg)
	if err != nil {
		return nil, err
	}
	tokens, err := clip.NewTokenizer(&cfg.Text, vocab)
	if err != nil {
		return nil, fmt.Errorf("%w: vocabulary: %w", ErrText, err)
	}
	texts := make([][][]int32, len(cfg.Text.Defaults))
	for i, label := range cfg.Text.Defaults {
		for _, t := range cfg.Text.Templates {
			texts[i] = append(texts[i], tokens.Encode(nil, clip.Expand(t, label), cfg.Text.Context))
		}
	}
	return texts, nil
}

// maxTexts is how many texts are ordinary enough.
const maxTexts = 128

// some are at most n of x, evenly taken.
func some[T any](x []T, n int) []T {
	if len(x) <= n {
		return x
	}
	out := make([]T, n)
	for i := range out {
		out[i] = x[i*len(x)/n]
	}
	return out
}

// WithImageMean is in with a mean embedding [D] of ordinary pictures; nil: with
// room for one.
func WithImageMean(in Input, mean []float32) (Input, error) {
	cfg, err := clip.ParseConfig(in.Config)
	if err != nil {
		return in, err
	}
	if mean == nil {
		mean = make([]float32, cfg.Embed)
	}
	var c map[string]json.RawMessage
	if err := json.Unmarshal(in.Config, &c); err != nil {
		return in, fmt.Errorf("%w: %w", clip.ErrConfig, err)
	}
	c["image_mean"] = json.RawMessage("true")
	in.Config, err = json.Marshal(c)
	in.Tensors = With(in.Tensors, "image.mean.weight", []int{1, len(mean)}, mean)
	return in, err
}
