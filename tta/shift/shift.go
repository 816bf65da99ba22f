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
	{"exposure", "Too much light: what is bright turns white.", newExposure},
	{"cast", "Wrong white balance: too warm or too cold.", newCast},
	{"blur", "Soft: close to a Gaussian, scaled with the picture.", newBlur},
	{"defocus", "Out of focus: points become disks.", newDefocus},
	{"motion", "Moved while the shutter was open, in one direction.", newMotion},
	{"noise", "A sensor's noise, new in every frame.", newNoise},
	{"rolling", "Flickering light: dark bands that roll, and noise by rows.", newRolling},
	{"dirt", "A dirty lens: patches that scatter the light and stay.", newDirt},
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
	g := darkGain[severity-1]
	return newGain([3]int{g, g, g})
}

// exposureGain is as darkGain: 1.3 to 4.8.
var exposureGain = [MaxSeverity]int{333, 435, 589, 819, 1229}

func newExposure(severity int, _ uint64) apply {
	g := exposureGain[severity-1]
	return newGain([3]int{g, g, g})
}

// castGain is what red gains and blue loses of 256, or the other way round.
var castGain = [MaxSeverity]int{24, 48, 76, 108, 144}

func newCast(severity int, seed uint64) apply {
	g := castGain[severity-1]
	if NewSource(seed).N(2) == 1 {
		g = -g
	}
	return newGain([3]int{256 + g, 256, 256 - g})
}

// newGain multiplies each channel by its gain/256.
func newGain(gain [3]int) apply {
	var table [3][256]byte
	for c, g := range gain {
		for i := range table[c] {
			table[c][i] = byte(min((i*g+128)>>8, 255))
		}
	}
	return func(rgba []byte, _, _ int) {
		for i := 0; i+3 < len(rgba); i += 4 {
			for c := range table {
				rgba[i+c] = table[c][rgba[i+c]]
			}
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

// scaled takes a length where the short side has blurSide pixels to a picture.
func scaled(length, w, h int) int { return max(1, (length*min(w, h)+blurSide/2)/blurSide) }

func newBlur(severity int, _ uint64) apply {
	var line []byte
	return func(rgba []byte, w, h int) {
		r := scaled(blurRadius[severity-1], w, h)
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
	source := NewSource(seed)
	return func(rgba []byte, _, _ int) {
		for i := 0; i+3 < len(rgba); i += 4 {
			lo, hi := source.Next(), source.Next()
			for c, bits := range [3]uint32{uint32(lo), uint32(lo >> 32), uint32(hi)} {
				sum := int(bits&255 + bits>>8&255 + bits>>16&255 + bits>>24)
				rgba[i+c] = clip(int(rgba[i+c]) + ((sum-510)*factor+1<<15)>>16)
			}
		}
	}
}

func clip(v int) byte { return byte(min(max(v, 0), 255)) }

// rollingDepth is what the darkest row of a band loses of 256, rollingRow the
// largest noise of a row in levels.
var (
	rollingDepth = [MaxSeverity]int{40, 75, 110, 150, 195}
	rollingRow   = [MaxSeverity]int{2, 4, 6, 9, 13}
)

const rollingBands = 3 // over the height: 100 flashes a second, read out in 1/30 s

func newRolling(severity int, seed uint64) apply {
	source := NewSource(seed)
	start, speed := source.N(512), 16+source.N(96) // of 512 steps a band
	return func(rgba []byte, w, h int) {
		start += speed
		for y := range h {
			wave := (start + y*rollingBands*512/h) & 511 // up and down
			gain := 256 - rollingDepth[severity-1]*min(wave, 511-wave)>>8
			noise := source.N(2*rollingRow[severity-1]+1) - rollingRow[severity-1]
			row := rgba[4*w*y:][:4*w]
			for i := 0; i+3 < len(row); i += 4 {
				for c := range 3 {
					row[i+c] = clip((int(row[i+c])*gain+128)>>8 + noise)
				}
			}
		}
	}
}

// Source is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), a stream of bits that
// is the same everywhere.
type Source struct{ state uint64 }

// NewSource returns the stream that seed names.
func NewSource(seed uint64) *Source { return &Source{seed} }

// Next returns 64 bits.
func (s *Source) Next() uint64 {
	s.state += 0x9e3779b97f4a7c15
	z := s.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// N returns one of 0..n-1, n up to 2³¹, all as likely to within 2⁻³².
func (s *Source) N(n int) int { return int(s.Next() >> 32 * uint64(n) >> 32) }
