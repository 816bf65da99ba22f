package calibrate

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"

	"lqa/quant/json"
	"lqa/quant/qtype"
)

// Budget says what a plan may cost. One of Bytes and Drift is given; with both,
// both hold.
type Budget struct {
	Bytes int64   // of all weights in the plan; 0: any
	Drift float64 // sum of the layers' drifts; 0: any
	// Fixed choose kinds whatever they cost; the last that fits holds.
	Fixed []Choice
}

// Choice is a kind for the weights whose names fit a pattern (path.Match).
type Choice struct {
	Pattern string
	Kind    qtype.Kind
}

// Plan says how each linear weight is stored, in the model's order.
type Plan []Planned

// Planned is one weight's part of a plan. Its figures are Tried's.
type Planned struct {
	Name  string
	Kind  qtype.Kind
	Bytes int
	Error float64
	Drift float64
	Why   string
	Tried []Tried // kinds and drifts alone, once a plan was read
}

// ErrBudget: no choice of kinds keeps to the budget.
var ErrBudget = errors.New("calibrate: budget cannot be kept")

// Allocate chooses kinds: everyone begins with the kind of fewest bytes, and
// bytes are spent where they take away most drift, as far as the budget goes.
// Drifts are added up: each layer's is that of rounding it alone. Steps go along
// the lower convex hull of each layer's candidates (bytes, drift), so that an
// early step is never worse than a later one; ties fall to the earlier layer.
func Allocate(layers []Measured, b Budget) (Plan, error) {
	if b.Bytes <= 0 && b.Drift <= 0 {
		return nil, fmt.Errorf("%w: neither bytes nor drift are given", ErrBudget)
	}
	a := &allocation{layers: layers, at: make([]int, len(layers)), hulls: make([][]Tried, len(layers)), why: make([]string, len(layers))}
	for i, l := range layers {
		if len(l.Tried) == 0 {
			return nil, fmt.Errorf("%w: %s has no candidate", ErrInput, l.Name)
		}
		for _, t := range l.Tried {
			if !(t.Drift >= 0 && t.Drift <= math.MaxFloat64) || t.Bytes < 1 {
				return nil, fmt.Errorf("%w: %s as %s drifts by %v for %d bytes", ErrInput, l.Name, t.Kind, t.Drift, t.Bytes)
			}
		}
		var err error
		if a.hulls[i], a.why[i], err = candidates(l, b.Fixed); err != nil {
			return nil, err
		}
		a.bytes += int64(a.hulls[i][0].Bytes)
	}
	if b.Bytes > 0 && a.bytes > b.Bytes {
		return nil, fmt.Errorf("%w: the smallest kinds take %d bytes, %d are allowed", ErrBudget, a.bytes, b.Bytes)
	}
	for b.Drift <= 0 || a.drift() > b.Drift {
		best := a.best(b.Bytes)
		if best < 0 {
			break
		}
		a.step(best, 1)
	}
	if b.Drift > 0 {
		if d := a.drift(); d > b.Drift {
			return nil, fmt.Errorf("%w: drift is %.3g at best, %.3g is allowed", ErrBudget, d, b.Drift)
		}
		a.giveBack(b.Drift)
	}
	return a.plan(), nil
}

type allocation struct {
	layers []Measured
	hulls  [][]Tried // by bytes, drifts falling
	at     []int     // in hulls
	why    []string  // of layers with no choice
	bytes  int64
}

// candidates are the kinds on a layer's hull, or the one that is fixed, and why.
func candidates(l Measured, fixed []Choice) ([]Tried, string, error) {
	for _, c := range slices.Backward(fixed) {
		if ok, err := path.Match(c.Pattern, l.Name); err != nil {
			return nil, "", fmt.Errorf("%w: pattern %q: %w", ErrInput, c.Pattern, err)
		} else if !ok {
			continue
		}
		for _, t := range l.Tried {
			if t.Kind == c.Kind {
				return []Tried{t}, "fixed by " + c.Pattern, nil
			}
		}
		return nil, "", fmt.Errorf("%w: %s was not tried as %s", ErrInput, l.Name, c.Kind)
	}
	if len(l.Tried) == 1 {
		return l.Tried, "no other kind was tried", nil
	}
	h := hull(l.Tried)
	if len(h) == 1 {
		return h, "no other kind drifts less", nil
	}
	return h, "", nil
}

// hull is the lower convex hull of (bytes, drift), as far as drift falls.
func hull(tried []Tried) []Tried {
	t := slices.Clone(tried)
	slices.SortStableFunc(t, func(a, b Tried) int {
		if a.Bytes != b.Bytes {
			return a.Bytes - b.Bytes
		}
		return cmp.Compare(a.Drift, b.Drift)
	})
	var h []Tried
	for _, c := range t {
		if len(h) > 0 && c.Drift >= h[len(h)-1].Drift {
			continue
		}
		for len(h) > 1 && gain(h[len(h)-1], c) >= gain(h[len(h)-2], h[len(h)-1]) {
			h = h[:len(h)-1]
		}
		h = append(h, c)
	}
	return h
}

// gain is the drift that a byte takes away.
func gain(from, to Tried) float64 { return (from.Drift - to.Drift) / float64(to.Bytes-from.Bytes) }

func (a *allocation) step(i, by int) {
	a.bytes -= int64(a.hulls[i][a.at[i]].Bytes)
	a.at[i] += by
	a.bytes += int64(a.hulls[i][a.at[i]].Bytes)
}

