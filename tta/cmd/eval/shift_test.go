package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"image/color"
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
	"lqa/tta/shift"
	"lqa/tta/shift/order"
)

// shiftTree writes cifar10, in which every fifth picture is of another colour
// than its folder says, and two streams.
func shiftTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	paint := map[string]string{
		"red":   shot(t, color.RGBA{R: 200, G: 40, B: 30, A: 255}),
		"green": shot(t, color.RGBA{R: 40, G: 200, B: 50, A: 255}),
		"blue":  shot(t, color.RGBA{R: 30, G: 60, B: 200, A: 255}),
	}
	write := func(set, name, classes string, members [][2]string) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, m := range members {
			w.WriteHeader(&tar.Header{Name: m[0], Size: int64(len(m[1])), Mode: 0o644})
			io.WriteString(w, m[1])
		}
		w.Close()
		dir := filepath.Join(root, filepath.FromSlash(set))
		os.MkdirAll(dir, 0o755)
		os.WriteFile(filepath.Join(dir, "classes.txt"), []byte(classes), 0o644)
		if err := os.WriteFile(filepath.Join(dir, name+".tar"), b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var members [][2]string
	colours := []string{"red", "green", "blue"}
	for i, c := range colours {
		for k := range 20 {
			shown := c
			if k%5 == 4 {
				shown = colours[(i+1)%3]
			}
			members = append(members, [2]string{fmt.Sprintf("%s/%02d.png", c, k), paint[shown]})
		}
	}
	write("cifar10", "test", "red\ngreen\nblue\n", members)
	stream := func(clips string, names ...string) [][2]string {
		members := [][2]string{{"clips.tsv", clips}}
		for i, c := range names {
			for k := range 40 {
				members = append(members, [2]string{fmt.Sprintf("c%d/%05d.png", i, k+1), paint[c]})
			}
		}
		return members
	}
	write("streams/hands", "hands", "red\ngreen\n", stream("c0\tred\tperson h1\troom\t10\t40\nc1\tgreen\tperson h1\troom\t5\t40\nc2\tred\tperson h6\troom\t5\t40\n", "red", "green", "green"))
	write("streams/objects", "objects", "blue\n", stream("c0\tblue\tx\troom\t5\t40\n", "blue"))
	return root
}

