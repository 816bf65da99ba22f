package picture

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"testing"
)

func TestDecode(t *testing.T) {
	m := image.NewNRGBA(image.Rect(0, 0, 40, 20))
	for i := range m.Pix {
		m.Pix[i] = 200
	}
	m.SetNRGBA(0, 0, color.NRGBA{255, 255, 255, 0})
	var p, j bytes.Buffer
	if err := png.Encode(&p, m); err != nil {
		t.Fatal(err)
	}
	if err := jpeg.Encode(&j, m, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		data      []byte
		maxPixels int
		w, h      int
	}{
		{p.Bytes(), 800, 40, 20},
		{j.Bytes(), 800, 40, 20},
		{p.Bytes(), 799, 39, 19},
		{j.Bytes(), 200, 20, 10},
		{j.Bytes(), 1, 1, 1},
	} {
		rgba, w, h, err := Decode(c.data, c.maxPixels)
		if err != nil || w != c.w || h != c.h || len(rgba) != 4*w*h {
			t.Errorf("at most %d pixels: %d × %d, %v; want %d × %d", c.maxPixels, w, h, err, c.w, c.h)
			continue
		}
		for i := 3; i < len(rgba); i += 4 {
			if rgba[i] != 255 {
				t.Fatalf("alpha %d", rgba[i])
			}
		}
	}
	if rgba, _, _, _ := Decode(p.Bytes(), 800); rgba[0] != 0 {
		t.Errorf("a transparent pixel became %v", rgba[:4])
	}
	huge := bytes.Clone(p.Bytes())
	copy(huge[16:], []byte{0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff}) // PNG's width and height; its CRC is wrong then
	for _, bad := range [][]byte{nil, []byte("text"), p.Bytes()[:60], j.Bytes()[:100], huge} {
		if _, _, _, err := Decode(bad, 800); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%.10q: %v, want ErrUnreadable", bad, err)
		}
	}
}

// TestDecode_Chroma: JPEGs come out as libjpeg decodes them, but for the
// rounding of the cosine transform.
func TestDecode_Chroma(t *testing.T) {
	for _, name := range []string{"444", "422", "420"} {
		read := func(ext string) []byte {
			b, err := os.ReadFile(filepath.Join("testdata", "chroma-"+name+ext))
			if err != nil {
				t.Fatal(err)
			}
			rgba, w, h, err := Decode(b, 1<<20)
			if err != nil || w != 61 || h != 35 {
				t.Fatalf("%s%s: %d × %d, %v", name, ext, w, h, err)
			}
			return rgba
		}
		got, want := read(".jpg"), read(".png")
		sum, worst := 0, 0
		for i := range want {
			d := max(int(got[i])-int(want[i]), int(want[i])-int(got[i]))
			sum += d
			worst = max(worst, d)
		}
		if mean := float64(sum) / float64(len(want)); mean > 0.25 || worst > 4 {
			t.Errorf("%s: off by %.2f levels on average, %d at most", name, mean, worst)
		}
	}
	// Narrow pictures and other layouts are left to package image.
	for _, m := range []*image.YCbCr{
		image.NewYCbCr(image.Rect(0, 0, 4, 4), image.YCbCrSubsampleRatio420),
		image.NewYCbCr(image.Rect(0, 0, 40, 4), image.YCbCrSubsampleRatio410),
		image.NewYCbCr(image.Rect(0, 0, 40, 4), image.YCbCrSubsampleRatio444),
	} {
		if drawYCbCr(image.NewRGBA(m.Rect), m) {
			t.Errorf("%v of %v is taken", m.SubsampleRatio, m.Rect)
		}
	}
}
