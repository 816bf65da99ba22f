package tta

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"lqa/quant/numeric"
)

// camera is a stream of shots: in each, frames of one thing whose looks wander
// and whose answers err together. It returns frames and true labels.
func camera(s Space, shots, length int, seed uint64) (frames []Frame, labels []int) {
	r := rand.New(rand.NewPCG(seed, 8))
	d := len(s.Labels[0])
	for range shots {
		label := r.IntN(len(s.Labels))
		thing := randomUnit(r, d)
		for i, v := range s.Labels[label] {
			thing[i] += float32(0.3 * v)
		}
		drift := make([]float32, d)
		for range length {
			f := randomUnit(r, d)
			for i := range f {
				drift[i] = float32(0.8*drift[i]) + float32(0.45*f[i])
				f[i] = thing[i] + drift[i]
			}
			numeric.Normalize(f)
			frames = append(frames, at(Frame{Embedding: f, Logits: logitsOf(s, f)}, len(frames)))
			labels = append(labels, label)
		}
	}
	return frames, labels
}

// answers runs a over frames and returns how many it gets right, how often its
// answer changes, and the model's own numbers.
func answers(a Adapter, frames []Frame, labels []int) (right, changes, zero, zeroChanges int) {
	out := make([]float32, len(frames[0].Logits))
	last, lastZero := -1, -1
	for i, f := range frames {
		a.Adapt(out, f)
		best, own := argmax(out), argmax(f.Logits)
		if best == labels[i] {
			right++
		}
		if own == labels[i] {
			zero++
		}
		if best != last {
			changes++
		}
		if own != lastZero {
			zeroChanges++
		}
		last, lastZero = best, own
	}
	return
}

// TestStream_Camera: on shots stream is right more often than the model and
// changes its answer a third as often.
func TestStream_Camera(t *testing.T) {
	s := testSpace(8, 48, 24)
	frames, labels := camera(s, 200, 25, 1)
	right, changes, zero, zeroChanges := answers(newStream(s), frames, labels)
	t.Logf("%d of %d right, the model %d; %d changes, the model %d", right, len(frames), zero, changes, zeroChanges)
	if right < zero+len(frames)/25 {
		t.Errorf("%d of %d right, the model %d: want 4%% more", right, len(frames), zero)
	}
	if 3*changes > zeroChanges {
		t.Errorf("%d changes of the answer, the model %d", changes, zeroChanges)
	}
}

// TestStream_Taught: what one label always has more of than others is taken away in
// video where labels were taught, and the mean image's hubs are not.
func TestStream_Taught(t *testing.T) {
	s := testSpace(4, 48, 24)
	frames, labels := camera(s, 24, 25, 3)
	for i, f := range frames {
		clear(f.Logits)
		f.Logits[0], f.Logits[1+labels[i]%3] = 3, 4 // label 0 is always near
	}
	left := func(taught float32) float32 {
		a := newStream(s).(*stream)
		out := make([]float32, 4)
		for _, f := range frames {
			f.Taught = taught
			a.Adapt(out, f)
		}
		if a.shots.video < 0.9 {
			t.Fatal("no video")
		}
		return a.d[0] - a.l[0]
	}
	untaught, taught := left(0), left(1)
	if untaught < -0.1 || taught > -0.5 {
		t.Errorf("untaught, the label's logit changes by %v, taught by %v", untaught, taught)
	}
	hubs := s
	hubs.ImageMean = s.Labels[1]
	for taught, differs := range map[float32]bool{0: true, 1: false} {
		f := Frame{Embedding: frames[0].Embedding, Logits: frames[0].Logits, Taught: taught}
		with, without := make([]float32, 4), make([]float32, 4)
		newStream(hubs).Adapt(with, f)
		newStream(s).Adapt(without, f)
		if differ(with, without) != differs {
			t.Errorf("taught %v: %v with hubs, %v without", taught, with, without)
		}
	}
}

