package convert

import (
	"encoding/json"
	"fmt"
	"slices"

	"lqa/quant/calibrate"
	"lqa/quant/clip"
	"lqa/quant/device"
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
// has the image mean, and the default labels' embeddings if they were missing.
type Calibrated struct {
	Input
	Stats *calibrate.Stats

	cfg   *clip.Config
	model *calibrate.Model
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
	stats, err := m.Collect(c.Pictures, some(slices.Concat(texts...), maxTexts), c.Progress)
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
	if stats.ImageMean != nil && !cfg.ImageMean {
		if in.Config, err = withImageMean(in.Config); err != nil {
			return nil, err
		}
		src = With(src, "image.mean.weight", []int{1, cfg.Embed}, stats.ImageMean)
	}
	const labels = "label.default.weight"
	if _, there := src.Shape(labels); !there && len(texts) > 0 {
		var rows []float32
		for i, prompts := range texts {
			e, err := m.Embed(prompts)
			if err != nil {
				return nil, fmt.Errorf("default label %q: %w", cfg.Text.Defaults[i], err)
			}
			rows = append(rows, e...)
		}
		src = With(src, labels, []int{len(texts), cfg.Embed}, rows)
	}
	in.Tensors = src
	if cfg, err = clip.ParseConfig(in.Config); err != nil {
		return nil, err
	}
	return &Calibrated{Input: in, Stats: stats, cfg: cfg, model: m}, nil
}

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

// withImageMean says in a configuration that there is an image mean.
func withImageMean(config []byte) ([]byte, error) {
	var c map[string]json.RawMessage
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("%w: %w", clip.ErrConfig, err)
	}
	c["image_mean"] = json.RawMessage("true")
	return json.Marshal(c)
}
