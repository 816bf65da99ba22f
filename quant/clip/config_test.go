package clip

import (
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"testing"

	lean "lqa/quant/json"
)

// small is a valid configuration that tests change.
func small() *Config {
	none := float32(0.2)
	return &Config{
		Embed: 24, LogitScale: 20, Temperature: 1, NoneCosine: &none,
		Image: Image{
			Kind: "efficientnet-lite", Size: 64, Mean: [3]float32{0.5, 0.5, 0.5}, Std: [3]float32{0.5, 0.5, 0.5},
			Stem: 8, Features: 40,
			Blocks: []Block{{3, 1, 1, 8, 12}, {5, 2, 6, 12, 20}},
		},
		Text: Text{Kind: "bag", Vocab: 60, Width: 12, Hidden: 20, Context: 8, Templates: []string{"{}"}, Defaults: []string{"mug"}, Ready: 3},
	}
}

// smallCLIP is a valid configuration of two transformers.
func smallCLIP() *Config {
	return &Config{
		Embed: 12, LogitScale: 20, Temperature: 1,
		Image: Image{Kind: "vit", Size: 64, Std: [3]float32{1, 1, 1}, Patch: 16, Width: 24,
			Transformer: Transformer{Layers: 2, Heads: 3, MLP: 50, Activation: "quick_gelu", Eps: 1e-5}},
		Text: Text{Kind: "transformer", Vocab: 600, Width: 16, Context: 9, EOS: 2, Templates: []string{"{}"},
			Transformer: Transformer{Layers: 1, Heads: 2, MLP: 32, Activation: "gelu", Eps: 1e-5}},
	}
}

