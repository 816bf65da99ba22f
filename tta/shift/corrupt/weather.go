package corrupt

// plasma is a height map in [0, 1] by diamond-square on a torus, cut to w × h.
// decay divides the deviation at each halving; as published, its square acts.
func plasma(w, h int, decay float32, r *random) plane {
	side := 256
	for side < max(w, h) {
		side *= 2
	}
	m := make(plane, side*side)
	at := func(x, y int) float32 { return m[(y+side)%side*side+(x+side)%side] }
	wibble := float32(100)
	for step := side; step >= 2; step /= 2 {
		half := step / 2
		set := func(x, y int, sum float32) {
			m[y*side+x] = sum/4 + float32(wibble*r.uniform(-wibble, wibble))
		}
		for y := half; y < side; y += step {
			for x := half; x < side; x += step {
				set(x, y, at(x-half, y-half)+at(x+half, y-half)+at(x-half, y+half)+at(x+half, y+half))
			}
		}
		for y := 0; y < side; y += step {
			for x := half; x < side; x += step {
				set(x, y, at(x-half, y)+at(x+half, y)+at(x, y-half)+at(x, y+half))
			}
		}
		for y := half; y < side; y += step {
			for x := 0; x < side; x += step {
				set(x, y, at(x-half, y)+at(x+half, y)+at(x, y-half)+at(x, y+half))
			}
		}
		wibble /= decay
	}
	low, high := m[0], m[0]
	for _, v := range m {
		low, high = min(low, v), max(high, v)
	}
	out := make(plane, w*h)
	for y := range h {
		for x := range w {
			out[y*w+x] = (m[y*side+x] - low) / (high - low)
		}
	}
	return out
}

func fog(s int) func(picture, *random) picture {
	weight := [...]float32{1.5, 2, 2.5, 2.5, 3}[s]
	decay := [...]float32{2, 2, 1.7, 1.5, 1.4}[s]
	return func(p picture, r *random) picture {
		top := float32(0)
		for _, c := range p.c {
			for _, v := range c {
				top = max(top, v)
			}
		}
		haze := plasma(p.w, p.h, decay, r)
		for c := range p.c {
			for i, v := range haze {
				p.c[c][i] = float32((p.c[c][i] + float32(weight*v)) * (top / (top + weight)))
			}
		}
		return p
	}
}

// frost departs: the published one lays crops of six photographs of frost over
// the picture, which are not ours to ship. Ours are crystals grown from the
// ridges of two height maps, a little blue; weights are as published.
func frost(s int) func(picture, *random) picture {
	keep := [...]float32{1, .8, .7, .65, .6}[s]
	weight := [...]float32{.4, .6, .7, .7, .75}[s]
	tint := [3]float32{.9, 1, 1.1}
	return func(p picture, r *random) picture {
		coarse, fine := plasma(p.w, p.h, 1.6, r), plasma(p.w, p.h, 1.2, r)
		for i := range coarse {
			ridge := 1 - abs(float32(8*coarse[i])-float32(2*int(4*coarse[i]))-1) // up and down four times
			ice := float32(.6*ridge) + float32(.4*fine[i])
			for c := range p.c {
				p.c[c][i] = float32(keep*p.c[c][i]) + float32(weight*float32(ice*tint[c]))
			}
		}
		return p
	}
}

func abs(x float32) float32 { return max(x, -x) }

func snow(s int) func(picture, *random) picture {
	mean := [...]float32{.1, .2, .55, .55, .55}[s]
	const scale = .3
	zoom := [...]float32{3, 2, 4, 4.5, 2.5}[s]
	floor := [...]float32{.5, .5, .9, .85, .85}[s]
	radius := [...]int{10, 12, 12, 12, 12}[s]
	sigma := [...]float32{4, 4, 8, 8, 12}[s]
	keep := [...]float32{.8, .7, .7, .65, .55}[s]
	return func(p picture, r *random) picture {
		flakes := make(plane, p.w*p.h)
		for i := range flakes {
			flakes[i] = mean + float32(scale*r.normal())
		}
		flakes = zoomed(flakes, p.w, p.h, zoom)
		for i, v := range flakes {
			if v < floor {
				flakes[i] = 0
			}
			flakes[i] = min(flakes[i], 1)
		}
		flakes = convolve(flakes, p.w, p.h, streak(radius, sigma, r.uniform(-135, -45)), nearest)
		n := len(flakes)
		for i := range flakes {
			grey := float32(.299*p.c[0][i]) + float32(.587*p.c[1][i]) + float32(.114*p.c[2][i])
			fall := flakes[i] + flakes[n-1-i] // itself and turned by half a turn
			for c := range p.c {
				v := p.c[c][i]
				white := max(v, float32(grey*1.5)+.5)
				p.c[c][i] = float32(keep*v) + float32((1-keep)*white) + fall
			}
		}
		return p
	}
}

// brightness raises the value of hue, saturation and value.
func brightness(s int) func(picture, *random) picture {
	add := [...]float32{.1, .2, .3, .4, .5}[s]
	return func(p picture, _ *random) picture {
		for i := range p.c[0] {
			v := max(p.c[0][i], p.c[1][i], p.c[2][i])
			up := min(v+add, 1)
			for c := range p.c {
				if v == 0 {
					p.c[c][i] = up
				} else {
					p.c[c][i] *= up / v
				}
			}
		}
		return p
	}
}
