package tta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"lqa/quant/numeric"
)

// MaxTaught is how many examples of a label are kept; the next one takes the
// oldest one's place.
const MaxTaught = 6

// Errors of teaching.
var (
	ErrLabel  = errors.New("tta: no such label")
	ErrTaught = errors.New("tta: no such taught example")
)

// Constants of teaching, one set for every model and label list, chosen on lessons
// made of hands h1 to h4, CIFAR-10 and Tiny-ImageNet. Nats are of the posterior.
const (
	teachVote   = 24   // for a label whose examples are all there is of a frame, in nats
	teachRidge  = 0.15 // squared weights against squared remainder
	teachLead   = 0.4  // of the winner's lead that counts against any label
	teachTrust  = 0.8  // share of right answers from which the model's word for a label is trusted
	teachSame   = 0.78 // cosine from which a frame shows what an example showed
	teachBonus  = 2    // for each unit of cosine above that, times the scale
	teachMost   = 32   // labels that explain a frame: those nearest to it
	teachSweeps = 16   // of the descent that finds their weights
)

// Taught is one example the user gave.
type Taught struct {
	ID       uint32 // never used again in this session
	Label    int
	Replaced uint32 // ID of the example whose place it took, 0: none
}

// Exemplar is a frame that an answer rests on.
type Exemplar struct {
	Slot   int     // its place; stable until another frame takes it
	Label  int     // what it votes for
	Frame  uint32  // its number in the stream since Reset, from 1; 0 where it was taught
	Taught bool    // by the user
	Weight float32 // its vote in the last frame, in logits
}

// lesson is a taught example as it is kept.
type lesson struct {
	id   uint32
	slot int // label·MaxTaught + place
	key
}

// teaching is what a session was taught: a layer between the model's logits and
// the adapter.
type teaching struct {
	space   *Space
	metric  *Metric  // nil: the plain cosine, or nothing was taught yet
	lessons []lesson // oldest first
	next    uint32   // ID of the next one

	count []uint8   // [C] examples of each label
	means []key     // [C] their mean's direction m; without codes until the label is taught
	duals []key     // [C] M⁻¹·m, m where there is no metric
	sizes []float32 // [C] m·M⁻¹·m
	unit  float32   // 1 over the mean of sizes, of labels that are taught

	frame  key       // rounded as examples are
	votes  []float32 // of each lesson in the last frame
	near   []float32 // [C] cosine to a label's nearest example
	cos    []float32 // [C] to its mean
	trust  []float32 // [C] in the model where it gives this answer, 0 to 1
	up     []float32 // [C]
	vector []float32 // [D]

	chosen [teachMost]int // labels that explain the frame
	weight [teachMost]float32
	gram   [teachMost][teachMost]float32 // of their means
	fresh  bool                          // gram and trust are of the means as they are
}

func (t *teaching) teach(label int, embedding []float32) Taught {
	out := Taught{ID: t.next, Label: label}
	t.next++
	used, oldest := [MaxTaught]bool{}, -1
	for i, l := range t.lessons {
		if l.slot/MaxTaught == label {
			used[l.slot%MaxTaught] = true
			if oldest < 0 {
				oldest = i
			}
		}
	}
	slot := label * MaxTaught
	if t.count[label] == MaxTaught {
		slot, out.Replaced = t.lessons[oldest].slot, t.lessons[oldest].id
		t.remove(oldest)
	} else {
		for used[slot%MaxTaught] {
			slot++
		}
	}
	l := lesson{id: out.ID, slot: slot, key: newKey(len(embedding))}
	l.set(embedding)
	t.add(l)
	return out
}

func (t *teaching) add(l lesson) {
	t.lessons = append(t.lessons, l)
	t.votes = append(t.votes, 0)
	t.changed(l.slot/MaxTaught, 1)
}

func (t *teaching) remove(i int) {
	label := t.lessons[i].slot / MaxTaught
	t.lessons = append(t.lessons[:i], t.lessons[i+1:]...)
	t.votes = append(t.votes[:i], t.votes[i+1:]...)
	t.changed(label, -1)
}

