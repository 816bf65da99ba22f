package corrupt

import (
	"math"

	"lqa/quant/numeric"
)

// gaussian is the kernel of a Gaussian of radius r, summing to 1.
func gaussian(sigma float32, r int) []float32 {
	k := make([]float32, 2*r+1)
	var sum float32
	for i := range k {
		d := float32(i - r)
		k[i] = numeric.Exp(-d * d / (2 * sigma * sigma))
		sum += k[i]
	}
	for i := range k {
		k[i] /= sum
	}
	return k
}

// border says which pixel stands for one outside of 0..n-1.
type border func(i, n int) int

// nearest goes on with the last pixel.
func nearest(i, n int) int { return min(max(i, 0), n-1) }

// mirror is SciPy's "reflect": the last pixel comes twice.
func mirror(i, n int) int {
	i = ((i % (2 * n)) + 2*n) % (2 * n)
	return min(i, 2*n-1-i)
}

// mirror101 is OpenCV's default: the last pixel comes once.
func mirror101(i, n int) int {
	i = ((i % (2*n - 2)) + 2*n - 2) % (2*n - 2)
	return min(i, 2*n-2-i)
}

// separable filters columns and rows with k. A kernel longer than the side is
// folded into one weight a pixel first.
func separable(p plane, w, h int, k []float32, b border) plane {
	return transpose(filterRows(transpose(filterRows(p, w, h, k, b), w, h), h, w, k, b), h, w)
}

func filterRows(p plane, w, h int, k []float32, b border) plane {
	out := make(plane, len(p))
	r := len(k) / 2
	weights := make([]float32, w)
	for x := range w {
		lo, hi := max(0, x-r), min(w-1, x+r)
		clear(weights)
		for i, v := range k {
			at := b(x+i-r, w)
			weights[at] += v
			lo, hi = min(lo, at), max(hi, at)
		}
		used := weights[lo : hi+1]
		for y := range h {
			row := p[y*w+lo : y*w+hi+1]
			var sum float32
			for i, v := range used {
				sum += float32(v * row[i])
			}
			out[y*w+x] = sum
		}
	}
	return out
}

func transpose(p plane, w, h int) plane {
	out := make(plane, len(p))
	for y := range h {
		for x := range w {
			out[x*h+y] = p[y*w+x]
		}
	}
	return out
}

// tap is a pixel of a kernel that is no product of two.
type tap struct {
	dx, dy int
	weight float32
}

func convolve(p plane, w, h int, taps []tap, b border) plane {
	out := make(plane, len(p))
	xs := make([]int, w)
	for _, t := range taps {
		for x := range xs {
			xs[x] = b(x+t.dx, w)
		}
		for y := range h {
			in, dst := p[b(y+t.dy, h)*w:], out[y*w:][:w]
			for x := range dst {
				dst[x] += float32(t.weight * in[xs[x]])
			}
		}
	}
	return out
}

// disk is the kernel of defocus_blur: a disk whose rim a small Gaussian
// softens. It departs in that its weights sum to 1: the published one gains 1% at
// radius 8 from what its border mirrors.
func disk(radius int, alias float32) []tap {
	half, soft := 8, 1
	if radius > 8 {
		half, soft = radius, 2
	}
	side := 2*half + 1
	k := make(plane, side*side)
	for i := range k {
		if x, y := i%side-half, i/side-half; x*x+y*y <= radius*radius {
			k[i] = 1
		}
	}
	k = separable(k, side, side, gaussian(alias, soft), mirror101)
	var sum float32
	for _, v := range k {
		sum += v
	}
	var taps []tap
	for i, v := range k {
		if v > 0 {
			taps = append(taps, tap{i%side - half, i/side - half, v / sum})
		}
	}
	return taps
}

func defocusBlur(s int) func(picture, *random) picture {
	taps := disk([...]int{3, 4, 6, 8, 10}[s], [...]float32{.1, .5, .5, .5, .5}[s])
	return func(p picture, _ *random) picture {
		return p.each(func(c plane) plane { return convolve(c, p.w, p.h, taps, mirror101) })
	}
}

