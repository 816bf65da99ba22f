// Package picture reads pictures' files as browsers and Pillow do: from a folder
// or a tar, JPEG or PNG, to RGBA bytes.
package picture

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // registers the formats that Decode reads
	_ "image/png"

	"golang.org/x/image/draw"
)

// ErrUnreadable means bytes that are no picture, or one out of bounds.
var ErrUnreadable = errors.New("picture: unreadable")

// maxDecoded bounds a picture's pixels before it is decoded: 64 megapixels.
const maxDecoded = 64 << 20

// Decode reads a JPEG or PNG into RGBA bytes [h][w][4], alpha 255; what is
// transparent becomes black. A picture of over maxPixels is shrunk to fit.
func Decode(data []byte, maxPixels int) (rgba []byte, w, h int, err error) {
	c, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, 0, 0, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if c.Width < 1 || c.Height < 1 || c.Width > maxDecoded/c.Height {
		return nil, 0, 0, fmt.Errorf("%w: %d × %d pixels", ErrUnreadable, c.Width, c.Height)
	}
	m, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, 0, 0, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	b := m.Bounds()
	w, h = b.Dx(), b.Dy()
	if w > maxPixels/h {
		// The largest f with (f·w)(f·h) within bounds, by halves of a percent.
		f := 200
		for f > 1 && max(1, w*f/200) > maxPixels/max(1, h*f/200) {
			f--
		}
		w, h = max(1, w*f/200), max(1, h*f/200)
		if w > maxPixels/h {
			return nil, 0, 0, fmt.Errorf("%w: %d × %d pixels", ErrUnreadable, b.Dx(), b.Dy())
		}
	}
	if ycc, ok := m.(*image.YCbCr); ok {
		if full := image.NewRGBA(b); drawYCbCr(full, ycc) {
			m = full
		}
	}
	dst, whole := m.(*image.RGBA)
	if !whole || w != b.Dx() || h != b.Dy() || dst.Stride != 4*w {
		dst = image.NewRGBA(image.Rect(0, 0, w, h))
		if w == b.Dx() && h == b.Dy() {
			draw.Draw(dst, dst.Rect, m, b.Min, draw.Src)
		} else {
			draw.CatmullRom.Scale(dst, dst.Rect, m, b, draw.Src, nil)
		}
	}
	for i := 3; i < len(dst.Pix); i += 4 {
		dst.Pix[i] = 255
	}
	return dst.Pix, w, h, nil
}