func TestParseConfig(t *testing.T) {
	raw, err := json.Marshal(small())
	if err != nil {
		t.Fatal(err)
	}
	if c, err := ParseConfig(raw); err != nil || !reflect.DeepEqual(c, small()) {
		t.Fatalf("%+v, %v", c, err)
	}
	for name, spoil := range map[string]func(c *Config){
		"embed":          func(c *Config) { c.Embed = 0 },
		"huge embed":     func(c *Config) { c.Embed = 1 << 30 },
		"scale":          func(c *Config) { c.LogitScale = 0 },
		"temperature":    func(c *Config) { c.Temperature = -1 },
		"none":           func(c *Config) { *c.NoneCosine = 3 },
		"image kind":     func(c *Config) { c.Image.Kind = "resnet" },
		"text kind":      func(c *Config) { c.Text.Kind = "lstm" },
		"size":           func(c *Config) { c.Image.Size = 1 << 20 },
		"std":            func(c *Config) { c.Image.Std[1] = 0 },
		"no blocks":      func(c *Config) { c.Image.Blocks = nil },
		"kernel":         func(c *Config) { c.Image.Blocks[0].Kernel = 7 },
		"stride":         func(c *Config) { c.Image.Blocks[0].Stride = 3 },
		"chain":          func(c *Config) { c.Image.Blocks[1].In = 13 },
		"expand":         func(c *Config) { c.Image.Blocks[1].Expand = 1 << 20 },
		"vocab":          func(c *Config) { c.Text.Vocab = 1 << 30 },
		"context":        func(c *Config) { c.Text.Context = 0 },
		"templates":      func(c *Config) { c.Text.Templates = nil },
		"shards":         func(c *Config) { c.Text.TokenShards = 30 },
		"ready":          func(c *Config) { c.Text.Ready = -1 },
		"posterior":      func(c *Config) { c.Image.Posterior = -1 },
		"huge posterior": func(c *Config) { c.Image.Posterior = 1<<14 + 1 },
	} {
		refuse(t, name, small(), spoil)
	}
	for _, raw := range []string{"", "{", "[]", "null", `{"embed":"x"}`, `{"image":{"size":1e99}}`, `{"image":{"mean":[1,2]}}`, `{"image":{"mean":[1,2,3,4]}}`} {
		if _, err := ParseConfig([]byte(raw)); !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

func TestParseConfig_CLIP(t *testing.T) {
	raw, err := json.Marshal(smallCLIP())
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseConfig(raw)
	if err != nil {
		t.Fatal(err)
	}
	want := smallCLIP()
	want.Text.Defaults = nil
	if c.Image.Tokens() != 17 || !reflect.DeepEqual(c, want) {
		t.Errorf("read as %+v", c)
	}
	for name, spoil := range map[string]func(c *Config){
		"no patch":         func(c *Config) { c.Image.Patch = 0 },
		"patch below zero": func(c *Config) { c.Image.Patch = -16 },
		"odd patch":        func(c *Config) { c.Image.Size, c.Image.Patch = 63, 7 },
		"patch no divisor": func(c *Config) { c.Image.Patch = 12 },
		"huge patch":       func(c *Config) { c.Image.Size, c.Image.Patch = 1024, 1024 },
		"too many patches": func(c *Config) { c.Image.Size, c.Image.Patch = 128, 4 },
		"huge size":        func(c *Config) { c.Image.Size = 1 << 40 },
		"no width":         func(c *Config) { c.Image.Width = 0 },
		"huge width":       func(c *Config) { c.Image.Width = 1 << 30 },
		"no heads":         func(c *Config) { c.Image.Heads = 0 },
		"heads below zero": func(c *Config) { c.Text.Heads = -2 },
		"heads no divisor": func(c *Config) { c.Image.Heads = 5 },
		"narrow heads":     func(c *Config) { c.Image.Heads = 6 },
		"wide head":        func(c *Config) { c.Text.Width, c.Text.Heads = 256, 1 },
		"no layers":        func(c *Config) { c.Image.Layers = 0 },
		"too many layers":  func(c *Config) { c.Text.Layers = 1 << 20 },
		"no mlp":           func(c *Config) { c.Text.MLP = 0 },
		"huge mlp":         func(c *Config) { c.Text.MLP = 1 << 30 },
		"activation":       func(c *Config) { c.Text.Activation = "relu" },
		"eps of zero":      func(c *Config) { c.Image.Eps = 0 },
		"huge eps":         func(c *Config) { c.Text.Eps = 2 },
		"context":          func(c *Config) { c.Text.Context = 2 },
		"eos outside":      func(c *Config) { c.Text.EOS = 600 },
		"eos below zero":   func(c *Config) { c.Text.EOS = -1 },
		"no eos":           func(c *Config) { c.Text.EOS = 0 },
		"huge shards":      func(c *Config) { c.Text.TokenShards = 601 },
		"shards below 0":   func(c *Config) { c.Text.TokenShards = -1 },
		"wide shards":      func(c *Config) { c.Text.Vocab, c.Text.Width, c.Text.Heads, c.Text.TokenShards = 49408, 512, 8, 1025 },
		"many shards":      func(c *Config) { c.Text.Vocab, c.Text.TokenShards = 49408, 49 },
		"posterior":        func(c *Config) { c.Image.Posterior = 10 },
		"bag, not hidden":  func(c *Config) { c.Text.Kind = "bag" },
	} {
		refuse(t, name, smallCLIP(), spoil)
	}
}

// TestParseConfig_EveryField: what encoding/json writes by the fields' tags is
// read into the same fields.
func TestParseConfig_EveryField(t *testing.T) {
	want, n := new(Config), 0
	want.NoneCosine = new(float32)
	want.Image.Blocks = make([]Block, 2)
	want.Text.Templates, want.Text.Defaults = make([]string, 2), make([]string, 1)
	fill(reflect.ValueOf(want).Elem(), &n)
	raw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, r := new(Config), new(lean.Reader)
	if err := r.Read(raw, func() { got.read(r) }); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s was read as %+v, %v", raw, got, err)
	}
}

// fill gives each field below v another value.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		fill(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.String:
		v.SetString(strconv.Itoa(*n))
	case reflect.Int:
		v.SetInt(int64(*n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float32:
		v.SetFloat(float64(*n) + 0.5)
	default:
		panic(v.Kind().String())
	}
}

// refuse checks that a configuration is refused once spoilt.
func refuse(t *testing.T, name string, c *Config, spoil func(c *Config)) {
	t.Helper()
	spoil(c)
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseConfig(raw); !errors.Is(err, ErrConfig) {
		t.Errorf("%s: %v", name, err)
	}
}

func FuzzParseConfig(f *testing.F) {
	gated := small()
	gated.Image.Posterior = 30
	for _, c := range []*Config{small(), smallCLIP(), gated} {
		raw, _ := json.Marshal(c)
		f.Add(raw)
	}
	f.Add([]byte(`{"image":{"blocks":[{}]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ParseConfig(raw)
		if err == nil {
			c.Tensors() // bounded by what was checked
		}
	})
}
