// Package camera makes camera streams for browser tests: what a person would
// hold into a webcam, as a .y4m file that Chromium plays as its camera.
//
// A frame is 320 × 240. The middle shows the picture; the model looks at the
// centre square only. The bars at both sides, which it never sees, carry the
// number of the picture as black and white cells, so that a test can read from
// the page's video what was in view when a result came.
package camera

import (
	"bufio"
	"fmt"
	"image"
	"image/color"
	"io"
	"math"

	"golang.org/x/image/draw"

	"lqa/tta/shift"
)

// Geometry of a frame in pixels. Bar × 224/240 is less than what the centre
// crop leaves out, with a margin for the resize filter.
const (
	Width  = 320
	Height = 240
	Bar    = 34
	FPS    = 10
	Hold   = 3 // seconds that a thing stays in view
	cells  = 8
)

// Shot is one thing in view.
type Shot struct {
	Label string
	// Pictures: one is a photograph, shown under a slow pan; several are
	// consecutive frames of a clip with Rate frames a second.
	Pictures []image.Image
	Rate     float64
}

// An Effect changes the picture in place; the bars stay as they are.
type Effect func(*image.RGBA)

// Write writes the shots one after another, each held for Hold seconds. Shot i
// carries number i+1.
func Write(w io.Writer, shots []Shot, effect Effect) error {
	if len(shots) >= 1<<cells {
		return fmt.Errorf("camera: %d shots, at most %d", len(shots), 1<<cells-1)
	}
	bw := bufio.NewWriterSize(w, 1<<20)
	fmt.Fprintf(bw, "YUV4MPEG2 W%d H%d F%d:1 Ip A1:1 C420jpeg\n", Width, Height, FPS)
	view := image.NewRGBA(image.Rect(0, 0, Width-2*Bar, Height))
	frame := image.NewRGBA(image.Rect(0, 0, Width, Height))
	planes := make([]byte, Width*Height*3/2)
	for i, s := range shots {
		if len(s.Pictures) == 0 {
			return fmt.Errorf("camera: shot %d (%s) has no picture", i, s.Label)
		}
		for k := range Hold * FPS {
			s.draw(view, k)
			if effect != nil {
				effect(view)
			}
			draw.Draw(frame, image.Rect(Bar, 0, Width-Bar, Height), view, image.Point{}, draw.Src)
			number(frame, i+1)
			toYUV(planes, frame)
			fmt.Fprint(bw, "FRAME\n")
			bw.Write(planes)
		}
	}
	return bw.Flush()
}

// draw puts frame k of the shot into dst.
func (s Shot) draw(dst *image.RGBA, k int) {
	if n := len(s.Pictures); n > 1 {
		at := int(float64(k) / FPS * s.Rate)
		at %= 2 * n // forth and back, so that a short clip has no jump
		if at >= n {
			at = 2*n - 1 - at
		}
		draw.CatmullRom.Scale(dst, dst.Bounds(), s.Pictures[at], window(s.Pictures[at].Bounds(), dst.Bounds(), 1, 0.5), draw.Src, nil)
		return
	}
	// Over the hold a window of nine tenths glides across the middle.
	t := float64(k) / (Hold*FPS - 1)
	draw.CatmullRom.Scale(dst, dst.Bounds(), s.Pictures[0], window(s.Pictures[0].Bounds(), dst.Bounds(), 0.9, 0.2+0.6*t), draw.Src, nil)
}

// window is the part of src with dst's proportions, size of what fits, at a
// place between 0 (top left) and 1 (bottom right).
func window(src, dst image.Rectangle, size, place float64) image.Rectangle {
	w, h := float64(src.Dx()), float64(src.Dy())
	scale := size * math.Min(w/float64(dst.Dx()), h/float64(dst.Dy()))
	ww, hh := scale*float64(dst.Dx()), scale*float64(dst.Dy())
	// Wide pictures are panned around their middle, not over their whole width.
	x := (w-ww)/2 + (place-0.5)*math.Min(w-ww, 0.15*w)
	y := (h-hh)/2 + (place-0.5)*math.Min(h-hh, 0.15*h)
	return image.Rect(0, 0, int(ww), int(hh)).Add(src.Min).Add(image.Pt(int(x), int(y)))
}

// number paints n into the bars: eight cells a side, the left one the bits,
// the right one their opposites.
func number(dst *image.RGBA, n int) {
	for i := range cells {
		y0, y1 := i*Height/cells, (i+1)*Height/cells
		on, off := color.Gray{235}, color.Gray{20}
		if n>>i&1 == 0 {
			on, off = off, on
		}
		draw.Draw(dst, image.Rect(0, y0, Bar, y1), image.NewUniform(on), image.Point{}, draw.Src)
		draw.Draw(dst, image.Rect(Width-Bar, y0, Width, y1), image.NewUniform(off), image.Point{}, draw.Src)
	}
}

// ReadNumber is the JavaScript of a function (video) → number of the shot in
// view, 0 where the bars do not agree (no picture yet).
const ReadNumber = `(video) => {
	const canvas = globalThis.lqaCameraCanvas ??= new OffscreenCanvas(320, 240);
	const context = canvas.getContext('2d', {willReadFrequently: true});
	if (!video || !video.videoWidth) return 0;
	context.drawImage(video, 0, 0, 320, 240);
	let n = 0;
	for (let i = 0; i < 8; i++) {
		const left = context.getImageData(12, i * 30 + 12, 6, 6).data[0];
		const right = context.getImageData(302, i * 30 + 12, 6, 6).data[0];
		if (Math.abs(left - right) < 90) return 0;
		if (left > right) n |= 1 << i;
	}
	return n;
}`

// toYUV converts to planar 4:2:0, BT.601, limited range, as cameras send it.
func toYUV(dst []byte, src *image.RGBA) {
	y, u, v := dst[:Width*Height], dst[Width*Height:Width*Height*5/4], dst[Width*Height*5/4:]
	for j := 0; j < Height; j += 2 {
		for i := 0; i < Width; i += 2 {
			var r, g, b int
			for k := range 4 {
				x, yy := i+k&1, j+k>>1
				p := src.Pix[yy*src.Stride+4*x:]
				r0, g0, b0 := int(p[0]), int(p[1]), int(p[2])
				y[yy*Width+x] = byte((66*r0+129*g0+25*b0+128)>>8 + 16)
				r, g, b = r+r0, g+g0, b+b0
			}
			at := j/2*Width/2 + i/2
			u[at] = byte((-38*r-74*g+112*b+512)>>10 + 128)
			v[at] = byte((112*r-94*g-18*b+512)>>10 + 128)
		}
	}
}

// Dim darkens a picture to a third and blurs it, as a cheap camera does in the
// evening.
func Dim(img *image.RGBA) {
	for _, e := range []struct {
		name     string
		severity int
	}{{"dark", 3}, {"blur", 2}} {
		effect, err := shift.New(e.name, e.severity, 0)
		if err != nil {
			panic("camera: " + err.Error())
		}
		effect.Apply(img.Pix, img.Rect.Dx(), img.Rect.Dy()) // rows lie without a gap
	}
}