// glassBlur departs in two things: pixels are exchanged where the published
// code, by a slip with views, copies one over the other; and it goes over the
// whole picture but for a margin.
func glassBlur(s int) func(picture, *random) picture {
	sigma := [...]float32{.7, .9, 1, 1.1, 1.5}[s]
	delta := [...]int{1, 2, 2, 3, 4}[s]
	rounds := [...]int{2, 1, 3, 2, 2}[s]
	k := gaussian(sigma, int(4*sigma+.5))
	return func(p picture, r *random) picture {
		smooth := func(c plane) plane { return separable(c, p.w, p.h, k, nearest) }
		p = p.each(smooth)
		for range rounds {
			for y := p.h - delta - 1; y >= delta; y-- {
				for x := p.w - delta - 1; x >= delta; x-- {
					dx, dy := r.N(2*delta)-delta, r.N(2*delta)-delta
					i, j := y*p.w+x, (y+dy)*p.w+x+dx
					for c := range p.c {
						p.c[c][i], p.c[c][j] = p.c[c][j], p.c[c][i]
					}
				}
			}
		}
		return p.each(smooth)
	}
}

// streak is ImageMagick's kernel of motion blur: half a Gaussian, from the
// pixel along a line.
func streak(radius int, sigma, degrees float32) []tap {
	n := 2*radius + 1
	k := gaussian(sigma, n-1)[n-1:]
	var sum float32
	for _, v := range k {
		sum += v
	}
	c, s := direction(degrees)
	taps := make([]tap, n)
	for i := range taps {
		d := float32(i)
		taps[i] = tap{int(math.Ceil(float64(float32(d*c) - .5))), int(math.Ceil(float64(float32(d*s) - .5))), k[i] / sum}
	}
	return taps
}

func motionBlur(s int) func(picture, *random) picture {
	radius := [...]int{10, 15, 15, 15, 20}[s]
	sigma := [...]float32{3, 5, 8, 12, 15}[s]
	return func(p picture, r *random) picture {
		taps := streak(radius, sigma, r.uniform(-45, 45))
		return p.each(func(c plane) plane { return convolve(c, p.w, p.h, taps, nearest) })
	}
}

// zoomed returns the middle of p, zoom times as large.
func zoomed(p plane, w, h int, zoom float32) plane {
	cw, ch := int(math.Ceil(float64(float32(w)/zoom))), int(math.Ceil(float64(float32(h)/zoom)))
	left, top := (w-cw)/2, (h-ch)/2
	// As scipy.ndimage.zoom of order 1: the corners of both grids coincide.
	zw, zh := int(float32(float32(cw)*zoom)+.5), int(float32(float32(ch)*zoom)+.5)
	sx, sy := float32(cw-1)/float32(max(1, zw-1)), float32(ch-1)/float32(max(1, zh-1))
	out := make(plane, len(p))
	for y := range h {
		for x := range w {
			fx := float32(float32(min(x+max(0, zw-w)/2, zw-1)) * sx)
			fy := float32(float32(min(y+max(0, zh-h)/2, zh-1)) * sy)
			out[y*w+x] = sample(p, w, h, float32(left)+fx, float32(top)+fy, nearest)
		}
	}
	return out
}

// sample reads p between its pixels.
func sample(p plane, w, h int, x, y float32, b border) float32 {
	x0, y0 := float32(math.Floor(float64(x))), float32(math.Floor(float64(y)))
	fx, fy := x-x0, y-y0
	l, r := b(int(x0), w), b(int(x0)+1, w)
	t, d := b(int(y0), h)*w, b(int(y0)+1, h)*w
	upper := p[t+l] + float32(fx*(p[t+r]-p[t+l]))
	lower := p[d+l] + float32(fx*(p[d+r]-p[d+l]))
	return upper + float32(fy*(lower-upper))
}

func zoomBlur(s int) func(picture, *random) picture {
	steps := [...]int{12, 16, 11, 13, 11}[s] // np.arange(1, 1.11, 0.01) has 12
	step := [...]float32{.01, .01, .02, .02, .03}[s]
	return func(p picture, _ *random) picture {
		return p.each(func(c plane) plane {
			sum := append(plane(nil), c...)
			for i := range steps {
				for j, v := range zoomed(c, p.w, p.h, 1+float32(step*float32(i))) {
					sum[j] += v
				}
			}
			for j := range sum {
				sum[j] /= float32(steps + 1)
			}
			return sum
		})
	}
}
