// Package clip is the dual encoder: its configuration, its towers recorded as
// commands on a device, its tokenizers and its preprocessing.
package clip

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Config describes a dual encoder: the "model" object of a .shq manifest.
// Everything that shapes the computation is here; nothing is guessed from
// tensor names.
type Config struct {
	Embed      int     `json:"embed"`       // D, width of the shared space
	LogitScale float32 `json:"logit_scale"` // logits = LogitScale · cosine
	// Temperature divides logits before the softmax that people see (1: none).
	Temperature float32 `json:"temperature"`
	// NoneCosine is the cosine at which "none of these" is as likely as a
	// label; absent where the model has no such answer.
	NoneCosine *float32 `json:"none_cosine,omitempty"`

	Image Image `json:"image"`
	Text  Text  `json:"text"`
}

// Image describes the image tower. Kind "efficientnet-lite": inverted
// residuals without squeeze-excite, ReLU6, batch norms folded, then a linear
// projection of the pooled features.
type Image struct {
	Kind string     `json:"kind"`
	Size int        `json:"size"` // the view is Size × Size pixels
	Mean [3]float32 `json:"mean"` // x = (byte/255 - mean)/std, per channel
	Std  [3]float32 `json:"std"`

	Stem     int     `json:"stem"` // channels of the 3×3 stride-2 stem
	Blocks   []Block `json:"blocks"`
	Features int     `json:"features"` // channels of the last 1×1 convolution
}

// Block is one inverted residual: expand 1×1 (absent when Expand is 1),
// depthwise Kernel × Kernel, project 1×1; a residual is added when Stride is 1
// and In equals Out.
type Block struct {
	Kernel int `json:"k"`
	Stride int `json:"s"`
	Expand int `json:"e"`
	In     int `json:"in"`
	Out    int `json:"out"`
}

// Text describes the text side. Kind "bag": WordPiece tokens, a softmax-pooled
// average of their embeddings, then linear, GELU, linear. Labels that stand in
// the ready table are looked up instead.
type Text struct {
	Kind      string   `json:"kind"`
	Vocab     int      `json:"vocab"`     // rows of text.token.weight
	Width     int      `json:"width"`     // columns of it
	Hidden    int      `json:"hidden"`    // rows of text.fc1.weight
	Context   int      `json:"context"`   // most tokens of one text
	Templates []string `json:"templates"` // "{}" stands for the label; the mean over them is the embedding
	// Defaults are the labels of the tensor label.default.weight, in order:
	// they are there before the rest of the text side is.
	Defaults []string `json:"defaults"`
	// Ready is the number of rows of label.ready.weight; their names are the
	// lines of label.ready.names.
	Ready int `json:"ready"`
}

// ErrConfig is wrapped by every error of ParseConfig.
var ErrConfig = errors.New("clip: bad model configuration")

// Limits of a configuration, far above any real model: they bound what a file
// from outside can ask for.
const (
	maxWidth   = 1 << 14
	maxBlocks  = 256
	maxVocab   = 1 << 20
	maxContext = 1 << 10
	maxSize    = 1 << 10
)

// ParseConfig reads and checks a manifest's "model" object. Unknown fields are
// ignored: a newer writer may add some.
func ParseConfig(raw []byte) (*Config, error) {
	c := new(Config)
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrConfig, err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return c, nil
}

func (c *Config) check() error {
	in := func(what string, v, lo, hi int) error {
		if v < lo || v > hi {
			return fmt.Errorf("%s is %d, not in %d..%d", what, v, lo, hi)
		}
		return nil
	}
	finite := func(what string, v float32, lo, hi float32) error {
		if !(v >= lo && v <= hi) {
			return fmt.Errorf("%s is %v, not in %v..%v", what, v, lo, hi)
		}
		return nil
	}
	errs := []error{
		in("embed", c.Embed, 1, maxWidth),
		finite("logit_scale", c.LogitScale, 0x1p-10, 1000),
		finite("temperature", c.Temperature, 0x1p-10, 1000),
	}
	if c.NoneCosine != nil {
		errs = append(errs, finite("none_cosine", *c.NoneCosine, -1, 1))
	}
	im, tx := &c.Image, &c.Text
	if im.Kind != "efficientnet-lite" {
		errs = append(errs, fmt.Errorf("image kind %q is unknown", im.Kind))
	}
	if tx.Kind != "bag" {
		errs = append(errs, fmt.Errorf("text kind %q is unknown", tx.Kind))
	}
	errs = append(errs,
		in("image size", im.Size, 32, maxSize),
		in("stem", im.Stem, 1, maxWidth),
		in("blocks", len(im.Blocks), 1, maxBlocks),
		in("features", im.Features, 1, maxWidth),
		in("vocab", tx.Vocab, 1, maxVocab),
		in("text width", tx.Width, 1, maxWidth),
		in("text hidden", tx.Hidden, 1, maxWidth),
		in("context", tx.Context, 1, maxContext),
		in("templates", len(tx.Templates), 1, 256),
		in("defaults", len(tx.Defaults), 0, 1024),
		in("ready", tx.Ready, 0, 1<<16),
	)
	for i := range 3 {
		errs = append(errs, finite("mean", im.Mean[i], -10, 10), finite("std", im.Std[i], 0x1p-10, 10))
	}
	width := im.Stem
	for i, b := range im.Blocks {
		if b.Kernel != 3 && b.Kernel != 5 || b.Stride != 1 && b.Stride != 2 || b.In != width {
			errs = append(errs, fmt.Errorf("block %d: kernel %d, stride %d, in %d after %d", i, b.Kernel, b.Stride, b.In, width))
		}
		errs = append(errs, in("block expand", b.Expand, 1, 16), in("block out", b.Out, 1, maxWidth))
		width = b.Out
	}
	return errors.Join(errs...)
}
