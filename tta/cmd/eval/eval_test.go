package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"lqa/quant/cmd/progress"
	"lqa/tta/cmd/eval/dataset"
)

// fakeEncoder knows red, green and blue: its embedding is a picture's first
// pixel, its labels are the axes. "crimson" stands ready, "red" does not.
type fakeEncoder struct {
	rgb     [3]float32
	shift   float32 // another build's kernels
	broken  error
	encoded *atomic.Int32
}

func (f *fakeEncoder) SetFrame(rgba []byte, w, h int) error {
	f.rgb = [3]float32{float32(rgba[0]), float32(rgba[1]), float32(rgba[2])}
	return f.broken
}

func (f *fakeEncoder) ViewSize() int { return 8 }

// View is the first pixel all over.
func (f *fakeEncoder) View(dst []byte) error {
	for i := range dst {
		dst[i] = 255
		if i%4 < 3 {
			dst[i] = byte(f.rgb[i%4])
		}
	}
	return nil
}

func (f *fakeEncoder) Closer(w, h int) error { return nil }

func (f *fakeEncoder) SetView(rgba []byte) error { return f.SetFrame(rgba, 8, 8) }

func (f *fakeEncoder) Encode(dst []float32) error {
	f.encoded.Add(1)
	clear(dst)
	var n float64
	for i, v := range f.rgb {
		dst[i] = v + f.shift
		n += float64(dst[i]) * float64(dst[i])
	}
	for i := range dst {
		dst[i] /= float32(math.Sqrt(n))
	}
	return nil
}

func (f *fakeEncoder) EmbedText(labels []string) ([][]float32, error) {
	axis := map[string]int{"crimson": 0, "red": 0, "tick": 0, "green": 1, "emu": 1, "blue": 2, "the sea": 2, "ant": 2}
	out := make([][]float32, len(labels))
	for i, l := range labels {
		out[i] = make([]float32, 4)
		a, ok := axis[l]
		if !ok {
			a = 3
		}
		out[i][a] = 1
	}
	return out, nil
}

// EmbedPrompts is the text tower: it takes crimson for the opposite of red, and
// emus for ticks.
func (f *fakeEncoder) EmbedPrompts(labels, templates []string) ([][]float32, error) {
	out, err := f.EmbedText(labels)
	for i, l := range labels {
		switch l {
		case "crimson":
			out[i] = []float32{-1, 0, 0, 0}
		case "tick":
			out[i] = []float32{0, 1, 0, 0}
		case "emu":
			out[i] = []float32{1, 0, 0, 0}
		}
	}
	return out, err
}

func (f *fakeEncoder) Known(labels []string) []bool {
	known := make([]bool, len(labels))
	for i, l := range labels {
		known[i] = l == "crimson" || l == "green"
	}
	return known
}

func (f *fakeEncoder) Close() error { return nil }

func fakeModel(encoders int) (*model, *atomic.Int32) {
	n := new(atomic.Int32)
	m := &model{Name: "fake", Hash: "00", Width: 4, Scale: 20, Temperature: 1}
	for range encoders {
		m.engines = append(m.engines, &fakeEncoder{encoded: n})
	}
	return m, n
}

func shot(t *testing.T, c color.Color) string {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 8, 8))
	draw.Draw(m, m.Rect, image.NewUniform(c), image.Point{}, draw.Src)
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// tree writes two sets: colours (one picture wrong, one broken) and a stream.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	red, green, blue := shot(t, color.RGBA{R: 255, A: 255}), shot(t, color.RGBA{G: 255, A: 255}), shot(t, color.RGBA{B: 255, A: 255})
	writeSet(t, root, "colours", "test", "red\tcrimson\ngreen\nblue\n",
		[2]string{"red/1.png", red}, [2]string{"red/2.png", green}, [2]string{"red/3.png", red},
		[2]string{"green/1.png", green}, [2]string{"green/2.png", "no picture"})
	writeSet(t, root, "streams/water", "water", "green\nblue\n",
		[2]string{"clips.tsv", "a\tblue\ti\ts\t25\t2\nb\tgreen\ti\ts\t25\t1\n"},
		[2]string{"a/00001.png", blue}, [2]string{"a/00002.png", blue}, [2]string{"b/00001.png", green})
	return root
}

// writeSet writes a set's tar and, where there are some, its classes.
func writeSet(t *testing.T, root, set, split, classes string, members ...[2]string) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if err := w.WriteHeader(&tar.Header{Name: m[0], Size: int64(len(m[1])), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, m[1])
	}
	w.Close()
	dir := filepath.Join(root, filepath.FromSlash(set))
	os.MkdirAll(dir, 0o755)
	if err := os.WriteFile(filepath.Join(dir, split+".tar"), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if classes == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, "classes.txt"), []byte(classes), 0o644); err != nil {
		t.Fatal(err)
	}
}

