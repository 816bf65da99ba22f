// Package enginetest makes small models with random weights, for tests of
// whatever needs a loaded engine.
package enginetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"lqa/quant/clip"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
	"lqa/quant/shq"
)

// Config is the small model's configuration: both kernels, both strides, a
// residual, odd channel counts.
func Config() *clip.Config {
	none := float32(0.1)
	return &clip.Config{
		Embed: 24, LogitScale: 20, Temperature: 1, NoneCosine: &none,
		Image: clip.Image{
			Kind: "efficientnet-lite", Size: 64, Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.5, 0.5, 0.5},
			Stem: 8, Features: 40,
			Blocks: []clip.Block{
				{Kernel: 3, Stride: 1, Expand: 1, In: 8, Out: 12},
				{Kernel: 5, Stride: 2, Expand: 6, In: 12, Out: 20},
				{Kernel: 3, Stride: 1, Expand: 4, In: 20, Out: 20},
				{Kernel: 3, Stride: 2, Expand: 2, In: 20, Out: 28},
				{Kernel: 5, Stride: 1, Expand: 3, In: 28, Out: 28},
			},
		},
		Text: clip.Text{Kind: "bag", Vocab: len(vocab), Width: 12, Hidden: 20, Context: 8,
			Templates: []string{"a photo of a {}", "{}"}, Defaults: []string{"mug", "banana"}, Ready: 3},
	}
}

var vocab = strings.Fields("[PAD] [UNK] a photo of ##s mug banana key ##board dog cat red blue , !")

// ReadyNames are the small model's ready labels.
var ReadyNames = []string{"mug", "banana", "keyboard"}

// CLIPConfig is the small CLIP's configuration: both activations, both ways to
// find the end of a text, an MLP that is no whole number of vectors.
func CLIPConfig() *clip.Config {
	return &clip.Config{
		Embed: 20, LogitScale: 20, Temperature: 1,
		Image: clip.Image{
			Kind: "vit", Size: 56, Mean: [3]float32{0.48, 0.46, 0.41}, Std: [3]float32{0.27, 0.26, 0.28}, Patch: 14, Width: 48,
			Transformer: clip.Transformer{Layers: 2, Heads: 3, MLP: 100, Activation: "quick_gelu", Eps: 1e-5},
		},
		Text: clip.Text{Kind: "transformer", Vocab: 514 + len(merges), Width: 32, Context: 16, EOS: 513 + len(merges),
			Transformer: clip.Transformer{Layers: 2, Heads: 2, MLP: 68, Activation: "gelu", Eps: 1e-5},
			Templates:   []string{"a photo of a {}", "{}"}, Defaults: []string{"mug", "banana"}, Ready: 3},
	}
}

var merges = []string{"a n", "m u", "mu g</w>", "o f</w>", "an an", "r e"}

// MergesText are the small CLIP's merges as a checkpoint has them.
var MergesText = strings.Join(merges, "\n") + "\n"

// SHQ writes the small model; float keeps all weights in half precision. The
// same seed gives the same bytes.
func SHQ(t testing.TB, seed uint64, float bool) []byte {
	t.Helper()
	return SHQOf(t, Config(), seed, float)
}

// PosteriorConfig is Config with a GELU branch and a classifier, both of no whole
// number of vectors, beside the projection.
func PosteriorConfig() *clip.Config {
	cfg := Config()
	cfg.Image.Hidden, cfg.Image.Posterior = 17, 29
	return cfg
}

// Posterior is SHQ for PosteriorConfig.
func Posterior(t testing.TB, seed uint64, float bool) []byte {
	t.Helper()
	return SHQOf(t, PosteriorConfig(), seed, float)
}

// SHQOf is SHQ for a configuration that differs from Config in what shapes no
// text.
func SHQOf(t testing.TB, cfg *clip.Config, seed uint64, float bool) []byte {
	t.Helper()
	return write(t, cfg, []byte(strings.Join(vocab, "\n")), seed, float)
}

// CLIP is SHQ for the small CLIP. Where it is not float, its linear layers are
// of all kinds in turn.
func CLIP(t testing.TB, seed uint64, float bool) []byte {
	t.Helper()
	return CLIPOf(t, CLIPConfig(), seed, float)
}

