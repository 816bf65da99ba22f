package calibrate

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"lqa/quant/numeric"
	"lqa/quant/qtype"
)

// Method is a way to round a weight.
type Method int

const (
	// Nearest takes each scale from the largest magnitude, as package qtype
	// does, and the nearest codes.
	Nearest Method = iota
	// Clipped searches each group's (8 bits: each row's) scale for the least
	// squared error, weighted by the energy of the input channels where that is
	// known, and takes the nearest codes.
	Clipped
	// GPTQ makes later weights of a row answer for the errors of earlier ones.
	// It needs a Layer.
	GPTQ
)

var methodNames = [...]string{"nearest", "clipped", "gptq"}

func (m Method) String() string {
	if m < 0 || int(m) >= len(methodNames) {
		return fmt.Sprintf("Method(%d)", int(m))
	}
	return methodNames[m]
}

// ParseMethod is the inverse of String.
func ParseMethod(s string) (Method, error) {
	for i, name := range methodNames {
		if s == name {
			return Method(i), nil
		}
	}
	return 0, fmt.Errorf("%w %.60q", ErrMethod, s)
}

// Errors of Round, besides qtype's ErrKind and ErrShape.
var (
	ErrMethod  = errors.New("calibrate: unknown method")
	ErrWeight  = errors.New("calibrate: weight cannot be stored") // NaN, infinite, or beyond a half's range
	ErrHessian = errors.New("calibrate: bad layer statistics")    // missing, of another shape, NaN, no XᵀX
)

// Round stores a linear layer's weight w [N,K], row-major, as kind: what
// Dequantize reads, with positive finite scales. It takes q4 to q7, q8c, q8r
// and f16, which every method rounds to nearest. h are the layer's statistics;
// GPTQ needs them, Clipped may do without (nil).
//
// The same input gives the same bytes on any number of processors. Between
// machines GPTQ's may differ: gonum's Cholesky sums in another order where it
// has assembly (amd64).
func Round(m Method, kind qtype.Kind, w []float32, n, k int, h *Layer) ([]byte, error) {
	if m < 0 || int(m) >= len(methodNames) {
		return nil, fmt.Errorf("%w %d", ErrMethod, int(m))
	}
	if !kind.Linear() && kind != qtype.Q8R {
		return nil, fmt.Errorf("%w %q for a linear layer", qtype.ErrKind, string(kind))
	}
	shape := []int{n, k}
	size, err := kind.Size(shape)
	if err != nil {
		return nil, err
	}
	if len(w) != n*k {
		return nil, fmt.Errorf("%w: %d values for %v", qtype.ErrShape, len(w), shape)
	}
	g := gridOf(kind, n, k)
	for i, v := range w {
		reach := v
		if kind != qtype.F16 {
			reach /= g.reach
		}
		if r := float64(numeric.RoundFloat16(reach)); math.IsNaN(r) || math.IsInf(r, 0) {
			return nil, fmt.Errorf("%w: %v at [%d,%d] as %s", ErrWeight, v, i/k, i%k, kind)
		}
	}
	b := make([]byte, 0, size)
	if kind == qtype.F16 {
		return numeric.AppendFloat16(b, w...), nil
	}
	if m == Nearest {
		switch l, _ := kind.Low(); kind {
		case qtype.Q8C:
			return qtype.AppendQ8C(b, w, n, k), nil
		case qtype.Q8R:
			return qtype.AppendQ8R(b, w, n, k), nil
		default:
			return l.Append(b, w, n, k), nil
		}
	}
	if h == nil && m == GPTQ {
		return nil, fmt.Errorf("%w: gptq needs them", ErrHessian)
	}
	var d *damped
	if h != nil {
		if d, err = damp(h, k); err != nil {
			return nil, err
		}
	}
	q := newRounded(g)
	if m == Clipped {
		q.clip(w, d)
	} else if err := q.gptq(w, d); err != nil {
		return nil, err
	}
	return q.encode(b, kind), nil
}

// grid is where the values of a weight [N,K] may lie: an integer from lo to hi
// times the scale of its group.
type grid struct {
	n, k          int
	group, groups int     // columns to a scale, scales to a row
	lo, hi        float32 // codes, counted from weight zero
	reach         float32 // what Nearest divides the largest magnitude by
}

func gridOf(kind qtype.Kind, n, k int) grid {
	if l, ok := kind.Low(); ok {
		zero := float32(l.Zero())
		return grid{n, k, l.Group(k), l.Groups(k), -zero, zero - 1, zero - 0.5}
	}
	return grid{n, k, k, 1, -127, 127, 127}
}

// columns is where group i begins and ends.
func (g *grid) columns(i int) (from, to int) { return i * g.group, min(g.k, (i+1)*g.group) }

