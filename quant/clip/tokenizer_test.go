package clip

import (
	"errors"
	"slices"
	"testing"
)

func TestNewTokenizer(t *testing.T) {
	bag := Text{Kind: "bag", Vocab: 3}
	w, err := NewTokenizer(&bag, []byte("[UNK]\nmug\n##s\n"))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]int32{"mugs": {9, 1, 2}, "mugs mugs": {9, 1, 2, 1}, " ": {9, 0}, "🙂": {9, 0}} {
		if ids := w.Encode([]int32{9}, text, 3); !slices.Equal(ids, want) {
			t.Errorf("%q: %v, want %v", text, ids, want)
		}
	}

	merges, err := PackMerges([]string{"m u", "mu g</w>"})
	if err != nil {
		t.Fatal(err)
	}
	for _, eos := range []int{2, 515} {
		b, err := NewTokenizer(&Text{Kind: "transformer", Vocab: 516, EOS: eos}, merges)
		if err != nil {
			t.Fatal(err)
		}
		if ids := b.Encode(nil, "mug", 9); !slices.Equal(ids, []int32{514, 513, 515}) {
			t.Errorf("tokens %v", ids)
		}
	}

	for name, c := range map[string]struct {
		tx    Text
		vocab []byte
	}{
		"pieces too few":   {bag, []byte("[UNK]\nmug\n")},
		"no pieces":        {bag, nil},
		"merges too few":   {Text{Kind: "transformer", Vocab: 517, EOS: 2}, merges},
		"pooled elsewhere": {Text{Kind: "transformer", Vocab: 516, EOS: 514}, merges},
	} {
		if _, err := NewTokenizer(&c.tx, c.vocab); !errors.Is(err, ErrVocab) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestText_pooled: the rule of CLIPTextTransformer.
func TestText_pooled(t *testing.T) {
	for _, c := range []struct {
		eos  int
		ids  []int32
		want int
	}{
		{515, []int32{514, 7, 515}, 2},
		{515, []int32{514, 515, 7, 515, 515}, 1}, // the first
		{515, []int32{514, 7}, -1},
		{2, []int32{514, 2, 7, 515, 515}, 3}, // the largest, not 2
		{2, []int32{3}, 0},
	} {
		if got := (&Text{EOS: c.eos}).pooled(c.ids); got != c.want {
			t.Errorf("eos %d, %v: %d, want %d", c.eos, c.ids, got, c.want)
		}
	}
}