// CLIPOf is CLIP for a configuration that differs from CLIPConfig in what
// shapes no tensor. With TokenShards it has the same weights as without.
func CLIPOf(t testing.TB, cfg *clip.Config, seed uint64, float bool) []byte {
	t.Helper()
	return write(t, cfg, Merges(t), seed, float)
}

// Merges are the small CLIP's, as a file holds them.
func Merges(t testing.TB) []byte {
	t.Helper()
	packed, err := clip.PackMerges(merges)
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

// linearKinds are what a transformer's linear layers are stored as.
var linearKinds = []qtype.Kind{"q4", "q5", "q6", qtype.Q8C, "q4g32", qtype.F16}

func write(t testing.TB, cfg *clip.Config, vocab []byte, seed uint64, float bool) []byte {
	t.Helper()
	raw, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w, err := shq.NewWriter(shq.Manifest{Name: fmt.Sprint("small-", seed), Model: raw, Provenance: shq.Provenance{Source: "random", Licence: "Apache-2.0", Tool: "enginetest"}})
	if err != nil {
		t.Fatal(err)
	}
	values := Values(cfg, seed)
	linear := 0
	for _, s := range cfg.Tensors() {
		d := shq.TensorData{Name: s.Name, Kind: s.Default, Shape: s.Shape, Alone: s.Of != ""}
		switch {
		case s.Name == cfg.Text.VocabTensor():
			d.Data = vocab
			d.Shape = []int{len(d.Data)}
		case s.Name == "label.ready.names":
			d.Data = []byte(strings.Join(ReadyNames, "\n") + "\n")
			d.Shape = []int{len(d.Data)}
		default:
			x := values[s.Name]
			if s.Of != "" {
				cols := s.Shape[1]
				x = values[s.Of][s.From*cols:][:s.Shape[0]*cols]
			}
			if s.Linear() && strings.Contains(s.Name, ".layer.") {
				d.Kind = linearKinds[linear%len(linearKinds)]
				linear++
			}
			if float {
				d.Kind = qtype.F16
			}
			switch d.Kind {
			case qtype.Q8C:
				d.Data = qtype.AppendQ8C(nil, x, s.Shape[0], s.Shape[1])
			case qtype.Q8R:
				d.Data = qtype.AppendQ8R(nil, x, s.Shape[0], s.Shape[1])
			case qtype.F16:
				d.Data = numeric.AppendFloat16(nil, x...)
			default:
				low, ok := d.Kind.Low()
				if !ok {
					t.Fatalf("no way to store kind %s", d.Kind)
				}
				d.Data = low.Append(nil, x, s.Shape[0], s.Shape[1])
			}
		}
		if err := w.Add(s.Stage, d); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if _, err := w.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Values are random weights of cfg.Whole by tensor name. They keep the variance
// of activations near 1 from layer to layer.
func Values(cfg *clip.Config, seed uint64) map[string][]float32 {
	rng := rand.New(rand.NewPCG(seed, 0))
	values := map[string][]float32{}
	for _, s := range cfg.Whole().Tensors() {
		if s.Default == qtype.U8 {
			continue
		}
		n, cols := 1, s.Shape[len(s.Shape)-1]
		for _, v := range s.Shape {
			n *= v
		}
		var middle float32
		spread := 1.7 / float32(max(1, cols))
		switch {
		case strings.HasSuffix(s.Name, ".bias"):
			spread = 0.1
		case len(s.Shape) == 1: // a norm's gain
			middle, spread = 1, 0.3
		case cols > 1:
			spread = 2.4 * invSqrt(cols)
		}
		x := make([]float32, n)
		for i := range x {
			x[i] = middle + float32((rng.Float32()*2-1)*spread)
		}
		values[s.Name] = x
	}
	return values
}

func invSqrt(n int) float32 { return float32(1 / math.Sqrt(float64(n))) }

// Picture is w × h pixels of smooth colour with some texture, the same on
// every platform.
func Picture(w, h int, seed uint32) []byte {
	out := make([]byte, 0, w*h*4)
	s := seed*2654435761 + 1
	for y := range h {
		for x := range w {
			s = s*1664525 + 1013904223
			n := int(s>>28) - 8
			v := func(a, b int) byte { return byte(max(0, min(255, (a*x/w+b*y/h)%256+n))) }
			out = append(out, v(200, 50), v(30, 180), v(90, 90), 255)
		}
	}
	return out
}
