package corrupt

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
)

func contrast(s int) func(picture, *random) picture {
	slope := [...]float32{.4, .3, .2, .1, .05}[s]
	return func(p picture, _ *random) picture {
		return p.each(func(c plane) plane {
			var sum float64
			for _, v := range c {
				sum += float64(v)
			}
			mean := float32(sum / float64(len(c)))
			for i, v := range c {
				c[i] = float32((v-mean)*slope) + mean
			}
			return c
		})
	}
}

// elastic warps by a random affine map, then moves each pixel along a smoothed
// random field. It departs in drawing anew where the map nearly flattens the
// picture. 244 is as published.
func elastic(s int) func(picture, *random) picture {
	alpha := [...]float32{244 * 2, 244 * 2, 244 * .05, 244 * .07, 244 * .12}[s]
	sigma := [...]float32{244 * .7, 244 * .08, 244 * .01, 244 * .01, 244 * .01}[s]
	jitter := [...]float32{244 * .1, 244 * .2, 244 * .02, 244 * .02, 244 * .02}[s]
	kernel := gaussian(sigma, int(float32(3*sigma)+.5))
	return func(p picture, r *random) picture {
		cx, cy, d := float32(p.w/2), float32(p.h/2), float32(min(p.w, p.h)/3)
		from := [3][2]float32{{cx + d, cy + d}, {cx + d, cy - d}, {cx - d, cy - d}}
		to := from
		for {
			for i := range to {
				for k := range to[i] {
					to[i][k] = from[i][k] + r.uniform(-jitter, jitter)
				}
			}
			if abs(area(to)) > float32(d*d)/16 {
				break
			}
		}
		back := affine(to, from)
		dx, dy := field(p.w, p.h, alpha, kernel, r), field(p.w, p.h, alpha, kernel, r)
		return p.each(func(c plane) plane {
			warped, out := make(plane, len(c)), make(plane, len(c))
			for i := range c {
				x, y := float32(i%p.w), float32(i/p.w)
				u := float32(back[0][0]*x) + float32(back[0][1]*y) + back[0][2]
				v := float32(back[1][0]*x) + float32(back[1][1]*y) + back[1][2]
				warped[i] = sample(c, p.w, p.h, u, v, mirror101)
			}
			for i := range c {
				out[i] = sample(warped, p.w, p.h, float32(i%p.w)+dx[i], float32(i/p.w)+dy[i], mirror)
			}
			return out
		})
	}
}

func field(w, h int, alpha float32, kernel []float32, r *random) plane {
	f := make(plane, w*h)
	for i := range f {
		f[i] = r.uniform(-1, 1)
	}
	f = separable(f, w, h, kernel, mirror)
	for i := range f {
		f[i] *= alpha
	}
	return f
}

// area is twice the signed area of a triangle.
func area(p [3][2]float32) float32 {
	return float32((p[1][0]-p[0][0])*(p[2][1]-p[0][1])) - float32((p[2][0]-p[0][0])*(p[1][1]-p[0][1]))
}

// affine returns the map [2][3] that takes three points to three others.
func affine(from, to [3][2]float32) (m [2][3]float32) {
	a, b := from[1][0]-from[0][0], from[2][0]-from[0][0]
	c, d := from[1][1]-from[0][1], from[2][1]-from[0][1]
	det := area(from)
	for k := range m {
		u, v := to[1][k]-to[0][k], to[2][k]-to[0][k]
		m[k][0] = (float32(u*d) - float32(v*c)) / det
		m[k][1] = (float32(v*a) - float32(u*b)) / det
		m[k][2] = to[0][k] - float32(m[k][0]*from[0][0]) - float32(m[k][1]*from[0][1])
	}
	return m
}

// pixelate shrinks and enlarges with Pillow's box filter.
func pixelate(s int) func(picture, *random) picture {
	size := [...]float32{.6, .5, .4, .3, .25}[s]
	return func(p picture, _ *random) picture {
		w, h := int(float32(float32(p.w)*size)), int(float32(float32(p.h)*size))
		return p.each(func(c plane) plane {
			small := boxes(transpose(boxes(transpose(c, p.w, p.h), p.h, p.w, h), h, p.w), p.w, h, w)
			out := make(plane, len(c))
			for i := range out {
				x, y := (2*(i%p.w)+1)*w/(2*p.w), (2*(i/p.w)+1)*h/(2*p.h) // the pixel whose box has the middle
				out[i] = small[y*w+x]
			}
			return out
		})
	}
}

// boxes shrinks rows of w to n by the mean of the pixels whose middles lie in
// each box.
func boxes(p plane, w, h, n int) plane {
	out := make(plane, n*h)
	for x := range n {
		// Middles m + ½ with x·w/n ≤ m + ½ < (x+1)·w/n.
		lo, hi := (2*x*w+n)/(2*n), (2*(x+1)*w+n)/(2*n)
		for y := range h {
			var sum float32
			for _, v := range p[y*w+lo : y*w+hi] {
				sum += v
			}
			out[y*n+x] = sum / float32(hi-lo)
		}
	}
	return out
}

// jpegCompression is Go's codec: the same quantisation tables and halved colour
// as Pillow's, but colour is enlarged without smoothing.
func jpegCompression(s int) func(picture, *random) picture {
	quality := [...]int{25, 18, 15, 10, 7}[s]
	return func(p picture, _ *random) picture {
		in := image.NewRGBA(image.Rect(0, 0, p.w, p.h))
		for i := range p.w * p.h {
			in.Pix[4*i], in.Pix[4*i+1], in.Pix[4*i+2], in.Pix[4*i+3] = toByte(p.c[0][i]), toByte(p.c[1][i]), toByte(p.c[2][i]), 255
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, in, &jpeg.Options{Quality: quality}); err != nil {
			panic("corrupt: jpeg: encoding to memory failed")
		}
		m, err := jpeg.Decode(&b)
		out, ok := m.(*image.YCbCr)
		if err != nil || !ok {
			panic("corrupt: jpeg: decoding what was encoded failed")
		}
		for i := range p.w * p.h {
			x, y := i%p.w, i/p.w
			yi, ci := out.YOffset(x, y), out.COffset(x, y)
			r, g, b := color.YCbCrToRGB(out.Y[yi], out.Cb[ci], out.Cr[ci])
			p.c[0][i], p.c[1][i], p.c[2][i] = float32(r)/255, float32(g)/255, float32(b)/255
		}
		return p
	}
}
