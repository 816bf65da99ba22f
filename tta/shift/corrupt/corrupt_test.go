package corrupt

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"testing"

	"lqa/tta/shift"
)

const side = 224

// scene has gradients, edges and texture in all channels.
func scene(w, h int) []byte {
	p := make([]byte, 4*w*h)
	s := shift.NewSource(1)
	for i := range w * h {
		x, y := i%w, i/w
		p[4*i], p[4*i+1], p[4*i+2], p[4*i+3] = byte(x*255/w), byte(60+120*((x/16+y/16)%2)), byte(y*200/h+s.N(50)), byte(i)
	}
	return p
}

func flat(level byte) []byte { return bytes.Repeat([]byte{level}, 4*side*side) }

func corrupted(t *testing.T, name string, severity int, p []byte, seed uint64) []byte {
	t.Helper()
	c, err := New(name, severity)
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.Clone(p)
	if err := c.Apply(out, side, side, seed); err != nil {
		t.Fatal(err)
	}
	return out
}

// moments are mean and standard deviation of the colours, in units of 1.
func moments(p []byte) (mean, deviation float64) {
	var sum, square float64
	for i, v := range p {
		if i%4 != 3 {
			x := float64(v) / 255
			sum += x
			square += x * x
		}
	}
	n := float64(len(p) * 3 / 4)
	mean = sum / n
	return mean, math.Sqrt(max(0, square/n-mean*mean))
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s: %.4f, want %.4f ± %.4f", what, got, want, tolerance)
	}
}

// truncated is the mean of toByte's loss, half a level.
const truncated = 0.5 / 255

func TestNoises(t *testing.T) {
	grey := flat(128)
	const level = 128. / 255
	for s := 1; s <= MaxSeverity; s++ {
		// A normal deviate cut to [0, 1] around the middle: the deviation of what
		// is left, by numeric integration.
		sigma := [...]float64{.08, .12, .18, .26, .38}[s-1]
		var first, square, weight float64
		for z := -6.; z < 6; z += .001 {
			w := math.Exp(-z * z / 2)
			x := min(max(level+sigma*z, 0), 1)
			first += w * x
			square += w * x * x
			weight += w
		}
		mean, deviation := moments(corrupted(t, "gaussian_noise", s, grey, 1))
		near(t, "gaussian mean", mean, first/weight-truncated, .003)
		near(t, "gaussian deviation", deviation, math.Sqrt(square/weight-first*first/weight/weight), .003)

		// Poisson: variance x/c, at a level that is hardly ever cut.
		photons := [...]float64{60, 25, 12, 5, 3}[s-1]
		mean, deviation = moments(corrupted(t, "shot_noise", s, flat(51), 1))
		want, wantMean := cutPoisson(.2*photons, photons)
		near(t, "shot mean", mean, wantMean-truncated, .003)
		near(t, "shot deviation", deviation, want, .003)

		amount := [...]float64{.03, .06, .09, .17, .27}[s-1]
		salt, pepper := 0, 0
		for i, v := range corrupted(t, "impulse_noise", s, grey, 1) {
			if i%4 == 3 {
				continue
			}
			switch v {
			case 0:
				pepper++
			case 255:
				salt++
			case 128:
			default:
				t.Fatalf("impulse noise made %d", v)
			}
		}
		const n = 3 * side * side
		near(t, "salt", float64(salt)/n, amount/2, .003)
		near(t, "pepper", float64(pepper)/n, amount/2, .003)
	}
}

// cutPoisson returns deviation and mean of min(k/c, 1), k Poisson.
func cutPoisson(lambda, c float64) (deviation, mean float64) {
	p := math.Exp(-lambda)
	var square float64
	for k := range 400 {
		if k > 0 {
			p *= lambda / float64(k)
		}
		x := min(float64(k)/c, 1)
		mean += p * x
		square += p * x * x
	}
	return math.Sqrt(square - mean*mean), mean
}

// TestPoisson compares with the distribution at means where every branch runs.
func TestPoisson(t *testing.T) {
	r := &random{Source: *shift.NewSource(3)}
	for _, mean := range []float32{0, .01, 1, 12, 60} {
		var sum, square float64
		const n = 20000
		for range n {
			k := float64(poisson(mean, r.uniform(0, 1)))
			sum += k
			square += k * k
		}
		m := sum / n
		tolerance := 5*math.Sqrt(float64(mean)/n) + 1e-9
		near(t, "mean", m, float64(mean), tolerance)
		near(t, "variance", square/n-m*m, float64(mean), 10*tolerance+.05*float64(mean))
	}
}

