package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lqa/quant/checkpoint/hub"
	"lqa/quant/clip"
	"lqa/quant/convert"
	"lqa/quant/convert/random"
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

// withText after a model's name: its text tower is loaded too.
const withText = "+text"

var (
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
	image, ok := random.Images[base]
	if !ok {
		return d.readModel(name)
	}
	side, vocab, kinds := random.Stub, random.StubVocab, lowFirst
	if text {
		side, kinds = random.CLIP, fourBit
		var err error
		if vocab, err = random.Merges(os.DirFS(root)); err != nil {
			return nil, err
		}
	}
	m := &model{name: name, kinds: kinds}
	var err error
	m.config, m.input, err = random.Input(image, side, vocab)
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
