package clip

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/qtype"
)

// Model is a dual encoder laid out on a device: weights, buffers and the
// recorded commands of both towers.
type Model struct {
	cfg *Config
	dev *device.Device

	view     *view
	linears  map[string]*linear  // by tensor name without ".weight"
	filters  map[string]*filters // depthwise layers, likewise
	tables   map[string]*table
	values   map[string]*values // by whole tensor name
	shards   map[string]int     // likewise, to their numbers
	came     map[string]bool    // layers whose weight has come
	held     map[string][]byte  // depthwise weights whose bias has not come yet
	programs []program
	once     uint32 // list of a single command, run at load

	image   uint32            // command list of the image tower
	offsets map[string]uint32 // of its buffers

	text textTower
}

const onceBytes = 128

// program is a recorded command list and where it goes.
type program struct {
	at   uint32
	list kernel.List
}

// ErrOrder says that a model was used before its tensors had come.
var ErrOrder = errors.New("clip: tensor missing")

// Layout plans a model on l. kinds gives the storage kind of each tensor of
// cfg.Tensors, which must have passed TensorSpec.Check.
func Layout(cfg *Config, kinds map[string]qtype.Kind, l *device.Layout) *Model {
	m := &Model{cfg: cfg, linears: map[string]*linear{}, filters: map[string]*filters{}, tables: map[string]*table{}, values: map[string]*values{}, shards: map[string]int{}, came: map[string]bool{}, held: map[string][]byte{}}
	for _, s := range cfg.Tensors() {
		layer := strings.TrimSuffix(s.Name, ".weight")
		switch kind := kinds[s.Name]; s.role {
		case linearRole, stemRole:
			m.linears[layer] = newLinear(l, kind, s.Shape[0], s.Shape[1])
		case filterRole:
			m.filters[layer] = newFilters(l, kind, s.Shape[0], s.Shape[1], keepsCodes(kinds, layer, s.Shape[0]))
		case tableRole:
			m.tables[layer] = newTable(l, kind, s.Shape[0], s.Shape[1])
		case valuesRole:
			m.values[s.Name] = newValues(l, s.Shape)
		case shardRole:
			m.shards[s.Name] = len(m.shards)
		}
	}
	m.once = l.Alloc(device.Commands, onceBytes)
	m.view = newView(l, cfg.Image.Size)
	m.layoutImage(l)
	m.layoutText(l)
	return m
}

// keepsCodes reports whether the activations around a depthwise layer of so many
// channels stay codes: all of its block is quantized. The first block has no
// expansion, and what the stem gives it, mostly far below 6, needs finer steps.
func keepsCodes(kinds map[string]qtype.Kind, layer string, channels int) bool {
	block := strings.TrimSuffix(layer, "depthwise")
	quantized := func(part string) bool {
		kind, there := kinds[block+part+".weight"]
		return there && kind != qtype.F16
	}
	return quantized("expand") && quantized("depthwise") && quantized("project") && channels%16 == 0
}

// Lists are command lists with every command that the model will run.
func (m *Model) Lists() []kernel.List {
	once := m.view.commands(nil, kernel.Resampling{}, kernel.Resampling{}, 0, 0, 0)
	for _, n := range m.linears {
		if n.low.Bits != 0 {
			once = n.sums().Append(once)
		}
	}
	lists := []kernel.List{once.End()}
	for _, p := range m.programs {
		lists = append(lists, p.list)
	}
	return lists
}

// Start writes the command lists; dev was started with the model's layout.
func (m *Model) Start(dev *device.Device) error {
	m.dev = dev
	for _, p := range m.programs {
		if err := dev.WriteU32(p.at, p.list); err != nil {
			return err
		}
	}
	return nil
}