func shiftOn(t *testing.T, root, keep string, m *model, change func(*run)) ([]shiftLine, string) {
	t.Helper()
	var out, log bytes.Buffer
	r := &run{data: root, keep: keep, jobs: 2, stdout: &out, stderr: &log, progress: progress.New(&log, false),
		streamOptions: streamOptions{pool: 60, seeds: 2}}
	if change != nil {
		change(r)
	}
	splits, err := r.find()
	if err != nil {
		t.Fatal(err)
	}
	scenes, err := r.scenes(splits)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.shift(context.Background(), m, scenes); err != nil {
		t.Fatal(err)
	}
	var lines []shiftLine
	for line := range strings.Lines(out.String()) {
		var l shiftLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	return lines, log.String()
}

func TestShift(t *testing.T) {
	root, keep := shiftTree(t), t.TempDir()
	few := func(r *run) { r.corruptions, r.adapters = []string{"jpeg"}, []string{"zeroshot", "sticky", "lqa"} }
	m, encoded := fakeModel(2)
	lines, _ := shiftOn(t, root, keep, m, few)

	// cifar10: 3 conditions of 7 cells, 3 more of the corruption; hands whole: 3
	// camera, an absence and, there being 50 frames and more, 3 recover; in halves
	// and objects 3 and an absence, where there are two clips.
	if want := 3 * (3*7 + 3 + 7 + 4 + 3 + 3); len(lines) != want {
		t.Errorf("%d lines, want %d", len(lines), want)
	}
	streams := map[string]bool{}
	for _, l := range lines {
		streams[l.Stream] = true
		if l.Suite != "shift" || l.Model != "fake" || l.Labels == 0 || l.Top1 < 0 || l.Top1 > 100 || l.ChosenOn != (l.Set == "cifar10" || l.Set == "hands_h1_h4") {
			t.Errorf("%+v", l)
		}
		if l.Adapter == "zeroshot" && (l.Gain != 0 || l.Worst != 0 || l.Top1 != l.ZeroShotTop1 || l.ECE != l.ZeroShotECE) {
			t.Errorf("zero-shot gains: %+v", l)
		}
		if l.Set == "cifar10" && l.Stream == "shuffled" && l.Shift == "none" && (l.N != 60 || l.ZeroShotTop1 != 80) {
			t.Errorf("%+v", l)
		}
		if (l.Loss != nil) != (l.Stream == "poisoned" || l.Stream == "absent") || (l.RecoverS != nil) != (l.Stream == "recover") {
			t.Errorf("%+v", l)
		}
		// Person h1's clips are shown as they are called: all frames right, at once.
		if l.Set == "hands_h1_h4" && l.Stream == "camera" && l.Shift == "none" && l.Adapter == "zeroshot" && (l.Top1 != 100 || *l.SwitchS != 0 || *l.Never != 0) {
			t.Errorf("%+v", l)
		}
	}
	for _, name := range []string{"shuffled", "block", "video", "imbalanced", "few", "drift", "sudden", "recurring", "poisoned", "camera", "recover", "absent"} {
		if !streams[name] {
			t.Errorf("no stream %s", name)
		}
	}
	tables := shiftTables(lines)
	for _, want := range []string{"| cifar10\\* | jpeg 5 |", "| hands | camera | light |", "| poison's loss"} {
		if !strings.Contains(tables, want) {
			t.Errorf("no %q in\n%s", want, tables)
		}
	}

	t.Run("journal", func(t *testing.T) {
		before := encoded.Load()
		again, _ := shiftOn(t, root, keep, m, few)
		for i := range again {
			a, b := lines[i], again[i]
			if fmt.Sprint(values(a)) != fmt.Sprint(values(b)) {
				t.Fatalf("line %d: %+v, was %+v", i, b, a)
			}
			if a.MS != b.MS {
				t.Fatal("a finished cell was played again")
			}
		}
		if n := encoded.Load() - before; n > 80 { // the first picture of each pool and condition
			t.Errorf("%d pictures encoded", n)
		}
	})
	t.Run("plots", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "plots")
		shiftOn(t, root, keep, m, func(r *run) { few(r); r.plots, r.kinds, r.sets = dir, []string{"camera"}, []string{"hands"} })
		files, _ := filepath.Glob(filepath.Join(dir, "*.svg"))
		if len(files) != 2*9 {
			t.Fatalf("%d plots: %v", len(files), files)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for d := xml.NewDecoder(bytes.NewReader(b)); ; {
				if _, err := d.Token(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatalf("%s: %v", f, err)
				}
			}
			if bytes.Contains(b, []byte("NaN")) || !bytes.Contains(b, []byte("sticky")) {
				t.Errorf("%s:\n%s", f, b)
			}
		}
	})
	t.Run("same everywhere", func(t *testing.T) {
		other, _ := fakeModel(1)
		again, _ := shiftOn(t, root, t.TempDir(), other, func(r *run) { few(r); r.jobs = 1 })
		for i := range again {
			if fmt.Sprint(values(again[i])) != fmt.Sprint(values(lines[i])) {
				t.Fatalf("one engine, one core: %+v, was %+v", again[i], lines[i])
			}
		}
	})
	for name, change := range map[string]func(*run){
		"adapter":    func(r *run) { r.adapters = []string{"magic"} },
		"corruption": func(r *run) { r.corruptions = []string{"rust"} },
		"set":        func(r *run) { r.sets = []string{"water"} },
	} {
		r := &run{data: root, keep: t.TempDir(), jobs: 1, stdout: io.Discard, progress: progress.New(io.Discard, false), streamOptions: streamOptions{pool: 9, seeds: 1}}
		change(r)
		splits, err := r.find()
		if err == nil {
			var scenes []*scene
			if scenes, err = r.scenes(splits); err == nil {
				_, err = r.shift(context.Background(), m, scenes)
			}
		}
		if err == nil {
			t.Errorf("no error for an unknown %s", name)
		}
	}
}

// values are a line's figures without the time it took.
func values(l shiftLine) string {
	l.MS = 0
	b, _ := json.Marshal(l)
	return string(b)
}

// TestScore works out one stream by hand.
func TestScore(t *testing.T) {
	w := &world{label: []int{0, 1, -1}}
	step := func(at int, cut bool) order.Step { return order.Step{At: at, Cut: cut} }
	// Label 0 for seven frames, a gap of two, label 1 for three.
	steps := []order.Step{step(0, true), step(0, false), step(0, false), step(0, false), step(0, false), step(0, false), step(0, false),
		step(2, true), step(2, false), step(1, true), step(1, false), step(1, false)}
	var verdicts []verdict
	for _, l := range []int{1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0} {
		verdicts = append(verdicts, verdict{l, .5})
	}
	s := w.score(steps, verdicts, nil)
	if s.n != 10 || s.right != 6 || s.changes != 5 || s.frames != 12 {
		t.Errorf("%+v", s)
	}
	// Right from the second frame on for five; label 1 never thrice.
	if !slices.Equal(s.delays, []float64{.2, .6}) || s.cuts != 2 || s.never != 1 {
		t.Errorf("delays %v, never %d of %d", s.delays, s.never, s.cuts)
	}
	counted := make([]bool, 12)
	for i := 6; i < 12; i++ {
		counted[i] = true
	}
	if s := w.score(steps, verdicts, counted); s.n != 4 || s.right != 1 || s.cuts != 1 || s.recovered != 1.2 {
		t.Errorf("of the end: %+v", s)
	}
	if got := percent(s.calibration.error(), 1); got != 10 { // .6 right where .5 was said
		t.Errorf("calibration error %v", got)
	}
}