// TestStream_Hubs: of the mean image half is taken away; in video more, where the
// model is unsure and the labels are no further apart than a bias is. What the
// stream shows takes its place.
func TestStream_Hubs(t *testing.T) {
	s := testSpace(4, 48, 24)
	s.ImageMean = s.Labels[1]
	for _, c := range []struct {
		name                 string
		video, unsure, apart float32
		want                 float32 // of the hubs
	}{
		{"pictures", 0, 1, 1, 0.5},
		{"video", 1, 1, 1, 1.2},
		{"video, sure", 1, 0.1, 1, 0.5},
		{"video, half sure", 1, 0.75, 1, 0.9},
		{"video, labels far apart", 1, 1, 0.5, 0.6},
	} {
		a := makeStream(s, 0)
		a.shots.video, a.unsure, a.apart = c.video, c.unsure, c.apart
		a.offset(0)
		for j, h := range a.hubs {
			if d := a.d[j] + float32(c.want*h); d > 1e-5 || d < -1e-5 {
				t.Errorf("%s: %v taken away of label %d, want %v of %v", c.name, -a.d[j], j, c.want, h)
			}
		}
	}
	a := makeStream(s, 0)
	a.unsure, a.weight[0] = 1, streamPrior // as many shots of label 0, without any bias
	if a.offset(0); math.Abs(float64(a.d[1]+a.hubs[1]/4)) > 1e-5 {
		t.Errorf("after shots without bias %v is taken away of label 1, want a quarter of %v", -a.d[1], a.hubs[1])
	}
	wide, near := makeStream(s, 0), s
	near.Scale /= 50
	if a := makeStream(near, 0); a.apart != 1 || wide.apart > 0.1 {
		t.Errorf("hubs count %v where they are near, %v where they are far apart", a.apart, wide.apart)
	}
}

// TestStream_Sure: the surer the model is on the whole, the sooner answers against a
// shot end it.
func TestStream_Sure(t *testing.T) {
	s := testSpace(4, 48, 24)
	frames, _ := camera(s, 1, 120, 5)
	for i, f := range frames {
		clear(f.Logits)
		f.Logits[i/100*2] = 4 // for twenty seconds label 0, then 2
	}
	turns := func(slow float32) int {
		a := makeStream(s, 0)
		out := make([]float32, 4)
		for i, f := range frames {
			a.slow = slow
			if a.Adapt(out, f); i >= 100 && a.answer == 2 {
				return i - 99
			}
		}
		return 21
	}
	sure, unsure := turns(0.05), turns(0.5)
	if sure >= unsure || sure > 6 {
		t.Errorf("turns after %d frames where the model is sure, after %d where it is not", sure, unsure)
	}
}

// TestStream_Hold: a label is held while the shot lasts, "none of these" is not.
func TestStream_Hold(t *testing.T) {
	s := testSpace(3, 48, 24)
	s.HasNone, s.None = true, 2
	held := func(answer int32) (float32, float32) {
		a := makeStream(s, 0)
		a.shots.same, a.answer, a.unsure = 1, answer, 1
		copy(a.p, []float32{0.4, 0.1, 0.1, 0.4})
		logsOf(a.lp, a.p, 1e-9)
		a.believe(1)
		return a.q[0], a.q[3]
	}
	label, none := held(0)
	if label <= none {
		t.Errorf("the label before has %v, none of these %v", label, none)
	}
	if label, none := held(3); none > label+1e-5 {
		t.Errorf("none of these, the answer before, has %v, the label %v", none, label)
	}
}

// TestStream_Shuffled: where frames have nothing to do with each other it leaves
// the answers nearly alone: the guard.
func TestStream_Shuffled(t *testing.T) {
	s := testSpace(8, 48, 24)
	frames, labels := camera(s, 1000, 1, 2)
	right, _, zero, _ := answers(newStream(s), frames, labels)
	if right < zero-10 {
		t.Errorf("%d of 1000 right, the model %d", right, zero)
	}
}

// TestStream_Cut: cuts are found, and frames between them belong together.
func TestStream_Cut(t *testing.T) {
	s := testSpace(6, 48, 24)
	frames, _ := camera(s, 12, 25, 3)
	a := makeStream(s, 0)
	out := make([]float32, 6)
	kept, cuts := 0, 0
	for i, f := range frames {
		a.Adapt(out, f)
		switch {
		case i%25 == 0 && i > 0 && a.shots.same < 0.5:
			cuts++
		case i%25 != 0 && a.shots.same > 0.5:
			kept++
		}
	}
	if cuts < 10 || kept < 12*24*8/10 {
		t.Errorf("%d of 11 cuts found, %d of %d frames within shots known as such", cuts, kept, 12*24)
	}
}

