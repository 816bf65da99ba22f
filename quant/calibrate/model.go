package calibrate

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"lqa/quant/clip"
	"lqa/quant/device"
	"lqa/quant/qtype"
)

// Source is where the float tensors come from, one at a time, under the names
// of clip.Config.Tensors.
type Source interface {
	Names() []string
	Shape(name string) ([]int, bool)
	Float32(name string) ([]float32, error) // row-major; the caller may change it
}

// ErrInput: pictures, texts or labels cannot be used.
var ErrInput = errors.New("calibrate: bad input")

// Picture is RGBA pixels [H][W][4], row by row.
type Picture struct {
	RGBA []byte
	W, H int
}

// Model is a float model on one host or several. Its linear layers, norms and
// positions are float32; depthwise filters are rounded to float16 and the token
// table to eight bits a row, as a file has them. It is not safe for concurrent
// use.
type Model struct {
	cfg     *clip.Config
	src     Source
	workers []*worker
}

// worker is the model on one host, and room for products of statistics.
type worker struct {
	dev   *device.Device
	model *clip.Model
	input uint32 // a layer's input, as rounding changes it
	gram  gram
}

// Open lays a float model out on host and loads it from src. More hosts share
// the work on pictures, each with a copy of the image tower, in a goroutine of its
// own; results do not depend on how many there are. Of src it reads the towers' tensors, not
// what is computed with a model: labels, the mean of images.
func Open(host device.Host, cfg *clip.Config, src Source, more ...device.Host) (*Model, error) {
	cfg = towersOf(cfg)
	m := &Model{cfg: cfg, workers: make([]*worker, 1+len(more))}
	hosts := append([]device.Host{host}, more...)
	for i, h := range hosts {
		var err error
		c := cfg
		if i > 0 {
			c = imageOf(cfg)
		}
		if m.workers[i], err = newWorker(h, c); err != nil {
			return nil, err
		}
	}
	if err := m.Load(src); err != nil {
		return nil, err
	}
	return m, nil
}

// towersOf is cfg without what is computed with a model.
func towersOf(cfg *clip.Config) *clip.Config {
	c := *cfg.Whole()
	c.ImageMean, c.Text.Defaults, c.Text.Ready = false, nil, 0
	return &c
}

// imageOf is cfg with the least that is a text tower.
func imageOf(cfg *clip.Config) *clip.Config {
	c := *cfg
	c.Text = clip.Text{Kind: "bag", Vocab: 1, Width: 1, Hidden: 1, Context: 1, Templates: cfg.Text.Templates}
	return &c
}

// first is m on its first host alone, which has the text tower.
func (m *Model) first() *Model { return &Model{m.cfg, m.src, m.workers[:1]} }

func newWorker(host device.Host, cfg *clip.Config) (*worker, error) {
	w, l := new(worker), new(device.Layout)
	w.model = clip.Layout(cfg, cfg.FloatKinds(), l)
	cols := 1
	for _, s := range cfg.Tensors() {
		if s.Linear() {
			cols = max(cols, s.Shape[1])
		}
	}
	w.gram = newGram(l, cols)
	w.input = l.Alloc(device.Activations, 4*w.model.LargestInput())
	var err error
	if w.dev, err = device.Start(host, l, device.Options{Lists: w.model.Lists()}); err != nil {
		return nil, err
	}
	return w, w.model.Start(w.dev)
}

// Load takes other weights, such as Fold's.
func (m *Model) Load(src Source) error {
	m.src = src
	for _, s := range m.cfg.Tensors() {
		if s.Default == qtype.U8 {
			continue
		}
		shape, ok := src.Shape(s.Name)
		if !ok {
			return fmt.Errorf("%w: %s %v is missing", clip.ErrTensor, s.Name, s.Shape)
		}
		if err := s.Check(s.Default, shape); err != nil {
			return err
		}
		x, err := src.Float32(s.Name)
		if err != nil {
			return err
		}
		to := m
		if s.Stage > 0 {
			to = m.first()
		}
		if err := to.put(s.Name, x); err != nil {
			return err
		}
	}
	return nil
}

// put writes a tensor to every host, which must have its tower.
func (m *Model) put(name string, x []float32) error {
	return m.share(len(m.workers), func(_ *worker, i int) error { return m.workers[i].model.PutFloat(name, x) })
}

// Close frees the hosts.
func (m *Model) Close() error {
	var errs []error
	for _, w := range m.workers {
		errs = append(errs, w.dev.Close())
	}
	return errors.Join(errs...)
}

// share runs f for 0..n-1, each on the next free worker, and returns the error
// of the least i.
func (m *Model) share(n int, f func(w *worker, i int) error) error {
	errs := make([]error, n)
	var next atomic.Int64
	var failed atomic.Bool
	work := func(w *worker) {
		for !failed.Load() {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			if errs[i] = f(w, i); errs[i] != nil {
				failed.Store(true)
			}
		}
	}
	var wg sync.WaitGroup
	for _, w := range m.workers[1:] {
		wg.Go(func() { work(w) })
	}
	work(m.workers[0])
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// show makes p the view of w's model.
func (w *worker) show(p Picture) error {
	if p.W < 1 || p.H < 1 || p.W > clip.MaxPixels || p.H > clip.MaxPixels/p.W || len(p.RGBA) != 4*p.W*p.H {
		return fmt.Errorf("%w: %d bytes for a picture of %d × %d, at most %d pixels", ErrInput, len(p.RGBA), p.W, p.H, clip.MaxPixels)
	}
	at, _ := w.model.Frame()
	if err := w.dev.Write(at, p.RGBA); err != nil {
		return err
	}
	return w.model.Look(p.W, p.H)
}
