package engine_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"lqa/quant/clip"
	"lqa/quant/convert"
	"lqa/quant/engine"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
)

// TestCLIP_Transformers: both of CLIP's transformers agree with those of
// huggingface/transformers, from the picture's pixels and the text's letters
// on. Pictures are cropped as OpenAI's CLIP does; transformers rounds half a
// pixel down where that rounds it to even (assets/train/goldens_clip.py).
func TestCLIP_Transformers(t *testing.T) {
	paths := []struct {
		name   string
		o      convert.Options
		cosine float32 // at least; 1: float, within 1e-4 of the largest value
	}{
		{"float", convert.Options{Float: true}, 1},
		{"q8c", convert.Options{Kinds: []convert.Choice{{Pattern: "*", Kind: qtype.Q8C}}}, 0.999},
		// The image tower, all of it, to the nearest code. Rounding errors halve
		// with each bit and their square is what a cosine loses; at 40 columns
		// a row they hardly average out, so these say that the kinds are read
		// right, not what they cost a real model.
		{"q6", convert.Options{Kinds: []convert.Choice{{Pattern: "image.*", Kind: "q6"}}}, 0.999},
		{"q5", convert.Options{Kinds: []convert.Choice{{Pattern: "image.*", Kind: "q5"}}}, 0.995},
		{"q4", convert.Options{Kinds: []convert.Choice{{Pattern: "image.*", Kind: "q4"}}}, 0.97},
	}
	for _, dir := range []string{"clip-quick", "clip-gelu"} {
		for _, p := range paths {
			t.Run(fmt.Sprint(dir, "/", p.name), func(t *testing.T) {
				e := load(t, convertDir(t, dir, p.o))
				compareCLIP(t, dir, e, tokenizer(t, e.Config(), read(t, dir, "merges.txt")), p.cosine)
			})
		}
	}
}

// compareCLIP holds an engine to the golden pictures and texts of a directory:
// to within 1e-4 of the largest value if cosine is 1, else to that cosine.
func compareCLIP(t *testing.T, dir string, e *engine.Engine, bpe clip.Tokenizer, cosine float32) {
	t.Helper()
	golden := tensors(t, dir, "golden.safetensors")
	var inputs struct {
		Pictures [][2]int
		Texts    []struct {
			Text string
			IDs  []int32
		}
	}
	if err := json.Unmarshal(read(t, dir, "golden.json"), &inputs); err != nil {
		t.Fatal(err)
	}
	var worst, least float32 = 0, 1
	compare := func(what any, got, want []float32) {
		t.Helper()
		var off, largest float32
		for i, w := range want {
			off, largest = max(off, got[i]-w, w-got[i]), max(largest, w, -w)
		}
		cos := numeric.Dot(got, want)
		worst, least = max(worst, off/largest), min(least, cos)
		if cosine == 1 && !(off <= 1e-4*largest) || cosine < 1 && !(cos >= cosine) {
			t.Errorf("%v: off by %.2g of %.2g, cosine %v", what, off, largest, cos)
		}
	}
	for i, want := range rows(t, golden, "images") {
		w, h := inputs.Pictures[i][0], inputs.Pictures[i][1]
		compare(inputs.Pictures[i], encode(t, e, synthetic(w, h), w, h), want)
	}
	for i, want := range rows(t, golden, "texts") {
		in := inputs.Texts[i]
		if ids := bpe.Encode(nil, in.Text, e.Config().Text.Context); !slices.Equal(ids, in.IDs) {
			t.Errorf("%q: tokens %v, want %v", in.Text, ids, in.IDs)
		}
		got, err := e.EmbedPrompts([]string{in.Text}, []string{"{}"})
		if err != nil {
			t.Fatal(err)
		}
		compare(in.Text, got[0], want)
	}
	t.Logf("off by at most %.2g of the largest value, least cosine %.6f", worst, least)
}

func tokenizer(t testing.TB, cfg *clip.Config, text []byte) clip.Tokenizer {
	t.Helper()
	merges, err := clip.PackMerges(strings.Split(strings.TrimSpace(string(text)), "\n"))
	if err != nil {
		t.Fatal(err)
	}
	bpe, err := clip.NewTokenizer(&cfg.Text, merges)
	if err != nil {
		t.Fatal(err)
	}
	return bpe
}