// TestStream_Blocks: pictures that differ but show one label again and again
// open the gates.
func TestStream_Blocks(t *testing.T) {
	s := testSpace(8, 48, 24)
	var frames []Frame
	var labels []int
	all, of := camera(s, 4000, 1, 4)
	for block := range 40 {
		n := 0
		for i := range all {
			if of[i] == block%8 && n < 20 {
				frames, labels = append(frames, at(all[i], len(frames))), append(labels, of[i])
				of[i] = -1
				n++
			}
		}
	}
	a := makeStream(s, 0)
	right, _, zero, _ := answers(a, frames, labels)
	if a.w < 0.5 || right < zero+len(frames)/25 {
		t.Errorf("persistence %v, %d of %d right, the model %d", a.w, right, len(frames), zero)
	}
}

// TestStream_Drift: when the mean doubt jumps, the offset is nearly forgotten.
func TestStream_Drift(t *testing.T) {
	s := testSpace(6, 48, 24)
	clear, _ := camera(s, 150, 1, 5)
	for i := range clear { // sure of itself
		clear[i].Logits[argmax(clear[i].Logits)] += 9
	}
	a := makeStream(s, 0)
	out := make([]float32, 6)
	sum := func() (n float32) {
		for _, w := range a.weight {
			n += w
		}
		return
	}
	for _, f := range clear {
		a.Adapt(out, f)
	}
	before, least := sum(), sum()
	for _, f := range clear[:40] {
		f.Logits = make([]float32, 6) // and not at all
		a.Adapt(out, f)
		least = min(least, sum())
	}
	if least > before/2 {
		t.Errorf("weight of the offset %v, at the least %v after a jump", before, least)
	}
}

// TestStream_Frozen: a frozen stream answers, but its caches and offset stay.
func TestStream_Frozen(t *testing.T) {
	s := testSpace(6, 48, 24)
	frames, _ := camera(s, 8, 25, 6)
	a := makeStream(s, 0)
	out := make([]float32, 6)
	for _, f := range frames[:100] {
		a.Adapt(out, f)
	}
	entries, table, doubt := slices.Clone(a.cache.when), slices.Clone(a.table), a.slow
	for _, f := range frames[100:] {
		f.Frozen = true
		a.Adapt(out, f)
		if a.Report().Entered != -1 {
			t.Fatal("a frozen frame entered the cache")
		}
	}
	if !slices.Equal(entries, a.cache.when) || differ(table, a.table) || a.slow != doubt {
		t.Error("a frozen stream learned")
	}
	if a.Report().Shift == 0 {
		t.Error("a frozen stream does not adapt")
	}
}