// changed counts a label's examples and takes their mean anew.
func (t *teaching) changed(label, by int) {
	t.count[label] = uint8(int(t.count[label]) + by)
	clear(t.vector)
	for i := range t.lessons {
		if l := &t.lessons[i]; l.slot/MaxTaught == label {
			l.addTo(t.vector, 1)
		}
	}
	numeric.Normalize(t.vector)
	m := &t.means[label]
	if m.codes == nil {
		*m = newKey(len(t.vector))
	}
	m.set(t.vector)
	t.duals[label], t.sizes[label] = *m, 1
	if t.metric == nil && t.space.metric != nil {
		if m := t.space.metric(); m != nil && m.d == len(t.vector) {
			t.metric = m
		}
	}
	if t.metric != nil {
		clear(t.vector)
		m.addTo(t.vector, 1) // as it is kept
		t.metric.solve(t.vector)
		dual := newKey(len(t.vector))
		dual.set(t.vector)
		t.duals[label], t.sizes[label] = dual, dual.dot(m)
	}
	var sum, n float32
	for l, count := range t.count {
		if count > 0 {
			sum += t.sizes[l]
			n++
		}
	}
	t.unit = n / max(sum, 1e-6)
	t.fresh = false
}

// teachCloser is the weight of a closer look beside the whole picture's.
const teachCloser = 0.5

// Both writes to dst [D] the embedding by which a session that is taught should
// see a picture: that of the whole picture and, by half its weight, that of the
// middle, both of length 1. A thing shown to be taught is in the middle, and what
// lies around it tells of places. dst may be whole.
func Both(dst, whole, closer []float32) {
	for i, v := range whole {
		dst[i] = v + float32(teachCloser*closer[i])
	}
	numeric.Normalize(dst)
}

// share is that of the labels with an example.
func (t *teaching) share() float32 {
	n := 0
	for _, count := range t.count {
		if count > 0 {
			n++
		}
	}
	return float32(n) / float32(len(t.count))
}

// addTo adds w·a to sum.
func (a *key) addTo(sum []float32, w float32) {
	w = float32(w * a.scale)
	for d, c := range a.codes {
		sum[d] += float32(w * float32(c))
	}
}

// apply adds what was taught to logits [C].
//
// A frame f is explained by the taught labels as far as it can be: f = Σ wₖ mₖ + r
// with the weights wₖ ≥ 0 that make |r|² + λ|w|² least, mₖ the mean direction of
// label k's examples. What is explained is judged by the examples: teachVote·wₖ.
// What remains is judged by the model: its logits of r, not of f. So an example
// moves the answer only as far as the model erred on it, and a frame that differs
// from an example in what the model knows keeps that difference. Algebraically this is
// kernel ridge regression of the model's errors on the examples, which starts
// from the text instead of from nothing as ridge classifiers do (Bertinetto et
// al., Meta-learning with differentiable closed-form solvers, ICLR 2019,
// section 3); weights below zero are left out, and a label counts once,
// however many examples it has: they are mostly frames of one thing in one place.
//
// Likeness is of thing and place alike, so labels taught in different places
// must not be compared by it. A label whose examples are much less like the frame
// than the winner's was not taught in this place; that it is unlike says little then.
// Against it counts only a part of the winner's lead over the next: what a place
// alone explains, it explains for all labels that were taught there. This protects
// the model's answer, so it does where that can be trusted: as far as the model
// does not give this answer for examples of other labels.
//
// Only what is sure of labels among the taught ones is said by this: together
// they keep the probability that the model gives them, and labels not taught lose
// nothing. A frame that shows what an example showed raises its label above all.
//
// The time is O(examples·D + taught·D + teachMost²·D).
func (t *teaching) apply(logits, embedding []float32) {
	if len(t.lessons) == 0 {
		return
	}
	t.frame.set(embedding)
	clear(t.near)
	for i := range t.lessons {
		l := &t.lessons[i]
		label := l.slot / MaxTaught
		t.near[label] = max(t.near[label], l.dot(&t.frame))
	}
	t.explain()
	s, temperature := t.space.Scale, t.space.temperature()
	first, lead := -1, float32(0) // lead of first over the next
	for l, n := range t.count {
		if n == 0 {
			continue
		}
		t.up[l] -= float32(s * numeric.Dot(t.space.Labels[l], t.vector))
		switch {
		case first < 0:
			first, lead = l, float32(math.Inf(1))
		case t.up[l] > t.up[first]:
			first, lead = l, t.up[l]-t.up[first]
		default:
			lead = min(lead, t.up[first]-t.up[l])
		}
	}
	best := t.up[first]
	here := max(t.cos[first], 0.05)
	top := float32(math.Inf(-1))
	for l, n := range t.count {
		if n > 0 {
			gap := best - t.up[l]
			same := min(1, max(0, t.cos[l])/here)
			guard := float32(t.trust[l] * (1 - float32(same*same)))
			t.up[l] = float32(guard*max(0, gap-float32(teachLead*lead))) - gap
			top = max(top, logits[l])
		}
	}
	var before, after float32
	for l, n := range t.count {
		if n > 0 {
			before += numeric.Exp((logits[l] - top) / temperature)
			after += numeric.Exp((logits[l] + t.up[l] - top) / temperature)
		}
	}
	level := float32(temperature * (numeric.Log(before) - numeric.Log(max(after, 1e-30))))
	for l, n := range t.count {
		if n > 0 {
			t.up[l] += level + float32(float32(teachBonus*s)*max(0, t.near[l]-teachSame))
			logits[l] += t.up[l]
		}
	}
	// An example's vote is its part of what was added to its label.
	for i := range t.lessons {
		label := t.lessons[i].slot / MaxTaught
		t.votes[i] = t.up[label] / float32(t.count[label])
	}
}

