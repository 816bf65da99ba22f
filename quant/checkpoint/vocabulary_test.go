package checkpoint_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"lqa/quant/checkpoint"
	"lqa/quant/checkpoint/checkpointtest"
	"lqa/quant/clip"
)

// TestOpenCLIP_Merges: the list is the same from each file that has it, for
// all of OpenAI's vocabulary.
func TestOpenCLIP_Merges(t *testing.T) {
	packed, err := os.ReadFile("../clip/testdata/merges.txt.gz")
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	merges := strings.Split(strings.TrimSpace(string(text)), "\n")[1:]
	want := []byte(strings.Join(merges, "\n") + "\n")
	a := toy
	a.Vocab = 49408
	base := makeFiles(t, checkpointtest.Options{Arch: a, Merges: merges, Zeros: true})
	vocab := map[string]int{}
	if err := json.Unmarshal(base["vocab.json"], &vocab); err != nil {
		t.Fatal(err)
	}
	tokenizer := func(merges any) []byte {
		text, err := json.Marshal(map[string]any{"version": "1.0", "added_tokens": []any{}, "model": map[string]any{"type": "BPE", "vocab": vocab, "merges": merges, "end_of_word_suffix": "</w>"}})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	var pairs [][]string
	for _, m := range merges {
		pairs = append(pairs, strings.Fields(m))
	}
	for name, files := range map[string]checkpointtest.Files{
		"merges.txt and vocab.json":       {"merges.txt": base["merges.txt"], "vocab.json": base["vocab.json"]},
		"merges.txt":                      {"merges.txt": base["merges.txt"]},
		"merges.txt of Windows":           {"merges.txt": bytes.ReplaceAll(base["merges.txt"], []byte("\n"), []byte("\r\n"))},
		"tokenizer.json, as TinyCLIP":     {"tokenizer.json": tokenizer(merges)},
		"tokenizer.json of newer writers": {"tokenizer.json": tokenizer(pairs)},
		"vocab.json alone":                {"vocab.json": base["vocab.json"]},
	} {
		f := maps.Clone(base)
		delete(f, "merges.txt")
		delete(f, "vocab.json")
		maps.Copy(f, files)
		c := openCLIP(t, f)
		if !bytes.Equal(c.Merges, want) {
			t.Errorf("%s: %d bytes of merges, want %d", name, len(c.Merges), len(want))
		}
	}
	if packed, err := clip.PackMerges(strings.Split(strings.TrimSpace(string(want)), "\n")); err != nil || len(packed) != 4*48894 {
		t.Errorf("%d bytes, %v", len(packed), err)
	}
}

// TestOpenCLIP_BadMerges: a vocabulary must fit the rows of the token table.
func TestOpenCLIP_BadMerges(t *testing.T) {
	tokens := func(change func(v map[string]int)) []byte {
		v := map[string]int{}
		f := makeFiles(t, checkpointtest.Options{Arch: small, Merges: checkpointtest.Merges, Zeros: true})
		if err := json.Unmarshal(f["vocab.json"], &v); err != nil {
			t.Fatal(err)
		}
		change(v)
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	swap := func(a, b string) func(v map[string]int) { return func(v map[string]int) { v[a], v[b] = v[b], v[a] } }
	for _, c := range []struct {
		name  string
		files checkpointtest.Files // nil: removed
		want  error
		says  []string
	}{
		{"too few", checkpointtest.Files{"merges.txt": []byte("#version: 0.2\ni n\n"), "vocab.json": nil}, checkpoint.ErrContradicts, []string{"1 merges", "vocab_size is 522", "needs 8"}},
		{"ids of two merges", checkpointtest.Files{"vocab.json": tokens(swap("in", "an"))}, checkpoint.ErrContradicts, []string{`"in"`, "514"}},
		{"ids of two bytes", checkpointtest.Files{"vocab.json": tokens(swap("a", "b"))}, checkpoint.ErrContradicts, []string{`"a"`}},
		{"specials elsewhere", checkpointtest.Files{"vocab.json": tokens(swap("<|startoftext|>", "<|endoftext|>"))}, checkpoint.ErrContradicts, []string{"<|startoftext|>"}},
		{"specials of OpenCLIP's spelling", checkpointtest.Files{"vocab.json": tokens(func(v map[string]int) { delete(v, "<|startoftext|>"); v["<start_of_text>"] = 520 })},
			checkpoint.ErrContradicts, []string{"<|startoftext|>"}},
		{"vocabulary with a gap", checkpointtest.Files{"merges.txt": nil, "vocab.json": tokens(func(v map[string]int) { v["in"] = 9000 })}, checkpoint.ErrCorrupt, []string{`"in"`, "9000"}},
		{"a token of nothing known", checkpointtest.Files{"merges.txt": nil, "vocab.json": tokens(func(v map[string]int) { delete(v, "in"); v["xyz"] = 512 })}, checkpoint.ErrContradicts, []string{`"xyz"`, "no merge of two"}},
		{"vocabulary of one", checkpointtest.Files{"merges.txt": nil, "vocab.json": []byte(`{"a":0}`)}, checkpoint.ErrCorrupt, []string{"1 tokens"}},
		{"not ids", checkpointtest.Files{"vocab.json": []byte(`{"a":"b"}`)}, checkpoint.ErrConfig, []string{"vocab.json"}},
		{"WordPiece", checkpointtest.Files{"merges.txt": nil, "tokenizer.json": []byte(`{"model":{"type":"WordPiece","vocab":{}}}`)}, checkpoint.ErrArchitecture, []string{`model.type is "WordPiece"`}},
		{"Unigram", checkpointtest.Files{"merges.txt": nil, "tokenizer.json": []byte(`{"model":{"type":"Unigram","vocab":[["a",0]]}}`)}, checkpoint.ErrArchitecture, []string{"Unigram"}},
	} {
		f := makeFiles(t, checkpointtest.Options{Arch: small, Merges: checkpointtest.Merges, Zeros: true})
		for name, text := range c.files {
			f[name] = text
			if text == nil {
				delete(f, name)
			}
		}
		refused(t, c.name, f, c.want, c.says...)
	}
	_, err := checkpoint.OpenCLIP(makeFiles(t, checkpointtest.Options{Arch: small, Merges: checkpointtest.Merges, Zeros: true}), checkpoint.Limits{TextBytes: 100})
	if err == nil || !slices.ContainsFunc([]string{"config.json", "limit 100"}, func(s string) bool { return strings.Contains(err.Error(), s) }) {
		t.Errorf("limit: %v", err)
	}
}
