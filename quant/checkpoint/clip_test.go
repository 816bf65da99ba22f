package checkpoint_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"lqa/quant/checkpoint"
	"lqa/quant/checkpoint/checkpointtest"
	"lqa/quant/clip"
	"lqa/quant/qtype"
)

func makeFiles(t testing.TB, o checkpointtest.Options) checkpointtest.Files {
	t.Helper()
	f, err := checkpointtest.Make(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func openCLIP(t testing.TB, f checkpoint.Folder) *checkpoint.CLIP {
	t.Helper()
	c, err := checkpoint.OpenCLIP(f, checkpoint.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// fits checks that a checkpoint is just what its configuration demands.
func fits(t testing.TB, c *checkpoint.CLIP) *clip.Config {
	t.Helper()
	cfg, err := clip.ParseConfig(c.Config)
	if err != nil {
		t.Fatalf("%v in %s", err, c.Config)
	}
	var names []string
	for _, s := range cfg.Tensors() {
		if s.Default == qtype.U8 {
			continue
		}
		names = append(names, s.Name)
		if shape, _ := c.Shape(s.Name); !slices.Equal(shape, s.Shape) {
			t.Errorf("%s is %v, want %v", s.Name, shape, s.Shape)
		}
	}
	if !slices.Equal(names, c.Names()) {
		t.Errorf("names %v, want %v", c.Names(), names)
	}
	return cfg
}

func tensor(t testing.TB, c *checkpoint.CLIP, name string) []float32 {
	t.Helper()
	x, err := c.Float32(name)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

var small = checkpointtest.ViTB32.Small()

// TestOpenCLIP_Same: one function in every layout and format, whatever the
// traits of its files, is read as the same tensors.
func TestOpenCLIP_Same(t *testing.T) {
	base := checkpointtest.Options{Arch: small, Seed: 5, Merges: checkpointtest.Merges}
	want := openCLIP(t, makeFiles(t, base))
	cfg := fits(t, want)
	if cfg.Image.Patch != 32 || cfg.Image.Size != 64 || cfg.Image.Heads != 4 || cfg.Text.Context != 77 || cfg.Embed != 20 || cfg.Text.EOS != 521 {
		t.Errorf("configuration %+v", cfg)
	}
	if math.Abs(float64(cfg.LogitScale)-80) > 1e-4 {
		t.Errorf("logit scale %v, want 80", cfg.LogitScale)
	}
	if len(want.Notes) > 0 {
		t.Errorf("notes %q", want.Notes)
	}
	for _, c := range []struct {
		name   string
		change func(o *checkpointtest.Options)
	}{
		{"openclip", func(o *checkpointtest.Options) { o.Layout = checkpointtest.OpenCLIP }},
		{"torch", func(o *checkpointtest.Options) { o.Format = checkpointtest.Torch }},
		{"legacy", func(o *checkpointtest.Options) { o.Format = checkpointtest.Legacy; o.PositionIDs = true }},
		{"openclip torch wrapped", func(o *checkpointtest.Options) {
			o.Layout, o.Format, o.Wrapped, o.Prefix = checkpointtest.OpenCLIP, checkpointtest.Torch, true, "module."
		}},
		{"openclip legacy", func(o *checkpointtest.Options) { o.Layout, o.Format = checkpointtest.OpenCLIP, checkpointtest.Legacy }},
		{"position ids", func(o *checkpointtest.Options) { o.PositionIDs = true }},
		{"position ids, torch", func(o *checkpointtest.Options) { o.PositionIDs, o.Format = true, checkpointtest.Torch }},
		{"prefix twice", func(o *checkpointtest.Options) { o.Prefix = "module.module." }},
		{"model prefix", func(o *checkpointtest.Options) { o.Prefix = "model." }},
		{"sparse", func(o *checkpointtest.Options) { o.Sparse = true }},
		{"shards", func(o *checkpointtest.Options) { o.Shards = 3 }},
		{"torch shards", func(o *checkpointtest.Options) { o.Shards, o.Format = 2, checkpointtest.Torch }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := base
			c.change(&o)
			got := openCLIP(t, makeFiles(t, o))
			other := fits(t, got)
			if other.Text.EOS == 2 && got.Layout == "openclip" {
				other.Text.EOS = cfg.Text.EOS // pooled at the largest id, which is that
			}
			if fmt.Sprint(other) != fmt.Sprint(cfg) {
				t.Errorf("configuration %+v, want %+v", other, cfg)
			}
			if !bytes.Equal(got.Merges, want.Merges) || len(got.Merges) == 0 {
				t.Errorf("merges %q, want %q", got.Merges, want.Merges)
			}
			for _, name := range want.Names() {
				if !slices.Equal(tensor(t, got, name), tensor(t, want, name)) {
					t.Errorf("%s differs", name)
				}
			}
		})
	}
	for dtype, off := range map[checkpoint.DType]float64{"F16": 1. / 2048, "BF16": 1. / 128} {
		o := base
		o.DType = dtype
		got := openCLIP(t, makeFiles(t, o))
		fits(t, got)
		for _, name := range want.Names() {
			w := tensor(t, want, name)
			for i, v := range tensor(t, got, name) {
				if math.Abs(float64(v-w[i])) > off*math.Abs(float64(w[i]))+1e-7 {
					t.Errorf("%s of %s: [%d] is %v, want %v", dtype, name, i, v, w[i])
					break
				}
			}
		}
	}
}

// TestOpenCLIP_Traits: what only a configuration can say.
func TestOpenCLIP_Traits(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(o *checkpointtest.Options)
		eos    int
		act    string
	}{
		{"OpenAI", func(o *checkpointtest.Options) { o.WrongEOS, o.Sparse = true, true }, 2, "quick_gelu"},
		{"LAION", func(o *checkpointtest.Options) { o.GELU = true }, 521, "gelu"},
		{"OpenCLIP", func(o *checkpointtest.Options) { o.GELU, o.Layout = true, checkpointtest.OpenCLIP }, 2, "gelu"},
		{"OpenCLIP of OpenAI", func(o *checkpointtest.Options) { o.Layout = checkpointtest.OpenCLIP }, 2, "quick_gelu"},
	} {
		o := checkpointtest.Options{Arch: small}
		c.change(&o)
		got := openCLIP(t, makeFiles(t, o))
		cfg := fits(t, got)
		if cfg.Text.EOS != c.eos || cfg.Text.Activation != c.act || cfg.Image.Activation != c.act {
			t.Errorf("%s: eos %d, %s and %s", c.name, cfg.Text.EOS, cfg.Text.Activation, cfg.Image.Activation)
		}
		if got.Merges != nil || !slices.Contains(got.Notes, "no vocabulary in the folder") {
			t.Errorf("%s: merges %q, notes %q", c.name, got.Merges, got.Notes)
		}
	}
}

// TestOpenCLIP_Architectures: each of the real shapes, but for depth and
// vocabulary, makes a configuration that the towers accept.
func TestOpenCLIP_Architectures(t *testing.T) {
	large336, tiny61M := checkpointtest.ViTL14, checkpointtest.ViTB32
	large336.Size = 336
	tiny61M.Image.Width, tiny61M.Image.Heads = 640, 10
	for name, a := range map[string]checkpointtest.Arch{
		"B/32": checkpointtest.ViTB32, "B/16": checkpointtest.ViTB16, "L/14": checkpointtest.ViTL14, "L/14 336": large336,
		"TinyCLIP 8M/16": checkpointtest.TinyCLIP8M16, "TinyCLIP 61M/32": tiny61M,
	} {
		a.Image.Layers, a.Text.Layers, a.Vocab = 1, 1, 514
		layout := checkpointtest.Transformers
		if a.Patch == 16 {
			layout = checkpointtest.OpenCLIP
		}
		f := makeFiles(t, checkpointtest.Options{Arch: a, Layout: layout, DType: "F16", Zeros: true})
		cfg := fits(t, openCLIP(t, f))
		if cfg.Image.Width/cfg.Image.Heads != 64 || cfg.Text.Width/cfg.Text.Heads != 64 || cfg.Embed != a.D || cfg.Image.Patch != a.Patch {
			t.Errorf("%s: %+v", name, cfg)
		}
	}
}

// TestScales: channels are large, and the function is the same.
func TestScales(t *testing.T) {
	plain := openCLIP(t, makeFiles(t, checkpointtest.Options{Arch: small, Seed: 9}))
	scaled := openCLIP(t, makeFiles(t, checkpointtest.Options{Arch: small, Seed: 9, Scales: 50}))
	for _, tower := range []struct {
		name string
		w    int
	}{{"image", 32}, {"text", 24}} {
		for i := range 2 {
			block := fmt.Sprintf("%s.layer.%02d.", tower.name, i)
			for _, p := range [][2]string{{"norm1", "attn.in"}, {"norm2", "mlp.in"}} {
				gains, was := tensor(t, scaled, block+p[0]+".weight"), tensor(t, plain, block+p[0]+".weight")
				biases := tensor(t, scaled, block+p[0]+".bias")
				w, wWas := tensor(t, scaled, block+p[1]+".weight"), tensor(t, plain, block+p[1]+".weight")
				ratio := func(i int) float32 { return gains[i] / was[i] }
				largest := float32(0)
				for c := range gains {
					largest = max(largest, ratio(c))
					b := tensor(t, plain, block+p[0]+".bias")[c]
					if math.Abs(float64(biases[c]/b/ratio(c)-1)) > 1e-5 {
						t.Errorf("%s%s: bias %d is not scaled as its gain", block, p[0], c)
					}
				}
				if math.Abs(float64(largest)-50) > 1e-3 {
					t.Errorf("%s%s: largest scale %v", block, p[0], largest)
				}
				for r := range 2 * tower.w { // values' rows have their own scale too
					for c := range tower.w {
						if a, b := w[r*tower.w+c]*ratio(c), wWas[r*tower.w+c]; math.Abs(float64(a-b)) > 1e-5*math.Abs(float64(b)) {
							t.Fatalf("%s%s: [%d,%d] times its channel is %v, want %v", block, p[1], r, c, a, b)
						}
					}
				}
			}
			v, vWas := tensor(t, scaled, block+"attn.in.bias"), tensor(t, plain, block+"attn.in.bias")
			out, outWas := tensor(t, scaled, block+"attn.out.weight"), tensor(t, plain, block+"attn.out.weight")
			for i := range out {
				at := 2*tower.w + i%tower.w
				if a, b := out[i]*(v[at]/vWas[at]), outWas[i]; math.Abs(float64(a-b)) > 1e-5*math.Abs(float64(b)) {
					t.Fatalf("%sattn.out: element %d times its channel is %v, want %v", block, i, a, b)
				}
			}
		}
	}
}

// edit changes a file of a folder; it must be there, and change.
func edit(t testing.TB, f checkpointtest.Files, name, from, to string) {
	t.Helper()
	text := string(f[name])
	if !strings.Contains(text, from) {
		t.Fatalf("%s does not contain %q:\n%s", name, from, text)
	}
	f[name] = []byte(strings.ReplaceAll(text, from, to))
}

// refused checks an error's kind and that it says what it must.
func refused(t testing.TB, what string, f checkpoint.Folder, want error, says ...string) {
	t.Helper()
	c, err := checkpoint.OpenCLIP(f, checkpoint.Limits{})
	if c != nil {
		c.Close()
	}
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%s: %q does not say %q", what, err, s)
		}
	}
}
