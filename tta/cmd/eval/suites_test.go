package main

import (
	"bytes"
	"context"
	"encoding/json"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lqa/quant/cmd/progress"
	"lqa/tta/cmd/eval/dataset"
)

// suite runs a suite's body on root and returns its lines.
func suite[T any](t *testing.T, r *run, root string, body func(context.Context, *model, []dataset.Split) error, m *model) []T {
	t.Helper()
	var out bytes.Buffer
	r.data, r.keep, r.stdout, r.progress = root, t.TempDir(), &out, progress.New(&bytes.Buffer{}, false)
	splits, err := r.find()
	if err != nil {
		t.Fatal(err)
	}
	if err := body(context.Background(), m, splits); err != nil {
		t.Fatal(err)
	}
	var lines []T
	for text := range strings.Lines(out.String()) {
		var l T
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&l); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		lines = append(lines, l)
	}
	return lines
}

// bigTree is tree with a set that has kept-out classes, a background, captions
// and people.
func bigTree(t *testing.T) string {
	t.Helper()
	root := tree(t)
	red, green, blue := shot(t, color.RGBA{R: 255, A: 255}), shot(t, color.RGBA{G: 255, A: 255}), shot(t, color.RGBA{B: 255, A: 255})
	writeSet(t, root, "caltech101", "test", "ant\ntick\nemu\n",
		[2]string{"tick/1.png", red}, [2]string{"tick/2.png", green}, [2]string{"emu/1.png", green}, [2]string{"ant/1.png", blue})
	writeSet(t, root, "caltech101", "background", "", [2]string{"background/1.png", blue})
	captions := "images/1.png\tred\nimages/1.png\tcrimson\nimages/2.png\tgreen\n" + strings.Repeat("images/3.png\tblue\n", 10)
	writeSet(t, root, "flickr8k", "test", "", [2]string{"images/1.png", red}, [2]string{"images/2.png", blue}, [2]string{"images/3.png", green},
		[2]string{dataset.CaptionsFile, captions})
	writeSet(t, root, "streams/hands", "hands", "fist\nno hand\n",
		[2]string{"clips.tsv", "a\tfist\ti\ts\t25\t1\nb\tno hand\ti\ts\t25\t1\n"},
		[2]string{"a/00001.png", red}, [2]string{"b/00001.png", blue})
	return root
}

// TestSummary: means over sets, and the set that loses most by tower.
func TestSummary(t *testing.T) {
	r := &run{prompts: dataset.Prompts{"blue": "the sea"}}
	m, _ := fakeModel(1)
	lines := suite[map[string]any](t, r, tree(t), r.zeroShot, m)
	lines = lines[len(lines)-3:]
	for i, want := range []summary{
		{"zero-shot", "mean", "pictures", 1, 60, 25, 20, 50, 40, 40, "colours/test", "fake"},
		{"zero-shot", "mean", "streams", 1, 100, 0, 100, 0, 0, 0, "water/clips", "fake"},
		{"zero-shot", "mean", "all", 2, 80, 12.5, 60, 25, 20, 40, "colours/test", "fake"},
	} {
		b, _ := json.Marshal(lines[i])
		var got summary
		if err := json.Unmarshal(b, &got); err != nil || got != want {
			t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
		}
	}
}

// TestKeptOutParts: of a set with kept-out classes these and the others are
// said apart.
func TestKeptOutParts(t *testing.T) {
	r := &run{sets: []string{"caltech101"}}
	m, _ := fakeModel(1)
	var got []string
	for _, l := range suite[map[string]any](t, r, bigTree(t), r.zeroShot, m)[:3] {
		of, _ := l["of"].(string) // absent for all pictures
		got = append(got, of)
		if want := map[string]float64{"": 75, "kept-out": 66.67, "trained": 100}[of]; l["top1"] != want {
			t.Errorf("%q: %v, want %v", of, l["top1"], want)
		}
	}
	if !slices.Equal(got, []string{"", "kept-out", "trained"}) {
		t.Errorf("parts %q", got)
	}
}

