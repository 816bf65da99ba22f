// Package shift makes pictures hard, the way cameras and rooms do: effects on
// RGBA pixels by name and severity. Effects are seeded and made of integer
// arithmetic, so that the same pixels give the same bytes on every platform.
package shift

import (
	"errors"
	"fmt"
)

// Severities run from 1, hardly seen, to MaxSeverity, hard for people too.
const MaxSeverity = 5

// ErrEffect means a name that no effect has or a severity out of range.
var ErrEffect = errors.New("shift: unknown effect")

// Kind is an entry of Kinds.
type Kind struct {
	Name string
	Doc  string // one sentence
	make func(severity int, seed uint64) apply
}

// Kinds is the one list of effects: pages, eval and tests range over it.
var Kinds = []Kind{
	{"dark", "Less light: fewer levels between black and white.", newDark},
	{"blur", "Out of focus: close to a Gaussian, scaled with the picture.", newBlur},
	{"noise", "A sensor's noise, new in every frame.", newNoise},
}

// apply changes rgba [h][w][4] in place and leaves alpha alone.
type apply func(rgba []byte, w, h int)

// Effect is a kind at a severity. It keeps scratch memory and, where it is
// random, its place in the sequence: one goroutine owns it.
type Effect struct {
	Name     string
	Severity int
	apply    apply
}

// New returns an effect at the beginning of its sequence, or ErrEffect.
func New(name string, severity int, seed uint64) (*Effect, error) {
	for _, k := range Kinds {
		if k.Name != name {
			continue
		}
		if severity < 1 || severity > MaxSeverity {
			return nil, fmt.Errorf("%w: %s of severity %d, not in 1..%d", ErrEffect, name, severity, MaxSeverity)
		}
		return &Effect{name, severity, k.make(severity, seed)}, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrEffect, name)
}

// Apply changes rgba [h][w][4] in place; alpha stays. It allocates only when a
// picture is larger than those before.
func (e *Effect) Apply(rgba []byte, w, h int) {
	if w < 0 || h < 0 || len(rgba) != 4*w*h {
		panic("shift: pixels do not fit the size")
	}
	e.apply(rgba, w, h)
}

// darkGain is the factor on gamma-coded bytes, times 256. Cameras' bytes are
// about light^(1/2.2): 0.5 here is a fifth of the light.
var darkGain = [MaxSeverity]int{179, 128, 90, 64, 38}

func newDark(severity int, _ uint64) apply {
	var table [256]byte
	for i := range table {
		table[i] = byte((i*darkGain[severity-1] + 128) >> 8)
	}
	return func(rgba []byte, _, _ int) {
		for i := 0; i+3 < len(rgba); i += 4 {
			rgba[i], rgba[i+1], rgba[i+2] = table[rgba[i]], table[rgba[i+1]], table[rgba[i+2]]
		}
	}
}

// blurRadius is the radius of each of three box filters where the short side
// has blurSide pixels. Three of radius r have the variance of a Gaussian with
// σ² = r(r+1).
var blurRadius = [MaxSeverity]int{1, 2, 3, 4, 6}

const (
	blurSide   = 224
	blurPasses = 3
)

func newBlur(severity int, _ uint64) apply {
	var line []byte
	return func(rgba []byte, w, h int) {
		r := max(1, (blurRadius[severity-1]*min(w, h)+blurSide/2)/blurSide)
		if n := 4 * max(w, h); len(line) < n {
			line = make([]byte, n)
		}
		for range blurPasses {
			for y := range h {
				boxLine(rgba[4*w*y:], line, 4, w, r)
			}
			for x := range w {
				boxLine(rgba[4*x:], line, 4*w, h, r)
			}
		}
	}
}

// boxLine replaces the n pixels at pix[0], pix[step], ... by the rounded mean of
// the 2r+1 around each; beyond the ends the last pixel goes on. line is scratch
// of 4n bytes.
func boxLine(pix, line []byte, step, n, r int) {
	for i := range n {
		copy(line[4*i:4*i+4], pix[step*i:step*i+4])
	}
	size := 2*r + 1
	for c := range 3 {
		sum := size / 2 // rounds
		for k := -r; k <= r; k++ {
			sum += int(line[4*min(max(k, 0), n-1)+c])
		}
		for i := range n {
			pix[step*i+c] = byte(sum / size)
			sum += int(line[4*min(i+r+1, n-1)+c]) - int(line[4*max(i-r, 0)+c])
		}
	}
}

// noiseLevels is the standard deviation in levels of 255.
var noiseLevels = [MaxSeverity]int{8, 14, 22, 32, 45}

func newNoise(severity int, seed uint64) apply {
	// The sum of four random bytes has mean 510 and standard deviation 147.8;
	// this factor, times 2¹⁶, brings it to the level.
	factor := noiseLevels[severity-1] * 65536 * 10 / 1478
	state := seed
	return func(rgba []byte, _, _ int) {
		for i := 0; i+3 < len(rgba); i += 4 {
			lo, hi := splitmix(&state), splitmix(&state)
			for c, bits := range [3]uint32{uint32(lo), uint32(lo >> 32), uint32(hi)} {
				sum := int(bits&255 + bits>>8&255 + bits>>16&255 + bits>>24)
				v := int(rgba[i+c]) + ((sum-510)*factor+1<<15)>>16
				rgba[i+c] = byte(min(max(v, 0), 255))
			}
		}
	}
}

// splitmix is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
func splitmix(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