func runOn(t *testing.T, root, keep string, m *model, change func(*run)) ([]result, string) {
	t.Helper()
	var out, log bytes.Buffer
	r := &run{data: root, keep: keep, jobs: len(m.engines), stdout: &out, progress: progress.New(&log, false),
		prompts: dataset.Prompts{"blue": "the sea"}}
	if change != nil {
		change(r)
	}
	splits, err := r.find()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.zeroShot(context.Background(), m, splits), r.finish()); err != nil {
		t.Fatal(err)
	}
	var results []result
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, `"set":"mean"`) {
			continue
		}
		var res result
		if err := json.Unmarshal([]byte(line), &res); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		res.MS = 0
		results = append(results, res)
	}
	return results, log.String()
}

func TestZeroShot(t *testing.T) {
	root, keep := tree(t), t.TempDir()
	want := []result{
		{Suite: "zero-shot", Set: "colours", Split: "test", N: 5, Top1: 60, ECE: 25, Text: "table", Prompts: true, Classes: 3, Known: 2, Reworded: 1, Unreadable: 1, Model: "fake"},
		// By tower red/1 and red/3 are green or blue, half sure.
		{Suite: "zero-shot", Set: "colours", Split: "test", N: 5, Top1: 20, ECE: 50, Text: "tower", Prompts: true, Classes: 3, Known: 2, Reworded: 1, Unreadable: 1, Model: "fake"},
		{Suite: "zero-shot", Set: "water", Split: "clips", N: 3, Top1: 100, LQATop1: 100, Text: "table", Prompts: true, Classes: 2, Known: 1, Reworded: 1, Model: "fake"},
		{Suite: "zero-shot", Set: "water", Split: "clips", N: 3, Top1: 100, LQATop1: 100, Text: "tower", Prompts: true, Classes: 2, Known: 1, Reworded: 1, Model: "fake"},
		{Suite: "zero-shot", Set: "water", Split: "clips", N: 3, Top1: 100, LQATop1: 100, Text: "table", Classes: 2, Known: 1, Model: "fake"},
	}
	m, encoded := fakeModel(2)
	got, log := runOn(t, root, keep, m, func(r *run) { r.markdown = filepath.Join(keep, "deep", "table.md") })
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if !strings.Contains(log, "green/2.png") {
		t.Errorf("the unreadable picture is not named:\n%s", log)
	}
	if b, err := os.ReadFile(filepath.Join(keep, "deep", "table.md")); err != nil || !strings.Contains(string(b), "| colours | test |  | 5 | 60 | 25 |  | table | true | 3 | 2 | 1 | 1 | ") {
		t.Errorf("table: %s, %v", b, err)
	}
	if n := encoded.Load(); n != 7 {
		t.Errorf("%d pictures encoded, want 7", n)
	}

	t.Run("kept", func(t *testing.T) {
		m, encoded := fakeModel(1)
		if got, _ := runOn(t, root, keep, m, nil); !slices.Equal(got, want) {
			t.Errorf("got %+v", got)
		}
		if n := encoded.Load(); n != 2 {
			t.Errorf("%d pictures encoded, want the first of each split", n)
		}
	})
	t.Run("other kernels", func(t *testing.T) {
		m, encoded := fakeModel(1)
		m.engines[0].(*fakeEncoder).shift = 1
		if got, _ := runOn(t, root, keep, m, nil); got[0].Top1 != 60 {
			t.Errorf("got %+v", got)
		}
		if n := encoded.Load(); n != 2+7 {
			t.Errorf("%d pictures encoded, want all again", n)
		}
	})
	t.Run("limit and sets", func(t *testing.T) {
		m, _ := fakeModel(1)
		got, _ := runOn(t, root, keep, m, func(r *run) { r.limit, r.sets = 2, []string{"colours"} })
		if len(got) != 2 || got[0].N != 2 || got[0].Top1 != 100 { // red/1 and green/1: every third
			t.Errorf("got %+v", got)
		}
	})
	t.Run("no prompts", func(t *testing.T) {
		m, _ := fakeModel(1)
		got, _ := runOn(t, root, keep, m, func(r *run) { r.prompts = nil })
		if len(got) != 4 || got[2].Reworded != 0 || got[2].Top1 != 100 || got[2].Prompts {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("engine fails", func(t *testing.T) {
		broken := errors.New("broken")
		m, _ := fakeModel(2)
		m.Hash = "01"
		for _, e := range m.engines {
			e.(*fakeEncoder).broken = broken
		}
		r := &run{data: root, keep: keep, stdout: io.Discard, progress: progress.New(io.Discard, false)}
		splits, err := r.find()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.zeroShot(context.Background(), m, splits); !errors.Is(err, broken) {
			t.Errorf("%v, want the engine's error", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		m, _ := fakeModel(1)
		m.Hash = "02"
		r := &run{data: root, keep: keep, stdout: io.Discard, progress: progress.New(io.Discard, false)}
		splits, _ := r.find()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.zeroShot(ctx, m, splits); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want context.Canceled", err)
		}
	})
}

func TestFind_Errors(t *testing.T) {
	root := tree(t)
	for _, r := range []*run{
		{data: filepath.Join(root, "nowhere")},
		{data: t.TempDir()},
		{data: root, sets: []string{"water", "mars"}},
	} {
		r.progress = progress.New(io.Discard, false)
		if _, err := r.find(); err == nil {
			t.Errorf("%+v: no error", r)
		}
	}
}

func TestFeatures(t *testing.T) {
	f := &features{Class: []uint16{2, 0, 1}, Embeddings: [][]float32{{1, 0}, nil, {0.6, -0.8}}}
	b := f.append(nil, 2)
	g, err := decodeFeatures(b, 2, 3)
	if err != nil || !slices.Equal(g.Class, f.Class) || g.Embeddings[1] != nil || !slices.Equal(g.Embeddings[2], f.Embeddings[2]) {
		t.Fatalf("%+v, %v", g, err)
	}
	if _, err := decodeFeatures(b, 3, 3); err == nil {
		t.Error("another width is accepted")
	}
	if _, err := decodeFeatures(b, 2, 2); err == nil {
		t.Error("a class too high is accepted")
	}
	for i := range b {
		if _, err := decodeFeatures(b[:i], 2, 3); err == nil {
			t.Errorf("first %d bytes are accepted", i)
		}
		bad := bytes.Clone(b)
		bad[i] ^= 4
		if _, err := decodeFeatures(bad, 2, 3); err == nil {
			t.Errorf("flipped byte %d is accepted", i)
		}
	}
}

func TestStep(t *testing.T) {
	for _, c := range []struct{ n, limit, want int }{{10, 0, 1}, {10, 10, 1}, {10, 9, 2}, {10, 3, 4}, {1, 5, 1}, {0, 5, 1}} {
		if got := step(c.n, c.limit); got != c.want {
			t.Errorf("step(%d, %d) = %d, want %d", c.n, c.limit, got, c.want)
		}
	}
}

func TestNewestModel(t *testing.T) {
	dir := t.TempDir()
	if _, err := newestModel(dir); err == nil {
		t.Error("no error for an empty folder")
	}
	for _, n := range []string{"a.shq", "b.shq", "c.txt"} {
		os.WriteFile(filepath.Join(dir, n), nil, 0o644)
	}
	info, _ := os.Stat(filepath.Join(dir, "b.shq"))
	os.Chtimes(filepath.Join(dir, "a.shq"), info.ModTime(), info.ModTime())
	if got, err := newestModel(dir); err != nil || filepath.Base(got) != "b.shq" {
		t.Errorf("of equal age: %s, %v", got, err)
	}
	os.Chtimes(filepath.Join(dir, "a.shq"), info.ModTime().Add(1e9), info.ModTime().Add(1e9))
	if got, err := newestModel(dir); err != nil || filepath.Base(got) != "a.shq" {
		t.Errorf("newest: %s, %v", got, err)
	}
}

func TestCommand(t *testing.T) {
	for _, args := range [][]string{
		{"eval"},
		{"eval", "--suite", "nothing"},
		{"eval", "--suite", "zero-shot", "--limit", "-1"},
		{"eval", "--suite", "zero-shot", "--jobs", "0"},
		{"eval", "--suite", "zero-shot", "--prompts", filepath.Join(t.TempDir(), "none.tsv")},
		{"eval", "--suite", "zero-shot", "--data", t.TempDir()},
		{"eval", "--suite", "zero-shot", "--nonsense"},
	} {
		if err := command(io.Discard, io.Discard).Run(context.Background(), args); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
	var help bytes.Buffer
	if err := command(&help, &help).Run(context.Background(), []string{"eval", "--help"}); err != nil || !strings.Contains(help.String(), "Examples:") {
		t.Errorf("help: %v\n%s", err, help.String())
	}
}
