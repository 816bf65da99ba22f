package corrupt

import "lqa/quant/numeric"

func gaussianNoise(s int) func(picture, *random) picture {
	scale := [...]float32{.08, .12, .18, .26, .38}[s]
	return func(p picture, r *random) picture {
		for i := range p.c[0] {
			for c := range p.c {
				p.c[c][i] += float32(scale * r.normal())
			}
		}
		return p
	}
}

// shotNoise is Poisson(x·c)/c, by inversion of the distribution function.
func shotNoise(s int) func(picture, *random) picture {
	photons := [...]float32{60, 25, 12, 5, 3}[s]
	return func(p picture, r *random) picture {
		for i := range p.c[0] {
			for c := range p.c {
				p.c[c][i] = float32(poisson(float32(p.c[c][i]*photons), r.uniform(0, 1))) / photons
			}
		}
		return p
	}
}

// poisson returns the smallest k with P(X ≤ k) > u.
func poisson(mean, u float32) int {
	p := numeric.Exp(-mean)
	sum, k := p, 0
	for u >= sum && k < 200 { // far beyond what a float32 tells from 1
		k++
		p *= mean / float32(k)
		sum += p
	}
	return k
}

func impulseNoise(s int) func(picture, *random) picture {
	amount := [...]float32{.03, .06, .09, .17, .27}[s]
	return func(p picture, r *random) picture {
		for i := range p.c[0] {
			for c := range p.c {
				if r.uniform(0, 1) < amount {
					p.c[c][i] = float32(r.N(2))
				}
			}
		}
		return p
	}
}
