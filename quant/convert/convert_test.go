package convert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"lqa/quant/clip"
	"lqa/quant/engine/enginetest"
	"lqa/quant/qtype"
	"lqa/quant/shq"
)

// memory is a Source of tensors held in maps.
type memory struct {
	shapes map[string][]int
	values map[string][]float32
}

func (m *memory) Names() []string {
	var names []string
	for n := range m.shapes {
		names = append(names, n)
	}
	return names
}

func (m *memory) Shape(name string) ([]int, bool) { s, ok := m.shapes[name]; return s, ok }

func (m *memory) Float32(name string) ([]float32, error) { return m.values[name], nil }

const tinyJSON = `{"embed":6,"logit_scale":20,"temperature":1,
 "image":{"kind":"efficientnet-lite","size":32,"mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5],"stem":8,"features":20,
  "blocks":[{"k":3,"s":1,"e":1,"in":8,"out":6},{"k":5,"s":2,"e":6,"in":6,"out":7}]},
 "text":{"kind":"bag","vocab":4,"width":5,"hidden":11,"context":8,"templates":["a photo of a {}."],"defaults":["mug","Key board"],"ready":3}}`

// tiny is a small model of random weights.
func tiny(t testing.TB) (Input, *memory) {
	t.Helper()
	cfg, err := clip.ParseConfig([]byte(tinyJSON))
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	src := &memory{map[string][]int{}, map[string][]float32{}}
	for _, s := range cfg.Tensors() {
		if s.Default == qtype.U8 {
			continue
		}
		n := 1
		for _, d := range s.Shape {
			n *= d
		}
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(rng.NormFloat64())
		}
		src.shapes[s.Name], src.values[s.Name] = s.Shape, x
	}
	return Input{Config: []byte(tinyJSON), Tensors: src,
		Vocab: []byte("[UNK]\na\n##b\nmug\n"), ReadyNames: []byte("mug\nkey board\nred car\n")}, src
}

