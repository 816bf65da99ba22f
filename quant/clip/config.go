// Package clip is the dual encoder: its configuration, its towers recorded as
// commands on a device, its tokenizers and its preprocessing.
package clip

import (
	"errors"
	"fmt"

	"lqa/quant/json"
	"lqa/quant/kernel"
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
	// ImageMean says that the tensor image.mean.weight is there: the mean
	// embedding of ordinary pictures, of which adapters know what is usual.
	ImageMean bool `json:"image_mean,omitempty"`

	Image Image `json:"image"`
	Text  Text  `json:"text"`
}

// Image describes the image tower. Kind "efficientnet-lite": inverted
// residuals without squeeze-excite, ReLU6, batch norms folded, then a linear
// projection of the pooled features and, with Hidden, a GELU branch and, with
// Posterior, a classifier beside it (RefHead). Kind "vit": CLIP's vision transformer:
// square patches, a class token, learned positions, LayerNorm before the
// blocks and, on the class token alone, after them, then a linear projection.
type Image struct {
	Kind string     `json:"kind"`
	Size int        `json:"size"` // the view is Size × Size pixels
	Mean [3]float32 `json:"mean"` // x = (byte/255 - mean)/std, per channel
	Std  [3]float32 `json:"std"`

	// Of an efficientnet-lite.
	Stem     int     `json:"stem,omitempty"` // channels of the 3×3 stride-2 stem
	Blocks   []Block `json:"blocks,omitempty"`
	Features int     `json:"features,omitempty"` // channels of the last 1×1 convolution
	// Hidden is the width of the GELU branch; 0: there is none.
	Hidden int `json:"hidden,omitempty"`
	// Posterior is the classes of the classifier; 0: there is none.
	Posterior int `json:"posterior,omitempty"`

	// Of a vit.
	Patch int `json:"patch,omitempty"` // side of a patch in pixels
	Width int `json:"width,omitempty"` // W, channels of a token
	Transformer
}

// Tokens is T, how many tokens a vit works on: its patches and the class token.
func (im *Image) Tokens() int { return (im.Size/im.Patch)*(im.Size/im.Patch) + 1 }

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

// Transformer describes residual blocks that normalise first: x += attention(norm(x)), then
// x += mlp(norm(x)), where mlp is linear, activation, linear.
type Transformer struct {
	Layers     int     `json:"layers,omitempty"`
	Heads      int     `json:"heads,omitempty"`      // each Width/Heads wide
	MLP        int     `json:"mlp,omitempty"`        // columns between the MLP's two linear layers
	Activation string  `json:"activation,omitempty"` // "quick_gelu" (OpenAI's) or "gelu", by erf
	Eps        float32 `json:"eps,omitempty"`        // of every LayerNorm
}

// Text describes the text side. Kind "bag": WordPiece tokens, a softmax-pooled
// average of their embeddings, then linear, GELU, linear. Kind "transformer":
// CLIP's: byte-pair tokens, learned positions, causal blocks, LayerNorm and a
// linear projection of the pooled token. Labels that stand in the ready table
// are looked up instead.
type Text struct {
	Kind    string `json:"kind"`
	Vocab   int    `json:"vocab"`            // rows of text.token.weight
	Width   int    `json:"width"`            // columns of it
	Hidden  int    `json:"hidden,omitempty"` // of a bag: rows of text.fc1.weight
	Context int    `json:"context"`          // most tokens of one text

	// Of a transformer.
	Transformer
	// EOS is config.json's eos_token_id and says where a text is pooled: at
	// its first token EOS or, if EOS is wrongEOS, at its first token of the
	// largest id.
	EOS int `json:"eos_token_id,omitempty"`
	// TokenShards cuts the token table into tensors of so many rows, each in a
	// frame of its own, of which a text needs a few: text.token.000.weight and
	// so on. 0: the table is one tensor and stays in memory.
	TokenShards int `json:"token_shards,omitempty"`

	Templates []string `json:"templates"` // "{}" stands for the label; the mean over them is the embedding
	// Defaults are the labels of the tensor label.default.weight, in order:
	// they are there before the rest of the text side is.
	Defaults []string `json:"defaults"`
	// Ready is the number of rows of label.ready.weight; their names are the
	// lines of label.ready.names.
	Ready int `json:"ready"`
}

// TokenShard is a good TokenShards. It cuts CLIP's table into 193 shards of
// 122 kB, for 40 kB of manifest. Five labels (things on a desk) then need 1.6 MB
// in 10 requests; with 512 rows 2.9 MB in 7, with 128 rows 0.9 MB in 13. The
// hundred of Caltech 101 need 10 MB in 41, 15 MB in 20 or 7 MB in 60.
const TokenShard = 256

// Whole is c with its token table in one tensor, as checkpoints have it.
func (c *Config) Whole() *Config {
	w := *c
	w.Text.TokenShards = 0
	return &w
}

