package main

import (
	"bytes"
	"strings"
	"testing"

	"lqa/quant/clip"
	"lqa/quant/convert/random"
)

// The peers' models were counted by themselves (PyTorch's shapes): both sides
// of a comparison do the same work.
func TestImageMACs(t *testing.T) {
	for name, want := range map[string]int64{"vit-b-32": 4_408_811_520, "vit-tiny-16": 1_253_589_504} {
		if got := imageMACs(&clip.Config{Embed: 512, Image: random.Images[name]}); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}

func TestCompare(t *testing.T) {
	rows := []row{
		{Engine: lqa, Model: "m", Threads: 1, MS: 10},
		{Engine: "a", Model: "m", Threads: 1, MS: 30},
		{Engine: "b", Model: "m", Threads: 1, MS: 25},
		{Engine: "b", Model: "m", Threads: 2, MS: 5},
		{Engine: lqa, Model: "alone", Threads: 1, MS: 1},
	}
	compare(rows)
	if r := rows[0].Ratio; r == nil || *r != 2.5 {
		t.Errorf("ratio of ours is %v, want 2.5: by the fastest peer on as many threads", number(r, 3))
	}
	if r := rows[4].Ratio; r != nil {
		t.Errorf("ratio without a peer is %v, want none", *r)
	}
	var out bytes.Buffer
	table(&out, rows)
	lines := strings.Split(out.String(), "\n")
	if want := "| m | 1 | lqa |"; !strings.HasPrefix(lines[3], want) {
		t.Errorf("line is %q, want the fastest first, %s", lines[3], want)
	}
}