// TestBlurs_Kernel: a point of light shows the kernel; its energy stays, and its
// spread is the definition's.
func TestBlurs_Kernel(t *testing.T) {
	spread := func(taps []tap) (sum, cx, cy, square float64) {
		for _, k := range taps {
			w := float64(k.weight)
			sum += w
			cx += w * float64(k.dx)
			cy += w * float64(k.dy)
			square += w * float64(k.dx*k.dx+k.dy*k.dy)
		}
		return
	}
	for s := range MaxSeverity {
		radius := [...]int{3, 4, 6, 8, 10}[s]
		alias := [...]float64{.1, .5, .5, .5, .5}[s]
		sum, cx, cy, square := spread(disk(radius, float32(alias)))
		near(t, "disk energy", sum, 1, 1e-5)
		near(t, "disk middle", math.Hypot(cx, cy), 0, 1e-4)
		// A disk has mean square r²/2; the pixels' disk comes near, the soft rim adds.
		near(t, "disk mean square", square/float64(radius*radius)*2, 1, .16)

		sigma := [...]float32{3, 5, 8, 12, 15}[s]
		length := [...]int{10, 15, 15, 15, 20}[s]
		taps := streak(length, sigma, 30)
		sum, cx, cy, _ = spread(taps)
		near(t, "streak energy", sum, 1, 1e-5)
		near(t, "streak angle", math.Atan2(cy, cx)*180/math.Pi, 30, 8) // short ones lie on few pixels
		if len(taps) != 2*length+1 || taps[0].dx != 0 || taps[0].dy != 0 {
			t.Errorf("streak of %d taps begins at %v", len(taps), taps[0])
		}
		near(t, "streak fall", float64(taps[3].weight/taps[0].weight), math.Exp(-9/(2*float64(sigma)*float64(sigma))), 1e-5)
	}
	k := gaussian(1.5, 6)
	var sum, square float64
	for i, v := range k {
		sum += float64(v)
		square += float64(v) * float64((i-6)*(i-6))
	}
	near(t, "Gaussian energy", sum, 1, 1e-6)
	near(t, "Gaussian variance", square, 1.5*1.5, .01)
}

// TestBlurs_Effect: blurs keep a flat picture and the mean, and do more with each
// severity: glass changes more, the others smooth more.
func TestBlurs_Effect(t *testing.T) {
	roughness := func(p []byte) (sum float64) {
		for i := 4; i < len(p); i++ {
			if i%4 == 1 && i/4%side != 0 {
				sum += math.Abs(float64(p[i]) - float64(p[i-4]))
			}
		}
		return sum
	}
	change := func(p []byte) (sum float64) {
		for i, v := range scene(side, side) {
			sum += math.Abs(float64(p[i]) - float64(v))
		}
		return sum
	}
	before, _ := moments(scene(side, side))
	for _, name := range []string{"defocus_blur", "glass_blur", "motion_blur", "zoom_blur"} {
		harm := func(p []byte) float64 { return -roughness(p) }
		if name == "glass_blur" {
			harm = change
		}
		last := harm(scene(side, side))
		for s := 1; s <= MaxSeverity; s++ {
			if mean, deviation := moments(corrupted(t, name, s, flat(100), 1)); deviation > .005 || math.Abs(mean-100./255) > .005 {
				t.Errorf("%s %d: a flat picture got mean %v, deviation %v", name, s, mean, deviation)
			}
			p := corrupted(t, name, s, scene(side, side), 1)
			mean, _ := moments(p)
			near(t, name+" mean", mean, before, .03)
			now := harm(p)
			if now <= last {
				t.Errorf("%s %d: harm %v after %v", name, s, now, last)
			}
			last = now
		}
	}
}

// TestZoomed: the middle stays, and a point at distance d moves to zoom·d.
func TestZoomed(t *testing.T) {
	p := make(plane, side*side)
	for i := range p {
		p[i] = float32(i % side)
	}
	out := zoomed(p, side, side, 1.3)
	middle := (side - 1) / 2.
	for _, x := range []int{20, 60, 112, 180} {
		near(t, "zoomed ramp", float64(out[100*side+x]), middle+(float64(x)-middle)/1.3, 1)
	}
	if got := zoomed(p, side, side, 1); got[5] != p[5] || got[side*side-1] != p[side*side-1] {
		t.Error("a zoom of 1 changes the picture")
	}
}

// TestPlasma: full range, rough at every scale, smoother with more decay.
func TestPlasma(t *testing.T) {
	step := func(decay float32) float64 {
		m := plasma(side, side, decay, &random{Source: *shift.NewSource(5)})
		var sum float64
		for i, v := range m {
			if v < 0 || v > 1 {
				t.Fatalf("height %v", v)
			}
			if i%side > 0 {
				sum += math.Abs(float64(v - m[i-1]))
			}
		}
		return sum / float64(len(m))
	}
	rough, smooth := step(1.4), step(3)
	if smooth <= 0 || rough < 2*smooth {
		t.Errorf("mean steps %v and %v", rough, smooth)
	}
}