func (a *allocation) drift() (d float64) {
	for i, h := range a.hulls {
		d += h[a.at[i]].Drift
	}
	return d
}

// best is the layer whose next step gains most a byte, of those that fit; -1 if
// there is none.
func (a *allocation) best(limit int64) int {
	best, most := -1, 0.0
	for i, h := range a.hulls {
		if a.at[i]+1 == len(h) {
			continue
		}
		from, to := h[a.at[i]], h[a.at[i]+1]
		if limit > 0 && a.bytes+int64(to.Bytes-from.Bytes) > limit {
			continue
		}
		if g := gain(from, to); g > most {
			best, most = i, g
		}
	}
	return best
}

// giveBack takes steps back that the last one has made needless, largest first.
func (a *allocation) giveBack(drift float64) {
	for {
		best, most := -1, 0
		for i, h := range a.hulls {
			if a.at[i] == 0 {
				continue
			}
			now, before := h[a.at[i]], h[a.at[i]-1]
			if save := now.Bytes - before.Bytes; save > most && a.drift()-now.Drift+before.Drift <= drift {
				best, most = i, save
			}
		}
		if best < 0 {
			return
		}
		a.step(best, -1)
	}
}

func (a *allocation) plan() Plan {
	p := make(Plan, len(a.layers))
	for i, l := range a.layers {
		h := a.hulls[i]
		c := h[a.at[i]]
		why := a.why[i]
		switch {
		case why != "":
		case a.at[i] == 0:
			why = fmt.Sprintf("%s would take away %.2g of drift for %d bytes: less than elsewhere", h[1].Kind, c.Drift-h[1].Drift, h[1].Bytes-c.Bytes)
		default:
			why = fmt.Sprintf("%s drifts by %.2g: %d bytes more take away %.2g", h[0].Kind, h[0].Drift, c.Bytes-h[0].Bytes, h[0].Drift-c.Drift)
		}
		p[i] = Planned{Name: l.Name, Kind: c.Kind, Bytes: c.Bytes, Error: c.Error, Drift: c.Drift, Why: why, Tried: l.Tried}
	}
	return p
}

// Bytes is the size of all weights in the plan.
func (p Plan) Bytes() (n int64) {
	for _, l := range p {
		n += int64(l.Bytes)
	}
	return n
}

// Drift is the sum of the layers' drifts.
func (p Plan) Drift() (d float64) {
	for _, l := range p {
		d += l.Drift
	}
	return d
}

// Kinds are the choices of the plan.
func (p Plan) Kinds() []Choice {
	c := make([]Choice, len(p))
	for i, l := range p {
		c[i] = Choice{l.Name, l.Kind}
	}
	return c
}

// AppendJSON appends the plan as a list of objects, figures to three digits:
//
//	{"name", "kind", "bytes", "error", "drift", "why", "tried": {kind: drift, ...}}
func (p Plan) AppendJSON(b []byte) ([]byte, error) {
	w := &json.Writer{Text: b}
	w.Open('[')
	for _, l := range p {
		w.Open('{')
		w.Key("name")
		w.String(l.Name)
		w.Key("kind")
		w.String(string(l.Kind))
		w.Key("bytes")
		w.Int(int64(l.Bytes))
		w.Key("error")
		w.Float64(digits(l.Error))
		w.Key("drift")
		w.Float64(digits(l.Drift))
		w.Key("why")
		w.String(l.Why)
		w.Key("tried")
		w.Open('{')
		for _, t := range l.Tried {
			w.Key(string(t.Kind))
			w.Float64(digits(t.Drift))
		}
		w.Close('}')
		w.Close('}')
	}
	w.Close(']')
	return w.Text, w.Err()
}

// digits is v to three of them.
func digits(v float64) float64 {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'e', 2, 64), 64)
	return v
}

// ErrPlan is wrapped by every error of ReadPlan.
var ErrPlan = errors.New("calibrate: bad plan")

const (
	maxPlanned = 4096 // as many as a file has tensors
	maxTried   = 16
)

// ReadPlan reads what AppendJSON has written. Unknown keys are ignored.
func ReadPlan(raw []byte) (Plan, error) {
	var p Plan
	r := new(json.Reader)
	err := r.Read(raw, func() {
		r.Array(func() {
			if len(p) == maxPlanned {
				r.Stop(errMany)
				return
			}
			l := readPlanned(r)
			if l.Kind == "" {
				r.Stop(errKind)
			}
			p = append(p, l)
		})
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPlan, err)
	}
	return p, nil
}

var (
	errMany = errors.New("too many entries")
	errKind = errors.New("a kind that no linear layer has")
)

func readPlanned(r *json.Reader) (l Planned) {
	r.Object(func(key []byte) {
		switch string(key) {
		case "name":
			l.Name = r.String()
		case "kind":
			l.Kind = readKind(r, r.String())
		case "bytes":
			l.Bytes = r.Int()
		case "error":
			l.Error = r.Float64()
		case "drift":
			l.Drift = r.Float64()
		case "why":
			l.Why = r.String()
		case "tried":
			r.Object(func(kind []byte) {
				if len(l.Tried) == maxTried {
					r.Stop(errMany)
					return
				}
				k := readKind(r, string(kind))
				l.Tried = append(l.Tried, Tried{Kind: k, Drift: r.Float64()})
			})
		}
	})
	return l
}

func readKind(r *json.Reader, s string) qtype.Kind {
	k := qtype.Kind(s)
	if !k.Linear() {
		r.Stop(errKind)
	}
	return k
}