// code is the nearest code to v.
func (g *grid) code(v, scale float32) int8 {
	c := math.RoundToEven(float64(v) / float64(scale))
	return int8(max(float64(g.lo), min(float64(g.hi), c)))
}

// half is the nearest scale that a file can hold.
func half(s float32) float32 { return max(numeric.RoundFloat16(s), 0x1p-24) }

// The search for a scale tries steps from most to least times Nearest's. Twice
// the steps gain nothing (96 against 48: within 1% either way).
const (
	mostScale  = 1.15
	leastScale = 0.4
	scaleSteps = 48
)

// fit returns the scale for x with the least Σ weight·(x - scale·code)².
func (g *grid) fit(x, weight []float32) float32 {
	var top float32
	for _, v := range x {
		top = max(top, v, -v)
	}
	top /= g.reach
	best := half(top)
	least := g.miss(x, weight, best)
	for i := range scaleSteps {
		s := half(top * (mostScale - float32(float32(i)*((mostScale-leastScale)/scaleSteps))))
		if e := g.miss(x, weight, s); e < least {
			best, least = s, e
		}
	}
	for range 8 { // to where codes and scale agree
		s := g.refit(x, weight, best)
		e := g.miss(x, weight, s)
		if !(e < least) {
			break
		}
		best, least = s, e
	}
	return best
}

// miss is the error that fit minimises.
func (g *grid) miss(x, weight []float32, scale float32) float64 {
	const toInteger = 3 << 22 // adding it rounds a small float32 to even
	inv := 1 / scale
	var sum float64
	weight = weight[:len(x)]
	for i, v := range x {
		c := float32(v * inv)
		if c < g.lo {
			c = g.lo
		}
		if c > g.hi {
			c = g.hi
		}
		c = (c + toInteger) - toInteger
		d := v - float32(c*scale)
		sum += float64(float32(d*d) * weight[i])
	}
	return sum
}

// refit is the best scale for the codes that scale gives.
func (g *grid) refit(x, weight []float32, scale float32) float32 {
	var xc, cc float64
	for i, v := range x {
		c := float64(g.code(v, scale))
		wc := float64(weight[i]) * c
		xc += float64(wc * float64(v))
		cc += float64(wc * c)
	}
	if !(xc > 0) {
		return scale
	}
	return half(float32(xc / cc))
}

// rounded is a weight on its grid.
type rounded struct {
	grid
	scales []float32 // [N,groups]
	codes  []int8    // [N,K], counted from weight zero
}

func newRounded(g grid) *rounded {
	return &rounded{g, make([]float32, g.n*g.groups), make([]int8, g.n*g.k)}
}

// fitRow chooses the scales of row r.
func (q *rounded) fitRow(r int, row, weight []float32) {
	for i := range q.groups {
		from, to := q.columns(i)
		q.scales[r*q.groups+i] = q.fit(row[from:to], weight[from:to])
	}
}

// encode appends the bytes of the kind that the grid is of.
func (q *rounded) encode(b []byte, kind qtype.Kind) []byte {
	l, low := kind.Low()
	switch {
	case low:
		codes := make([]byte, len(q.codes))
		for i, c := range q.codes {
			codes[i] = byte(int(c) + l.Zero())
		}
		return l.AppendCodes(b, q.scales, codes, q.n, q.k)
	case kind == qtype.Q8R:
		return qtype.AppendQ8RCodes(b, q.scales, q.codes, q.n)
	}
	return qtype.AppendQ8CCodes(b, q.scales, q.codes, q.n, q.k)
}

// clip rounds w by Clipped; d may be nil.
func (q *rounded) clip(w []float32, d *damped) {
	k := q.k
	weight := make([]float32, k)
	for c := range weight {
		weight[c] = 1
		if d != nil {
			weight[c] = d.h[c*k+c]
		}
	}
	inChunks(q.n, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			row := w[r*k : (r+1)*k]
			q.fitRow(r, row, weight)
			for c, v := range row {
				q.codes[r*k+c] = q.code(v, q.scales[r*q.groups+c/q.group])
			}
		}
	})
}

// chunk is how many rows of a weight a goroutine takes at a time: they share
// what they read of a matrix [K,K].
const chunk = 16

// inChunks calls f for rows lo to hi of n, on all processors. What f does for
// a row must not depend on the others.
func inChunks(n int, f func(lo, hi int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (n+chunk-1)/chunk) {
		wg.Go(func() {
			for {
				hi := int(next.Add(chunk))
				if hi-chunk >= n {
					return
				}
				f(hi-chunk, min(n, hi))
			}
		})
	}
	wg.Wait()
}