// Shards is the number of tensors that TokenShards cuts the token table into.
func (tx *Text) Shards() int {
	if tx.TokenShards == 0 {
		return 0
	}
	return (tx.Vocab + tx.TokenShards - 1) / tx.TokenShards
}

// Kinds of towers.
const (
	imageLite       = "efficientnet-lite"
	imageViT        = "vit"
	textBag         = "bag"
	textTransformer = "transformer"
)

// wrongEOS stands in the configurations of OpenAI's CLIP, whose texts end with
// their largest id (huggingface/transformers issue 24773).
const wrongEOS = 2

// Activations.
const (
	quickGELU = "quick_gelu"
	erfGELU   = "gelu"
)

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
	maxTokens  = 1 << 10 // what the attention kernel's sums allow
	maxHead    = 1 << 7  // likewise
	maxShards  = 1000    // three digits name them
	maxShard   = 1 << 20 // bytes of one as float16: a frame holds it
)

// ParseConfig reads and checks a manifest's "model" object. Unknown fields are
// ignored: a newer writer may add some.
func ParseConfig(raw []byte) (*Config, error) {
	c := new(Config)
	r := new(json.Reader)
	if err := r.Read(raw, func() { c.read(r) }); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return c, nil
}

func (c *Config) read(r *json.Reader) {
	r.Object(func(key []byte) {
		switch string(key) {
		case "embed":
			c.Embed = r.Int()
		case "logit_scale":
			c.LogitScale = r.Float32()
		case "temperature":
			c.Temperature = r.Float32()
		case "none_cosine":
			c.NoneCosine = new(float32)
			*c.NoneCosine = r.Float32()
		case "image_mean":
			c.ImageMean = r.Bool()
		case "image":
			c.Image.read(r)
		case "text":
			c.Text.read(r)
		}
	})
}

func (im *Image) read(r *json.Reader) {
	r.Object(func(key []byte) {
		switch string(key) {
		case "kind":
			im.Kind = r.String()
		case "size":
			im.Size = r.Int()
		case "mean":
			im.Mean = readRGB(r)
		case "std":
			im.Std = readRGB(r)
		case "stem":
			im.Stem = r.Int()
		case "blocks":
			r.Array(func() {
				if len(im.Blocks) <= maxBlocks { // one more is refused
					im.Blocks = append(im.Blocks, readBlock(r))
				}
			})
		case "features":
			im.Features = r.Int()
		case "hidden":
			im.Hidden = r.Int()
		case "posterior":
			im.Posterior = r.Int()
		case "patch":
			im.Patch = r.Int()
		case "width":
			im.Width = r.Int()
		default:
			im.Transformer.read(r, string(key))
		}
	})
}

var errRGB = errors.New("three numbers are expected, one a channel")

func readRGB(r *json.Reader) (v [3]float32) {
	n := 0
	r.Array(func() {
		if n < len(v) {
			v[n] = r.Float32()
		}
		n++
	})
	if n != len(v) {
		r.Stop(errRGB)
	}
	return v
}

func readBlock(r *json.Reader) (b Block) {
	r.Object(func(key []byte) {
		switch string(key) {
		case "k":
			b.Kernel = r.Int()
		case "s":
			b.Stride = r.Int()
		case "e":
			b.Expand = r.Int()
		case "in":
			b.In = r.Int()
		case "out":
			b.Out = r.Int()
		}
	})
	return b
}

// read reads the value of one key, if it is a transformer's.
func (x *Transformer) read(r *json.Reader, key string) {
	switch key {
	case "layers":
		x.Layers = r.Int()
	case "heads":
		x.Heads = r.Int()
	case "mlp":
		x.MLP = r.Int()
	case "activation":
		x.Activation = r.String()
	case "eps":
		x.Eps = r.Float32()
	}
}

func (tx *Text) read(r *json.Reader) {
	r.Object(func(key []byte) {
		switch string(key) {
		case "kind":
			tx.Kind = r.String()
		case "vocab":
			tx.Vocab = r.Int()
		case "width":
			tx.Width = r.Int()
		case "hidden":
			tx.Hidden = r.Int()
		case "context":
			tx.Context = r.Int()
		case "eos_token_id":
			tx.EOS = r.Int()
		case "token_shards":
			tx.TokenShards = r.Int()
		case "templates":
			tx.Templates = r.Strings()
		case "defaults":
			tx.Defaults = r.Strings()
		case "ready":
			tx.Ready = r.Int()
		default:
			tx.Transformer.read(r, string(key))
		}
	})
}

func (c *Config) check() error {
	errs := []error{
		in("embed", c.Embed, 1, maxWidth),
		finite("logit_scale", c.LogitScale, 0x1p-10, 1000),
		finite("temperature", c.Temperature, 0x1p-10, 1000),
	}
	if c.NoneCosine != nil {
		errs = append(errs, finite("none_cosine", *c.NoneCosine, -1, 1))
	}
	return errors.Join(append(errs, c.Image.check(), c.Text.check())...)
}