// TestClustered: frames of one unit add no certainty, and the interval of
// independent ones is the textbook's.
func TestClustered(t *testing.T) {
	gain, count := []float64{1, 0, 0, 1, 0}, []float64{1, 1, 1, 1, 1}
	want := 2.776 * math.Sqrt(.24/4) // t of 4 · √(variance 0.3 / 5)
	if got := clustered(gain, count); math.Abs(got-want) > 1e-3 {
		t.Errorf("%v, want %v", got, want)
	}
	for i := range gain {
		gain[i], count[i] = 9*gain[i], 9*count[i]
	}
	if got := clustered(gain, count); math.Abs(got-want) > 1e-3 {
		t.Errorf("nine frames each: %v, want %v", got, want)
	}
	if got := clustered([]float64{1}, []float64{5}); got != math.MaxFloat64 {
		t.Errorf("of one unit: %v", got)
	}
}

func TestTailMedian(t *testing.T) {
	x := []float64{5, 1, 4, 2, 3, 9, 8, 7, 6, 10, 11}
	if got := tail(x); got != 1.5 { // two of eleven
		t.Errorf("tail %v", got)
	}
	if got := median(x[:4]); got != 3 {
		t.Errorf("median %v", got)
	}
}

// broken answers NaN.
type broken struct{ tta.Adapter }

func (broken) Adapt(dst []float32, _ tta.Frame) { dst[0] = float32(math.NaN()) }

func TestPlay_NotFinite(t *testing.T) {
	w := &world{space: tta.Space{Scale: 1, Labels: [][]float32{{1, 0}, {0, 1}}}, label: []int{0}}
	l := w.look([][]float32{nil})
	m := tta.Method{Name: "broken", New: func(tta.Space) tta.Adapter { return broken{} }}
	if _, err := w.play(m, []*look{l}, []order.Step{{}}); err == nil {
		t.Error("NaN is no error")
	}
}

func TestWindow(t *testing.T) {
	fx := effect{views: 12}
	for number := range 50 {
		seen := map[[2]int]bool{}
		last := fx.window(number, 0, 128, 96)
		for v := range 12 {
			r := fx.window(number, v, 128, 96)
			if r.Dx() != 112 || r.Dy() != 84 || r.Min.X < 0 || r.Min.Y < 0 || r.Max.X > 128 || r.Max.Y > 96 {
				t.Fatalf("window %v", r)
			}
			if d := r.Min.Sub(last.Min); d.X > 3 || d.X < -3 || d.Y > 3 || d.Y < -3 {
				t.Fatalf("a jump of %v", d)
			}
			last = r
			seen[[2]int{r.Min.X, r.Min.Y}] = true
		}
		if len(seen) == 0 {
			t.Fatal("nothing seen")
		}
	}
	if r := (effect{}).window(3, 0, 5, 7); r.Dx() != 5 || r.Dy() != 7 {
		t.Errorf("without views %v", r)
	}
	if r := fx.window(1, 3, 1, 1); r.Dx() != 1 || r.Dy() != 1 {
		t.Errorf("of one pixel %v", r)
	}
}

// TestScene_Seeds: what stays in a clip has the clip's seed, noise its own.
func TestScene_Seeds(t *testing.T) {
	s := &scene{clips: []dataset.Clip{{Start: 0, Frames: 3}, {Start: 3, Frames: 3}}}
	shown := func(name string, number int) string {
		fx, _, err := s.effects(condition{name, 3})
		if err != nil {
			t.Fatal(err)
		}
		p := bytes.Repeat([]byte{120}, 4*32*32)
		if err := fx.apply(number, p, 32); err != nil {
			t.Fatal(err)
		}
		return string(p)
	}
	if shown("dirt", 0) != shown("dirt", 2) || shown("motion", 0) != shown("motion", 2) {
		t.Error("a clip's dirt moves")
	}
	if shown("noise", 0) == shown("noise", 1) {
		t.Error("noise stands still")
	}
	for _, k := range shift.Kinds {
		shown(k.Name, 5)
	}
}

func TestJournal_Cut(t *testing.T) {
	r := &run{keep: t.TempDir()}
	j, err := openJournal(r)
	if err != nil {
		t.Fatal(err)
	}
	j.add([]byte{1}, []shiftLine{{Set: "a"}})
	j.file.WriteString(`{"key":"02","li`) // stopped here
	j.close()
	if j, err = openJournal(r); err != nil || len(j.lines([]byte{1})) != 1 || j.lines([]byte{2}) != nil {
		t.Fatalf("%+v, %v", j, err)
	}
	j.add([]byte{3}, []shiftLine{{Set: "b"}})
	j.close()
	if j, err = openJournal(r); err != nil || len(j.lines([]byte{3})) != 1 {
		t.Fatalf("after the cut: %+v, %v", j, err)
	}
	j.close()
}
