package tta

import (
	"time"

	"lqa/quant/numeric"
)

// posterior writes softmax(logits/Temperature) to dst [C+1]; the last value is
// that of "none of these", 0 where the space has none. It returns the largest
// logit.
func (s *Space) posterior(dst, logits []float32) (top float32) {
	top = largest(logits)
	highest := top
	if s.HasNone {
		highest = max(top, s.None)
	}
	c := len(logits)
	temperature := s.temperature()
	for i, l := range logits {
		dst[i] = (l - highest) / temperature
	}
	answers := dst[:s.answers()]
	dst[c] = (s.None - highest) / temperature
	sum := numeric.Exps(answers, answers)
	if !s.HasNone {
		dst[c] = 0
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
		at = max(at, largest(p))
	}
	zero := numeric.Log(at)
	var part [64]float32 // dst may be old
	for from := 0; from < c; from += len(part) {
		to := min(from+len(part), c)
		logs := part[:to-from]
		logsOf(logs, p[from:to], least)
		for i, v := range logs {
			v = level + float32(temperature*(v-zero))
			shift = further(shift, v-old[from+i])
			dst[from+i] = v
		}
	}
	return shift
}

// largest of some numbers. Loops do without min and max, which are calls under
// js/wasm and cost more there than all else.
func largest(x []float32) float32 {
	top := x[0]
	for _, v := range x {
		if v > top {
			top = v
		}
	}
	return top
}

// further is the larger of shift and |d|.
func further(shift, d float32) float32 {
	if d > shift {
		return d
	}
	if -d > shift {
		return -d
	}
	return shift
}

// logsOf writes the logarithms of probabilities to dst, those below least
// counting as that.
func logsOf(dst, p []float32, least float32) {
	for i, v := range p {
		if v < least {
			v = least
		}
		dst[i] = v
	}
	numeric.Logs(dst, dst)
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
