// Package corrupt is the fifteen corruptions of ImageNet-C at their five
// severities, written anew from the published definitions (Hendrycks and
// Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
// Perturbations", ICLR 2019, appendix B; constants from the authors'
// make_imagenet_c.py).
//
// Lengths are in pixels of a picture of 224 × 224, as published; on another
// size they are the same numbers of pixels. A corruption is a function of
// picture, severity and seed, with the same bits on every platform. Where one
// departs from the definition its comment says so.
package corrupt

import (
	"errors"
	"fmt"
	"math"

	"lqa/quant/numeric"
	"lqa/tta/shift"
)

// Severities run from 1 to MaxSeverity.
const MaxSeverity = 5

// MaxSide bounds both sides of a picture.
const MaxSide = 1024

// Errors of New and Apply.
var (
	ErrName = errors.New("corrupt: unknown corruption")
	ErrSize = errors.New("corrupt: size out of range")
)

// Kind is an entry of Kinds.
type Kind struct {
	Name string // as published
	Doc  string
	make func(severity int) func(picture, *random) picture
}

// Kinds are the fifteen in the paper's order.
var Kinds = []Kind{
	{"gaussian_noise", "Noise in low light.", gaussianNoise},
	{"shot_noise", "The grain of counted photons.", shotNoise},
	{"impulse_noise", "Salt and pepper.", impulseNoise},
	{"defocus_blur", "Out of focus.", defocusBlur},
	{"glass_blur", "Through frosted glass.", glassBlur},
	{"motion_blur", "The camera moves quickly.", motionBlur},
	{"zoom_blur", "The camera moves towards the thing.", zoomBlur},
	{"snow", "Snow falls.", snow},
	{"frost", "Ice on the lens.", frost},
	{"fog", "Fog, by the diamond-square algorithm.", fog},
	{"brightness", "A bright day.", brightness},
	{"contrast", "Flat light.", contrast},
	{"elastic_transform", "Small parts stretch.", elastic},
	{"pixelate", "A picture made too small.", pixelate},
	{"jpeg_compression", "A JPEG of low quality.", jpegCompression},
}

// short are names for the command line.
var short = map[string]string{"jpeg": "jpeg_compression", "elastic": "elastic_transform"}

// Corruption is a kind at a severity. It holds no state.
type Corruption struct {
	Name     string // as published, whatever New was asked
	Severity int
	apply    func(picture, *random) picture
}

// New returns a corruption by its published name, or by "jpeg" or "elastic";
// or ErrName.
func New(name string, severity int) (*Corruption, error) {
	if long, ok := short[name]; ok {
		name = long
	}
	for _, k := range Kinds {
		if k.Name != name {
			continue
		}
		if severity < 1 || severity > MaxSeverity {
			return nil, fmt.Errorf("%w: %s of severity %d, not in 1..%d", ErrName, name, severity, MaxSeverity)
		}
		return &Corruption{name, severity, k.make(severity - 1)}, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrName, name)
}

// Apply changes rgba [h][w][4] in place; alpha stays. Sides are 16 to MaxSide,
// or it is ErrSize.
func (c *Corruption) Apply(rgba []byte, w, h int, seed uint64) error {
	if w < 16 || h < 16 || w > MaxSide || h > MaxSide {
		return fmt.Errorf("%w: %d × %d", ErrSize, w, h)
	}
	if len(rgba) != 4*w*h {
		panic("corrupt: pixels do not fit the size")
	}
	p := newPicture(w, h)
	for i := range w * h {
		for c := range p.c {
			p.c[c][i] = float32(rgba[4*i+c]) / 255
		}
	}
	p = c.apply(p, &random{Source: *shift.NewSource(seed)})
	for i := range w * h {
		for c := range p.c {
			rgba[4*i+c] = toByte(p.c[c][i])
		}
	}
	return nil
}

// toByte cuts to [0, 1] and takes the byte below, as the published code does
// (np.uint8 of 255 x); the 2⁻¹⁰ keeps bytes that nothing changed.
func toByte(v float32) byte {
	return byte(float32(min(max(v, 0), 1)*255) + 1./1024)
}

// plane is a picture's channel, or any field over it, [h][w].
type plane []float32

// picture is three planes of values in [0, 1].
type picture struct {
	w, h int
	c    [3]plane
}

func newPicture(w, h int) picture {
	p := picture{w: w, h: h}
	for c := range p.c {
		p.c[c] = make(plane, w*h)
	}
	return p
}

// each replaces every plane by what f makes of it.
func (p picture) each(f func(plane) plane) picture {
	for c := range p.c {
		p.c[c] = f(p.c[c])
	}
	return p
}

// random is a seeded source of the deviates that the definitions ask for.
type random struct {
	shift.Source
	spare float32
	has   bool
}

// uniform returns a deviate in [lo, hi).
func (r *random) uniform(lo, hi float32) float32 {
	return lo + float32((hi-lo)*(float32(r.Next()>>40)/(1<<24)))
}

// normal returns a standard normal deviate by Marsaglia's polar method.
func (r *random) normal() float32 {
	if r.has {
		r.has = false
		return r.spare
	}
	for {
		u, v := r.uniform(-1, 1), r.uniform(-1, 1)
		s := float32(u*u) + float32(v*v)
		if s >= 1 || s == 0 {
			continue
		}
		f := float32(math.Sqrt(float64(-2 * numeric.Log(s) / s)))
		r.spare, r.has = float32(v*f), true
		return float32(u * f)
	}
}

// direction returns cosine and sine of degrees, |degrees| ≤ 360, by their
// series.
func direction(degrees float32) (c, s float32) {
	x := float64(degrees) * (math.Pi / 180)
	var cos, sin, term float64 = 0, 0, 1
	for k := 1.; k < 60; k += 2 {
		cos += term
		term *= x / k
		sin += term
		term *= -x / (k + 1)
	}
	return float32(cos), float32(sin)
}
