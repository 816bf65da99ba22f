package clip

import (
	"errors"
	"fmt"

	"lqa/quant/qtype"
)

// TensorSpec is what a configuration demands of one tensor.
type TensorSpec struct {
	Name string
	// Shape is row-major; weights are [outputs, inputs]. A dimension of 0
	// stands for any length (U8 only).
	Shape []int
	// Stage is the part of the file that holds the tensor: 0 is what pictures
	// need (image tower, default labels), 1 the rest of the text side, 2 the
	// shards of the token table.
	Stage int
	// Default is the kind a converted model stores. A linear layer's weight
	// may be of any kind that qtype.Kind.Linear names, a table's or a
	// depthwise filter's Q8R or F16; no other exchange is allowed.
	Default qtype.Kind
	// Of and From say of a shard that it is the rows of tensor Of from From on,
	// as Config.Whole has it. The file keeps a shard in a frame of its own.
	Of   string
	From int

	role role
}

// Linear reports whether the tensor is a linear layer's weight, whose kind may
// be chosen.
func (s TensorSpec) Linear() bool { return s.role == linearRole }

// role says what a tensor is for, hence how it is kept in memory.
type role int

const (
	textRole   role = iota // U8, not the device's
	linearRole             // [N,K] weight of a linear layer; its bias follows, but PosteriorNames's: it has none
	stemRole               // the same, F16 only: its rows of patches are not padded for Quant
	filterRole             // [C,taps] weight of a depthwise layer; its bias follows
	biasRole               // of the weight before it
	tableRole              // rows to gather
	valuesRole             // F16, kept as float32 rows: norms, positions, the class token
	shardRole              // rows to gather, kept outside of the device
)

// ErrTensor is wrapped by every error of Check.
var ErrTensor = errors.New("clip: tensor does not fit the model")

// Tensors lists every tensor of the model, in execution order, which is also
// the order in the file. A tensor of no rows (no default labels, no ready
// table) is left out.
//
// Filters are flat: image.stem.weight is [Stem, 3·3·3] and image.patch.weight
// [Width, Patch·Patch·3] with columns (ky, kx, rgb), depthwise weights are
// [channels, k·k] with columns (ky, kx). attn.in.weight is [3·W, W]: rows of
// queries, of keys, of values. Beside a posterior image.project has one more row,
// the gate, and image.names.weight [Embed, Posterior] has a column for each class.
// image.names and image.widen have no bias.
func (c *Config) Tensors() []TensorSpec {
	l := &specs{}
	im, tx := &c.Image, &c.Text
	if im.Kind == imageViT {
		l.vit(im, c.Embed)
	} else {
		l.efficientNetLite(im, c.Embed)
	}
	if c.ImageMean {
		l.add("image.mean.weight", valuesRole, qtype.F16, 1, c.Embed)
	}
	if n := len(tx.Defaults); n > 0 {
		l.add("label.default.weight", tableRole, qtype.Q8R, n, c.Embed)
	}

	l.stage = 1
	if tx.Ready > 0 {
		l.add("label.ready.names", textRole, qtype.U8, 0)
		l.add("label.ready.weight", tableRole, qtype.Q8R, tx.Ready, c.Embed)
	}
	if tx.Kind == textTransformer {
		l.textTransformer(tx, c.Embed)
	} else {
		l.bag(tx, c.Embed)
	}
	return l.list
}

// specs collects a model's tensors.
type specs struct {
	list  []TensorSpec
	stage int
}

func (l *specs) add(name string, r role, kind qtype.Kind, shape ...int) {
	l.list = append(l.list, TensorSpec{Name: name, Shape: shape, Stage: l.stage, Default: kind, role: r})
}

// layer adds a weight [rows, cols] and its bias.
func (l *specs) layer(name string, r role, kind qtype.Kind, rows, cols int) {
	l.add(name+".weight", r, kind, rows, cols)
	l.add(name+".bias", biasRole, qtype.F16, rows)
}

func (l *specs) linear(name string, kind qtype.Kind, rows, cols int) {
	l.layer(name, linearRole, kind, rows, cols)
}

// norm adds a LayerNorm's gain and bias.
func (l *specs) norm(name string, width int) {
	l.add(name+".weight", valuesRole, qtype.F16, width)
	l.add(name+".bias", valuesRole, qtype.F16, width)
}

func (l *specs) efficientNetLite(im *Image, embed int) {
	l.layer("image.stem", stemRole, qtype.F16, im.Stem, 27)
	width := im.Stem
	for i, b := range im.Blocks {
		name := BlockPrefix(i)
		expanded := b.In * b.Expand
		if b.Expand != 1 {
			l.linear(name+"expand", qtype.Q8C, expanded, b.In)
		}
		l.layer(name+"depthwise", filterRole, qtype.Q8R, expanded, b.Kernel*b.Kernel)
		l.linear(name+"project", qtype.Q8C, b.Out, expanded)
		width = b.Out
	}
	l.linear("image.features", qtype.Q8C, im.Features, width)
	gate := 0
	if im.Posterior > 0 {
		gate = 1
	}
	l.linear("image.project", qtype.Q8C, embed+gate, im.Features)
	if im.Hidden > 0 {
		l.linear("image.hidden", qtype.Q8C, im.Hidden, im.Features)
		l.add(widenTensor, linearRole, qtype.Q8C, embed, im.Hidden)
	}
	if im.Posterior > 0 {
		l.linear("image.posterior", qtype.Q8C, im.Posterior, im.Features)
		l.add(PosteriorNames, linearRole, qtype.Q8C, embed, im.Posterior)
	}
}