// TestOpen: the tower takes ticks for emus and the other way round, so only the
// green tick is right.
func TestOpen(t *testing.T) {
	r := new(run)
	m, _ := fakeModel(1)
	got := suite[opened](t, r, bigTree(t), r.open, m)
	want := []opened{
		{Suite: "open", Set: "caltech101", Split: "test", Of: "kept-out", Labels: 2, Draws: 1, N: 3, Top1: 33.33, ECE: 66.67, Text: "tower", Model: "fake"},
		{Suite: "open", Set: "caltech101", Split: "test", Of: "kept-out", Labels: 3, N: 3, Top1: 33.33, ECE: 66.67, Text: "mixed", Model: "fake"},
		{Suite: "open", Set: "caltech101", Split: "test", Of: "trained", Labels: 3, N: 1, Top1: 100, Text: "mixed", Model: "fake"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestKeptOut compares the lists with those of the training scripts, the
// sets' classes and the classifier's.
func TestKeptOut(t *testing.T) {
	if len(keptOut["caltech101"]) != 20 || len(keptOut["tiny_imagenet"]) != 10 {
		t.Error("not 20 and 10 classes")
	}
	python, err := os.ReadFile(filepath.FromSlash("../../../assets/train/text_space.py"))
	if err != nil {
		t.Fatal(err)
	}
	for _, folders := range keptOut {
		for _, f := range folders {
			if !strings.Contains(string(python), f) {
				t.Errorf("text_space.py keeps no %q out", f)
			}
		}
	}
	for i, c := range muted {
		if c.class < 0 || c.class >= 1000 || i > 0 && c.class <= muted[i-1].class {
			t.Errorf("class %d", c.class)
		}
		if folder := strings.ReplaceAll(strings.ToLower(c.contains), " ", "_"); !slices.Contains(keptOut["caltech101"], folder) && !slices.Contains(keptOut["tiny_imagenet"], folder) {
			t.Errorf("%s: %q is not kept out", c.name, c.contains)
		}
	}
	root := os.Getenv("LQA_MODELS")
	if root == "" {
		root = filepath.FromSlash("../../../../shared/models")
	}
	b, err := os.ReadFile(filepath.Join(root, "teacher", "imagenet_classes.txt"))
	if err != nil {
		t.Skip("the classifier's names are not there: set LQA_MODELS")
	}
	lines := strings.Split(string(b), "\n")
	for _, c := range muted {
		if _, name, _ := strings.Cut(lines[c.class], "\t"); name != c.name {
			t.Errorf("class %d is %q, not %q", c.class, name, c.name)
		}
	}
}

// TestRetrieval: the red picture's caption is first; the green one's has one
// above it; the blue one's has ten.
func TestRetrieval(t *testing.T) {
	r := new(run)
	m, _ := fakeModel(1)
	got := suite[retrieved](t, r, bigTree(t), func(ctx context.Context, m *model, _ []dataset.Split) error { return r.retrieval(ctx, m) }, m)
	want := retrieved{Suite: "retrieval", Set: "flickr8k", Split: "test", N: 3, Captions: 13, Recall10: 66.67, Recall1: 33.33, Text: "tower", Model: "fake"}
	if len(got) != 1 || got[0] != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// deskFolder has three words; red pictures are crimson, blue frames are apart.
func deskFolder(t *testing.T, words, classes string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"desk_words.txt": words, "desk_classes.tsv": classes} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const deskClasses = "colours/test\tred\tcrimson\nwater/clips\tblue\tblue|green\tapart\n"

func TestDesk(t *testing.T) {
	r := &run{prompts: dataset.Prompts{"blue": "the sea"}, desk: deskFolder(t, "crimson\ngreen\nblue\n", deskClasses)}
	d, err := r.readDesk()
	if err != nil {
		t.Fatal(err)
	}
	m, _ := fakeModel(1)
	got := suite[deskLine](t, r, bigTree(t), func(ctx context.Context, m *model, s []dataset.Split) error { return r.deskWords(ctx, m, d, s) }, m)
	type key struct {
		set, word, text, instead string
		n                        int
		top1                     float64
		apart                    bool
	}
	var keys []key
	for _, l := range got {
		keys = append(keys, key{l.Set, l.Word, l.Text, l.Instead, l.N, l.Top1, l.Apart})
	}
	want := []key{
		{"colours", "", "table", "", 3, 66.67, false}, {"water", "", "table", "", 2, 100, true},
		{"all", "crimson", "table", "green", 3, 66.67, false}, {"all", "", "table", "", 3, 66.67, false},
		{"colours", "", "tower", "", 3, 0, false}, {"water", "", "tower", "", 2, 100, true},
		{"all", "crimson", "tower", "green", 3, 0, false}, {"all", "", "tower", "", 3, 0, false},
	}
	if !slices.Equal(keys, want) {
		t.Errorf("got  %+v\nwant %+v", keys, want)
	}
	for _, bad := range [][2]string{{"crimson\n", deskClasses}, {"crimson\n", "x\n"}} {
		if _, err := (&run{desk: deskFolder(t, bad[0], bad[1])}).readDesk(); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	if _, err := (&run{desk: t.TempDir()}).readDesk(); err == nil {
		t.Error("an empty folder: no error")
	}
}

// TestDeskFiles reads those of the training scripts.
func TestDeskFiles(t *testing.T) {
	d, err := (&run{desk: filepath.FromSlash("../../../assets/train")}).readDesk()
	if err != nil || len(d.words) < 60 || len(d.shows) < 100 {
		t.Errorf("%d words, %d classes, %v", len(d.words), len(d.shows), err)
	}
}

// TestUnknown: of four readable pictures a set, one has another colour than its
// name says, and is given that name when its own is not offered.
func TestUnknown(t *testing.T) {
	r := &run{prompts: dataset.Prompts{"blue": "the sea"}, desk: deskFolder(t, "crimson\ngreen\nhat\n", "")}
	d, err := r.readDesk()
	if err != nil {
		t.Fatal(err)
	}
	m, _ := fakeModel(1)
	none := float32(0.5)
	m.None = &none
	got := suite[unknownLine](t, r, bigTree(t), func(ctx context.Context, m *model, s []dataset.Split) error { return r.unknown(ctx, m, d, s) }, m)
	type key struct {
		set, kind           string
		n                   int
		top1, kept, refused float64
	}
	want := []key{
		{"caltech101", "known", 4, 75, 100, 0}, {"caltech101", "left out", 4, 75, 25, 75},
		{"colours", "known", 4, 75, 100, 0}, {"colours", "left out", 4, 75, 25, 75},
		{"hands", "people", 1, 0, 100, 0},
		{"caltech101", "background", 10, 100, 0, 100}, // blue, which none of the words is
		{"mean", "known", 8, 75, 100, 0}, {"mean", "left out", 8, 75, 25, 75}, {"mean", "background", 10, 100, 0, 100}, {"mean", "people", 1, 0, 100, 0},
		{"mean", "unknown", 19, 58.33, 41.67, 58.33},
	}
	var keys []key
	for _, l := range got {
		keys = append(keys, key{l.Set, l.Kind, l.N, l.Top1, l.Kept, l.Refused90})
		if l.At90 != 1 || l.Threshold == nil || *l.Threshold != none {
			t.Errorf("%+v: thresholds", l)
		}
	}
	if !slices.Equal(keys, want) {
		t.Errorf("got  %+v\nwant %+v", keys, want)
	}
}

// TestCamera: darkness leaves colours their direction; one engine or two give
// the same noise.
func TestCamera(t *testing.T) {
	root := tree(t)
	r := new(run)
	m, _ := fakeModel(1)
	got := suite[cameraLine](t, r, root, r.camera, m)
	if len(got) != 5+6 || got[0].Effect != "clean" || got[0].Top1 != 60 || got[0].N != 5 {
		t.Fatalf("got %+v", got)
	}
	if dark := got[1]; dark.Effect != "dark" || dark.Severity != 3 || dark.Loss != 0 {
		t.Errorf("dark: %+v", dark)
	}
	sum := 0.0
	for i, l := range got[5:10] {
		if l.Set != "mean" || l.Effect != got[i].Effect || l.Loss != got[i].Loss {
			t.Errorf("mean of one split: %+v", l)
		}
		sum += l.Loss
	}
	if l := got[10]; l.Effect != "mean" || math.Abs(l.Loss-sum/4) > 0.01 {
		t.Errorf("mean over effects: %+v, want %v", l, sum/4)
	}
	two, _ := fakeModel(2)
	q := new(run)
	if again := suite[cameraLine](t, q, root, q.camera, two); !slices.Equal(again, got) {
		t.Errorf("on two engines %+v", again)
	}
}
