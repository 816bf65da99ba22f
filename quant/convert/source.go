package convert

import (
	"fmt"
	"slices"

	"lqa/quant/calibrate"
	"lqa/quant/clip"
)

// Source is where the float tensors come from; a checkpoint.Safetensors is one.
type Source = calibrate.Source

// With is src with one tensor more, or another in its place: embeddings of the
// default labels, say, which no checkpoint has. With a nil shape it is src
// without that tensor.
func With(src Source, name string, shape []int, x []float32) Source {
	return with{src, name, shape, x}
}

type with struct {
	Source
	name  string
	shape []int
	x     []float32
}

func (w with) Names() []string {
	names := slices.DeleteFunc(slices.Clone(w.Source.Names()), func(n string) bool { return n == w.name })
	if w.shape == nil {
		return names
	}
	return append(names, w.name)
}

func (w with) Shape(name string) ([]int, bool) {
	if name == w.name {
		return w.shape, w.shape != nil
	}
	return w.Source.Shape(name)
}

func (w with) Float32(name string) ([]float32, error) {
	if name == w.name {
		return slices.Clone(w.x), nil
	}
	return w.Source.Float32(name)
}

// sourceName is the name of what spec is, or is a part of, in a Source.
func sourceName(spec clip.TensorSpec) string {
	if spec.Of != "" {
		return spec.Of
	}
	return spec.Name
}

// parts reads tensors from a Source. It keeps the last one that specs are parts
// of, which come one after the other.
type parts struct {
	src  Source
	name string
	x    []float32
}

func (p *parts) read(spec clip.TensorSpec) ([]float32, error) {
	n := 1
	for _, d := range spec.Shape {
		n *= d
	}
	x, name := p.x, sourceName(spec)
	if name != p.name {
		var err error
		if x, err = p.src.Float32(name); err != nil {
			return nil, err
		}
		p.name, p.x = "", nil
		if spec.Of != "" {
			p.name, p.x = name, x
		}
	}
	from := spec.From * n / spec.Shape[0]
	if len(x) < from+n || spec.Of == "" && len(x) != n {
		return nil, fmt.Errorf("%w: %s has %d values", ErrTensors, name, len(x))
	}
	return x[from : from+n], nil
}
