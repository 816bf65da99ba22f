package tta

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// Constants of average.
const (
	averageTime = time.Second // how long a frame counts
	averageMost = 30          // frames that count at most
)

// average is the plain baseline: the mean posterior of the last second. Its
// state has at most 8 + 30·(8 + 4(C+1)) bytes.
type average struct {
	space Space
	c     int
	rows  []float32 // [averageMost][C+1] posteriors, a ring
	times [averageMost]time.Duration
	next  int // where the next frame goes
	n     int // frames held

	mean  []float32 // [C+1]
	shift float32
}

func newAverage(s Space) Adapter {
	c := len(s.Labels)
	return &average{space: s, c: c, rows: make([]float32, averageMost*(c+1)), mean: make([]float32, c+1)}
}

func (a *average) row(i int) []float32 {
	at := (a.next - 1 - i + 2*averageMost) % averageMost // the i-th last
	return a.rows[at*(a.c+1) : (at+1)*(a.c+1)]
}

func (a *average) time(i int) time.Duration {
	return a.times[(a.next-1-i+2*averageMost)%averageMost]
}

func (a *average) Adapt(dst []float32, f Frame) {
	now := f.Time
	if a.n > 0 && now <= a.time(0) {
		now = a.time(0) + time.Second/5 // as clock counts
	}
	a.times[a.next] = now
	a.next = (a.next + 1) % averageMost
	a.n = min(a.n+1, averageMost)
	top := a.space.posterior(a.row(0), f.Logits)
	for a.n > 1 && now-a.time(a.n-1) >= averageTime {
		a.n--
	}
	clear(a.mean)
	for i := range a.n {
		for l, p := range a.row(i) {
			a.mean[l] += p
		}
	}
	for l := range a.mean {
		a.mean[l] /= float32(a.n)
	}
	a.shift = a.space.logits(dst, a.mean, f.Logits, top)
}

func (a *average) Reset() { a.n, a.next, a.shift = 0, 0, 0 }

func (a *average) Report() Report {
	return Report{Method: "average", Shift: a.shift, Entered: -1, StateBytes: 8 + a.n*(8+4*(a.c+1)), Text: "Averages the last second."}
}

// The state: C u32, frames u32; of each, the oldest first, its time i64 and its
// posterior [C+1] f32.
func (a *average) AppendState(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(a.c))
	b = binary.LittleEndian.AppendUint32(b, uint32(a.n))
	for i := a.n - 1; i >= 0; i-- {
		b = binary.LittleEndian.AppendUint64(b, uint64(a.time(i)))
		b = appendFloats(b, a.row(i))
	}
	return b
}

func (a *average) Restore(state []byte) error {
	size := 8 + 4*(a.c+1)
	if len(state) < 8 || binary.LittleEndian.Uint32(state) != uint32(a.c) {
		return fmt.Errorf("%w: average: %w", ErrState, errShort)
	}
	n := binary.LittleEndian.Uint32(state[4:])
	b := state[8:]
	if n > averageMost || len(b) != int(n)*size {
		return fmt.Errorf("%w: average: %d bytes for %d frames", ErrState, len(b), n)
	}
	last := int64(math.MinInt64)
	for i := range int(n) {
		t := int64(binary.LittleEndian.Uint64(b[i*size:]))
		if i > 0 && t <= last || t < -1<<62 || t > 1<<62 || !probabilities(b[i*size+8:(i+1)*size]) {
			return fmt.Errorf("%w: average: frame %d", ErrState, i)
		}
		last = t
	}
	a.Reset()
	a.n, a.next = int(n), int(n)%averageMost
	for i := range int(n) {
		a.times[i] = time.Duration(binary.LittleEndian.Uint64(b[i*size:]))
		takeFloats(a.rows[i*(a.c+1):(i+1)*(a.c+1)], b[i*size+8:])
	}
	return nil
}
