package picture

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"slices"
	"testing"
	"testing/fstest"
)

// shot is a PNG of w × 1 pixels.
func shot(t testing.TB, w int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, w, 1))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestTake(t *testing.T) {
	files := fstest.MapFS{}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, kind byte, data []byte) {
		if kind == tar.TypeReg {
			files[name] = &fstest.MapFile{Data: data}
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: kind, Size: int64(len(data)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 7 {
		add(fmt.Sprintf("class/%d.PNG", i), tar.TypeReg, shot(t, i+1))
		add(fmt.Sprintf("class/._%d.PNG", i), tar.TypeReg, []byte("resource fork"))
		add(fmt.Sprintf("class/%d.txt", i), tar.TypeReg, []byte("text"))
		add(fmt.Sprintf("class/%d-dir.png", i), tar.TypeDir, nil)
	}
	add("z.jpg", tar.TypeReg, []byte("no picture"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string]Set{"folder": Folder(files), "tar": Tar(bytes.NewReader(b.Bytes()), int64(b.Len()))} {
		for n, want := range map[int][]int{0: {1, 2, 3, 4, 5, 6, 7, 0}, 1: {1}, 3: {1, 3, 6}, 8: {1, 2, 3, 4, 5, 6, 7, 0}, 99: {1, 2, 3, 4, 5, 6, 7, 0}} {
			var got []int
			err := Take(set, n, 100, func(p Picture, total int) error {
				if total != len(want) || (p.Err != nil) != (p.W == 0) || len(p.RGBA) != 4*p.W*p.H {
					t.Errorf("%s: %s of %d is %d × %d: %v", name, p.Name, total, p.W, p.H, p.Err)
				}
				got = append(got, p.W)
				return nil
			})
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %d taken gives widths %v, %v; want %v", name, n, got, err, want)
			}
		}
		stop := errors.New("stop")
		if err := Take(set, 0, 100, func(Picture, int) error { return stop }); err != stop {
			t.Errorf("%s: %v, want f's error", name, err)
		}
	}
	nothing := func(Picture, int) error { return nil }
	for _, bad := range []Set{Folder(fstest.MapFS{"a.txt": {}}), Tar(bytes.NewReader(b.Bytes()[:530]), 530)} {
		if err := Take(bad, 0, 100, nothing); !errors.Is(err, ErrSet) {
			t.Errorf("%v, want ErrSet", err)
		}
	}
}

// FuzzTar: whatever a tar says, nothing panics and no picture is larger than
// asked for.
func FuzzTar(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	data := shot(f, 3)
	w.WriteHeader(&tar.Header{Name: "a.png", Size: int64(len(data))})
	w.Write(data)
	w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		Take(Tar(bytes.NewReader(b), int64(len(b))), 2, 64, func(p Picture, _ int) error {
			if p.Err == nil && p.W*p.H > 64 {
				t.Errorf("%d × %d pixels", p.W, p.H)
			}
			return nil
		})
	})
}
