package clip

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"lqa/quant/qtype"
)

func tinyConfig() *Config {
	return &Config{
		Embed: 4, LogitScale: 1, Temperature: 1,
		Image: Image{Kind: "efficientnet-lite", Size: 32, Std: [3]float32{1, 1, 1}, Stem: 8,
			Blocks:   []Block{{Kernel: 3, Stride: 1, Expand: 1, In: 8, Out: 6}, {Kernel: 5, Stride: 2, Expand: 6, In: 6, Out: 7}},
			Features: 20},
		Text: Text{Kind: "bag", Vocab: 9, Width: 5, Hidden: 11, Context: 8, Templates: []string{"{}"}, Defaults: []string{"a", "b"}, Ready: 3},
	}
}

func TestTensors(t *testing.T) {
	want := []struct {
		name  string
		kind  qtype.Kind
		stage int
		shape []int
	}{
		{"image.stem.weight", qtype.F16, 0, []int{8, 27}},
		{"image.stem.bias", qtype.F16, 0, []int{8}},
		{"image.block.00.depthwise.weight", qtype.Q8R, 0, []int{8, 9}},
		{"image.block.00.depthwise.bias", qtype.F16, 0, []int{8}},
		{"image.block.00.project.weight", qtype.Q8C, 0, []int{6, 8}},
		{"image.block.00.project.bias", qtype.F16, 0, []int{6}},
		{"image.block.01.expand.weight", qtype.Q8C, 0, []int{36, 6}},
		{"image.block.01.expand.bias", qtype.F16, 0, []int{36}},
		{"image.block.01.depthwise.weight", qtype.Q8R, 0, []int{36, 25}},
		{"image.block.01.depthwise.bias", qtype.F16, 0, []int{36}},
		{"image.block.01.project.weight", qtype.Q8C, 0, []int{7, 36}},
		{"image.block.01.project.bias", qtype.F16, 0, []int{7}},
		{"image.features.weight", qtype.Q8C, 0, []int{20, 7}},
		{"image.features.bias", qtype.F16, 0, []int{20}},
		{"image.project.weight", qtype.Q8C, 0, []int{4, 20}},
		{"image.project.bias", qtype.F16, 0, []int{4}},
		{"label.default.weight", qtype.Q8R, 0, []int{2, 4}},
		{"label.ready.names", qtype.U8, 1, []int{0}},
		{"label.ready.weight", qtype.Q8R, 1, []int{3, 4}},
		{"text.vocab", qtype.U8, 1, []int{0}},
		{"text.token.weight", qtype.Q8R, 1, []int{9, 5}},
		{"text.pool.weight", qtype.F16, 1, []int{1, 5}},
		{"text.fc1.weight", qtype.Q8C, 1, []int{11, 5}},
		{"text.fc1.bias", qtype.F16, 1, []int{11}},
		{"text.fc2.weight", qtype.Q8C, 1, []int{4, 11}},
		{"text.fc2.bias", qtype.F16, 1, []int{4}},
	}
	got := tinyConfig().Tensors()
	if len(got) != len(want) {
		t.Fatalf("%d tensors, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.Name != w.name || g.Default != w.kind || g.Stage != w.stage {
			t.Errorf("tensor %d is %+v, want %+v", i, g, w)
		}
		if len(g.Shape) != len(w.shape) {
			t.Errorf("%s: shape %v, want %v", g.Name, g.Shape, w.shape)
			continue
		}
		for j := range w.shape {
			if g.Shape[j] != w.shape[j] {
				t.Errorf("%s: shape %v, want %v", g.Name, g.Shape, w.shape)
			}
		}
	}

	c := tinyConfig()
	c.Text.Defaults, c.Text.Ready = nil, 0
	if n := len(c.Tensors()); n != len(want)-3 {
		t.Errorf("without labels: %d tensors, want %d", n, len(want)-3)
	}
}

