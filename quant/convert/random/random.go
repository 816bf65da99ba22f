// Package random makes models of real shapes with random weights, for measuring
// speed and memory where no checkpoint is at hand.
package random

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"strings"

	"lqa/quant/clip"
	"lqa/quant/convert"
	"lqa/quant/qtype"
)

// Images are image towers at 224 × 224 pixels, by name.
var Images = map[string]clip.Image{
	"vit-b-32":    vit(32, 768, 12, 3072, "quick_gelu"),
	"vit-b-16":    vit(16, 768, 12, 3072, "quick_gelu"),
	"vit-tiny-16": vit(16, 192, 3, 768, "gelu"),
}

func vit(patch, width, heads, mlp int, activation string) clip.Image {
	return clip.Image{Kind: "vit", Size: 224, Patch: patch, Width: width,
		Mean: [3]float32{0.48145466, 0.4578275, 0.40821073}, Std: [3]float32{0.26862954, 0.26130258, 0.27577711},
		Transformer: clip.Transformer{Layers: 12, Heads: heads, MLP: mlp, Activation: activation, Eps: 1e-5}}
}

// Text sides: Stub takes no room, CLIP is that of OpenAI's B models, whose
// vocabulary is their list of byte pairs.
var (
	Stub      = clip.Text{Kind: "bag", Vocab: 3, Width: 8, Hidden: 8, Context: 8, Templates: []string{"{}"}, Defaults: []string{"this", "that"}}
	StubVocab = []byte("[PAD]\n[UNK]\na\n")
	CLIP      = clip.Text{Kind: "transformer", Vocab: 49408, Width: 512, Context: 77, EOS: 49407, TokenShards: clip.TokenShard, Templates: Stub.Templates, Defaults: Stub.Defaults,
		Transformer: clip.Transformer{Layers: 12, Heads: 8, MLP: 2048, Activation: "quick_gelu", Eps: 1e-5}}
)

// Merges are the vocabulary of CLIP, OpenAI's byte pairs, of the repository root.
func Merges(root fs.FS) ([]byte, error) {
	f, err := root.Open("quant/clip/testdata/merges.txt.gz")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// Input is a model of width 512 for convert.Convert. The same configuration
// gives the same weights; they keep activations' variance near 1 from layer to
// layer.
func Input(image clip.Image, text clip.Text, vocab []byte) (*clip.Config, convert.Input, error) {
	c := &clip.Config{Embed: 512, LogitScale: 100, Temperature: 1, Image: image, Text: text}
	s := &source{shapes: map[string][]int{}}
	for _, spec := range c.Whole().Tensors() {
		if spec.Default != qtype.U8 {
			s.names, s.shapes[spec.Name] = append(s.names, spec.Name), spec.Shape
		}
	}
	config, err := json.Marshal(c)
	return c, convert.Input{Config: config, Tensors: s, Vocab: vocab}, err
}

// source is a convert.Source.
type source struct {
	names  []string
	shapes map[string][]int
}

func (s *source) Names() []string { return s.names }

func (s *source) Shape(name string) ([]int, bool) {
	shape, ok := s.shapes[name]
	return shape, ok
}

var errTensor = errors.New("random: no such tensor")

// Float32 gives a tensor the same values each time.
func (s *source) Float32(name string) ([]float32, error) {
	shape, ok := s.shapes[name]
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
		x[i] = middle + float32(spread*(2*rng.Float32()-1))
	}
	return x, nil
}
