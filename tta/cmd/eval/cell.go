package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"lqa/tta"
	"lqa/tta/shift"
	"lqa/tta/shift/order"
)

// cell is one condition: a set, a shift and a kind of stream.
type cell struct {
	Shift    string
	Severity int
	Stream   string
	Detail   string // tells apart cells that are alike else
	seeds    int
	domains  []condition
	plan     func(w *world, looks []*look, seed uint64) plan // what comes when, by a stream's seed
}

// plan is one stream and which of its frames count.
type plan struct {
	steps   []order.Step
	counted []bool // nil: all

	// A stream to compare with, in which the same frames count: what might have
	// harmed the first is missing here.
	control        []order.Step
	controlCounted []bool
}

// shiftLine is a JSON line of the suites shift and features. Percentages have
// two decimals. Figures are means over the seeds unless they say otherwise.
type shiftLine struct {
	Suite        string  `json:"suite"`
	Set          string  `json:"set"`
	Shift        string  `json:"shift"`
	Severity     int     `json:"severity"`
	Stream       string  `json:"stream"`
	Detail       string  `json:"detail,omitempty"`
	Adapter      string  `json:"adapter"`
	Seeds        int     `json:"seeds"`
	N            int     `json:"n"` // frames of a stream that count
	Labels       int     `json:"labels"`
	Top1         float64 `json:"top1"`
	ZeroShotTop1 float64 `json:"zero_shot_top1"`
	BestBaseline float64 `json:"best_baseline_top1"` // of average, sticky, lqa, lqa+sticky
	Tail         float64 `json:"tail_top1"`          // mean of the worst tenth of the streams
	Gain         float64 `json:"gain"`               // over zero-shot, paired
	Interval     float64 `json:"interval"`           // half its 95% interval: seeds or pictures (clips) drawn anew, the wider
	TailGain     float64 `json:"tail_gain"`          // mean of the worst tenth
	Worst        float64 `json:"worst"`              // smallest gain of a stream
	ECE          float64 `json:"ece"`
	ZeroShotECE  float64 `json:"zero_shot_ece"`
	Flicker      float64 `json:"flicker"` // changes of the answer a second, at 5 frames a second

	SwitchS  *float64 `json:"switch_s,omitempty"`  // median seconds from a cut until five right answers in a row
	Never    *float64 `json:"never,omitempty"`     // percent of cuts behind which it never was
	RecoverS *float64 `json:"recover_s,omitempty"` // median seconds from the degradation until five in a row
	Loss     *float64 `json:"loss,omitempty"`      // points against the same stream without the poison, or the absence

	MS         float64 `json:"ms"` // a frame, the adapter alone
	StateBytes int     `json:"state_bytes"`
	ChosenOn   bool    `json:"chosen_on,omitempty"` // constants were chosen on this set
	Model      string  `json:"model"`
}

// key names a line's condition.
func (l *shiftLine) key() [5]string {
	return [5]string{l.Set, l.Shift, string(rune('0' + l.Severity)), l.Stream, l.Detail}
}

// plain are the baselines of which best_baseline_top1 is the best.
var plain = []string{"average", "sticky", "lqa", "lqa+sticky"}

// outcome is the play of one adapter on one seed's stream.
type outcome struct {
	score      score
	control    score
	stateBytes int
	perFrame   time.Duration
}

// run plays a cell's streams with all methods, some at once, and says what they
// were worth, a line a method. The trace is for plots.
func (c *cell) run(ctx context.Context, w *world, looks []*look, methods []tta.Method, jobs int) ([]shiftLine, *trace, error) {
	plans := make([]plan, c.seeds)
	for s := range plans {
		plans[s] = c.plan(w, looks, master(w.set, c, s))
		if len(plans[s].steps) == 0 {
			return nil, nil, nil // nothing to show: too small a pool, or no wrong answer for poison
		}
	}
	results := make([][]outcome, len(methods))
	for m := range results {
		results[m] = make([]outcome, c.seeds)
	}
	zero := make([]score, c.seeds)
	for s, p := range plans {
		if zero[s] = w.score(p.steps, w.zeroShot(looks, p.steps), p.counted); zero[s].n == 0 {
			return nil, nil, nil
		}
	}

	type job struct{ method, seed int }
	todo := make(chan job)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range jobs {
		wg.Go(func() {
			for j := range todo {
				r, err := w.playPlan(methods[j.method], looks, plans[j.seed])
				if err != nil {
					cancel(err)
				}
				results[j.method][j.seed] = r
			}
		})
	}
	for m := range methods {
		for s := range plans {
			select {
			case todo <- job{m, s}:
			case <-ctx.Done():
			}
		}
	}
	close(todo)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, nil, err
	}

	lines := make([]shiftLine, len(methods))
	best := 0.
	for i, m := range methods {
		lines[i] = c.line(w, plans, zero, results[i])
		lines[i].Adapter = m.Name
		if slices.Contains(plain, m.Name) {
			best = max(best, lines[i].Top1)
		}
	}
	for i := range lines {
		lines[i].BestBaseline = best
	}
	return lines, newTrace(c, w.set, methods, plans, results), nil
}