// in reports an integer out of its bounds.
func in(what string, v, lo, hi int) error {
	if v < lo || v > hi {
		return fmt.Errorf("%s is %d, not in %d..%d", what, v, lo, hi)
	}
	return nil
}

// finite reports a number out of its bounds, or none.
func finite(what string, v, lo, hi float32) error {
	if !(v >= lo && v <= hi) {
		return fmt.Errorf("%s is %v, not in %v..%v", what, v, lo, hi)
	}
	return nil
}

func (im *Image) check() error {
	errs := []error{in("image size", im.Size, 32, maxSize)}
	for i := range 3 {
		errs = append(errs, finite("mean", im.Mean[i], -10, 10), finite("std", im.Std[i], 0x1p-10, 10))
	}
	switch im.Kind {
	case imageLite:
		errs = append(errs,
			in("stem", im.Stem, 1, maxWidth),
			in("blocks", len(im.Blocks), 1, maxBlocks),
			in("features", im.Features, 1, maxWidth),
			in("hidden", im.Hidden, 0, maxWidth),
			in("posterior", im.Posterior, 0, maxWidth))
		width := im.Stem
		for i, b := range im.Blocks {
			if b.Kernel != 3 && b.Kernel != 5 || b.Stride != 1 && b.Stride != 2 || b.In != width {
				errs = append(errs, fmt.Errorf("block %d: kernel %d, stride %d, in %d after %d", i, b.Kernel, b.Stride, b.In, width))
			}
			errs = append(errs, in("block expand", b.Expand, 1, 16), in("block out", b.Out, 1, maxWidth))
			width = b.Out
		}
	case imageViT:
		errs = append(errs, in("hidden", im.Hidden, 0, 0), in("posterior", im.Posterior, 0, 0), in("patch", im.Patch, 2, 128), im.Transformer.check("image", im.Width))
		// An even side makes rows of patches whole vectors.
		if im.Patch > 0 && (im.Patch%2 != 0 || im.Size%im.Patch != 0) {
			errs = append(errs, fmt.Errorf("patch is %d: not even, or no divisor of %d", im.Patch, im.Size))
		} else if im.Patch > 0 && im.Size <= maxSize {
			errs = append(errs, in("image tokens", im.Tokens(), 1, maxTokens))
		}
	default:
		errs = append(errs, fmt.Errorf("image kind %q is unknown", im.Kind))
	}
	return errors.Join(errs...)
}

func (tx *Text) check() error {
	errs := []error{
		in("vocab", tx.Vocab, 1, maxVocab),
		in("context", tx.Context, 1, maxContext),
		in("templates", len(tx.Templates), 1, 256),
		in("defaults", len(tx.Defaults), 0, 1024),
		in("ready", tx.Ready, 0, 1<<16),
	}
	switch tx.Kind {
	case textBag:
		errs = append(errs, in("text width", tx.Width, 1, maxWidth), in("text hidden", tx.Hidden, 1, maxWidth), in("token_shards", tx.TokenShards, 0, 0))
	case textTransformer:
		errs = append(errs, tx.Transformer.check("text", tx.Width), in("context", tx.Context, 3, maxTokens), in("eos_token_id", tx.EOS, 1, tx.Vocab-1),
			in("token_shards", tx.TokenShards, 0, min(tx.Vocab, maxShard/2/max(1, tx.Width))))
		if tx.TokenShards > 0 {
			errs = append(errs, in("number of token shards", tx.Shards(), 1, maxShards))
		}
	default:
		errs = append(errs, fmt.Errorf("text kind %q is unknown", tx.Kind))
	}
	return errors.Join(errs...)
}

func (x *Transformer) check(tower string, width int) error {
	errs := []error{
		in(tower+" width", width, kernel.Lanes, maxWidth),
		in(tower+" layers", x.Layers, 1, maxBlocks),
		in(tower+" heads", x.Heads, 1, maxWidth),
		in(tower+" mlp", x.MLP, 1, maxWidth),
		finite(tower+" eps", x.Eps, 0x1p-40, 1),
	}
	if x.Heads > 0 && (width%x.Heads != 0 || width/x.Heads%kernel.Lanes != 0 || width/x.Heads > maxHead) {
		errs = append(errs, fmt.Errorf("%s width %d in %d heads: not each a multiple of %d up to %d wide", tower, width, x.Heads, kernel.Lanes, maxHead))
	}
	if x.Activation != quickGELU && x.Activation != erfGELU {
		errs = append(errs, fmt.Errorf("%s activation %q is unknown", tower, x.Activation))
	}
	return errors.Join(errs...)
}
