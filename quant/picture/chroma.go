package picture

import (
	"image"
	"image/color"
)

// drawYCbCr converts m to dst, of its size. Where JPEG keeps a colour for two
// pixels across (4:2:2) or for two by two (4:2:0), colours are interpolated by
// the triangle filter of libjpeg ("fancy upsampling", jdsample.c), which
// browsers and Pillow use. Package image repeats them; on pictures of 32 pixels
// that alone costs a model more than a point. It reports false, with dst
// untouched, for other layouts.
func drawYCbCr(dst *image.RGBA, m *image.YCbCr) bool {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	tall := 1 // rows of pixels to a row of colours
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio420:
		tall = 2
	case image.YCbCrSubsampleRatio422:
	default:
		return false
	}
	cw, ch := (w+1)/2, (h+tall-1)/tall
	if cw < 3 || m.Rect.Min != (image.Point{}) { // libjpeg, too, repeats in so narrow a picture
		return false
	}
	cb, cr := make([]byte, 2*cw), make([]byte, 2*cw)
	sums := make([]int, cw)
	for y := range h {
		near := y / tall
		far := near // for 4:2:2 the only row
		if tall == 2 {
			far = min(max(near-1+y%2*2, 0), ch-1)
		}
		for _, c := range []struct{ out, plane []byte }{{cb, m.Cb}, {cr, m.Cr}} {
			a, b := c.plane[near*m.CStride:][:cw], c.plane[far*m.CStride:][:cw]
			if tall == 2 {
				for x := range sums {
					sums[x] = 3*int(a[x]) + int(b[x])
				}
				widen(c.out, sums, 4, 8, 7)
			} else {
				for x := range sums {
					sums[x] = int(a[x])
				}
				widen(c.out, sums, 2, 1, 2)
			}
		}
		luma := m.Y[y*m.YStride:][:w]
		out := dst.Pix[y*dst.Stride:][:4*w]
		for x, l := range luma {
			out[4*x], out[4*x+1], out[4*x+2] = color.YCbCrToRGB(l, cb[x], cr[x])
			out[4*x+3] = 255
		}
	}
	return true
}

// widen writes two values for each of in, three parts of it and one of the
// neighbour on their side, shifted right with the rounding of each side: libjpeg
// rounds left and right differently so that errors cancel. At the ends the
// neighbour is the value itself.
func widen(out []byte, in []int, shift uint, left, right int) {
	last := len(in) - 1
	for x, v := range in {
		out[2*x] = byte((3*v + in[max(x-1, 0)] + left) >> shift)
		out[2*x+1] = byte((3*v + in[min(x+1, last)] + right) >> shift)
	}
}
