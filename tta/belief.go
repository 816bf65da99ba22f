package tta

import (
	"time"

	"lqa/quant/numeric"
)

// posterior writes softmax(logits/Temperature) to dst [C+1]; the last value is
// that of "none of these", 0 where the space has none. It returns the largest
// logit.
func (s *Space) posterior(dst, logits []float32) (top float32) {
	top = logits[0]
	for _, l := range logits {
		top = max(top, l)
	}
	largest := top
	if s.HasNone {
		largest = max(top, s.None)
	}
	c := len(logits)
	temperature := s.temperature()
	var sum float32
	for i, l := range logits {
		dst[i] = numeric.Exp((l - largest) / temperature)
		sum += dst[i]
	}
	dst[c] = 0
	if s.HasNone {
		dst[c] = numeric.Exp((s.None - largest) / temperature)
		sum += dst[c]
	}
	for i := range dst {
		dst[i] /= sum
	}
	return top
}

// logits is the way back: it writes [C] logits whose posterior is p [C+1].
// Where the space has "none of these" its fixed logit sets their level, else
// the largest is top. It returns the largest change from old.
func (s *Space) logits(dst, p, old []float32, top float32) (shift float32) {
	const least = 1e-12 // probabilities below count as this
	temperature := s.temperature()
	c := len(dst)
	level, at := top, float32(least)
	if s.HasNone {
		level, at = s.None, max(p[c], least)
	} else {
		for _, v := range p {
			at = max(at, v)
		}
	}
	zero := numeric.Log(at)
	for i := range dst {
		v := level + float32(temperature*(numeric.Log(max(p[i], least))-zero))
		shift = max(shift, v-old[i], old[i]-v)
		dst[i] = v
	}
	return shift
}

func (s *Space) temperature() float32 {
	if s.Temperature == 0 {
		return 1
	}
	return s.Temperature
}

// clock turns times of frames into steps.
type clock struct {
	last    time.Duration
	started bool
}

// step returns the seconds since the frame before, at most 5. Frames without
// increasing times count as 5 a second.
func (c *clock) step(now time.Duration) float32 {
	d := now - c.last
	if !c.started || d <= 0 {
		d = time.Second / 5
	}
	c.last, c.started = now, true
	return float32(min(d, 5*time.Second)) / 1e9
}
