package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lqa/quant/cmd/progress"
	"lqa/tta"
	"lqa/tta/cmd/eval/dataset"
	"lqa/tta/shift/order"
)

// people are two persons with three signs, one of them in two places.
var people = []dataset.Clip{
	{Name: "a", Class: 0, Instance: "p1", Condition: "desk", Start: 0, Frames: 8},
	{Name: "b", Class: 1, Instance: "p1", Condition: "desk", Start: 8, Frames: 8},
	{Name: "c", Class: 0, Instance: "p1", Condition: "door", Start: 16, Frames: 8},
	{Name: "d", Class: 1, Instance: "p2", Condition: "wall", Start: 24, Frames: 10},
	{Name: "e", Class: 2, Instance: "p2", Condition: "wall", Start: 34, Frames: 4},
}

// TestLessons works out who teaches what and who is asked.
func TestLessons(t *testing.T) {
	show := func(lessons []lesson) string {
		var b strings.Builder
		for _, l := range lessons {
			for _, s := range l.shown {
				fmt.Fprintf(&b, "%s%d-%d ", people[s.clip].Name, s.first, s.end)
			}
			b.WriteString("> ")
			for _, s := range l.asked {
				fmt.Fprintf(&b, "%s%d-%d ", people[s.clip].Name, s.first, s.end)
			}
			b.WriteString("; ")
		}
		return b.String()
	}
	for _, c := range []struct {
		name string
		got  []lesson
		want string
	}{
		{"same clips", sameClips(people), "a0-8 b8-16 > a0-8 b8-16 ; c16-24 > c16-24 ; d24-34 e34-38 > d24-34 e34-38 ; "},
		{"later", laterInClip(people), "a0-2 b8-10 > a4-8 b12-16 ; c16-18 > c20-24 ; d24-26 e34-35 > d29-34 e36-38 ; "},
		{"other place", otherPlace(people), "a0-8 b8-16 > c16-24 ; c16-24 > a0-8 ; "},
		{"other persons", otherInstances(people), "a0-8 b8-16 > d24-34 ; d24-34 e34-38 > b8-16 ; "},
		{"other clips", otherClips(people), "a0-8 b8-16 e34-38 > c16-24 d24-34 ; c16-24 d24-34 e34-38 > a0-8 b8-16 ; "},
		{"alone, the others", alone(sameClips(people)[:1], people, theOthers), "a0-8 b8-8 > b8-16 ; b8-16 a0-0 > a0-8 ; "},
		{"alone, itself", alone(sameClips(people)[:1], people, itself), "a0-8 b8-8 > a0-8 ; b8-16 a0-0 > b8-16 ; "},
	} {
		if got := show(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestTeach: of hands' three clips the third shows green and is called red; five
// frames of it teach that.
func TestTeach(t *testing.T) {
	root := shiftTree(t)
	var out bytes.Buffer
	m, _ := fakeModel(1)
	r := &run{data: root, keep: t.TempDir(), jobs: 1, stdout: &out, progress: progress.New(io.Discard, false)}
	splits, err := r.find()
	if err != nil {
		t.Fatal(err)
	}
	lines, err := r.teach(context.Background(), m, splits)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	for _, l := range lines {
		tests[l.Set+": "+l.Test+" "+l.Adapter] = true
		if l.Top1 < 0 || l.Top1 > 100 || l.N == 0 || (l.Flicker != nil) != (l.Adapter != "zeroshot") {
			t.Errorf("%+v", l)
		}
		// Of p1's clips half, of p6's the whole, whose one label is always right.
		if l.Test == "same person, later in the clip" && (l.ZeroShotTop1 != 100 || l.Top1 != 100 || l.N != 20+20+20) {
			t.Errorf("%+v", l)
		}
	}
	for _, want := range []string{"hands: same clips, other frames zeroshot", "hands: other persons stream", "hands: other persons sticky", "hands: later in the clip, one label alone: itself zeroshot"} {
		if !tests[want] {
			t.Errorf("no %q among %v", want, tests)
		}
	}
	var first teachLine
	if err := json.Unmarshal(out.Bytes()[:bytes.IndexByte(out.Bytes(), '\n')], &first); err != nil || first.Suite != "teach" || first.Model != "fake" {
		t.Errorf("%+v, %v", first, err)
	}
	if table := teachTable(lines); !strings.Contains(table, "| hands | same person, later in the clip |  | 100.0 | 100.0 (") {
		t.Error(table)
	}
}

// writeNPY writes a file as NumPy does.
func writeNPY(t *testing.T, name, descr string, shape string, data any) string {
	t.Helper()
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr, shape)
	header += strings.Repeat(" ", 63-(10+len(header))%64) + "\n"
	b := append([]byte("\x93NUMPY\x01\x00"), byte(len(header)), byte(len(header)>>8))
	b, err := binary.Append(append(b, header...), binary.LittleEndian, data)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFeatureFiles(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	// Twelve images near three texts; every fourth is called by the next one's name.
	var images []float32
	var labels []int64
	for i := range 12 {
		row := []float32{.2, .2, .2, .2}
		row[i%3] = 3 // norms do not matter
		images, labels = append(images, row...), append(labels, int64((i+i%4/3)%3))
	}
	img := writeNPY(t, at("img.npy"), "<f4", "(12, 4)", images)
	txt := writeNPY(t, at("txt.npy"), "<f4", "(3, 4)", []float32{1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0})
	y := writeNPY(t, at("y.npy"), "<i8", "(12,)", labels)

	var out, log bytes.Buffer
	args := []string{"eval", "--features", img, "--text", txt, "--labels", y, "--scale", "50", "--seeds", "2", "--adapter", "zeroshot,lqa"}
	if err := command(&out, &log).Run(context.Background(), args); err != nil {
		t.Fatal(err)
	}
	streams := map[string]bool{}
	for line := range strings.Lines(out.String()) {
		var l shiftLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		streams[l.Stream] = true
		if l.Suite != "features" || l.Set != "img" || l.Labels != 3 || l.Stream == "given" && (l.Seeds != 1 || l.ZeroShotTop1 != 75 || l.N != 12) {
			t.Errorf("%+v", l)
		}
	}
	for _, want := range []string{"given", "shuffled", "block", "imbalanced", "few"} {
		if !streams[want] {
			t.Errorf("no stream %s: %v", want, streams)
		}
	}
	if !strings.Contains(log.String(), "published protocol") || strings.Contains(log.String(), "aimed at") {
		t.Errorf("tables:\n%s", log.String())
	}

	bad := featureFiles{img, txt, y, 50}
	for name, change := range map[string]func(*featureFiles){
		"missing":      func(f *featureFiles) { f.labels = at("none.npy") },
		"float labels": func(f *featureFiles) { f.labels = txt },
		"too few":      func(f *featureFiles) { f.labels = writeNPY(t, at("few.npy"), "<i8", "(2,)", []int64{0, 1}) },
		"too high": func(f *featureFiles) {
			f.labels = writeNPY(t, at("high.npy"), "<i8", "(12,)", slices.Repeat([]int64{3}, 12))
		},
		"negative": func(f *featureFiles) {
			f.labels = writeNPY(t, at("neg.npy"), "<i8", "(12,)", slices.Repeat([]int64{-1}, 12))
		},
		"narrow": func(f *featureFiles) { f.text = writeNPY(t, at("n.npy"), "<f4", "(1, 2)", []float32{1, 0}) },
		"not finite": func(f *featureFiles) {
			f.text = writeNPY(t, at("nan.npy"), "<f4", "(1, 4)", []float32{float32(math.NaN()), 0, 0, 0})
		},
		"no rows": func(f *featureFiles) { f.images = writeNPY(t, at("e.npy"), "<f4", "(0, 4)", []float32{}) },
		"scale":   func(f *featureFiles) { f.scale = -1 },
	} {
		f := bad
		change(&f)
		if _, _, err := f.world(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestSoak: an adapter whose answers do not change loses nothing; one that
// forgets everything after a while loses all.
func TestSoak(t *testing.T) {
	w := &world{set: "x", space: tta.Space{Scale: 10, Labels: [][]float32{{1, 0}, {0, 1}}}, label: []int{0, 1}}
	l := w.look([][]float32{{1, 0}, {0, 1}})
	next := func(part uint64) []order.Step { return order.Shuffled(2, part) }
	zero := tta.Method{Name: "zeroshot", New: tta.Methods[0].New}
	line, err := w.soak(context.Background(), zero, l, next, 1000, 100)
	if err != nil || line.FirstTop1 != 100 || line.LastTop1 != 100 || !line.Met || line.N != 1000 {
		t.Errorf("%+v, %v", line, err)
	}
	tired := tta.Method{Name: "tired", New: func(s tta.Space) tta.Adapter { return &tiring{Adapter: tta.Methods[0].New(s)} }}
	if line, err = w.soak(context.Background(), tired, l, next, 1000, 100); err != nil || line.Loss != 100 || line.Met {
		t.Errorf("%+v, %v", line, err)
	}
	if table := soakTable([]soakLine{line}); !strings.Contains(table, "| tired | 100.0 | 0.0 | +100.00 |") {
		t.Error(table)
	}
}

// tiring gives the wrong answer after 500 frames.
type tiring struct {
	tta.Adapter
	n int
}

func (a *tiring) Adapt(dst []float32, f tta.Frame) {
	a.Adapter.Adapt(dst, f)
	if a.n++; a.n > 500 {
		dst[0], dst[1] = dst[1], dst[0]
	}
}
