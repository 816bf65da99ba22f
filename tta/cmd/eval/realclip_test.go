package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lqa/quant/cmd/progress"
	"lqa/tta"
	"lqa/tta/shift/order"
)

// The streams' figures, counted by hand: of five frames, pictures 0 1 2 0 1
// with labels 0 1 1 0 1, the third is answered with label 0.
func TestStreams(t *testing.T) {
	p := &pool{Set: "two", Labels: []string{"x", "y"}, Text: [][]float32{{1, 0}, {0, 1}}, Scale: 10,
		Label: []int{0, 1, 1}, Embeddings: [][]float32{{1, 0}, {0, 1}, {1, 0}}}
	o := streamOrder{"hand-made", func([]int, uint64) []order.Step { return []order.Step{{At: 0}, {At: 1}, {At: 2}, {At: 0}, {At: 1}} }}
	r := &run{progress: progress.New(io.Discard, false)}
	got, err := r.streams(context.Background(), p, o, "zeroshot")
	if err != nil {
		t.Fatal(err)
	}
	// Answers x y x x y change 3 times a second. Confidence is 1 throughout:
	// off by the fifth that is wrong.
	want := streamResult{Suite: "real-clip", Set: "two", Stream: "hand-made", Adapter: "zeroshot", Seeds: 10, N: 5,
		Top1: 80, ZeroShot: 80, Tail: 80, ECE: 20, Flicker: 3}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Zero-shot on all 600 photographs is a figure of another program's.
func TestRealClip(t *testing.T) {
	dir := os.Getenv("LQA_MODELS")
	if dir == "" {
		t.Skip("no embeddings of CLIP: set LQA_MODELS")
	}
	p, err := readRealClip(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := streamOrder{"all", func(label []int, _ uint64) (steps []order.Step) {
		for i := range label {
			steps = append(steps, order.Step{At: i})
		}
		return steps
	}}
	r := &run{progress: progress.New(io.Discard, false)}
	if got, err := r.streams(context.Background(), p, all, "zeroshot"); err != nil || got.Top1 != 92.67 {
		t.Errorf("zero-shot %v %v, want 92.67", got.Top1, err)
	}

	var out strings.Builder
	table := filepath.Join(t.TempDir(), "table.md")
	if err := command(&out, io.Discard).Run(context.Background(), []string{"eval", "--suite", "real-clip", "--models", dir, "--markdown", table}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if want := len(tta.Methods) * len(realClipOrders); len(lines) != want {
		t.Errorf("%d lines, want %d", len(lines), want)
	}
	for _, line := range lines {
		var res streamResult
		if err := json.Unmarshal([]byte(line), &res); err != nil || res.ZeroShot < 85 || res.Worst > res.Gain {
			t.Errorf("%s: %v", line, err)
		}
	}
	if b, err := os.ReadFile(table); err != nil || strings.Count(string(b), "\n| ") != len(tta.Methods)+1 {
		t.Errorf("table: %v\n%s", err, b)
	}
}