func (l *specs) vit(im *Image, embed int) {
	w := im.Width
	l.linear("image.patch", qtype.Q6, w, im.Patch*im.Patch*3)
	l.add("image.class.weight", valuesRole, qtype.F16, 1, w)
	l.add("image.position.weight", valuesRole, qtype.F16, im.Tokens(), w)
	l.norm("image.pre", w)
	l.blocks("image", &im.Transformer, w, qtype.Q4) // most of the bytes and of the time
	l.norm("image.post", w)
	l.linear("image.project", qtype.F16, embed, w)
}

func (l *specs) textTransformer(tx *Text, embed int) {
	l.add("text.merges", textRole, qtype.U8, 0)
	if tx.TokenShards == 0 {
		l.add(tokenTable, tableRole, qtype.Q8R, tx.Vocab, tx.Width)
	}
	l.add("text.position.weight", valuesRole, qtype.F16, tx.Context, tx.Width)
	l.blocks("text", &tx.Transformer, tx.Width, qtype.Q8C)
	l.norm("text.final", tx.Width)
	l.linear("text.project", qtype.F16, embed, tx.Width)
	l.stage = 2
	for i := range tx.Shards() {
		from := i * tx.TokenShards
		l.add(ShardName(i), shardRole, qtype.Q8R, min(tx.TokenShards, tx.Vocab-from), tx.Width)
		s := &l.list[len(l.list)-1]
		s.Of, s.From = tokenTable, from
	}
}

const tokenTable = "text.token.weight"

// ShardName is the name of shard i of the token table.
func ShardName(i int) string { return fmt.Sprintf("text.token.%03d.weight", i) }

func (l *specs) bag(tx *Text, embed int) {
	l.add("text.vocab", textRole, qtype.U8, 0)
	l.add(tokenTable, tableRole, qtype.Q8R, tx.Vocab, tx.Width)
	l.add("text.pool.weight", valuesRole, qtype.F16, 1, tx.Width)
	l.linear("text.fc1", qtype.Q8C, tx.Hidden, tx.Width)
	l.linear("text.fc2", qtype.Q8C, embed, tx.Hidden)
}

// blocks adds a transformer's blocks.
func (l *specs) blocks(tower string, x *Transformer, width int, kind qtype.Kind) {
	for i := range x.Layers {
		name := LayerPrefix(tower, i)
		l.norm(name+"norm1", width)
		l.linear(name+"attn.in", kind, 3*width, width)
		l.linear(name+"attn.out", kind, width, width)
		l.norm(name+"norm2", width)
		l.linear(name+"mlp.in", kind, x.MLP, width)
		l.linear(name+"mlp.out", kind, width, x.MLP)
	}
}

// LayerPrefix is what the names of a transformer block's tensors begin with.
func LayerPrefix(tower string, i int) string { return fmt.Sprintf("%s.layer.%02d.", tower, i) }

// Check reports whether a tensor of this kind and shape is what s demands.
// Its size in bytes is then bounded by qtype.Kind.Size.
func (s TensorSpec) Check(kind qtype.Kind, shape []int) error {
	allowed := kind == s.Default
	switch s.role {
	case linearRole:
		allowed = kind.Linear()
	case tableRole, filterRole, shardRole:
		allowed = allowed || kind == qtype.F16
	}
	if !allowed {
		return fmt.Errorf("%w: %s is %s, want %s", ErrTensor, s.Name, kind, s.Default)
	}
	fits := len(shape) == len(s.Shape)
	for i := 0; fits && i < len(shape); i++ {
		fits = shape[i] == s.Shape[i] || s.Shape[i] == 0
	}
	if !fits {
		return fmt.Errorf("%w: %s is %v, want %v", ErrTensor, s.Name, shape, s.Shape)
	}
	if _, err := kind.Size(shape); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrTensor, s.Name, err)
	}
	return nil
}

// Stored is a tensor as a file holds it.
type Stored struct {
	Name  string
	Kind  qtype.Kind
	Shape []int
	Stage int
	Alone bool // has a frame to itself
}

// Match reports whether a file's tensors, whose names differ from each other,
// are exactly those of the model: kinds, shapes and stages as Tensors demands,
// shards alone in their frames.
func (c *Config) Match(stored []Stored) error {
	specs := map[string]TensorSpec{}
	for _, s := range c.Tensors() {
		specs[s.Name] = s
	}
	for _, t := range stored {
		s, ok := specs[t.Name]
		if !ok {
			return fmt.Errorf("%w: %q is none of this model's", ErrTensor, t.Name)
		}
		delete(specs, t.Name)
		if err := s.Check(t.Kind, t.Shape); err != nil {
			return err
		}
		if t.Stage != s.Stage {
			return fmt.Errorf("%w: %q is in stage %d, want %d", ErrTensor, t.Name, t.Stage, s.Stage)
		}
		if s.role == shardRole && !t.Alone {
			return fmt.Errorf("%w: %q shares its frame, or has several", ErrTensor, t.Name)
		}
	}
	for _, s := range c.Tensors() { // in the model's order, so that the error is always the same
		if _, missing := specs[s.Name]; missing {
			return fmt.Errorf("%w: %q is missing", ErrTensor, s.Name)
		}
	}
	return nil
}