// explain writes the weighted sum of the taught labels' means that explains the
// frame into vector, and the labels' votes for it into up.
func (t *teaching) explain() {
	clear(t.up)
	n, last := 0, 0 // last: the place of the least like of all chosen
	taught := 0
	for l, count := range t.count {
		if count == 0 {
			continue
		}
		taught++
		t.cos[l] = float32(t.unit * t.duals[l].dot(&t.frame))
		switch {
		case n < teachMost:
			t.chosen[n] = l
			n++
		case t.cos[l] > t.cos[t.chosen[last]]:
			t.chosen[last] = l
		default:
			continue
		}
		if n == teachMost {
			for i, k := range t.chosen {
				if t.cos[k] < t.cos[t.chosen[last]] {
					last = i
				}
			}
		}
	}
	chosen, w := t.chosen[:n], t.weight[:n]
	clear(w)
	if !t.fresh {
		t.compare(chosen)
		t.fresh = taught <= teachMost // else the next frame chooses others
	}
	for range teachSweeps {
		for i, l := range chosen {
			rest := t.cos[l]
			for j, v := range w {
				if j != i {
					rest -= float32(t.gram[i][j] * v)
				}
			}
			w[i] = max(0, rest/(t.gram[i][i]+teachRidge))
		}
	}
	clear(t.vector)
	for i, l := range chosen {
		t.up[l] = float32(float32(teachVote*t.space.temperature()) * w[i])
		t.means[l].addTo(t.vector, w[i])
	}
}

// compare writes gram, and how far the model can be trusted with each label: 1
// over 1 and the number of other labels' means that it calls so, up to teachTrust,
// which is full trust.
func (t *teaching) compare(chosen []int) {
	for l := range t.trust {
		t.trust[l] = 1
	}
	var p, wrong [teachMost]float32
	for i, l := range chosen {
		clear(t.vector)
		t.means[l].addTo(t.vector, t.space.Scale/t.space.temperature())
		for j, k := range chosen {
			t.gram[i][j] = float32(t.unit * t.duals[l].dot(&t.means[k]))
			p[j] = numeric.Dot(t.space.Labels[k], t.vector)
		}
		numeric.Softmax(p[:len(chosen)], p[:len(chosen)])
		for j := range chosen {
			if j != i {
				wrong[j] += p[j]
			}
		}
	}
	for j, k := range chosen {
		t.trust[k] = min(1, 1/float32(teachTrust*(1+wrong[j])))
	}
}

