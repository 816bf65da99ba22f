package dataset

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// member of a tar; a zero type is a regular file.
type member struct {
	name, data string
	kind       byte
}

func writeTar(t *testing.T, name string, members ...member) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Typeflag: m.kind, Size: int64(len(m.data)), Mode: 0o644, Format: tar.FormatPAX}
		switch m.kind {
		case 0:
			h.Typeflag = tar.TypeReg
		case tar.TypeSymlink:
			h.Linkname, h.Size, m.data = "/etc/passwd", 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	writeFile(t, name, b.String())
}

func writeFile(t *testing.T, name, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestFind lays out a small tree with one case of each rule.
func TestFind(t *testing.T) {
	root := t.TempDir()
	at := func(p string) string { return filepath.Join(root, filepath.FromSlash(p)) }
	cats := []member{{name: "cat/1.jpg", data: "x"}, {name: "cat/2.jpeg"}, {name: "dog/1.PNG"}}

	writeFile(t, at("animals/classes.txt"), "cat\ndog\thound\n")
	writeTar(t, at("animals/test.tar"), append([]member{{name: "cat/", kind: tar.TypeDir}, {name: "README"}, {name: "dog/notes.txt"}}, cats...)...)
	writeTar(t, at("animals/val.tar"), cats...)
	writeTar(t, at("animals/train.tar"), cats...)
	writeTar(t, at("animals/other.tar"), append(cats, member{name: "bird/1.jpg"})...) // a folder more
	writeTar(t, at("animals/nested.tar"), member{name: "cat/deep/1.jpg"})
	writeTar(t, at("animals/escape.tar"), member{name: "../cat/1.jpg"})
	writeTar(t, at("animals/links.tar"), member{name: "cat/1.jpg", kind: tar.TypeSymlink})
	writeFile(t, at("animals/broken.tar"), strings.Repeat("no tar", 200))
	writeTar(t, at("sharp/pets/test.tar"), cats...)
	writeFile(t, at("sharp/pets/classes.txt"), "cat\ndog\n")
	writeTar(t, at("a/b/deep/test.tar"), cats...) // three below the root
	writeFile(t, at("a/b/deep/classes.txt"), "cat\ndog\n")
	writeTar(t, at("captions/test.tar"), member{name: "images/1.jpg"}) // no classes.txt
	writeFile(t, at("empty/classes.txt"), "")

	clips := member{name: "clips.tsv", data: "c1\tmug\tm1\troom\t25.0\t2\nc2\tcup\tm2\troom\t25.0\t1\n"}
	frames := []member{{name: "c1/00001.jpg"}, {name: "c1/00002.jpg"}, {name: "c2/00001.jpg"}}
	writeFile(t, at("streams/desk/classes.txt"), "pen\nmug\tcup\n")
	writeTar(t, at("streams/desk/desk.tar"), append([]member{clips}, frames...)...)
	writeTar(t, at("streams/desk/more.tar"), append([]member{clips}, frames...)...) // not <set>.tar
	writeFile(t, at("streams/late/classes.txt"), "pen\nmug\tcup\n")
	writeTar(t, at("streams/late/late.tar"), append(frames, clips)...) // clips.tsv is not first
	writeFile(t, at("streams/foreign/classes.txt"), "pen\n")
	writeTar(t, at("streams/foreign/foreign.tar"), append([]member{clips}, frames...)...)
	writeFile(t, at("streams/mixed/classes.txt"), "mug\tcup\n")
	writeTar(t, at("streams/mixed/mixed.tar"), clips, frames[0], frames[2], frames[1])
	for i, bad := range []string{"c1\tmug\nc1\tmug\n", "c1\tmug\ti\ts\t0\t1\n", "c1\tmug\ti\ts\tfast\t1\n"} {
		set := fmt.Sprintf("streams/bad%d/", i)
		writeFile(t, at(set+"classes.txt"), "mug\n")
		writeTar(t, at(fmt.Sprintf("%sbad%d.tar", set, i)), member{name: "clips.tsv", data: bad}, frames[0])
	}
	writeFile(t, at("streams/stray/classes.txt"), "mug\tcup\n")
	writeTar(t, at("streams/stray/stray.tar"), clips, member{name: "c9/00001.jpg"})

	splits, notes, err := Find(root)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		set, name string
		stream    bool
		pictures  int
	}
	var got []row
	for _, s := range splits {
		got = append(got, row{s.Set, s.Name, s.Stream, s.Pictures})
	}
	want := []row{
		{"animals", "test", false, 3},
		{"animals", "val", false, 3},
		{"pets", "test", false, 3},
		{"desk", "clips", true, 3},
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	if len(notes) != 14 {
		t.Errorf("%d notes, want 14:\n%s", len(notes), strings.Join(notes, "\n"))
	}

	var classes []int
	if err := splits[3].Each(1, func(p Picture) error {
		classes = append(classes, p.Class)
		return p.Err
	}); err != nil || !slices.Equal(classes, []int{1, 1, 1}) {
		t.Errorf("frames of classes %v, %v", classes, err)
	}
	var names []string
	if err := splits[0].Each(2, func(p Picture) error {
		names = append(names, p.Name)
		return nil
	}); err != nil || !slices.Equal(names, []string{"cat/1.jpg", "dog/1.PNG"}) {
		t.Errorf("every second picture: %v, %v", names, err)
	}
	if got, want := splits[3].Clips, []Clip{{"c1", 1, "m1", "room", 25, 0, 2}, {"c2", 1, "m2", "room", 25, 2, 1}}; !slices.Equal(got, want) {
		t.Errorf("clips %v, want %v", got, want)
	}
	names = nil
	some := splits[3].Only([]int{1, 2})
	if err := some.Each(1, func(p Picture) error {
		names = append(names, p.Name)
		return nil
	}); err != nil || !slices.Equal(names, []string{"c1/00002.jpg", "c2/00001.jpg"}) || some.Pictures != 2 || some.Selection() == splits[3].Selection() {
		t.Errorf("a selection: %v, %d pictures, %v", names, some.Pictures, err)
	}
	stop := errors.New("stop")
	if err := splits[0].Each(1, func(Picture) error { return stop }); err != stop {
		t.Errorf("Each returns %v", err)
	}

	if _, _, err := Find(at("nowhere")); err == nil {
		t.Error("no error for a missing root")
	}
}

func TestReadClasses(t *testing.T) {
	for _, c := range []struct {
		in   string
		want [][]string // folder, then spellings; nil: ErrLayout
	}{
		{"cat\ndog\thound\n", [][]string{{"cat", "cat"}, {"dog", "dog", "hound"}}},
		{"tailed_frog\ttailed frog\tbell toad\tn01644900\r\n", [][]string{{"tailed_frog", "tailed frog", "tailed frog", "bell toad"}}},
		{"n01443537\tgoldfish\n\n", [][]string{{"n01443537", "goldfish"}}},
		{"n01443537", [][]string{{"n01443537", "n01443537"}}},
		{"", nil},
		{"cat\ncat\n", nil},
		{"caf\xff\n", nil},
		{strings.Repeat("x\n", 2), nil},
	} {
		name := filepath.Join(t.TempDir(), "classes.txt")
		writeFile(t, name, c.in)
		got, err := readClasses(name)
		if c.want == nil {
			if !errors.Is(err, ErrLayout) {
				t.Errorf("%q: %v, want ErrLayout", c.in, err)
			}
			continue
		}
		if err != nil || len(got) != len(c.want) {
			t.Errorf("%q: %v, %v", c.in, got, err)
			continue
		}
		for i, g := range got {
			if !slices.Equal(append([]string{g.Folder}, g.Spellings...), c.want[i]) {
				t.Errorf("%q: %v, want %v", c.in, g, c.want[i])
			}
		}
	}
}

func TestNames(t *testing.T) {
	classes := []Class{
		{"automobile", []string{"automobile", "car"}},
		{"airplanes", []string{"airplanes", "airplane"}},
		{"zero", []string{"zero", "0", "hand sign for zero"}},
		{"odd", []string{"odd"}},
	}
	known := func(names []string) []bool {
		out := make([]bool, len(names))
		for i, n := range names {
			out[i] = n == "car" || n == "zero"
		}
		return out
	}
	names := Names(classes, known)
	if want := []string{"car", "airplanes", "hand sign for zero", "odd"}; !slices.Equal(names, want) {
		t.Errorf("names %q, want %q", names, want)
	}
	p, err := ReadPrompts(strings.NewReader("# wordings\n\nAutomobile\ta family car\nairplanes\tairplane in the sky\nunused\tx\n"))
	if err != nil {
		t.Fatal(err)
	}
	if n := p.Reword(classes, names); n != 2 {
		t.Errorf("%d reworded, want 2", n)
	}
	if want := []string{"a family car", "airplane in the sky", "hand sign for zero", "odd"}; !slices.Equal(names, want) {
		t.Errorf("reworded %q, want %q", names, want)
	}
	for _, bad := range []string{"label only\n", "\twording\n", "a\tb\tc\n", "a\tb\nA\tc\n"} {
		if _, err := ReadPrompts(strings.NewReader(bad)); !errors.Is(err, ErrLayout) {
			t.Errorf("%q: %v, want ErrLayout", bad, err)
		}
	}
}

func FuzzReadPrompts(f *testing.F) {
	f.Add("label\twording\n# comment\n")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ReadPrompts(strings.NewReader(s))
		if err != nil {
			return
		}
		for k, v := range p {
			if k == "" || v == "" || strings.ContainsAny(k+v, "\t\n") {
				t.Errorf("%q → %q", k, v)
			}
		}
	})
}