// TestStream_RestoreRejects: numbers that Adapt cannot have made are refused;
// some of them would end in NaN.
func TestStream_RestoreRejects(t *testing.T) {
	s := testSpace(6, 48, 24)
	frames, _ := camera(s, 4, 25, 7)
	out := make([]float32, 6)
	for name, change := range map[string]func(a *stream){
		"nothing":                 func(a *stream) {},
		"X of 0, nothing recent":  func(a *stream) { a.shots.reset(); a.shots.x = 1e-30 },
		"shot too long":           func(a *stream) { a.length = 1e10 },
		"evidence beyond its cap": func(a *stream) { a.g = 31 },
		"belief in no answer":     func(a *stream) { clear(a.q); a.q[6] = 1 },
		"a logit too large":       func(a *stream) { a.table[0] = 1e12 },
		"no frame seen":           func(a *stream) { a.seen = 0 },
		"answer":                  func(a *stream) { a.oldAnswer = 6 },
		"not a probability":       func(a *stream) { a.prior[0] = -0.1 },
		"weight":                  func(a *stream) { a.weight[5] = streamCap + 1 },
		"steps":                   func(a *stream) { a.oldN = streamWindow + 2 },
		"frames since the cut":    func(a *stream) { a.shots.since = shotRecent + 1 },
		"frames of longer ago":    func(a *stream) { a.shots.seen, a.shots.count = 3, 4 },
	} {
		a := makeStream(s, 0)
		for _, f := range frames {
			a.Adapt(out, f)
		}
		change(a)
		if err := makeStream(s, 0).Restore(a.AppendState(nil)); (err == nil) != (name == "nothing") || err != nil && !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStream_Weights: an exemplar has no vote in a frame before it came.
func TestStream_Weights(t *testing.T) {
	s := testSpace(4, 16, 24)
	a := newStream(s)
	out := make([]float32, 4)
	voted := false
	for _, f := range cameraStream(s, 100, 8) {
		a.Adapt(out, f)
		for _, e := range a.(*stream).Exemplars(nil) {
			if e.Slot == a.Report().Entered && e.Weight != 0 {
				t.Fatalf("slot %d has a vote of %v, of what was there before", e.Slot, e.Weight)
			}
			voted = voted || e.Weight != 0
		}
	}
	if !voted {
		t.Error("no exemplar voted")
	}
}

// TestStream_Extremes: a state at the edges of what Restore takes is worked with
// in finite numbers, and can be kept and restored at any time after.
func TestStream_Extremes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 8))
	pick := func(of ...float32) float32 { return of[r.IntN(len(of))] }
	for trial := range 60 {
		c := 1 + r.IntN(7)
		s := testSpace(c, 8, pick(1, 24, 1e4))
		s.Temperature = pick(1e-3, 1, 1e4)
		if s.HasNone = r.IntN(2) == 0; s.HasNone {
			s.None, s.ImageMean = pick(-s.Scale, s.Scale), s.Labels[0]
		}
		frames, out := cameraStream(s, 120, uint64(trial)), make([]float32, c)
		a := makeStream(s, 0)
		for _, f := range frames[:1+r.IntN(60)] {
			a.Adapt(out, f)
		}
		edge := func(x []float32, low, high float32) {
			for i := range x {
				x[i] = pick(x[i], low, high)
			}
		}
		one := func(x *float32, low, high float32) { *x = pick(*x, low, high) }
		edge(a.table, -streamLargest, streamLargest)
		edge(a.shot, -streamLargest, streamLargest)
		edge(a.weight, 0, streamCap)
		for _, p := range [][]float32{a.q, a.pi, a.prior, a.old[0], a.old[1]} {
			if r.IntN(2) == 0 {
				clear(p)
				p[r.IntN(s.answers())] = 1
			}
		}
		for _, logs := range append([][]float32{a.mean, a.old[2]}, a.lately[:]...) {
			edge(logs, -32, 0)
		}
		one(&a.n, 0, streamWindow+1)
		one(&a.oldN, 0, streamWindow+1)
		for _, x := range []*float32{&a.length, &a.doubt, &a.oldD} {
			one(x, 0, 1<<24)
		}
		one(&a.g, -streamMost, streamMost)
		for _, x := range []*float32{&a.w, &a.slow, &a.quick} {
			one(x, 0, 1)
		}
		if r.IntN(4) == 0 {
			a.shots.reset() // with exemplars, but nothing to compare a frame with
		}
		one(&a.shots.x, shotLeast, 2.9)
		one(&a.shots.m, -7.9, 1.9)
		one(&a.shots.gap, -7.9, 7.9)
		state := a.AppendState(nil)
		for i, f := range frames[60:] {
			if err := a.Restore(state); err != nil {
				t.Fatalf("trial %d, frame %d: %v", trial, i, err)
			}
			f.Frozen = r.IntN(9) == 0
			a.Adapt(out, f)
			for _, v := range out {
				if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
					t.Fatalf("trial %d, frame %d: %v", trial, i, out)
				}
			}
			state = a.AppendState(state[:0])
		}
	}
}

// TestStream_None: in a view in which two labels take turns one of them is named,
// as in each frame, and not "none of these", which is likelier than either on the
// whole; where that is likelier than both together it is the answer.
func TestStream_None(t *testing.T) {
	s := Space{Scale: 1, Labels: [][]float32{{1, 0, 0}, {0, 1, 0}}, HasNone: true}
	for _, c := range []struct {
		a, b float32 // logits of the label whose turn it is, and of the other
		none bool
	}{{0.7, -1.1, false}, {-1.5, -3, true}} {
		a := makeStream(s, 0)
		out, p := make([]float32, 2), make([]float32, 3)
		for i := range 10 {
			logits := []float32{c.a, c.b}
			if i%2 == 1 {
				logits[0], logits[1] = c.b, c.a
			}
			a.Adapt(out, at(Frame{Embedding: []float32{0.6, 0.6, 0.5}, Logits: logits}, i))
			s.posterior(p, out)
			if none := argmax(p) == 2; none != c.none {
				t.Errorf("%v, frame %d: %v", c, i, p)
			}
		}
		if a.n < 8 {
			t.Errorf("%v: %v frames of one shot", c, a.n)
		}
	}
}
