package clip

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
)

const clipVocab = 49408

// clipMerges is OpenAI's merges as a model file keeps them.
var clipMerges = sync.OnceValues(func() ([]byte, error) {
	file, err := os.Open("testdata/merges.txt.gz")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	zr, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(zr)
	if err != nil {
		return nil, err
	}
	return PackMerges(strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"))
})

func clipBPE(t testing.TB) *BPE {
	t.Helper()
	merges, err := clipMerges()
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewBPE(merges, clipVocab)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// clipGolden is what assets/train/goldens_clip_tokens.py wrote.
type clipGolden struct {
	Texts []struct {
		Text string
		IDs  []int32
	}
	NFC                      string `json:"nfc_sha256"`
	Lower                    map[string]string
	Letters, Numbers, Blanks []rune // first and last of each run
}

func readGolden(t testing.TB) *clipGolden {
	t.Helper()
	file, err := os.ReadFile("testdata/clip_tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	g := new(clipGolden)
	if err := json.Unmarshal(file, g); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestBPE_Golden(t *testing.T) {
	b := clipBPE(t)
	if b.Len() != clipVocab || b.SOT() != 49406 || b.EOT() != 49407 {
		t.Errorf("%d ids, SOT %d, EOT %d", b.Len(), b.SOT(), b.EOT())
	}
	for _, c := range readGolden(t).Texts {
		if got := b.Encode(nil, c.Text, 77); !slices.Equal(got, c.IDs) {
			t.Errorf("%.200q:\n%v, want\n%v", c.Text, got, c.IDs)
		}
	}
}

// TestBPE_Given compares with a table of three tokenizers that others made.
func TestBPE_Given(t *testing.T) {
	// Each library knows names of special tokens; here they are text.
	escaped := map[string]string{
		"<|endoftext|> cat <end_of_text>": "49406 27 347 40786 4160 91 285 2368 283 806 318 539 318 4160 285 49407",
	}
	b := clipBPE(t)
	file, err := os.ReadFile("testdata/clip_given.tsv")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(file), "\n"), "\n")
	if len(lines) != 20 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, line := range lines[2:] {
		row := strings.Split(line, "\t")
		var text string
		if err := json.Unmarshal([]byte(row[0]), &text); err != nil {
			t.Fatal(err)
		}
		want := row[3]
		if want == "same" {
			want = row[1]
		}
		if e, ok := escaped[text]; ok {
			want = e
		}
		var got []string
		for _, id := range b.Encode(nil, text, 77) {
			got = append(got, strconv.Itoa(int(id)))
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s:\n%s, want\n%s", row[0], got, want)
		}
	}
}

// TestBPE_Unicode compares every code point with huggingface/tokenizers.
func TestBPE_Unicode(t *testing.T) {
	g := readGolden(t)
	in := func(runs []rune, r rune) bool {
		for i := 0; i < len(runs); i += 2 {
			if runs[i] <= r && r <= runs[i+1] {
				return true
			}
		}
		return false
	}
	points := func(yield func(rune) bool) {
		for r := rune(0); r <= unicode.MaxRune; r++ {
			if (r < 0xd800 || r > 0xdfff) && !yield(r) {
				return
			}
		}
	}
	newer := 0
	for r := range points {
		if blank := in(g.Blanks, r); blank != unicode.IsSpace(r) {
			t.Errorf("%U: blank is %t", r, blank)
		} else if blank {
			continue
		}
		if unicode.Is(unicode.Cn, r) {
			newer++ // or in no version
			continue
		}
		kind := 2
		if in(g.Letters, r) {
			kind = 1
		} else if in(g.Numbers, r) {
			kind = 0
		}
		if got := bpeKind(r); got != kind {
			t.Errorf("%U: kind %d, want %d", r, got, kind)
		}
		lower, ok := g.Lower[string(r)]
		if !ok {
			lower = string(r)
		}
		if got := clipText(string(r)); markClass(r) == 0 && string(compose([]rune{r})) == string(r) && string(got) != lower {
			t.Errorf("%U: lower case %q, want %q", r, string(got), lower)
		}
	}
	if newer > 830_000 {
		t.Errorf("%d code points were not compared", newer)
	}

	hash, nul := sha256.New(), ""
	for _, decomposed := range []bool{false, true} {
		for r := range points {
			if r == 0x11938 {
				continue
			}
			text := []rune{r}
			if decomposed {
				text = decompose(nil, r)
			}
			io.WriteString(hash, nul+string(compose(text)))
			nul = "\x00"
		}
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != g.NFC {
		t.Errorf("NFC: %s, want %s", got, g.NFC)
	}
}

func TestBPE_Context(t *testing.T) {
	b := clipBPE(t)
	const sot, eot, dog = 49406, 49407, 1929
	for context, want := range [][]int32{nil, {eot}, {sot, eot}, {sot, dog, eot}, {sot, dog, dog, eot}, {sot, dog, dog, dog, eot}, {sot, dog, dog, dog, eot}} {
		if got := b.Encode([]int32{7}, "dog dog dog", context); !slices.Equal(got, append([]int32{7}, want...)) {
			t.Errorf("context %d: %v", context, got)
		}
	}
	if got := b.Encode(nil, "x", -1); got != nil {
		t.Errorf("context -1: %v", got)
	}
	if a, c := b.Encode(nil, "a\xffb", 9), b.Encode(nil, "a\ufffdb", 9); !slices.Equal(a, c) {
		t.Errorf("not UTF-8: %v, want %v", a, c)
	}
}

// TestBPE_Long: the worst word costs no more than a moment, and what lies
// after maxText bytes changes nothing.
func TestBPE_Long(t *testing.T) {
	b := clipBPE(t)
	worst := make([]byte, maxText)
	for i := range worst { // no two letters the same way for long
		worst[i] = 'a' + byte(i*i/7+i/26)%26
	}
	marks := strings.Repeat("\u0323\u0301", maxText/4)
	if n := len(clipText(strings.Repeat("a ", maxText))); n != maxText {
		t.Errorf("%d bytes are read", n)
	}
	for _, text := range []string{string(worst), "o" + marks, strings.Repeat("a", maxText), strings.Repeat("İ", maxText/2)} {
		start := time.Now()
		ids := b.Encode(nil, text, 77)
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("%.20q: %v", text, d)
		}
		if got := b.Encode(nil, text+" and more", 77); !slices.Equal(got, ids) {
			t.Errorf("%.20q: the end changes the beginning", text)
		}
	}
	if got := b.Encode(nil, strings.Repeat(" ", 1<<20)+"dog", 77); len(got) != 3 {
		t.Errorf("after a megabyte of blanks: %v", got)
	}
}

func TestBPE_Longest(t *testing.T) {
	// The comment at maxText says how long a token can be.
	merges, err := clipMerges()
	if err != nil {
		t.Fatal(err)
	}
	size, longest := make([]int, clipVocab), 0
	for id := range size {
		if size[id] = 1; id >= bpeBytes && id < clipVocab-bpeSpecial {
			m := merges[4*(id-bpeBytes):]
			size[id] = size[int(m[0])|int(m[1])<<8] + size[int(m[2])|int(m[3])<<8]
		}
		longest = max(longest, size[id])
	}
	if longest != 32 {
		t.Errorf("the longest token has %d bytes", longest)
	}
}

func TestNewBPE_Bad(t *testing.T) {
	for _, c := range []struct {
		name   string
		merges []byte
		vocab  int
	}{
		{"short", make([]byte, 3), 515},
		{"long", make([]byte, 5), 515},
		{"no ids", nil, 0},
		{"negative", nil, -1 << 62},
		{"huge", nil, 1 << 62},
		{"over 16 bits", full(65537), 65537},
		{"itself", []byte{0, 2, 0, 0}, 515},
		{"itself, second", []byte{0, 0, 0, 2}, 515},
		{"twice", []byte{1, 0, 2, 0, 1, 0, 2, 0}, 516},
	} {
		if _, err := NewBPE(c.merges, c.vocab); !errors.Is(err, ErrVocab) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if b, err := NewBPE(nil, 514); err != nil || !slices.Equal(b.Encode(nil, "!A", 9), []int32{512, 256, 256 + 'a' - '!', 513}) {
		t.Errorf("no merges: %v", err)
	}
	last := full(65536)
	copy(last[4*(64+65<<8):], last[len(last)-4:]) // "ab" goes last
	copy(last[len(last)-4:], []byte{64, 0, 65, 0})
	if b, err := NewBPE(last, 65536); err != nil || !slices.Equal(b.Encode(nil, "abc", 9), []int32{65534, 65533, 66 + 256, 65535}) {
		t.Errorf("all of 16 bits: %v", err)
	}
}

// full is a list of merges of two bytes each, for so many ids.
func full(vocab int) []byte {
	var merges []byte
	for i := range vocab - 514 {
		merges = append(merges, byte(i), 0, byte(i>>8), 0)
	}
	return merges
}

func TestPackMerges(t *testing.T) {
	got, err := PackMerges([]string{"#version: 0.2", "i n", "in g</w>", "Ġ Ń"})
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{'i' - '!', 0, 'n' - '!', 0, 0, 2, 'g' - '!', 1, 188 + 32, 0, 255, 0}
	if !bytes.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for name, lines := range map[string][]string{
		"unknown": {"ab c"}, "one": {"a"}, "empty": {""}, "three": {"a b c"}, "twice": {"a b", "a b"}, "the same": {"a b", "b c", "a bc", "ab c"},
		"many": make([]string, 65536-514+1),
	} {
		if _, err := PackMerges(lines); !errors.Is(err, ErrVocab) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzBPE(f *testing.F) {
	f.Add([]byte{'i' - '!', 0, 'n' - '!', 0, 0, 2, 'g' - '!', 1}, 2, "I'm singing 12 cafe\u0301s")
	f.Add([]byte{}, 0, "\xff\u0301İ한")
	f.Add([]byte{0, 2, 0, 0}, 1, "<|endoftext|>")
	f.Fuzz(func(t *testing.T, merges []byte, n int, text string) {
		b, err := NewBPE(merges, n+514)
		if err != nil {
			if !errors.Is(err, ErrVocab) {
				t.Fatal(err)
			}
			return
		}
		got := b.Encode(nil, text, 16)
		if len(got) < 2 || len(got) > 16 || got[0] != b.SOT() || got[len(got)-1] != b.EOT() {
			t.Fatal(got)
		}
		for _, id := range got[1 : len(got)-1] {
			if id < 0 || id >= b.SOT() {
				t.Fatalf("id %d of %d", id, b.Len())
			}
		}
	})
}

func TestCompose(t *testing.T) {
	for _, text := range []string{
		"a\u030d\u0301", // a mark of the same class stands between
		"가\u11a7",       // is before the first tail
		"각\u11a8",       // has its tail
	} {
		if got := string(compose([]rune(text))); got != text {
			t.Errorf("%+q: %+q", text, got)
		}
	}
}

func FuzzCompose(f *testing.F) {
	f.Add("e\u0301\u0323 \u1112\u1161\u11ab \u0f71\u0f73 豈")
	f.Fuzz(func(t *testing.T, text string) {
		once := compose([]rune(text))
		if twice := compose(once); !slices.Equal(once, twice) {
			t.Errorf("%+q then %+q", string(once), string(twice))
		}
	})
}

func BenchmarkNewBPE(b *testing.B) {
	merges, err := clipMerges()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewBPE(merges, clipVocab); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBPE(b *testing.B) {
	t := clipBPE(b)
	var ids []int32
	b.ReportAllocs()
	for b.Loop() {
		ids = t.Encode(ids[:0], "a photo of a stainless-steel coffee mug.", 77)
	}
}
