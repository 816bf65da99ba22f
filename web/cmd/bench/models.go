package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lqa/quant/checkpoint/hub"
	"lqa/quant/clip"
	"lqa/quant/convert"
	"lqa/quant/qtype"
	"lqa/quant/shq"
	"lqa/web/test/client"
)

// model is an architecture that is measured side by side.
type model struct {
	name   string
	config *clip.Config
	input  convert.Input
	kinds  []qtype.Kind // of its linear weights, one file each; none: files is made
	files  []file
}

// file is a model as our engine reads it.
type file struct{ url, weights string }

// vits have random weights.
var vits = map[string]clip.Image{
	"vit-b-32":    {Patch: 32, Width: 768, Transformer: clip.Transformer{Layers: 12, Heads: 12, MLP: 3072, Activation: "quick_gelu", Eps: 1e-5}},
	"vit-tiny-16": {Patch: 16, Width: 192, Transformer: clip.Transformer{Layers: 12, Heads: 3, MLP: 768, Activation: "gelu", Eps: 1e-5}},
}

// withText after a model's name: its text tower is loaded too.
const withText = "+text"

var (
	// stub is a text side that takes no room: pictures are what is measured.
	stub      = clip.Text{Kind: "bag", Vocab: 3, Width: 8, Hidden: 8, Context: 8, Templates: []string{"{}"}, Defaults: []string{"this", "that"}}
	stubVocab = []byte("[PAD]\n[UNK]\na\n")
	clipText  = clip.Text{Kind: "transformer", Vocab: 49408, Width: 512, Context: 77, EOS: 49407, TokenShards: clip.TokenShard, Templates: stub.Templates, Defaults: stub.Defaults,
		Transformer: clip.Transformer{Layers: 12, Heads: 8, MLP: 2048, Activation: "quick_gelu", Eps: 1e-5}}
	lowFirst = []qtype.Kind{qtype.Q4, qtype.Q5, qtype.Q6, qtype.Q8C}
	fourBit  = []qtype.Kind{qtype.Q4}
	// layers are the weights whose kind is varied.
	layers = map[string][]string{"vit": {"image.layer.*"}, "efficientnet-lite": {"image.block.*", "image.features.weight"}}
)

// loadModel gets a model's float weights ready.
func (d dirs) loadModel(root, name string) (*model, error) {
	base, text := strings.CutSuffix(name, withText)
	if name == shipped {
		c, weights, err := manifest(filepath.Join(d.site, "model.shq"))
		return &model{name: name, config: c, files: []file{{"/model.shq", weights}}}, err
	}
	image, random := vits[base]
	if !random {
		return d.readModel(name)
	}
	image.Kind, image.Size = "vit", 224
	image.Mean, image.Std = [3]float32{0.48145466, 0.4578275, 0.40821073}, [3]float32{0.26862954, 0.26130258, 0.27577711}
	m := &model{name: name, kinds: lowFirst, config: &clip.Config{Embed: 512, LogitScale: 100, Temperature: 1, Image: image, Text: stub}}
	m.input.Vocab = stubVocab
	if text {
		m.kinds, m.config.Text = fourBit, clipText
		f, err := os.Open(filepath.Join(root, "quant", "clip", "testdata", "merges.txt.gz"))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, err
		}
		if m.input.Vocab, err = io.ReadAll(z); err != nil {
			return nil, err
		}
	}
	m.input.Tensors = newRandom(m.config.Whole())
	var err error
	m.input.Config, err = json.Marshal(m.config)
	return m, err
}

// readModel reads a float model directory that peers/make.py has written.
func (d dirs) readModel(name string) (*model, error) {
	dir := filepath.Join(d.made, "models", name)
	folder, err := hub.Dir(dir)
	if err != nil {
		return nil, err
	}
	f, err := convert.OpenFolder(folder)
	if err != nil {
		return nil, err
	}
	m := &model{name: name, input: f.Input, kinds: slices.Insert(slices.Clone(lowFirst), 3, qtype.Q7)}
	m.config, err = clip.ParseConfig(f.Config)
	return m, err // the weights stay open: they are read when its files are made
}

// write makes the model's files, one of each kind.
func (d dirs) write(m *model) error {
	if err := os.MkdirAll(filepath.Join(d.made, "shq"), 0o755); err != nil {
		return err
	}
	for _, kind := range m.kinds {
		fmt.Fprintln(os.Stderr, "bench: writing", m.name, "as", kind)
		o := convert.Options{Name: m.name, Provenance: shq.Provenance{Source: "random weights", Licence: "Apache-2.0", Tool: "bench"}}
		for _, p := range layers[m.config.Image.Kind] {
			o.Kinds = append(o.Kinds, convert.Choice{Pattern: p, Kind: kind})
		}
		var out bytes.Buffer
		if err := convert.Convert(&out, m.input, o); err != nil {
			return fmt.Errorf("%s as %s: %w", m.name, kind, err)
		}
		f := file{fmt.Sprintf("/peers/shq/%s.%s.shq", m.name, kind), weightName(kind)}
		if err := os.WriteFile(d.file(f.url), out.Bytes(), 0o644); err != nil {
			return err
		}
		m.files = append(m.files, f)
	}
	return nil
}

// ours are our engine's contenders of a model: each file, each form of the
// kernels, each number of threads.
func (d dirs) ours(m *model, threads []int) []*contender {
	size := download(d.site, []string{"lqa.wasm", "wasm_exec.js", "worker.js", "pixels.js", "start.js", "helper.js"})
	var out []*contender
	for _, f := range m.files {
		for _, simd := range []string{"relaxed", "simd128"} {
			for _, t := range threads {
				out = append(out, &contender{
					row: row{Bench: "image-encode", Engine: lqa, Host: "chromium", Model: m.name, Weights: f.weights, SIMD: simd, Threads: t,
						EngineDownloadBytes: size},
					macs: imageMACs(m.config), script: client.Script + lqaScript,
					config: map[string]any{"model": f.url, "simd": simd, "threads": t},
				})
			}
		}
	}
	return out
}

// random is a convert.Source: tensors of a configuration with random values
// that keep activations' variance near 1 from layer to layer.
type random struct {
	names  []string
	shapes map[string][]int
}

func newRandom(c *clip.Config) *random {
	r := &random{shapes: map[string][]int{}}
	for _, s := range c.Tensors() {
		if s.Default != qtype.U8 {
			r.names, r.shapes[s.Name] = append(r.names, s.Name), s.Shape
		}
	}
	return r
}

func (r *random) Names() []string { return r.names }

func (r *random) Shape(name string) ([]int, bool) {
	s, ok := r.shapes[name]
	return s, ok
}

var errTensor = errors.New("no such tensor")

// Float32 gives a tensor the same values each time.
func (r *random) Float32(name string) ([]float32, error) {
	shape, ok := r.shapes[name]
	if !ok {
		return nil, fmt.Errorf("%w: %s", errTensor, name)
	}
	n := 1
	for _, d := range shape {
		n *= d
	}
	h := fnv.New64a()
	io.WriteString(h, name)
	rng := rand.New(rand.NewPCG(h.Sum64(), 7))
	middle, spread := float32(0), float32(0.02)
	switch {
	case strings.Contains(name, ".bias"):
	case len(shape) == 1: // a LayerNorm's gain
		middle, spread = 1, 0.1
	case shape[0] > 1:
		spread = float32(math.Sqrt(3 / float64(shape[1])))
	}
	x := make([]float32, n)
	for i := range x {
		x[i] = middle + spread*(2*rng.Float32()-1)
	}
	return x, nil
}
