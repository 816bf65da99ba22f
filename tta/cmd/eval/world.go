package main

import (
	"fmt"
	"math"
	"slices"
	"time"

	"lqa/quant/numeric"
	"lqa/tta"
	"lqa/tta/shift/order"
)

// world is the frames of a set and what they are asked.
type world struct {
	set   string
	space tta.Space
	label []int // [n] what is right for each frame; -1: nothing that is listed
	unit  []int // [n] the picture or clip a frame comes from: frames of one are not independent
}

// look is the frames of a world under one condition.
type look struct {
	embeddings [][]float32 // [n][D]
	logits     [][]float32 // [n][C]
	zero       []verdict   // [n] the model's own
}

// verdict is an answer to a frame.
type verdict struct {
	label      int
	confidence float32
}

// look takes embeddings up. A picture that could not be read is the zero vector,
// which is like all labels.
func (w *world) look(embeddings [][]float32) *look {
	l := &look{embeddings: embeddings, logits: matrix(len(embeddings), len(w.space.Labels)), zero: make([]verdict, len(embeddings))}
	none := make([]float32, len(w.space.Labels[0]))
	for i, e := range embeddings {
		if e == nil {
			e, embeddings[i] = none, none
		}
		for c, t := range w.space.Labels {
			l.logits[i][c] = float32(w.space.Scale * numeric.Dot(t, e))
		}
		l.zero[i] = w.judge(l.logits[i])
	}
	return l
}

// judge is the likeliest label (the first of equals) and its probability.
func (w *world) judge(logits []float32) verdict {
	top := slices.Max(logits)
	t := w.space.Temperature
	if t == 0 {
		t = 1
	}
	var sum float32
	for _, l := range logits {
		sum += numeric.Exp((l - top) / t)
	}
	return verdict{slices.Index(logits, top), 1 / sum}
}

// played is what an adapter said to a stream.
type played struct {
	verdicts   []verdict
	stateBytes int
	perFrame   time.Duration
}

// play runs an adapter from its beginning over a stream, looks by the steps'
// domains.
func (w *world) play(m tta.Method, looks []*look, steps []order.Step) (played, error) {
	p := played{verdicts: make([]verdict, len(steps))}
	a := m.New(w.space)
	logits := make([]float32, len(w.space.Labels))
	var spent time.Duration
	for i, s := range steps {
		l := looks[s.Domain]
		f := tta.Frame{Time: time.Duration(i) * frameTime, Embedding: l.embeddings[s.At], Logits: l.logits[s.At]}
		start := time.Now()
		a.Adapt(logits, f)
		spent += time.Since(start)
		for _, v := range logits {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return p, fmt.Errorf("%s, frame %d: a logit of %v", m.Name, i, v)
			}
		}
		p.verdicts[i] = w.judge(logits)
	}
	p.stateBytes = len(a.AppendState(nil))
	p.perFrame = spent / time.Duration(max(1, len(steps)))
	return p, nil
}

// zeroShot is play of the model's own answers.
func (w *world) zeroShot(looks []*look, steps []order.Step) []verdict {
	v := make([]verdict, len(steps))
	for i, s := range steps {
		v[i] = looks[s.Domain].zero[s.At]
	}
	return v
}

// settled is how many right answers in a row count as "right".
const settled = 5

// score is what verdicts on one stream were worth.
type score struct {
	n, right    int // frames that count
	frames      int // all
	changes     int // of the answer, from frame to frame
	calibration calibration
	ok          []bool // of each frame; false where nothing is listed
	counts      []bool // of each frame

	delays      []float64 // seconds from each cut until right; the view's length where never
	never, cuts int
	recovered   float64 // seconds from the first counted frame until right; the rest's length where never
}

// score compares verdicts with what is right. counted says which frames count,
// nil for all; where nothing is listed no answer is right and none counts.
func (w *world) score(steps []order.Step, verdicts []verdict, counted []bool) score {
	s := score{frames: len(steps), ok: make([]bool, len(steps)), counts: make([]bool, len(steps))}
	first := -1
	for i, v := range verdicts {
		want := w.label[steps[i].At]
		s.ok[i] = want >= 0 && v.label == want
		if i > 0 && v.label != verdicts[i-1].label {
			s.changes++
		}
		if want < 0 || counted != nil && !counted[i] {
			continue
		}
		if first < 0 {
			first = i
		}
		s.counts[i] = true
		s.n++
		if s.ok[i] {
			s.right++
		}
		s.calibration.add(v.confidence, s.ok[i])
	}
	for i := 0; i < len(steps); {
		end := i + 1
		for end < len(steps) && !steps[end].Cut {
			end++
		}
		if steps[i].Cut && s.counts[i] {
			at, ok := untilRight(s.ok[i:end])
			s.delays = append(s.delays, float64(at)/order.FPS)
			s.cuts++
			if !ok {
				s.never++
			}
		}
		i = end
	}
	if first >= 0 {
		at, _ := untilRight(s.ok[first:])
		s.recovered = float64(at) / order.FPS
	}
	return s
}

// untilRight is where the first settled right answers in a row begin (fewer,
// where there are not so many), or the length.
func untilRight(ok []bool) (at int, found bool) {
	need, run := min(settled, len(ok)), 0
	for i, right := range ok {
		if run++; !right {
			run = 0
		}
		if run == need {
			return i + 1 - need, true
		}
	}
	return len(ok), false
}

// clustered is the half width of the 95% interval of a gain, its units drawn
// anew: gains of units over counts of units, by linearisation of the ratio.
func clustered(gain, count []float64) float64 {
	var sum, n, units float64
	for i, c := range count {
		if c > 0 {
			sum += gain[i]
			n += c
			units++
		}
	}
	if units < 2 {
		return math.MaxFloat64
	}
	var square float64
	for i, c := range count {
		if c > 0 {
			d := gain[i] - sum/n*c
			square += d * d
		}
	}
	return studentT(int(units)-1) * math.Sqrt(square*units/(units-1)) / n
}
