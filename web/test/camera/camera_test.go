package camera

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"testing"
)

func plain(c color.Color, w, h int) image.Image {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(img, img.Rect, image.NewUniform(c), image.Point{}, draw.Src)
	return img
}

// TestWrite: the stream's header, its length, the shot's number in the bars,
// the picture between them.
func TestWrite(t *testing.T) {
	shots := []Shot{
		{Label: "white", Pictures: []image.Image{plain(color.White, 224, 300)}},
		{Label: "black clip", Pictures: []image.Image{plain(color.Black, 160, 90), plain(color.Black, 160, 90)}, Rate: 12},
	}
	var b bytes.Buffer
	if err := Write(&b, shots, nil); err != nil {
		t.Fatal(err)
	}
	const header = "YUV4MPEG2 W320 H240 F10:1 Ip A1:1 C420jpeg\n"
	const frame = len("FRAME\n") + Width*Height*3/2
	if !bytes.HasPrefix(b.Bytes(), []byte(header)) {
		t.Fatalf("starts %q", b.Bytes()[:60])
	}
	if got, want := b.Len(), len(header)+2*Hold*FPS*frame; got != want {
		t.Fatalf("%d bytes, want %d", got, want)
	}
	for i := range shots {
		y := b.Bytes()[len(header)+i*Hold*FPS*frame+len("FRAME\n"):]
		n := 0
		for cell := range cells {
			row := (cell*Height/cells + 15) * Width
			left, right := y[row+15], y[row+305]
			if left > right {
				n |= 1 << cell
			}
			if d := int(left) - int(right); d > -150 && d < 150 {
				t.Errorf("shot %d, cell %d: %d and %d are not told apart", i, cell, left, right)
			}
		}
		if n != i+1 {
			t.Errorf("shot %d is numbered %d", i, n)
		}
		if middle, want := y[120*Width+160], []byte{235, 16}[i]; middle != want {
			t.Errorf("shot %d: luma %d in the middle, want %d", i, middle, want)
		}
	}
}

func TestDim(t *testing.T) {
	img := plain(color.Gray{200}, 40, 30).(*image.RGBA)
	img.SetRGBA(20, 15, color.RGBA{255, 255, 255, 255})
	Dim(img)
	if got := img.RGBAAt(3, 3); got != (color.RGBA{70, 70, 70, 255}) {
		t.Errorf("a flat grey of 200 becomes %v, want 70", got)
	}
	if got := img.RGBAAt(20, 15).R; got > 75 {
		t.Errorf("a white dot is still %d", got)
	}
}