// Teach keeps embedding, a frame as Frame takes it, as an example of a label
// (its index). At most MaxTaught of a label are kept; one more takes the
// oldest one's place, which the answer says.
//
// Errors: ErrLabel and Frame's.
func (s *Session) Teach(label int, embedding []float32) (Taught, error) {
	if label < 0 || label >= len(s.labels) {
		return Taught{}, fmt.Errorf("%w: %d of %d", ErrLabel, label, len(s.labels))
	}
	if err := checkEmbedding(embedding, s.Width()); err != nil {
		return Taught{}, err
	}
	return s.taught.teach(label, embedding), nil
}

// Unteach takes an example back, or returns ErrTaught.
func (s *Session) Unteach(id uint32) error {
	for i, l := range s.taught.lessons {
		if l.id == id {
			s.taught.remove(i)
			return nil
		}
	}
	return fmt.Errorf("%w: %d", ErrTaught, id)
}

// Taught appends the examples that are kept, the oldest first.
func (s *Session) Taught(dst []Taught) []Taught {
	for _, l := range s.taught.lessons {
		dst = append(dst, Taught{ID: l.id, Label: l.slot / MaxTaught})
	}
	return dst
}

// Exemplars appends the frames that the last answer rests on: those of the
// adapter's cache, then the taught ones.
func (s *Session) Exemplars(dst []Exemplar) []Exemplar {
	dst = exemplarsOf(s.adapter, dst)
	for i, l := range s.taught.lessons {
		dst = append(dst, Exemplar{
			Slot:  lqaPositives*len(s.labels) + l.slot,
			Label: l.slot / MaxTaught, Taught: true, Weight: s.taught.votes[i],
		})
	}
	return dst
}

// exemplarsOf asks adapters that have a cache.
func exemplarsOf(a Adapter, dst []Exemplar) []Exemplar {
	if a, ok := a.(interface{ Exemplars([]Exemplar) []Exemplar }); ok {
		return a.Exemplars(dst)
	}
	return dst
}

// What was taught, little-endian: next ID u32, examples u32; of each, the oldest
// first, its ID u32, label u16, place u8, scale f16 and codes [D] int8.
const lessonBytes = 9

func (t *teaching) appendState(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, t.next)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(t.lessons)))
	for _, l := range t.lessons {
		b = binary.LittleEndian.AppendUint32(b, l.id)
		b = binary.LittleEndian.AppendUint16(b, uint16(l.slot/MaxTaught))
		b = l.append(append(b, byte(l.slot%MaxTaught)))
	}
	return b
}

// readTeaching reads what appendState wrote and returns the rest of b.
func readTeaching(space *Space, b []byte) (*teaching, []byte, error) {
	t := newTeaching(space)
	bad := func(what string) (*teaching, []byte, error) {
		return nil, nil, fmt.Errorf("%w: taught: %s", ErrState, what)
	}
	if len(b) < 8 {
		return bad("ends too early")
	}
	d := len(t.vector)
	n := binary.LittleEndian.Uint32(b[4:])
	t.next, b = binary.LittleEndian.Uint32(b), b[8:]
	if t.next < 1 || t.next > 1<<31 {
		return bad("no identifiers left")
	}
	if uint64(n)*uint64(lessonBytes+d) > uint64(len(b)) {
		return bad("ends too early")
	}
	used := make([]bool, len(t.count)*MaxTaught)
	last := uint32(0)
	for range n {
		l := lesson{id: binary.LittleEndian.Uint32(b), key: newKey(d)}
		label, place := int(binary.LittleEndian.Uint16(b[4:])), int(b[6])
		l.slot = label*MaxTaught + place
		if l.id <= last || l.id >= t.next {
			return bad("identifiers out of order")
		}
		if label >= len(t.count) || place >= MaxTaught || used[l.slot] {
			return bad("no such place")
		}
		if err := l.read(b[7:]); err != nil {
			return bad(err.Error())
		}
		last, used[l.slot] = l.id, true
		t.add(l)
		b = b[lessonBytes+d:]
	}
	return t, b, nil
}

func newTeaching(space *Space) *teaching {
	c, d := len(space.Labels), len(space.Labels[0])
	return &teaching{space: space, next: 1, count: make([]uint8, c), means: make([]key, c),
		duals: make([]key, c), sizes: make([]float32, c),
		frame: newKey(d), near: make([]float32, c), cos: make([]float32, c),
		trust: make([]float32, c), up: make([]float32, c), vector: make([]float32, d)}
}