func TestConvert(t *testing.T) {
	for _, float := range []bool{false, true} {
		in, src := tiny(t)
		var seen int
		o := Options{Name: "tiny", Float: float, Provenance: shq.Provenance{Licence: "CC0-1.0"},
			Progress: func(c Outcome) {
				seen++
				if c.Error < 0 || c.Error > 0.02 || float && c.Error > 5e-4 {
					t.Errorf("%s as %s: relative error %v", c.Name, c.Kind, c.Error)
				}
			}}
		var a, b bytes.Buffer
		if err := Convert(&a, in, o); err != nil {
			t.Fatal(err)
		}
		specs := seen
		if err := Convert(&b, in, o); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("the same input gave other bytes (%v)", err)
		}
		rep, err := Verify(bytes.NewReader(a.Bytes()), shq.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if len(rep.Manifest.Tensors) != specs || rep.Bytes != int64(a.Len()) {
			t.Errorf("report %+v", rep)
		}

		rd, err := shq.NewReader(bytes.NewReader(a.Bytes()), shq.Limits{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		cfg, _ := clip.ParseConfig(in.Config)
		i := 0
		err = eachTensor(rd, func(st *shq.Tensor, data []byte) error {
			spec := cfg.Tensors()[i]
			i++
			if st.Name != spec.Name {
				t.Fatalf("tensor %d is %s, want %s: order of need", i, st.Name, spec.Name)
			}
			switch {
			case st.Name == "text.vocab":
				if !bytes.Equal(data, in.Vocab) {
					t.Errorf("vocabulary is %q", data)
				}
				return nil
			case st.Kind == qtype.U8:
				return nil
			case float && st.Kind != qtype.F16 || !float && st.Kind != spec.Default:
				t.Errorf("%s is %s", st.Name, st.Kind)
			}
			got, err := st.Kind.Dequantize(data, st.Shape)
			if err != nil {
				return err
			}
			for j, want := range src.values[st.Name] {
				// Half a step of a row whose largest magnitude is under 5, or a half's rounding.
				if d := math.Abs(float64(got[j] - want)); d > 5./127/2+1e-3 {
					t.Errorf("%s[%d] is %v, want %v", st.Name, j, got[j], want)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestConvert_Refused(t *testing.T) {
	change := func(from, to string) func(*Input, *memory) {
		return func(in *Input, _ *memory) {
			s := strings.Replace(string(in.Config), from, to, 1)
			if s == string(in.Config) {
				t.Fatalf("%q is not in the configuration", from)
			}
			in.Config = []byte(s)
		}
	}
	value := func(name string, v float32) func(*Input, *memory) {
		return func(_ *Input, m *memory) { m.values[name][3] = v }
	}
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		name   string
		change func(*Input, *memory)
		want   error
		says   []string
	}{
		{"missing tensors", func(_ *Input, m *memory) {
			delete(m.shapes, "text.fc1.bias")
			delete(m.shapes, "image.stem.weight")
		}, ErrTensors, []string{"text.fc1.bias [11] is missing", "image.stem.weight [8 27] is missing"}},
		{"unexpected tensor", func(_ *Input, m *memory) { m.shapes["image.head.weight"] = []int{1} }, ErrTensors, []string{`"image.head.weight"`}},
		{"shape", func(_ *Input, m *memory) { m.shapes["image.stem.weight"] = []int{27, 8} }, ErrTensors, []string{"image.stem.weight is [27 8], want [8 27]"}},
		{"NaN", value("image.stem.bias", float32(math.NaN())), ErrValue, []string{"image.stem.bias", "element 3"}},
		{"infinite", value("image.project.weight", inf), ErrValue, []string{"image.project.weight"}},
		{"minus infinite", value("label.ready.weight", -inf), ErrValue, []string{"label.ready.weight"}},
		{"no half", value("text.fc2.bias", 70000), ErrValue, []string{"text.fc2.bias"}},
		{"no half scale", value("text.fc2.weight", 1e30), ErrValue, []string{"text.fc2.weight"}},
		{"configuration", change(`"embed":6`, `"embed":0`), clip.ErrConfig, []string{"embed"}},
		{"vocabulary short", func(in *Input, _ *memory) { in.Vocab = []byte("[UNK]\na\n") }, ErrText, []string{"2 pieces", "says 4"}},
		{"vocabulary without [UNK]", func(in *Input, _ *memory) { in.Vocab = []byte("a\nb\nc\nd\n") }, clip.ErrVocab, nil},
		{"template", change("photo of a {}", "photo"), ErrText, []string{"template 0"}},
		{"ready names short", func(in *Input, _ *memory) { in.ReadyNames = []byte("mug\n") }, ErrText, []string{"1 ready names"}},
		{"ready names absent", func(in *Input, _ *memory) { in.ReadyNames = nil }, ErrText, []string{"0 ready names"}},
		{"ready names not ended", func(in *Input, _ *memory) { in.ReadyNames = []byte("mug\na\nb") }, ErrText, []string{"not ended"}},
		{"ready name in capitals", func(in *Input, _ *memory) { in.ReadyNames = []byte("mug\nCar\nb\n") }, ErrText, []string{"line 2"}},
		{"ready name twice", func(in *Input, _ *memory) { in.ReadyNames = []byte("mug\ncar\nmug\n") }, ErrText, []string{"lines 1 and 3"}},
		{"default twice", change("Key board", "MUG"), ErrText, []string{"default labels"}},
	} {
		in, src := tiny(t)
		c.change(&in, src)
		err := Convert(io.Discard, in, Options{})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
			continue
		}
		for _, s := range c.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q does not say %q", c.name, err, s)
			}
		}
	}
}

// TestVerify builds sound containers that are no sound model.
func TestVerify(t *testing.T) {
	in, _ := tiny(t)
	var file bytes.Buffer
	if err := Convert(&file, in, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(stages [][]shq.TensorData) [][]shq.TensorData
		says   string
	}{
		{"unchanged", func(s [][]shq.TensorData) [][]shq.TensorData { return s }, ""},
		{"tensor missing", func(s [][]shq.TensorData) [][]shq.TensorData { s[1] = s[1][:len(s[1])-1]; return s }, "text.fc2.bias"},
		{"tensor renamed", func(s [][]shq.TensorData) [][]shq.TensorData { s[0][3].Name = "image.x"; return s }, `"image.x"`},
		{"wrong stage", func(s [][]shq.TensorData) [][]shq.TensorData {
			s[0] = append(s[0], s[1][0])
			s[1] = s[1][1:]
			return s
		}, "stage 0, want 1"},
		{"wrong kind", func(s [][]shq.TensorData) [][]shq.TensorData {
			s[0][1].Kind, s[0][1].Shape = qtype.U8, []int{len(s[0][1].Data)}
			return s
		}, "is u8, want f16"},
		{"infinite half", func(s [][]shq.TensorData) [][]shq.TensorData { s[0][0].Data[1] = 0x7c; return s }, "element 0"},
		{"scale of zero", func(s [][]shq.TensorData) [][]shq.TensorData { s[0][2].Data[2], s[0][2].Data[3] = 0, 0; return s }, "scale 1"},
		{"code -128", func(s [][]shq.TensorData) [][]shq.TensorData { s[0][2].Data[16+5] = 0x80; return s }, "code 5"},
		// image.block.00.project [6,8]: rows 6 and 7 of its panel are padding.
		{"panel padding", func(s [][]shq.TensorData) [][]shq.TensorData {
			s[0][4].Data[qtype.Q8C.ScaleBytes(6)+qtype.PanelIndex(6, 0, 8)] = 1
			return s
		}, "padding at [6,0]"},
		{"vocabulary", func(s [][]shq.TensorData) [][]shq.TensorData {
			s[1][2].Data, s[1][2].Shape = []byte("[UNK]\nb\nb\nc\n"), []int{12}
			return s
		}, "stands twice"},
	} {
		rd, err := shq.NewReader(bytes.NewReader(file.Bytes()), shq.Limits{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		m := rd.Manifest()
		stages := make([][]shq.TensorData, m.Stages())
		err = eachTensor(rd, func(st *shq.Tensor, data []byte) error {
			s := m.Frames[st.Frame].Stage
			stages[s] = append(stages[s], shq.TensorData{Name: st.Name, Kind: st.Kind, Shape: slices.Clone(st.Shape), Data: bytes.Clone(data)})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := shq.Write(&out, *m, c.change(stages)); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		_, err = Verify(&out, shq.Limits{})
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if !errors.Is(err, ErrContent) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s: %v, want one that says %q", c.name, err, c.says)
		}
	}

	var junk bytes.Buffer
	stages := [][]shq.TensorData{{{Name: "a", Kind: qtype.U8, Shape: []int{1}, Data: []byte{1}}}}
	if err := shq.Write(&junk, shq.Manifest{Model: []byte(`{}`)}, stages); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(&junk, shq.Limits{}); !errors.Is(err, ErrContent) || !errors.Is(err, clip.ErrConfig) {
		t.Errorf("a file without model: %v", err)
	}
}

// TestConvert_Keep: named weights stay float16, the others do not.
func TestConvert_Keep(t *testing.T) {
	in, _ := tiny(t)
	kinds := map[string]qtype.Kind{}
	var b bytes.Buffer
	err := Convert(&b, in, Options{Name: "tiny", Keep: []string{"image.block.00.*", "text.fc1.weight"},
		Progress: func(c Outcome) { kinds[c.Name] = c.Kind }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(&b, shq.Limits{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]qtype.Kind{
		"image.block.00.project.weight": qtype.F16, "image.block.00.depthwise.weight": qtype.F16,
		"image.block.01.project.weight": qtype.Q8C, "text.fc1.weight": qtype.F16, "text.fc2.weight": qtype.Q8C,
	} {
		if kinds[name] != want {
			t.Errorf("%s is %s, want %s", name, kinds[name], want)
		}
	}
	for _, p := range []string{"[", "image.block.99.*", "text.vocab"} {
		if err := Convert(&b, in, Options{Name: "tiny", Keep: []string{p}}); !errors.Is(err, ErrTensors) {
			t.Errorf("pattern %q: %v", p, err)
		}
	}
}

// TestConvert_Round: a quantizer of the caller's makes the bytes of linear
// layers, and of them alone; the plan stands in the manifest.
func TestConvert_Round(t *testing.T) {
	in, _ := tiny(t)
	var asked []string
	o := Options{Name: "tiny", Keep: []string{"text.fc2.weight"}, Plan: []byte(`[{"name": "text.fc1.weight"}]`),
		Round: func(name string, kind qtype.Kind, w []float32, n, k int) ([]byte, error) {
			asked = append(asked, name)
			return qtype.AppendQ8C(nil, make([]float32, len(w)), n, k), nil
		}}
	var b bytes.Buffer
	if err := Convert(&b, in, o); err != nil {
		t.Fatal(err)
	}
	rep, err := Verify(&b, shq.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if want := `[{"name":"text.fc1.weight"}]`; string(rep.Manifest.Plan) != want {
		t.Errorf("plan is %s, want %s", rep.Manifest.Plan, want)
	}
	want := "image.block.00.project.weight image.block.01.expand.weight image.block.01.project.weight image.features.weight image.project.weight text.fc1.weight"
	if got := strings.Join(asked, " "); got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
	failed := errors.New("no")
	o.Round = func(string, qtype.Kind, []float32, int, int) ([]byte, error) { return nil, failed }
	if err := Convert(&b, in, o); !errors.Is(err, failed) {
		t.Errorf("a quantizer's error became %v", err)
	}
}

// TestConvert_Kinds: the last pattern that fits chooses a linear weight's kind,
// Keep goes before it, and other tensors keep theirs.
func TestConvert_Kinds(t *testing.T) {
	in, _ := tiny(t)
	kinds := map[string]qtype.Kind{}
	var b bytes.Buffer
	err := Convert(&b, in, Options{Name: "tiny", Keep: []string{"text.fc2.weight"},
		Kinds:    []Choice{{Pattern: "*", Kind: qtype.F16}, {Pattern: "image.*", Kind: qtype.Q8C}, {Pattern: "image.block.01.*", Kind: "q5g32"}, {Pattern: "text.fc2.*", Kind: qtype.Q8C}},
		Progress: func(c Outcome) { kinds[c.Name] = c.Kind }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(&b, shq.Limits{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]qtype.Kind{
		"image.block.00.project.weight": qtype.Q8C, "image.block.01.project.weight": "q5g32", "image.stem.weight": qtype.F16, "image.block.00.depthwise.weight": qtype.Q8R,
		"text.token.weight": qtype.Q8R, "text.fc1.weight": qtype.F16, "text.fc2.weight": qtype.F16, "text.fc1.bias": qtype.F16, "text.vocab": qtype.U8,
	} {
		if kinds[name] != want {
			t.Errorf("%s is %s, want %s", name, kinds[name], want)
		}
	}
	for _, c := range []Choice{{Pattern: "[", Kind: qtype.Q8C}, {Pattern: "image.stem.weight", Kind: qtype.Q8C}, {Pattern: "image.block.99.*", Kind: qtype.Q8C}, {Pattern: "*", Kind: qtype.Q8R}, {Pattern: "*", Kind: "q9"}, {Pattern: "*", Kind: "q4g7"}} {
		if err := Convert(&b, in, Options{Name: "tiny", Kinds: []Choice{c}}); !errors.Is(err, ErrTensors) {
			t.Errorf("%s as %s: %v", c.Pattern, c.Kind, err)
		}
	}
}

// clipInput is the small CLIP with its token table in shards of so many rows.
func clipInput(t testing.TB, rows int) (Input, *clip.Config) {
	t.Helper()
	cfg := enginetest.CLIPConfig()
	cfg.Text.TokenShards = rows
	raw, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	src := &memory{map[string][]int{}, enginetest.Values(cfg, 3)}
	for _, s := range cfg.Whole().Tensors() {
		if s.Default != qtype.U8 {
			src.shapes[s.Name] = s.Shape
		}
	}
	return Input{Config: raw, Tensors: src, Vocab: []byte(enginetest.MergesText), ReadyNames: []byte(strings.Join(enginetest.ReadyNames, "\n") + "\n")}, cfg
}

// once is a Source that counts how often a tensor is read.
type once struct {
	Source
	reads map[string]int
}

func (o once) Float32(name string) ([]float32, error) {
	o.reads[name]++
	return o.Source.Float32(name)
}

// TestConvert_Shards: a configuration decides whether the token table is cut;
// rows and all else are the same.
func TestConvert_Shards(t *testing.T) {
	tensors := func(rows int) (*shq.Manifest, map[string][]byte) {
		in, _ := clipInput(t, rows)
		counted := once{in.Tensors, map[string]int{}}
		in.Tensors = counted
		var b bytes.Buffer
		if err := Convert(&b, in, Options{Name: "clip", Keep: []string{"text.position.weight"}}); err != nil {
			t.Fatal(err)
		}
		for name, n := range counted.reads {
			if n != 1 {
				t.Errorf("%s was read %d times", name, n)
			}
		}
		rep, err := Verify(bytes.NewReader(b.Bytes()), shq.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		rd, err := shq.NewReader(&b, shq.Limits{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer rd.Close()
		all := map[string][]byte{}
		if err := eachTensor(rd, func(t *shq.Tensor, b []byte) error { all[t.Name] = bytes.Clone(b); return nil }); err != nil {
			t.Fatal(err)
		}
		return rep.Manifest, all
	}
	_, whole := tensors(0)
	for _, rows := range []int{1, 77, 130, 520} {
		m, cut := tensors(rows)
		var scales, codes []byte
		for i := range m.Tensors {
			x := &m.Tensors[i]
			if m.Frames[x.Frame].Stage < 2 {
				if !bytes.Equal(cut[x.Name], whole[x.Name]) {
					t.Errorf("%d rows: %s has other bytes", rows, x.Name)
				}
				continue
			}
			if !m.Alone(i) {
				t.Errorf("%d rows: %s has no frame to itself", rows, x.Name)
			}
			b := cut[x.Name]
			scales = append(scales, b[:2*x.Shape[0]]...)
			codes = append(codes, b[qtype.Q8R.ScaleBytes(x.Shape[0]):]...)
		}
		head := qtype.Q8R.ScaleBytes(520)
		if want := whole["text.token.weight"]; !bytes.Equal(scales, want[:1040]) || !bytes.Equal(codes, want[head:]) {
			t.Errorf("%d rows: the table has other bytes", rows)
		}
		if want := (519 + rows) / rows; len(m.Tensors) != len(whole)-1+want {
			t.Errorf("%d rows: %d tensors, want %d shards beside %d", rows, len(m.Tensors), want, len(whole)-1)
		}
	}

	in, cfg := clipInput(t, 77)
	kinds := map[string]qtype.Kind{}
	err := Convert(io.Discard, in, Options{Keep: []string{"text.token.weight"}, Progress: func(o Outcome) { kinds[o.Name] = o.Kind }})
	if err != nil || kinds[clip.ShardName(3)] != qtype.F16 || kinds["label.ready.weight"] != qtype.Q8R {
		t.Errorf("keeping the table: %v, %v", kinds, err)
	}
	src := in.Tensors.(*memory)
	src.values["text.token.weight"] = src.values["text.token.weight"][:100]
	if err := Convert(io.Discard, in, Options{}); !errors.Is(err, ErrTensors) {
		t.Errorf("a table of 100 values for %d rows: %v", cfg.Text.Vocab, err)
	}
}

// TestWith: embeddings of default labels come from elsewhere, or replace those
// of the source.
func TestWith(t *testing.T) {
	in, cfg := clipInput(t, 0)
	src := in.Tensors.(*memory)
	name, shape := "label.default.weight", []int{len(cfg.Text.Defaults), cfg.Embed}
	x := make([]float32, shape[0]*shape[1])
	for i := range x {
		x[i] = float32(i%7) - 2
	}
	check := func(what string) {
		t.Helper()
		in.Tensors = With(src, name, shape, x)
		var b bytes.Buffer
		if err := Convert(&b, in, Options{Float: true}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		rd, err := shq.NewReader(&b, shq.Limits{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer rd.Close()
		err = eachTensor(rd, func(st *shq.Tensor, data []byte) error {
			if got, _ := st.Kind.Dequantize(data, st.Shape); st.Name == name && !slices.Equal(got, x) {
				t.Errorf("%s: %v", what, got)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	check("in place of the source's")
	delete(src.shapes, name)
	delete(src.values, name)
	check("the source has none")
	in.Tensors = With(src, name, []int{1}, x)
	if err := Convert(io.Discard, in, Options{}); !errors.Is(err, ErrTensors) {
		t.Errorf("another shape: %v", err)
	}
}