// TestTensors_Head: the gate is a row of the projection, the branches follow it,
// and nothing else changes.
func TestTensors_Head(t *testing.T) {
	c := tinyConfig()
	c.Image.Hidden, c.Image.Posterior = 7, 9
	got := c.Tensors()
	from := slices.IndexFunc(got, func(s TensorSpec) bool { return s.Name == "image.project.weight" })
	for i, want := range []TensorSpec{
		{Name: "image.project.weight", Shape: []int{5, 20}, Default: qtype.Q8C, role: linearRole},
		{Name: "image.project.bias", Shape: []int{5}, Default: qtype.F16, role: biasRole},
		{Name: "image.hidden.weight", Shape: []int{7, 20}, Default: qtype.Q8C, role: linearRole},
		{Name: "image.hidden.bias", Shape: []int{7}, Default: qtype.F16, role: biasRole},
		{Name: "image.widen.weight", Shape: []int{4, 7}, Default: qtype.Q8C, role: linearRole},
		{Name: "image.posterior.weight", Shape: []int{9, 20}, Default: qtype.Q8C, role: linearRole},
		{Name: "image.posterior.bias", Shape: []int{9}, Default: qtype.F16, role: biasRole},
		{Name: "image.names.weight", Shape: []int{4, 9}, Default: qtype.Q8C, role: linearRole},
	} {
		if !reflect.DeepEqual(got[from+i], want) {
			t.Errorf("tensor %d is %+v, want %+v", from+i, got[from+i], want)
		}
	}
	plain := tinyConfig().Tensors()
	if !reflect.DeepEqual(got[:from], plain[:from]) || !reflect.DeepEqual(got[from+8:], plain[from+2:]) {
		t.Errorf("beside them: %v, want %v", got, plain)
	}
}

// TestTensors_CLIP: names and shapes of the transformers, image side first.
func TestTensors_CLIP(t *testing.T) {
	got := map[string]TensorSpec{}
	var order []string
	for _, s := range smallCLIP().Tensors() {
		got[s.Name] = s
		order = append(order, s.Name)
	}
	for name, shape := range map[string][]int{
		"image.patch.weight": {24, 16 * 16 * 3}, "image.patch.bias": {24}, "image.class.weight": {1, 24}, "image.position.weight": {17, 24},
		"image.pre.weight": {24}, "image.layer.01.norm2.bias": {24}, "image.layer.00.attn.in.weight": {72, 24}, "image.layer.00.attn.in.bias": {72},
		"image.layer.01.attn.out.weight": {24, 24}, "image.layer.01.mlp.in.weight": {50, 24}, "image.layer.01.mlp.out.weight": {24, 50},
		"image.post.bias": {24}, "image.project.weight": {12, 24}, "image.project.bias": {12},
		"text.merges": {0}, "text.token.weight": {600, 16}, "text.position.weight": {9, 16}, "text.layer.00.attn.in.weight": {48, 16},
		"text.layer.00.mlp.out.bias": {16}, "text.final.weight": {16}, "text.project.weight": {12, 16},
	} {
		s, ok := got[name]
		if !ok || !slices.Equal(s.Shape, shape) {
			t.Errorf("%s: %v, want %v", name, s.Shape, shape)
		}
		if text := strings.HasPrefix(name, "text."); text != (s.Stage == 1) {
			t.Errorf("%s is in stage %d", name, s.Stage)
		}
		if linear := len(shape) == 2 && !strings.Contains(name, "class") && !strings.Contains(name, "position") && !strings.Contains(name, "token"); s.Linear() != linear {
			t.Errorf("%s: a linear weight: %v", name, s.Linear())
		}
	}
	// Patch, two values, two norms outside, twelve a block, projection; then merges, two tables, a norm, one block, projection.
	if n := 2 + 2 + 4 + 2*12 + 2 + 3 + 2 + 12 + 2; len(order) != n {
		t.Errorf("%d tensors, want %d: %v", len(order), n, order)
	}
}

