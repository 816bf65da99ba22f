package clip

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const testVocab = "[PAD]\n[UNK]\ncafe\nmug\n##s\na\nphoto\nof\n,\n!\n水\n##gs\nnaive\nu\n##n"

func TestWordPiece(t *testing.T) {
	w, err := NewWordPiece([]byte(testVocab))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text string
		want []int32
	}{
		{"", nil},
		{" \t\n", nil},
		{"a photo of a mug", []int32{5, 6, 7, 5, 3}},
		{"Mugs", []int32{3, 4}}, // longest piece first: mug ##s
		{"CAFÉ, café!", []int32{2, 8, 2, 9}},
		{"cafe\u0301", []int32{2}},         // a combining accent
		{"naïve\u00a0mug", []int32{12, 3}}, // a no-break space
		{"水水mug", []int32{10, 10, 3}},      // CJK characters stand alone
		{"unx", []int32{1}},                // no way to split: the whole word is unknown
		{"un", []int32{13, 14}},
		{"mu\u0000g", []int32{3}}, // control characters vanish
		{"mu\u200dg", []int32{3}},
		{"🙂", []int32{1}},
		{strings.Repeat("a", 101), []int32{1}},
		{"a a a a a a a a a a", []int32{5, 5, 5, 5, 5, 5, 5, 5}},
		{"\xff\xfea", []int32{5}},
	} {
		if got := w.Encode(nil, c.text, 8); !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, want %v", c.text, got, c.want)
		}
	}
}

// TestWordPiece_Golden compares with huggingface/tokenizers: testdata/wordpiece.py.
func TestWordPiece_Golden(t *testing.T) {
	file, err := os.ReadFile("testdata/wordpiece.tsv")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(file), "\n"), "\n")
	var vocab string
	if err := json.Unmarshal([]byte(lines[0]), &vocab); err != nil {
		t.Fatal(err)
	}
	w, err := NewWordPiece([]byte(vocab))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines[1:] {
		quoted, ids, _ := strings.Cut(line, "\t")
		var text string
		if err := json.Unmarshal([]byte(quoted), &text); err != nil {
			t.Fatal(err)
		}
		var want []int32
		for _, f := range strings.Fields(ids) {
			id, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, int32(id))
		}
		if got := w.Encode(nil, text, 1000); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", quoted, got, want)
		}
	}
}

func TestNewWordPiece_Bad(t *testing.T) {
	for name, v := range map[string]string{
		"empty": "", "no unknown": "a\nb", "double": "[UNK]\na\na", "blank line": "[UNK]\n\na",
		"long": "[UNK]\n" + strings.Repeat("x", 1000), "not UTF-8": "[UNK]\n\xff",
	} {
		if _, err := NewWordPiece([]byte(v)); !errors.Is(err, ErrVocab) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzWordPiece(f *testing.F) {
	f.Add(testVocab, "a photo of a mug, café 水")
	f.Add("[UNK]", "\xff\u0301")
	f.Fuzz(func(t *testing.T, vocab, text string) {
		w, err := NewWordPiece([]byte(vocab))
		if err != nil {
			return
		}
		got := w.Encode(nil, text, 16)
		if len(got) > 16 {
			t.Fatalf("%d tokens", len(got))
		}
		for _, id := range got {
			if id < 0 || int(id) >= w.Len() {
				t.Fatalf("token %d of %d", id, w.Len())
			}
		}
	})
}

func TestLabels(t *testing.T) {
	if got := NormalizeLabel("  Coffee_Mug \t big "); got != "coffee mug big" {
		t.Errorf("%q", got)
	}
	if got := Expand("a photo of a {}.", "mug"); got != "a photo of a mug." {
		t.Errorf("%q", got)
	}
}