func (w *world) playPlan(m tta.Method, looks []*look, p plan) (r outcome, err error) {
	out, err := w.play(m, looks, p.steps)
	if err != nil {
		return r, err
	}
	r = outcome{score: w.score(p.steps, out.verdicts, p.counted), stateBytes: out.stateBytes, perFrame: out.perFrame}
	if p.control != nil {
		control, err := w.play(m, looks, p.control)
		if err != nil {
			return r, err
		}
		r.control = w.score(p.control, control.verdicts, p.controlCounted)
	}
	return r, nil
}

// line sums up one method's results, one a seed.
func (c *cell) line(w *world, plans []plan, zero []score, results []outcome) shiftLine {
	l := shiftLine{Set: w.set, Shift: c.Shift, Severity: c.Severity, Stream: c.Stream, Detail: c.Detail, Seeds: c.seeds, Labels: len(w.space.Labels)}
	units := 0
	for _, u := range w.unit {
		units = max(units, u+1)
	}
	unitGain, unitCount := make([]float64, units), make([]float64, units)
	var top1, gains, zeros, losses, delays, recovered []float64
	var all, allZero calibration
	var n, changes, frames, never, cuts, spent int
	for s, r := range results {
		count := float64(max(1, r.score.n))
		top1, zeros = append(top1, float64(r.score.right)/count), append(zeros, float64(zero[s].right)/count)
		gains = append(gains, top1[s]-zeros[s])
		n += r.score.n
		changes, frames = changes+r.score.changes, frames+r.score.frames
		all.merge(r.score.calibration)
		allZero.merge(zero[s].calibration)
		delays, never, cuts = append(delays, r.score.delays...), never+r.score.never, cuts+r.score.cuts
		recovered = append(recovered, r.score.recovered)
		if plans[s].control != nil {
			losses = append(losses, float64(r.control.right)/float64(max(1, r.control.n))-top1[s])
		}
		for i, step := range plans[s].steps {
			if !r.score.counts[i] {
				continue
			}
			u := w.unit[step.At]
			unitCount[u]++
			if r.score.ok[i] {
				unitGain[u]++
			}
			if zero[s].ok[i] {
				unitGain[u]--
			}
		}
		l.StateBytes = max(l.StateBytes, r.stateBytes)
		spent += int(r.perFrame)
	}
	half := clustered(unitGain, unitCount)
	if c.seeds > 1 {
		half = max(half, interval(gains).High-mean(gains))
	}
	l.N = n / c.seeds
	l.Top1, l.ZeroShotTop1, l.Gain = percent(mean(top1), 1), percent(mean(zeros), 1), percent(mean(gains), 1)
	l.Interval = percent(min(half, 1), 1) // of one unit nothing can be said
	l.Tail, l.TailGain, l.Worst = percent(tail(top1), 1), percent(tail(gains), 1), percent(slices.Min(gains), 1)
	l.ECE, l.ZeroShotECE = percent(all.error(), 1), percent(allZero.error(), 1)
	l.Flicker = percent(float64(changes)*order.FPS/100, float64(max(1, frames)))
	l.MS = float64(spent/c.seeds/1000) / 1000
	if cuts > 0 {
		l.SwitchS, l.Never = pointer(median(delays)), pointer(percent(float64(never), float64(cuts)))
	}
	if c.Stream == "recover" {
		l.RecoverS = pointer(median(recovered))
	}
	if losses != nil {
		l.Loss = pointer(percent(mean(losses), 1))
	}
	return l
}

func pointer(x float64) *float64 { return &x }

// tail is the mean of the worst tenth, of one at least.
func tail(x []float64) float64 {
	sorted := slices.Sorted(slices.Values(x))
	return mean(sorted[:(len(sorted)+9)/10])
}

// median of nothing is 0.
func median(x []float64) float64 {
	if len(x) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(x))
	return (sorted[(len(x)-1)/2] + sorted[len(x)/2]) / 2
}

// merge adds the answers of d.
func (c *calibration) merge(d calibration) {
	for i, b := range d.bins {
		c.bins[i].n += b.n
		c.bins[i].right += b.right
		c.bins[i].confidence += b.confidence
	}
	c.n += d.n
}

// masterSeed is where all randomness of the suite comes from.
const masterSeed = 20260208

// master is a stream's seed. Cells of a set that differ in shift alone have the
// same streams.
func master(set string, c *cell, seed int) uint64 {
	h := uint64(masterSeed)
	for _, b := range []byte(set + "/" + c.Stream + "/" + c.Detail) {
		h = shift.NewSource(h ^ uint64(b)).Next()
	}
	return shift.NewSource(h ^ uint64(seed)).Next()
}