// TestTensors_Shards: shards replace the table, in a stage of their own, and hold
// its rows.
func TestTensors_Shards(t *testing.T) {
	c := smallCLIP()
	c.Text.TokenShards = 250
	all := c.Tensors()
	shards := all[len(all)-3:]
	for i, s := range shards {
		want := TensorSpec{Name: []string{"text.token.000.weight", "text.token.001.weight", "text.token.002.weight"}[i],
			Shape: [][]int{{250, 16}, {250, 16}, {100, 16}}[i], Stage: 2, Default: qtype.Q8R, Of: "text.token.weight", From: 250 * i, role: shardRole}
		if !reflect.DeepEqual(s, want) {
			t.Errorf("shard %d is %+v, want %+v", i, s, want)
		}
	}
	whole := slices.DeleteFunc(smallCLIP().Tensors(), func(s TensorSpec) bool { return s.Name == "text.token.weight" })
	if !reflect.DeepEqual(all[:len(all)-3], whole) {
		t.Errorf("beside the shards: %v, want %v", all[:len(all)-3], whole)
	}
	if !reflect.DeepEqual(c.Whole(), smallCLIP()) || c.Text.Shards() != 3 || smallCLIP().Text.Shards() != 0 {
		t.Errorf("whole: %+v", c.Whole())
	}

	var stored []Stored
	for _, s := range all {
		shape := slices.Clone(s.Shape)
		for i := range shape {
			shape[i] = max(1, shape[i])
		}
		stored = append(stored, Stored{Name: s.Name, Kind: s.Default, Shape: shape, Stage: s.Stage, Alone: s.Stage == 2})
	}
	if err := c.Match(stored); err != nil {
		t.Error(err)
	}
	if err := smallCLIP().Match(stored); !errors.Is(err, ErrTensor) {
		t.Errorf("shards where there should be none: %v", err)
	}
	stored[len(stored)-2].Alone = false
	if err := c.Match(stored); !errors.Is(err, ErrTensor) || !strings.Contains(err.Error(), shards[1].Name) {
		t.Errorf("a shard among others: %v", err)
	}
}

func TestTensorSpec_Check(t *testing.T) {
	weight := TensorSpec{Name: "w", Shape: []int{8, 4}, Default: qtype.Q8C, role: linearRole}
	stem := TensorSpec{Name: "s", Shape: []int{8, 27}, Default: qtype.F16, role: stemRole}
	table := TensorSpec{Name: "t", Shape: []int{8, 4}, Default: qtype.Q8R, role: tableRole}
	bias := TensorSpec{Name: "b", Shape: []int{8}, Default: qtype.F16, role: biasRole}
	names := TensorSpec{Name: "n", Shape: []int{0}, Default: qtype.U8}
	for _, c := range []struct {
		spec  TensorSpec
		kind  qtype.Kind
		shape []int
		ok    bool
	}{
		{weight, qtype.Q8C, []int{8, 4}, true},
		{weight, qtype.F16, []int{8, 4}, true},
		{weight, qtype.Q8R, []int{8, 4}, false},
		{weight, qtype.Q8C, []int{4, 8}, false},
		{weight, qtype.Q8C, []int{8, 4, 1}, false},
		{weight, qtype.Q8C, nil, false},
		{weight, qtype.U8, []int{8, 4}, false},
		{stem, qtype.F16, []int{8, 27}, true},
		{stem, qtype.Q8C, []int{8, 27}, false},
		{table, qtype.Q8R, []int{8, 4}, true},
		{table, qtype.F16, []int{8, 4}, true},
		{table, qtype.Q8C, []int{8, 4}, false},
		{bias, qtype.F16, []int{8}, true},
		{bias, qtype.Q8C, []int{8}, false},
		{names, qtype.U8, []int{1}, true},
		{names, qtype.U8, []int{99999}, true},
		{names, qtype.U8, []int{0}, false},
		{names, qtype.U8, []int{-1}, false},
		{names, qtype.F16, []int{9}, false},
		{weight, "q9", []int{8, 4}, false},
	} {
		err := c.spec.Check(c.kind, c.shape)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrTensor) {
			t.Errorf("%s as %s %v: %v", c.spec.Name, c.kind, c.shape, err)
		}
	}
}
