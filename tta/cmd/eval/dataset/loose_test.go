package dataset

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLoose(t *testing.T) {
	name := filepath.Join(t.TempDir(), "holiday", "test.tar")
	captions := "images/2.jpg\tTwo  dogs .\nimages/1.jpg\ta cat\nimages/2.jpg\tdogs\n"
	writeTar(t, name, member{name: "images/1.jpg"}, member{name: "images/2.jpg"}, member{name: "more/3.png"}, member{name: CaptionsFile, data: captions + "more/3.png\tx\n"})
	s, err := Loose(name)
	if err != nil || s.Set != "holiday" || s.Name != "test" || s.Pictures != 3 || len(s.Classes) != 2 || s.Classes[1].Folder != "more" {
		t.Fatalf("%+v, %v", s, err)
	}
	var classes []int
	if err := s.Each(1, func(p Picture) error { classes = append(classes, p.Class); return nil }); err != nil || !slices.Equal(classes, []int{0, 0, 1}) {
		t.Errorf("classes %v, %v", classes, err)
	}
	got, err := s.Captions(1)
	if err != nil || len(got) != 3 || !slices.Equal(got[0], []string{"a cat"}) || !slices.Equal(got[1], []string{"Two dogs .", "dogs"}) {
		t.Errorf("captions %q, %v", got, err)
	}
	if got, err := s.Captions(2); err != nil || len(got) != 2 || got[1][0] != "x" {
		t.Errorf("of every second: %q, %v", got, err)
	}

	writeTar(t, name, member{name: "images/1.jpg"}, member{name: CaptionsFile, data: "images/2.jpg\ta cat\n"})
	if _, err := s.Captions(1); !errors.Is(err, ErrLayout) || !strings.Contains(err.Error(), "images/1.jpg") {
		t.Errorf("a picture without caption: %v", err)
	}
	writeTar(t, name, member{name: "readme.txt"})
	if _, err := Loose(name); !errors.Is(err, ErrLayout) {
		t.Errorf("no pictures: %v", err)
	}
	if _, err := Loose(name + "x"); err == nil {
		t.Error("no error for a tar that is not there")
	}
}

func FuzzParseCaptions(f *testing.F) {
	f.Add("images/1.jpg\ta dog\n")
	f.Add("images/1.jpg\n\tx")
	f.Fuzz(func(t *testing.T, s string) {
		of, err := parseCaptions(s)
		if err != nil && !errors.Is(err, ErrLayout) {
			t.Errorf("%v is no ErrLayout", err)
		}
		for name, list := range of {
			for _, c := range list {
				if name == "" || c == "" || c != strings.TrimSpace(c) {
					t.Errorf("%q → %q", name, c)
				}
			}
		}
	})
}

func TestReadShows(t *testing.T) {
	got, err := ReadShows(strings.NewReader("# why\n\na/test\tcat\tcat\nb/val\tglass\tbottle|glass\tapart\n"))
	if err != nil || len(got) != 2 || got[0].Apart || !got[1].Apart || got[1].Split != "b/val" || !slices.Equal(got[1].Words, []string{"bottle", "glass"}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"a\tb\n", "a\tb\tc\td\n", "a\tb\tc\tapart\te\n", "a\t\tc\n", "a\tb\tc|\n", "a\tb\tc\na\tb\td\n"} {
		if _, err := ReadShows(strings.NewReader(bad)); !errors.Is(err, ErrLayout) {
			t.Errorf("%q: %v, want ErrLayout", bad, err)
		}
	}
}

func FuzzReadShows(f *testing.F) {
	f.Add("a/test\tcat\tcat\nb/val\tglass\tbottle|glass\tapart\n")
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ReadShows(strings.NewReader(s))
		if err != nil && !errors.Is(err, ErrLayout) {
			t.Errorf("%v is no ErrLayout", err)
		}
		for _, s := range list {
			if s.Split == "" || s.Folder == "" || len(s.Words) == 0 || slices.Contains(s.Words, "") {
				t.Errorf("%+v", s)
			}
		}
	})
}