// Put takes one tensor's bytes, checked by its TensorSpec, and puts it where
// the kernels want it. b is not kept: copied are a depthwise weight, until its
// bias comes, and shards.
// Tensors of kind U8 are the caller's.
func (m *Model) Put(name string, kind qtype.Kind, shape []int, b []byte) error {
	if err := kind.CheckScales(b, shape); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrTensor, name, err)
	}
	if kind == qtype.F16 {
		for i := 1; i < len(b); i += 2 {
			if b[i]&0x7c == 0x7c {
				return fmt.Errorf("%w: %s: value %d is not finite", ErrTensor, name, i/2)
			}
		}
	}
	if v := m.values[name]; v != nil {
		return v.put(m.dev, halves(b))
	}
	if i, ok := m.shards[name]; ok {
		m.text.shards[i] = shard{kind, shape[0], bytes.Clone(b)}
		return nil
	}
	if layer, ok := strings.CutSuffix(name, ".weight"); ok {
		if t := m.tables[layer]; t != nil {
			return t.put(m.dev, b)
		}
		m.came[layer] = true
		if n := m.linears[layer]; n != nil {
			if err := n.putWeight(m.dev, b); err != nil || !unbiased(name) {
				return err
			}
			return n.putBias(m, func([]float32, int) {}) // none comes
		}
		m.held[layer] = bytes.Clone(b)
		return nil
	}
	layer, ok := strings.CutSuffix(name, ".bias")
	if !ok || !m.came[layer] {
		return fmt.Errorf("%w: %s came before its weight", ErrOrder, name)
	}
	if n := m.linears[layer]; n != nil {
		return n.putBias(m, halves(b))
	}
	weight := m.held[layer]
	delete(m.held, layer)
	return m.filters[layer].put(m.dev, weight, b)
}

// Frame is where a picture's RGBA bytes go, and how many fit.
func (m *Model) Frame() (offset uint32, bytes int) { return m.view.frame, MaxPixels * 4 }

// Look makes the view of the w × h picture that was written to Frame.
func (m *Model) Look(w, h int) error { return m.look(w, h, m.view.size) }

// Closer makes the view of that picture's middle, 4/7 of its short side.
func (m *Model) Closer(w, h int) error { return m.look(w, h, m.view.size*closer.den/closer.num) }

func (m *Model) look(w, h, short int) error {
	if err := m.view.prepare(m.dev, w, h, short); err != nil {
		return err
	}
	return m.dev.Run(m.view.list)
}

// ViewPixels is where the view's RGBA bytes [size][size][4] lie.
func (m *Model) ViewPixels() (offset uint32, bytes int) {
	return m.view.pixels, m.view.size * m.view.size * 4
}

// Encode runs the image tower on the view: dst becomes its embedding [D], L2
// norm 1.
func (m *Model) Encode(dst []float32) error {
	if err := m.dev.Run(m.image); err != nil {
		return err
	}
	return m.dev.ReadF32(m.offsets[embedding], dst)
}

// Profile runs the image tower n times, command by command, and returns the
// least time of each kernel's commands together.
func (m *Model) Profile(n int) (map[string]time.Duration, error) {
	least := map[string]time.Duration{}
	i := slices.IndexFunc(m.programs, func(p program) bool { return p.at == m.image })
	for round := range n {
		sum := map[string]time.Duration{}
		for name, list := range m.programs[i].list.Each() {
			if err := m.dev.WriteU32(m.once, list); err != nil {
				return nil, err
			}
			begin := time.Now()
			if err := m.dev.Run(m.once); err != nil {
				return nil, err
			}
			sum[name] += time.Since(begin)
		}
		for name, d := range sum {
			if round == 0 || d < least[name] {
				least[name] = d
			}
		}
	}
	return least, nil
}

// ImageMean is the mean embedding [D] of ordinary pictures; nil if the model
// has none.
func (m *Model) ImageMean() ([]float32, error) {
	v := m.values["image.mean.weight"]
	if v == nil {
		return nil, nil
	}
	mean := make([]float32, v.cols)
	return mean, m.dev.ReadF32(v.at, mean)
}

// Projection is the weight [D, F] that makes embeddings of the image tower's
// features, before their length is taken.
func (m *Model) Projection() ([]float32, error) {
	n := m.linears["image.project"]
	w, err := n.read(m.dev)
	if err != nil {
		return nil, err
	}
	return w[:m.cfg.Embed*n.cols], nil // beside a posterior the last row is its gate
}

// DefaultLabel is the ready embedding [D] of default label i.
func (m *Model) DefaultLabel(i int) ([]float32, error) {
	return m.tables["label.default"].row(m.dev, i)
}

// ReadyLabel is row i of the ready table.
func (m *Model) ReadyLabel(i int) ([]float32, error) { return m.tables["label.ready"].row(m.dev, i) }
