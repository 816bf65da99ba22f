package engine_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lqa/quant/checkpoint"
	"lqa/quant/checkpoint/checkpointtest"
	"lqa/quant/convert"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
)

// directory is a checkpoint.Folder without the golden answers that lie in it.
type directory string

func (d directory) Names() (names []string) {
	entries, _ := os.ReadDir(string(d))
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "golden.") {
			names = append(names, e.Name())
		}
	}
	return names
}

func (d directory) Open(name string) (checkpoint.File, error) {
	b, err := os.ReadFile(filepath.Join(string(d), name))
	if err != nil {
		return nil, err
	}
	return checkpointtest.Files{name: b}.Open(name)
}

// TestCheckpoints: files that transformers and OpenCLIP wrote run as they do
// there (assets/train/goldens_checkpoints.py).
func TestCheckpoints(t *testing.T) {
	for _, c := range []struct{ dir, weights string }{
		{"transformers-quick", "model.safetensors"},
		{"transformers-gelu", "pytorch_model.bin"},
		{"transformers-half", "model.safetensors.index.json"},
		{"openclip-gelu", "open_clip_pytorch_model.bin"},
		{"openclip-quick", "epoch_32.pt"},
	} {
		folder := filepath.Join("../checkpoint/testdata", c.dir)
		m, err := checkpoint.OpenCLIP(directory(folder), checkpoint.Limits{})
		if err != nil {
			t.Errorf("%s: %v", c.dir, err)
			continue
		}
		defer m.Close()
		if m.Weights != c.weights {
			t.Errorf("%s: tensors of %s, want %s", c.dir, m.Weights, c.weights)
		}
		if len(m.Notes) > 0 {
			t.Errorf("%s: notes %q", c.dir, m.Notes)
		}
		for _, p := range []struct {
			name   string
			o      convert.Options
			cosine float32
		}{
			{"float", convert.Options{Float: true}, 1},
			{"q8c", convert.Options{Kinds: []convert.Choice{{Pattern: "*", Kind: qtype.Q8C}}}, 0.998},
		} {
			t.Run(c.dir+"/"+p.name, func(t *testing.T) {
				var out bytes.Buffer
				if err := convert.Convert(&out, convert.Input{Config: m.Config, Tensors: m, Vocab: m.Merges}, p.o); err != nil {
					t.Fatal(err)
				}
				e := load(t, out.Bytes())
				compareCLIP(t, filepath.Join("..", folder), e, tokenizer(t, e.Config(), m.Merges), p.cosine)
			})
		}
	}
}

// TestCheckpoints_Scales: channels up to fifty times as large, with the inverse
// in the next layer, are the same function.
func TestCheckpoints_Scales(t *testing.T) {
	encodeAll := func(scales float32) (all [][]float32) {
		f, err := checkpointtest.Make(checkpointtest.Options{Arch: checkpointtest.ViTB16.Small(), Seed: 3, Scales: scales, Merges: checkpointtest.Merges})
		if err != nil {
			t.Fatal(err)
		}
		m, err := checkpoint.OpenCLIP(f, checkpoint.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		var out bytes.Buffer
		if err := convert.Convert(&out, convert.Input{Config: m.Config, Tensors: m, Vocab: m.Merges}, convert.Options{Float: true}); err != nil {
			t.Fatal(err)
		}
		e := load(t, out.Bytes())
		for _, side := range []int{32, 50, 71} {
			all = append(all, encode(t, e, synthetic(side, side), side, side))
		}
		texts, err := e.EmbedPrompts([]string{"a cat", "something else"}, []string{"{}"})
		if err != nil {
			t.Fatal(err)
		}
		return append(all, texts...)
	}
	plain, scaled := encodeAll(0), encodeAll(50)
	for i := range plain {
		if cos := numeric.Dot(plain[i], scaled[i]); cos < 0.9999 {
			t.Errorf("embedding %d: cosine %v", i, cos)
		}
	}
	if cos := numeric.Dot(plain[0], plain[1]); cos > 0.999 {
		t.Errorf("two pictures are alike, cosine %v: the weights say nothing", cos)
	}
}
