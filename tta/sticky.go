package tta

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"lqa/quant/numeric"
)

// stickyRate is how often sticky expects the label to change, per second: at 5
// frames a second it stays with probability 0.95.
const stickyRate = 0.2565

// sticky is the plain forward filter of a hidden Markov model: what is in view
// stays, or changes to anything at a fixed rate. Its state has 13 + 4(C+1)
// bytes.
type sticky struct {
	space Space
	clock clock
	p     []float32 // [C+1] of this frame
	q     []float32 // [C+1] belief

	stay, shift float32 // of the last frame; not part of the state
}

func newSticky(s Space) Adapter {
	c := len(s.Labels)
	a := &sticky{space: s, p: make([]float32, c+1), q: make([]float32, c+1)}
	a.Reset()
	return a
}

// answers is how many answers a posterior has.
func (s *Space) answers() int {
	if s.HasNone {
		return len(s.Labels) + 1
	}
	return len(s.Labels)
}

func (a *sticky) Adapt(dst []float32, f Frame) {
	top := a.space.posterior(a.p, f.Logits)
	a.stay = numeric.Exp(-float32(stickyRate * a.clock.step(f.Time)))
	n := a.space.answers()
	fresh := (1 - a.stay) / float32(n)
	var sum float32
	for i := range n {
		a.q[i] = float32((float32(a.stay*a.q[i]) + fresh) * a.p[i])
		sum += a.q[i]
	}
	for i := range n {
		a.q[i] /= sum
	}
	a.shift = a.space.logits(dst, a.q, f.Logits, top)
}

func (a *sticky) Reset() {
	n := a.space.answers()
	clear(a.q)
	for i := range n {
		a.q[i] = 1 / float32(n)
	}
	a.clock, a.stay, a.shift = clock{}, 0, 0
}

func (a *sticky) Report() Report {
	return Report{Method: "sticky", Shift: a.shift, Stickiness: a.stay, Entered: -1, StateBytes: 13 + 4*len(a.q), Text: "Expects what is in view to stay."}
}

// The state: C u32, whether a frame was seen u8 and its time i64, belief [C+1]
// f32.
func (a *sticky) AppendState(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(a.q)-1))
	b = a.clock.append(b)
	return appendFloats(b, a.q)
}

func (a *sticky) Restore(b []byte) error {
	if len(b) != 13+4*len(a.q) || binary.LittleEndian.Uint32(b) != uint32(len(a.q)-1) || b[4] > 1 || !probabilities(b[13:]) {
		return fmt.Errorf("%w: sticky", ErrState)
	}
	a.Reset()
	a.clock.take(b[4:])
	takeFloats(a.q, b[13:])
	return nil
}

func (c *clock) append(b []byte) []byte {
	started := byte(0)
	if c.started {
		started = 1
	}
	return binary.LittleEndian.AppendUint64(append(b, started), uint64(c.last))
}

func (c *clock) take(b []byte) {
	c.started, c.last = b[0] == 1, time.Duration(binary.LittleEndian.Uint64(b[1:]))
}

func appendFloats(b []byte, x []float32) []byte {
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func takeFloats(dst []float32, b []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
}

// probabilities says whether b holds f32 values of 0..1 that sum to about 1.
func probabilities(b []byte) bool {
	var sum float32
	for ; len(b) >= 4; b = b[4:] {
		p := math.Float32frombits(binary.LittleEndian.Uint32(b))
		if !(p >= 0 && p <= 1) || math.Signbit(float64(p)) {
			return false
		}
		sum += p
	}
	return sum > 0.99 && sum < 1.01
}
