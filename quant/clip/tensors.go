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
	// need (image tower, default labels), 1 the rest of the text side.
	Stage int
	// Default is the kind a converted model stores. Weights of kind Q8C and
	// Q8R may be stored as F16 instead; no other exchange is allowed.
	Default qtype.Kind
}

// ErrTensor is wrapped by every error of Check.
var ErrTensor = errors.New("clip: tensor does not fit the model")

// Tensors lists every tensor of the model, in execution order, which is also
// the order in the file. A tensor of no rows (no default labels, no ready
// table) is left out.
//
// Filters are flat: image.stem.weight is [Stem, 3·3·3] with columns (ky, kx,
// rgb), depthwise weights are [channels, k·k] with columns (ky, kx).
func (c *Config) Tensors() []TensorSpec {
	var list []TensorSpec
	stage := 0
	add := func(name string, kind qtype.Kind, shape ...int) {
		list = append(list, TensorSpec{Name: name, Shape: shape, Stage: stage, Default: kind})
	}
	layer := func(name string, kind qtype.Kind, rows, cols int) {
		add(name+".weight", kind, rows, cols)
		add(name+".bias", qtype.F16, rows)
	}
	im, tx := &c.Image, &c.Text

	layer("image.stem", qtype.F16, im.Stem, 27)
	width := im.Stem
	for i, b := range im.Blocks {
		name := fmt.Sprintf("image.block.%02d.", i)
		expanded := b.In * b.Expand
		if b.Expand != 1 {
			layer(name+"expand", qtype.Q8C, expanded, b.In)
		}
		layer(name+"depthwise", qtype.Q8R, expanded, b.Kernel*b.Kernel)
		layer(name+"project", qtype.Q8C, b.Out, expanded)
		width = b.Out
	}
	layer("image.features", qtype.Q8C, im.Features, width)
	layer("image.project", qtype.Q8C, c.Embed, im.Features)
	if n := len(tx.Defaults); n > 0 {
		add("label.default.weight", qtype.Q8R, n, c.Embed)
	}

	stage = 1
	if tx.Ready > 0 {
		add("label.ready.names", qtype.U8, 0)
		add("label.ready.weight", qtype.Q8R, tx.Ready, c.Embed)
	}
	add("text.vocab", qtype.U8, 0)
	add("text.token.weight", qtype.Q8R, tx.Vocab, tx.Width)
	add("text.pool.weight", qtype.F16, 1, tx.Width)
	layer("text.fc1", qtype.Q8C, tx.Hidden, tx.Width)
	layer("text.fc2", qtype.Q8C, c.Embed, tx.Hidden)
	return list
}

// Check reports whether a tensor of this kind and shape is what s demands.
// Its size in bytes is then bounded by qtype.Kind.Size.
func (s TensorSpec) Check(kind qtype.Kind, shape []int) error {
	float := kind == qtype.F16 && (s.Default == qtype.Q8C || s.Default == qtype.Q8R)
	if kind != s.Default && !float {
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
}

// Match reports whether a file's tensors, whose names differ from each other,
// are exactly those of the model: kinds, shapes and stages as Tensors demands.
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
	}
	for _, s := range c.Tensors() { // in the model's order, so that the error is always the same
		if _, missing := specs[s.Name]; missing {
			return fmt.Errorf("%w: %q is missing", ErrTensor, s.Name)
		}
	}
	return nil
}