func TestWeather(t *testing.T) {
	dark := flat(51)
	for s := 1; s <= MaxSeverity; s++ {
		// Fog: (x + w·plasma)·x/(x + w); over seeds the plasma's mean is about ½.
		w := [...]float64{1.5, 2, 2.5, 2.5, 3}[s-1]
		var mean float64
		const seeds = 12
		for seed := range uint64(seeds) {
			m, _ := moments(corrupted(t, "fog", s, dark, seed))
			mean += m / seeds
		}
		near(t, "fog mean", mean, (.2+w/2)*.2/(.2+w), .03)

		add := [...]float64{.1, .2, .3, .4, .5}[s-1]
		mean, deviation := moments(corrupted(t, "brightness", s, dark, 1))
		near(t, "brightness mean", mean, .2+add-truncated, .003)
		near(t, "brightness deviation", deviation, 0, 1e-4)

		// Snow: keep·x + (1-keep)·max(x, 1.5·x + ½), then flakes on top; the least
		// pixel has none.
		keep := [...]float64{.8, .7, .7, .65, .55}[s-1]
		p := corrupted(t, "snow", s, dark, 1)
		least := byte(255)
		for i, v := range p {
			if i%4 != 3 {
				least = min(least, v)
			}
		}
		base := keep*.2 + (1-keep)*.8
		near(t, "snow's ground", float64(least)/255, base, .02)
		if mean, _ := moments(p); mean < base+.01 {
			t.Errorf("snow %d: mean %v, no flakes on %v", s, mean, base)
		}

		// Frost: keep·x + weight·ice, ice of mean 0.3 to 0.7.
		keep = [...]float64{1, .8, .7, .65, .6}[s-1]
		weight := [...]float64{.4, .6, .7, .7, .75}[s-1]
		mean, deviation = moments(corrupted(t, "frost", s, dark, 1))
		near(t, "frost mean", mean, keep*.2+weight*.5, .2*weight)
		if deviation < .1*weight {
			t.Errorf("frost %d: deviation %v", s, deviation)
		}
	}
	// Brightness keeps hue and saturation: the channels' ratio.
	p := bytes.Repeat([]byte{100, 50, 25, 255}, side*side)
	if got := corrupted(t, "brightness", 2, p, 1); math.Abs(float64(got[0])-151) > 1 || math.Abs(float64(got[1])-75.5) > 1 || math.Abs(float64(got[2])-37.75) > 1 {
		t.Errorf("brightness made %v of 100 50 25", got[:3])
	}
}

func TestDigital(t *testing.T) {
	in := scene(side, side)
	for s := 1; s <= MaxSeverity; s++ {
		slope := [...]float64{.4, .3, .2, .1, .05}[s-1]
		got := corrupted(t, "contrast", s, in, 1)
		for c := range 3 {
			var sum, n float64
			for i := c; i < len(in); i += 4 {
				sum += float64(in[i])
				n++
			}
			for i := c; i < len(in); i += 4 * 997 {
				want := (float64(in[i])-sum/n)*slope + sum/n
				near(t, "contrast", float64(got[i]), want-.5, .51)
			}
		}

		// Pixelate: about side·size runs of one colour in each row.
		size := [...]float64{.6, .5, .4, .3, .25}[s-1]
		noisy := corrupted(t, "gaussian_noise", 3, flat(128), 9)
		got = corrupted(t, "pixelate", s, noisy, 1)
		runs := 1
		for x := 1; x < side; x++ {
			if !bytes.Equal(got[4*(side*100+x):][:3], got[4*(side*100+x-1):][:3]) {
				runs++
			}
		}
		near(t, "pixelate's runs", float64(runs), math.Floor(side*size), 1)
		inMean, _ := moments(noisy)
		outMean, _ := moments(got)
		near(t, "pixelate mean", outMean, inMean-truncated, .005)
	}

	// JPEG: coarser with each severity, in blocks of 8.
	last := 0.
	for s := 1; s <= MaxSeverity; s++ {
		var square float64
		for i, v := range corrupted(t, "jpeg", s, in, 1) {
			square += (float64(v) - float64(in[i])) * (float64(v) - float64(in[i]))
		}
		if square <= last {
			t.Errorf("jpeg %d: error %v after %v", s, square, last)
		}
		last = square
	}

	// Elastic: a field of stated reach; a flat picture stays.
	for s := 1; s <= MaxSeverity; s++ {
		if _, deviation := moments(corrupted(t, "elastic_transform", s, flat(100), 1)); deviation > .005 {
			t.Errorf("elastic %d: a flat picture got deviation %v", s, deviation)
		}
		if bytes.Equal(corrupted(t, "elastic_transform", s, in, 1), in) {
			t.Errorf("elastic %d changes nothing", s)
		}
	}
	// White noise of deviation 1/√3 through a Gaussian: 1/√3/(2σ√π).
	const sigma = 244 * .01
	f := field(side, side, 1, gaussian(sigma, 7), &random{Source: *shift.NewSource(1)})
	var square float64
	for _, v := range f {
		square += float64(v) * float64(v)
	}
	near(t, "field's deviation", math.Sqrt(square/float64(len(f))), 1/math.Sqrt(3)/(2*sigma*math.Sqrt(math.Pi)), .01)
}

