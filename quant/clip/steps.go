package clip

import (
	"fmt"
	"slices"
	"strings"

	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
)

// This file is for calibration: a float model that is run in parts, and whose
// weights change. A model that is only used has none of it.

// FloatKinds are the kinds of a model that PutFloat fills: float32 in memory
// throughout, but for tables, which are stored as they always are.
func (c *Config) FloatKinds() map[string]qtype.Kind {
	kinds := map[string]qtype.Kind{}
	for _, s := range c.Tensors() {
		kinds[s.Name] = qtype.F16
		if s.role == tableRole || s.role == textRole {
			kinds[s.Name] = s.Default
		}
	}
	return kinds
}

// PutFloat is Put for a model of FloatKinds: linear layers, norms, positions
// and the class token keep x as it is, filters are rounded to float16 and
// tables to their kind. Tensors come in the order of Config.Tensors, and may
// come again.
func (m *Model) PutFloat(name string, x []float32) error {
	read := func(dst []float32, at int) { copy(dst, x[at:]) }
	if v := m.values[name]; v != nil {
		if len(x) != v.rows*v.cols {
			return sizeError(name, len(x), v.rows*v.cols)
		}
		if name == classTensor { // the position is added to it
			if err := m.dev.WriteF32(v.start, make([]float32, stride(v.cols))); err != nil {
				return err
			}
		}
		return v.put(m.dev, read)
	}
	layer, weight := strings.CutSuffix(name, ".weight")
	if !weight {
		layer = strings.TrimSuffix(name, ".bias")
	}
	if n := m.linears[layer]; n != nil {
		switch want := n.rows * n.cols; {
		case !weight && len(x) == n.rows:
			return n.putBias(m, read)
		case !weight:
			return sizeError(name, len(x), n.rows)
		case len(x) == want:
			return n.putFloats(m.dev, read)
		default:
			return sizeError(name, len(x), want)
		}
	}
	t, f := m.tables[layer], m.filters[layer]
	kind := qtype.F16
	var shape []int
	switch {
	case t != nil && weight:
		kind, shape = t.kind, []int{t.rows, t.cols}
	case f != nil && weight:
		shape = []int{f.channels, f.taps}
	case f != nil:
		shape = []int{f.channels}
	default:
		return fmt.Errorf("%w: %q is none of this model's", ErrTensor, name)
	}
	want := 1
	for _, d := range shape {
		want *= d
	}
	if len(x) != want {
		return sizeError(name, len(x), want)
	}
	if kind == qtype.Q8R {
		return m.Put(name, kind, shape, qtype.AppendQ8R(nil, x, shape[0], shape[1]))
	}
	return m.Put(name, kind, shape, numeric.AppendFloat16(nil, x...))
}

func sizeError(name string, got, want int) error {
	return fmt.Errorf("%w: %s has %d values, want %d", ErrTensor, name, got, want)
}

// Step is a linear layer, of those whose kind may be chosen, in a float tower: its product is the command in words
// From to To of the list.
type Step struct {
	Layer    string // its tensors' names, without ".weight" and ".bias"
	GEMM     kernel.GEMMF32
	From, To int
}

// Steps is a recorded float tower that can be run in parts.
type Steps struct {
	Linear []Step // in order of execution
	End    int    // words of the list

	dev       *device.Device
	at        uint32 // of the list
	list      kernel.List
	embedding uint32
	arena     uint32
	bytes     int
}

// ImageSteps is the image tower, which reads the view.
func (m *Model) ImageSteps() *Steps {
	return m.steps(m.image, m.offsets, func(t *tower) { t.image(&m.cfg.Image) })
}

// TextSteps is the text tower for one text, until another is embedded.
func (m *Model) TextSteps(ids []int32) (*Steps, error) {
	if err := m.putText(ids); err != nil {
		return nil, err
	}
	return m.steps(m.text.list, m.text.offsets, func(t *tower) { t.text(&m.cfg.Text, m.text.tokens) }), nil
}

// steps records a tower once more, as it lies on the device.
func (m *Model) steps(at uint32, offsets map[string]uint32, record func(*tower)) *Steps {
	linear := map[string]bool{}
	for _, spec := range m.cfg.Tensors() {
		linear[spec.Name] = spec.Linear()
	}
	s := &Steps{dev: m.dev, at: at, embedding: offsets[embedding]}
	t := &tower{m: m, sizes: map[string]int{}, offsets: offsets, steps: &s.Linear}
	record(t)
	s.Linear = slices.DeleteFunc(s.Linear, func(s Step) bool { return !linear[s.Layer+".weight"] })
	s.End, s.list = len(t.list), t.list.End()
	var end uint32
	s.arena = offsets[embedding]
	for name, size := range t.sizes {
		s.arena, end = min(s.arena, offsets[name]), max(end, offsets[name]+uint32(size))
	}
	s.bytes = int(end - s.arena)
	return s
}

// Run executes the commands in words from to to of the list.
func (s *Steps) Run(from, to int) error {
	word := s.at + uint32(4*to)
	if err := s.dev.WriteU32(word, kernel.List(nil).End()); err != nil {
		return err
	}
	if err := s.dev.Run(s.at + uint32(4*from)); err != nil {
		return err
	}
	return s.dev.WriteU32(word, s.list[to:to+1])
}

// RunOn executes the product of step i on an input elsewhere, as far apart row
// by row as its own.
func (s *Steps) RunOn(i int, x uint32) error {
	step := s.Linear[i]
	c := step.GEMM
	c.A = x
	word := s.at + uint32(4*step.From)
	if err := s.dev.WriteU32(word, c.Append(nil)); err != nil {
		return err
	}
	if err := s.Run(step.From, step.To); err != nil {
		return err
	}
	return s.dev.WriteU32(word, s.list[step.From:step.To])
}

// Embedding reads the result [D] of the whole list.
func (s *Steps) Embedding(dst []float32) error { return s.dev.ReadF32(s.embedding, dst) }

// SaveBytes is the length of what Save writes.
func (s *Steps) SaveBytes() int { return s.bytes }

// Save copies the tower's buffers to b, and Load puts them back: what the list
// has come to so far.
func (s *Steps) Save(b []byte) error { return s.dev.Read(s.arena, b[:s.bytes]) }

// Load takes what Save has written.
func (s *Steps) Load(b []byte) error { return s.dev.Write(s.arena, b[:s.bytes]) }

// LargestInput is the most values from the first to the last that a linear
// layer reads.
func (m *Model) LargestInput() int {
	tx := &m.cfg.Text
	most := 0
	for _, s := range []*Steps{m.ImageSteps(), m.steps(m.text.list, m.text.offsets, func(t *tower) { t.text(tx, tx.Context) })} {
		for _, step := range s.Linear {
			most = max(most, step.GEMM.M*step.GEMM.LDA)
		}
	}
	return most
}
