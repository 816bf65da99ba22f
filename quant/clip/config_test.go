package clip

import (
	"encoding/json"
	"errors"
	"testing"
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

func TestParseConfig(t *testing.T) {
	raw, err := json.Marshal(small())
	if err != nil {
		t.Fatal(err)
	}
	if c, err := ParseConfig(raw); err != nil || c.Embed != 24 {
		t.Fatalf("%+v, %v", c, err)
	}
	for name, spoil := range map[string]func(c *Config){
		"embed":       func(c *Config) { c.Embed = 0 },
		"huge embed":  func(c *Config) { c.Embed = 1 << 30 },
		"scale":       func(c *Config) { c.LogitScale = 0 },
		"temperature": func(c *Config) { c.Temperature = -1 },
		"none":        func(c *Config) { *c.NoneCosine = 3 },
		"image kind":  func(c *Config) { c.Image.Kind = "resnet" },
		"text kind":   func(c *Config) { c.Text.Kind = "lstm" },
		"size":        func(c *Config) { c.Image.Size = 1 << 20 },
		"std":         func(c *Config) { c.Image.Std[1] = 0 },
		"no blocks":   func(c *Config) { c.Image.Blocks = nil },
		"kernel":      func(c *Config) { c.Image.Blocks[0].Kernel = 7 },
		"stride":      func(c *Config) { c.Image.Blocks[0].Stride = 3 },
		"chain":       func(c *Config) { c.Image.Blocks[1].In = 13 },
		"expand":      func(c *Config) { c.Image.Blocks[1].Expand = 1 << 20 },
		"vocab":       func(c *Config) { c.Text.Vocab = 1 << 30 },
		"context":     func(c *Config) { c.Text.Context = 0 },
		"templates":   func(c *Config) { c.Text.Templates = nil },
		"ready":       func(c *Config) { c.Text.Ready = -1 },
	} {
		c := small()
		spoil(c)
		raw, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseConfig(raw); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, raw := range []string{"", "{", "[]", "null", `{"embed":"x"}`, `{"image":{"size":1e99}}`} {
		if _, err := ParseConfig([]byte(raw)); !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	raw, _ := json.Marshal(small())
	f.Add(raw)
	f.Add([]byte(`{"image":{"blocks":[{}]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ParseConfig(raw)
		if err == nil {
			c.Tensors() // bounded by what was checked
		}
	})
}