func TestAffine(t *testing.T) {
	from, to := [3][2]float32{{1, 2}, {5, 3}, {2, 9}}, [3][2]float32{{-1, 0}, {4, 4}, {7, -2}}
	m := affine(from, to)
	for i, p := range from {
		for k := range 2 {
			near(t, "affine", float64(m[k][0]*p[0]+m[k][1]*p[1]+m[k][2]), float64(to[i][k]), 1e-4)
		}
	}
	for _, a := range []float32{-135, -45, 0, 30, 90, 360} {
		c, s := direction(a)
		near(t, "cosine", float64(c), math.Cos(float64(a)*math.Pi/180), 1e-6)
		near(t, "sine", float64(s), math.Sin(float64(a)*math.Pi/180), 1e-6)
	}
}

func TestBorders(t *testing.T) {
	for i, want := range map[int][3]int{-1: {0, 0, 1}, -2: {0, 1, 2}, 0: {0, 0, 0}, 3: {3, 3, 3}, 4: {3, 3, 2}, 5: {3, 2, 1}, 9: {3, 1, 3}, -9: {0, 0, 3}} {
		if got := [3]int{nearest(i, 4), mirror(i, 4), mirror101(i, 4)}; got != want {
			t.Errorf("%d of 4 becomes %v, want %v", i, got, want)
		}
	}
}

// TestKinds: alpha stays, a seed gives the same bytes, seeds matter where there
// is chance, odd sizes work, and all platforms agree.
func TestKinds(t *testing.T) {
	if len(Kinds) != 15 {
		t.Errorf("%d corruptions", len(Kinds))
	}
	fixed := map[string]bool{"defocus_blur": true, "zoom_blur": true, "brightness": true, "contrast": true, "pixelate": true, "jpeg_compression": true}
	h := sha256.New()
	for _, k := range Kinds {
		for _, s := range []int{3, 5} {
			const w, h2 = 60, 47
			var out [3][]byte
			for i, seed := range []uint64{1, 1, 2} {
				c, err := New(k.Name, s)
				if err != nil {
					t.Fatal(err)
				}
				out[i] = scene(w, h2)
				if err := c.Apply(out[i], w, h2, seed); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(out[0], out[1]) {
				t.Errorf("%s %d: same seed, other bytes", k.Name, s)
			}
			if bytes.Equal(out[0], out[2]) != fixed[k.Name] {
				t.Errorf("%s %d: equal for other seeds: %v", k.Name, s, !fixed[k.Name])
			}
			for i := 3; i < len(out[0]); i += 4 {
				if out[0][i] != byte(i/4) {
					t.Fatalf("%s: alpha changed", k.Name)
				}
			}
			h.Write(out[0])
		}
	}
	const want = "0d92900d9fbebbe0c0c2730b9cf5c38bb18220310b074b90db17fb5f127924ec"
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("corruptions hash to %s, want %s", got, want)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name     string
		severity int
	}{{"fogg", 1}, {"", 1}, {"fog", 0}, {"fog", 6}} {
		if _, err := New(c.name, c.severity); !errors.Is(err, ErrName) {
			t.Errorf("%s %d: %v", c.name, c.severity, err)
		}
	}
	c, err := New("jpeg", 1)
	if err != nil || c.Name != "jpeg_compression" {
		t.Fatalf("%+v, %v", c, err)
	}
	for _, size := range [][2]int{{0, 0}, {15, 16}, {16, MaxSide + 1}} {
		if err := c.Apply(make([]byte, 4*size[0]*size[1]), size[0], size[1], 0); !errors.Is(err, ErrSize) {
			t.Errorf("%v: %v", size, err)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	for _, k := range Kinds {
		b.Run(k.Name, func(b *testing.B) {
			c, _ := New(k.Name, 3)
			p := scene(side, side)
			for b.Loop() {
				c.Apply(p, side, side, 1)
			}
		})
	}
}
