package tta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"lqa/quant/numeric"
)

// Constants of stream, one set for every model, camera and label list. They
// were chosen on CIFAR-10, Tiny-ImageNet and the hands of persons h1 to h4, on
// EfficientNet embeddings of width 512. But streamHub, streamWindow and
// streamUnsure are from the films of the browser's tests, streamHubSpread from
// those and moving, streamCalm from CLIP's embeddings; and that "none of these"
// is not held is from films of hands and objects. Probabilities are those after
// the temperature; logarithms are natural; a step is a fifth of a second.
const (
	// Hubs: what the mean training image says.
	streamHub       = 0.5  // as much of it is taken away at least,
	streamHubVideo  = 1.2  // in video at most: less where the model is sure and
	streamHubSpread = 0.35 // where hubs are further apart (standard deviation, nats)

	// Exemplars.
	streamVote  = 0.8 // of one as near as pictures of one label are, in nats
	streamAlike = 0.7 // as far apart as those are, against unrelated ones
	streamTwin  = 0.3 // and as pictures of one thing are
	streamFar   = 0.1 // unrelated ones are at least so far apart, when all stands still too
	streamSure  = 2   // no votes from a mean doubt of 1/2
	streamCalm  = 0.9 // what video takes away of them

	// Evidence of a shot.
	streamWindow = 15  // steps that its mean remembers
	streamGain   = 0.8 // n steps say 1 + 0.8 ln n times what one says
	streamHold   = 0.5 // nats for the label before, while the shot lasts
	streamDrift  = 1   // surprise that a step may raise where the model is unsure
	streamDoubt  = 8   // sum of surprises at which the shot counts as another one, likewise
	streamSpread = 1.5 // of what evidence gains in a shot, what answers are less sure by
	streamWary   = 0.7 // and of what persistence gains from shot to shot

	// Persistence from shot to shot, and its gate.
	streamStay     = 0.99
	streamTemper   = 0.4  // exponent of probabilities in the evidence gate
	streamKeep     = 0.95 // of the evidence, a shot
	streamMost     = 30   // nats of it at most
	streamEvidence = 3    // the gate opens around this many nats
	streamSlow     = 0.02 // of the long mean of answers, a shot

	// Offset.
	streamPrior  = 40   // shots' worth of hubs
	streamTaught = 5    // shots' worth of no offset, where all labels are taught
	streamStill  = 0.7  // of the offset, what video takes away
	streamCap    = 4    // shots of a label that count
	streamLeast  = 0.05 // weight of a shot that shows the same label again
	streamWithin = 0.15 // a frame within a shot counts as this part of one
	streamRows   = 200  // labels up to which each has its own row

	// Mean doubt.
	streamUnsure = 4  // the model is unsure from a mean of 1/4
	streamDoubts = 50 // shots that it remembers,
	streamFew    = 3  // a doubt of 1/2 in all of them before the first

	// Drift.
	streamQuick  = 0.1  // of the quick mean of doubt, a shot
	streamDrifts = 0.2  // quick and slow mean apart: another light, another room
	streamForget = 0.25 // what the offset keeps of its weight then

	streamPer     = lqaPositives // exemplars a label
	streamVersion = 3
)

// Parts of stream that ablations turn off.
const (
	noCache = 1 << iota
	noHubs
	noCut
	noSecond
	noBalance
	noEvidence
	noMargin
	noOffset
	noDrift
	floatKeys
)

// stream is made for cameras, where frames are near-duplicates of one thing,
// then of another. It works in six steps.
//
//  1. Exemplars: lqa's positive cache with int8 keys, but a frame enters under
//     the label that the stream believed, one of a thing, and where three are
//     there the surest. A label's vote is the sum of e^(-β d) over its
//     exemplars against that of unrelated frames, a third of it, centred over the
//     labels that have some; l are the logits with the votes. They fall with the
//     mean doubt and in video, where shots say more.
//  2. Offset: l'_j = l_j - (g·Σ d + 40·h·s·μ·e_j)/(40 + g·n). The sum is of the
//     centred logits of label j over n shots believed to show other labels,
//     every believed label weighing the same up to 4 shots: what light, noise and
//     room add to a label. It is less in video, where shots are few. When the
//     mean doubt jumps, most of it is forgotten.
//  3. Hubs, what the offset is expected to be: some labels lie near every image,
//     so μ, the mean embedding of the model's training images. Over a shot such a
//     bias would add up, so in video h is 1.2; elsewhere one half. All of it
//     harms labels that the model was trained on, and those apart for good reason.
//     The margin guard: where the model is sure anyway, h and g fall.
//  4. Shots: see there. A shot ends, too, when its answers have contradicted
//     it by 8 nats (CUSUM: Page, Biometrika 1954), fewer where the model is sure.
//  5. Evidence. Near-duplicates repeat their errors, so what a shot says is the
//     mean of its log-probabilities, over three seconds, times a factor that
//     grows with the logarithm of its length only; the label before is held
//     by half a nat. What is shown grows neither with the factor nor with
//     persistence: it would be surer than it is right. "None of these" is the
//     mean of its own probability, against all labels together: by logarithms it
//     would win wherever labels take turns.
//  6. Persistence. In pictures that are no video, the answer before is the prior
//     of a new one as far as a gate allows: a likelihood ratio says that labels
//     persist. With it shut, in pictures without order, what is left is the
//     model's answer but for steps 1 to 3: the guard.
//
// Departs from the recipe it began as: shots take the place of novelty weights,
// a part of the mean image is taken away, not a reference, the table of offsets
// leaves out a label's own row, no second gate asks for autocorrelation (hubs
// taken away, answers do not collapse), and exemplars take the place of lqa's
// caches, in which frames vote for what they said themselves.
//
// Time is O(C·D) a frame and O(C²) a shot up to 200 labels. The state has at
// most 235 + 13·(D+2) + 45·C + 4·R·(C+1) + 3·C·(D+10) bytes, R = C up to 200
// labels and 1 beyond.
type stream struct {
	space Space
	off   int // parts turned off
	c     int
	rows  int       // of the table of offsets: c, or 1 for all labels together
	hubs  []float32 // [C] s·μ·e_j, centred
	apart float32   // how far hubs may count: 1, less where they are further apart
	keys  keys      // of cache

	// State.
	clock     clock
	shots     shots
	cache     *cache
	seen      uint32               // frames since Reset; stays at its largest
	answer    int32                // of the frame before, C for none of these; -1: none yet
	oldAnswer int32                // before the last cut
	n         float32              // steps of this shot in mean
	length    float32              // and in shot
	doubt     float32              // CUSUM
	g         float32              // evidence
	w         float32              // persistence from shot to shot
	slow      float32              // mean doubt
	shown     float32              // shots in it, with streamFew
	quick     float32              // the same of the last shots
	oldN      float32              // n before the last cut
	oldD      float32              // and doubt
	numbers   []float32            // the slices below, one behind the other
	table     []float32            // [rows][C] mean centred logits of a believed label's shots
	weight    []float32            // [rows] shots in them
	shot      []float32            // [C] mean centred logits of this shot
	q, pi     []float32            // [C+1] belief and its long mean
	prior     []float32            // [C+1] of this shot
	mean      []float32            // [C+1] mean log-probabilities of this shot; of none, the log of its mean
	old       [3][]float32         // [C+1] q, prior and mean before the last cut
	lately    [shotAfter][]float32 // [C+1] log-probabilities of the last frames, the last first

	// Of the last frame; not part of the state.
	frame   *exemplar
	votes   []float32 // [C·3] of the exemplars, in logits
	p, e    []float32 // [C+1]
	lp      []float32 // [C+1] logarithms of p
	l, d    []float32 // [C]
	unsure  float32   // how far the model is, 0..1
	gain    float32   // what evidence gained in the shot
	entered int       // slot, or -1
	changed float32
}

func newStream(s Space) Adapter { return makeStream(s, 0) }

func makeStream(s Space, off int) *stream {
	c, d := len(s.Labels), len(s.Labels[0])
	a := &stream{space: s, off: off, c: c, rows: c}
	if c > streamRows || off&noBalance != 0 {
		a.rows = 1
	}
	floats := off&floatKeys != 0
	a.frame = &exemplar{key: newKey(d)}
	a.shots = newShots(d, floats)
	a.shots.once = off&noSecond != 0
	a.cache = newCache(c, streamPer, d, floats)
	a.cache.when = make([]uint32, c*streamPer)
	a.keys = newKeys(s, a.frame, floats, a.cache)
	a.votes = make([]float32, c*streamPer)
	a.hubs = make([]float32, c)
	if s.ImageMean != nil && off&noHubs == 0 {
		for j, e := range s.Labels {
			a.hubs[j] = float32(s.Scale * numeric.Dot(e, s.ImageMean))
		}
		centre(a.hubs)
		spread := float32(math.Sqrt(float64(numeric.Dot(a.hubs, a.hubs) / float32(c)))) // correctly rounded everywhere
		a.apart = min(1, float32(streamHubSpread*s.temperature())/max(spread, 1e-9))
	}
	answers := []*[]float32{&a.q, &a.pi, &a.prior, &a.mean}
	for i := range a.old {
		answers = append(answers, &a.old[i])
	}
	for i := range a.lately {
		answers = append(answers, &a.lately[i])
	}
	a.numbers = make([]float32, a.rows*c+a.rows+c+len(answers)*(c+1))
	rest := a.numbers
	part := func(n int) (x []float32) {
		x, rest = rest[:n:n], rest[n:]
		return x
	}
	a.table, a.weight, a.shot = part(a.rows*c), part(a.rows), part(c)
	for _, v := range answers {
		*v = part(c + 1)
	}
	a.l, a.d = make([]float32, c), make([]float32, c)
	a.p, a.lp, a.e = make([]float32, c+1), make([]float32, c+1), make([]float32, c+1)
	a.Reset()
	return a
}

// centre takes the mean away.
func centre(x []float32) {
	var sum float32
	for _, v := range x {
		sum += v
	}
	sum /= float32(len(x))
	for i := range x {
		x[i] -= sum
	}
}

// scalars are the state's numbers but for those in slices.
func (a *stream) scalars() [10]*float32 {
	return [10]*float32{&a.n, &a.length, &a.doubt, &a.g, &a.w, &a.slow, &a.shown, &a.quick, &a.oldN, &a.oldD}
}

func (a *stream) Reset() {
	a.shots.reset()
	a.cache.clear()
	a.keys.forget()
	clear(a.numbers)
	n := a.space.answers()
	for i := range n {
		a.q[i] = 1 / float32(n)
	}
	for _, v := range [][]float32{a.pi, a.prior, a.old[0], a.old[1]} {
		copy(v, a.q)
	}
	for _, v := range a.scalars() {
		*v = 0
	}
	a.slow, a.shown, a.quick = 0.5, streamFew, 0.5
	a.clock, a.seen, a.answer, a.oldAnswer, a.entered, a.changed = clock{}, 0, -1, -1, -1, 0
}

func (a *stream) Adapt(dst []float32, f Frame) {
	step := min(float32(5*a.clock.step(f.Time)), 1)
	a.frame.float = f.Embedding
	a.frame.set(f.Embedding)
	if a.seen < math.MaxUint32 {
		a.seen++
	}
	a.shots.look(a.frame, step)
	if a.off&noCut != 0 {
		a.shots.rest()
	}
	a.vote(f.Logits)
	a.unsure = a.doubts(f.Taught)
	a.offset(f.Taught)
	top := a.space.posterior(a.p, a.d)
	logsOf(a.lp, a.p, 1e-9)
	a.turn()
	a.persist(f.Frozen)
	a.believe(step)
	a.entered = -1
	if !f.Frozen {
		a.remember()
	}
	a.frame.float = nil // not ours to keep
	a.say(dst, f.Logits, top)
}

// vote writes l, the logits with the exemplars' votes.
func (a *stream) vote(logits []float32) {
	copy(a.l, logits)
	a.keys.vote()
	apart := float32(lqaBeta * max(a.shots.x, streamFar))
	unrelated := numeric.Exp(-apart)
	unit := numeric.Exp(-float32(streamAlike*apart)) - unrelated
	weight := float32(streamVote * a.space.temperature() * (1 - float32(streamCalm*a.shots.video)) * max(0, 1-float32(streamSure*a.slow)))
	if a.off&noCache != 0 {
		weight = 0
	}
	each := weight / float32(streamPer*unit)
	var mean float32
	some := 0
	for j, n := range a.cache.count {
		if n == 0 {
			continue
		}
		var sum float32
		for slot, end := a.cache.slots(j); slot < end; slot++ {
			a.votes[slot] = float32(each * (a.keys.like[slot] - unrelated))
			sum += a.votes[slot]
		}
		a.l[j] += sum
		mean += sum
		some++
	}
	if some == 0 {
		return
	}
	mean /= float32(some)
	for j, n := range a.cache.count {
		if n > 0 {
			a.l[j] -= mean
		}
	}
}

// remember takes the frame into the cache of the label it is believed to show.
func (a *stream) remember() {
	y := a.answer
	if int(y) == a.c {
		return // none of these
	}
	h := -logOf(a.q[y]) // entropy: ln Σ e^z - Σ q z, z = e - e_y
	for i := range a.space.answers() {
		h -= float32(a.q[i] * (a.e[i] - a.e[y]))
	}
	h = max(h, 0)
	twin := numeric.Exp(-float32(lqaBeta * float32(streamTwin*a.shots.x)))
	slot := -1
	for i, end := a.cache.slots(int(y)); i < end; i++ {
		if a.keys.like[i] > twin {
			slot = i // of this very thing
		}
	}
	switch {
	case slot < 0:
		slot = a.cache.offer(int(y), h, a.frame)
	case h < a.cache.entropy[slot]:
		a.cache.set(slot, h, a.frame)
	default:
		return
	}
	if slot >= 0 {
		a.cache.when[slot], a.votes[slot], a.entered = a.seen, 0, slot
		a.keys.keep(a.cache, slot)
	}
}

// learn takes the shot that ends, as far as it does, into the table of offsets.
func (a *stream) learn(weight float32) {
	for k := range a.weight {
		up := weight
		if a.rows > 1 {
			up = float32(weight * a.q[k])
		}
		if up < 1e-4 {
			continue
		}
		a.weight[k] = min(a.weight[k]+up, streamCap)
		part := up / a.weight[k]
		row := a.table[k*a.c : (k+1)*a.c]
		for j, s := range a.shot {
			row[j] += float32(part * (s - row[j]))
		}
	}
}

// logOf is the logarithm of a probability, those below 1e-9 counting as that.
func logOf(p float32) float32 { return numeric.Log(max(p, 1e-9)) }

// doubts is how far the model is unsure of what it sees, 0..1. Where labels were
// taught that does not tell.
func (a *stream) doubts(taught float32) float32 {
	if a.off&noMargin != 0 {
		return 1
	}
	return max(taught, min(1, float32(streamUnsure*a.slow)))
}

// offset writes l' to d. Of labels that were taught, examples say more than the
// mean image: its hubs stay, and the offset, also in video, takes away what one
// example has more of than others.
func (a *stream) offset(taught float32) {
	g := max(taught, float32(a.unsure*(1-float32(streamStill*a.shots.video))))
	hub := streamHub + float32(a.shots.video*max(0, float32(streamHubVideo*a.unsure*a.apart)-streamHub))
	prior := streamPrior + float32(taught*(streamTaught-streamPrior))
	hub *= float32(prior * (1 - taught))
	if a.off&noOffset != 0 {
		g = 0
	}
	var all float32
	clear(a.d)
	for k, n := range a.weight {
		all += n
		if n > 0 {
			for j, r := range a.table[k*a.c : (k+1)*a.c] {
				a.d[j] += float32(n * r)
			}
		}
	}
	for j, l := range a.l {
		d, n := a.d[j], all
		if a.rows > 1 {
			d -= float32(a.weight[j] * a.table[j*a.c+j])
			n -= a.weight[j]
		}
		a.d[j] = l - (float32(g*d)+float32(hub*a.hubs[j]))/(prior+float32(g*n))
	}
	if a.space.HasNone { // as far from the likeliest label as before
		up := largest(a.l) - largest(a.d)
		for j := range a.d {
			a.d[j] += up
		}
	}
}

// turn takes the evidence of the shot before up again, where the last cut was
// none, and puts it aside at a cut.
func (a *stream) turn() {
	if a.shots.back {
		part := a.oldN / max(a.n+a.oldN, 1e-6)
		for i, m := range a.old[2] {
			a.mean[i] += float32(part * (m - a.mean[i]))
		}
		copy(a.q, a.old[0])
		copy(a.prior, a.old[1])
		a.n, a.doubt, a.answer = min(a.n+a.oldN, streamWindow), a.oldD, a.oldAnswer
	} else if a.shots.same < 0.5 {
		copy(a.old[0], a.q)
		copy(a.old[1], a.prior)
		copy(a.old[2], a.mean)
		a.oldN, a.oldD, a.oldAnswer = a.n, a.doubt, a.answer
	}
}

// persist makes the prior of a shot that begins, learns from the one that ends
// and moves the gate.
func (a *stream) persist(frozen bool) {
	fresh := 1 - a.shots.same // how far this frame begins a shot
	n := a.space.answers()
	each := 1 / float32(n)
	r := float32(float32(streamStay*a.w) * (1 - a.shots.video))
	var sum, stays, goes, again float32
	for i, lp := range a.lp {
		a.e[i] = float32(streamTemper * lp)
	}
	numeric.Exps(a.e, a.e)
	for i, e := range a.e[:n] {
		sum += e
		stays += float32((float32(streamStay*a.q[i]) + float32((1-streamStay)*each)) * e)
		goes += float32((float32(0.9*a.pi[i]) + float32(0.1*each)) * e)
		again += float32(a.q[i] * e)
		a.prior[i] += float32(fresh * (float32(r*a.q[i]) + float32((1-r)*each) - a.prior[i]))
	}
	if !frozen {
		a.g = min(max(a.g+float32(fresh*(numeric.Log(stays/goes)-float32((1-streamKeep)*a.g))), -streamMost), streamMost)
		for i := range n {
			a.pi[i] += float32(float32(streamSlow*fresh) * (a.p[i] - a.pi[i]))
		}
		if a.length > 0 {
			a.learn(float32(fresh * max(streamLeast, 1-again/sum)))
		}
		a.drift(max(fresh, streamWithin), 1-largest(a.p))
	}
	a.gather()
	a.w = 1
	if a.off&noEvidence == 0 {
		a.w = numeric.Sigmoid(a.g - streamEvidence)
	}
}

// drift follows the mean doubt and forgets most of the offset when it jumps.
func (a *stream) drift(part, doubt float32) {
	a.slow += float32(part / a.shown * (doubt - a.slow))
	a.shown = min(a.shown+part, streamDoubts)
	a.quick += float32(float32(streamQuick*part) * (doubt - a.quick))
	if d := a.quick - a.slow; a.off&noDrift == 0 && (d > streamDrifts || d < -streamDrifts) {
		a.slow = a.quick
		for k := range a.weight {
			a.weight[k] *= streamForget
		}
	}
}

// gather takes the frame's centred logits into the shot's mean.
func (a *stream) gather() {
	var level float32
	for _, v := range a.l {
		level += v
	}
	level /= float32(a.c)
	a.length = float32(a.shots.same*a.length) + 1
	for i, v := range a.l {
		a.shot[i] += (v - level - a.shot[i]) / a.length
	}
}

// believe takes the frame into the shot's evidence and makes the belief.
func (a *stream) believe(step float32) {
	n, same := a.space.answers(), a.shots.same
	var agree float32
	for i := range n {
		agree += float32(a.q[i] * a.p[i])
	}
	a.doubt = max(0, float32(same*a.doubt)+float32(step*(largest(a.lp)-logOf(agree)-float32(streamDrift*a.unsure))))
	a.n = min(float32(same*a.n), streamWindow)
	if a.doubt > float32(streamDoubt*a.unsure) && a.off&noCut == 0 {
		a.doubt, a.n = 0, 0
	}
	hold := float32(streamHold * same)
	if a.shots.late && a.n > shotAfter+1 {
		// The shot began with the frames of late.
		a.n, a.doubt, a.length, hold = shotAfter, 0, shotAfter+1, 0
		for i := range n {
			var sum float32
			for _, lp := range a.lately {
				sum += lp[i]
			}
			a.mean[i], a.prior[i] = sum/shotAfter, 1/float32(n)
		}
	}
	a.n += step
	part := step / a.n
	gain := 1 + float32(streamGain*numeric.Log(max(a.n, 1)))
	e := a.e[:n]
	logsOf(e, a.prior[:n], 1e-9)
	none := numeric.Exp(a.mean[a.c])
	for i := range e {
		a.mean[i] += float32(part * (a.lp[i] - a.mean[i]))
		e[i] += float32(gain * a.mean[i])
	}
	if a.space.HasNone {
		none += float32(part * (a.p[a.c] - none))
		a.mean[a.c] = logOf(none)
		e[a.c] = a.mean[a.c] - logOf(1-none) + a.logSum(e[:a.c])
	}
	if y := int(a.answer); y >= 0 && y < a.c {
		e[y] += hold
	}
	numeric.Softmax(a.q, e)
	a.answer = 0
	for i, v := range e {
		if v > e[a.answer] {
			a.answer = int32(i)
		}
	}
	a.gain = gain
	for i := range a.lately[1:] {
		copy(a.lately[shotAfter-1-i], a.lately[shotAfter-2-i])
	}
	copy(a.lately[0], a.lp)
}

// logSum is ln Σ e^x.
func (a *stream) logSum(x []float32) float32 {
	top := largest(x)
	for i, v := range x {
		a.d[i] = v - top
	}
	return top + numeric.Log(numeric.Exps(a.d, a.d))
}

// say writes logits whose posterior is that of the belief, less sure by what
// evidence gained in the shot. Where the space has "none of these" its fixed
// logit sets their level, else the largest of l' does.
func (a *stream) say(dst, old []float32, top float32) {
	unit := a.space.temperature() / (1 + float32(streamSpread*(a.gain-1)) + float32(streamWary*float32(a.w*(1-a.shots.video))))
	level, at := top, a.e[a.answer]
	if a.space.HasNone {
		level, at = a.space.None, a.e[a.c]
	}
	a.changed = 0
	for i := range dst {
		v := level + float32(unit*(a.e[i]-at))
		a.changed = further(a.changed, v-old[i])
		dst[i] = v
	}
}

func (a *stream) Report() Report {
	r := Report{Method: "stream", Stickiness: max(a.shots.same, a.w), Shift: a.changed, Entered: a.entered, StateBytes: a.size(), Entries: a.cache.used}
	switch {
	case a.seen == 0:
		r.Text = "Has seen nothing yet."
	case a.shots.same > 0.5:
		r.Text = "Gathers what this view shows."
	case a.w > 0.5:
		r.Text = "Expects the label to stay."
	default:
		r.Text = "Collects views of the labels it sees."
	}
	return r
}

// Exemplars appends those of the cache.
func (a *stream) Exemplars(dst []Exemplar) []Exemplar {
	return a.cache.exemplars(dst, a.votes, 1)
}

// size is the length of the state.
func (a *stream) size() int {
	return streamHeader + a.shots.size() + 4*(len(a.scalars())+len(a.numbers)) + a.cache.size()
}

// The state, little-endian: version u32, C u32, D u32, rows u32, frames seen
// u32, answer and that before the cut i32; the clock; the shots; scalars, then
// numbers, f32 each; the cache.
const streamHeader = 28 + 9

func (a *stream) AppendState(b []byte) []byte {
	for _, v := range []int{streamVersion, a.c, a.cache.d, a.rows} {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	b = binary.LittleEndian.AppendUint32(b, a.seen)
	b = binary.LittleEndian.AppendUint32(b, uint32(a.answer))
	b = binary.LittleEndian.AppendUint32(b, uint32(a.oldAnswer))
	b = a.shots.append(a.clock.append(b))
	for _, v := range a.scalars() {
		b = appendFloats(b, []float32{*v})
	}
	b = appendFloats(b, a.numbers)
	for l := range a.c {
		b = a.cache.appendLabel(b, l, nil)
	}
	return b
}

func (a *stream) Restore(b []byte) error {
	fresh := makeStream(a.space, a.off)
	if err := fresh.read(b); err != nil {
		return fmt.Errorf("%w: stream: %w", ErrState, err)
	}
	a.keys.forget()
	*a = *fresh
	return nil
}

var errRange = errors.New("a number out of range")

// read takes up a state; a is new.
func (a *stream) read(b []byte) error {
	if len(b) < streamHeader {
		return errShort
	}
	for i, v := range []int{streamVersion, a.c, a.cache.d, a.rows} {
		if binary.LittleEndian.Uint32(b[4*i:]) != uint32(v) {
			return errors.New("of another version or shape")
		}
	}
	a.seen = binary.LittleEndian.Uint32(b[16:])
	a.answer, a.oldAnswer = int32(binary.LittleEndian.Uint32(b[20:])), int32(binary.LittleEndian.Uint32(b[24:]))
	if n := a.space.answers(); a.answer < -1 || int(a.answer) >= n || a.oldAnswer < -1 || int(a.oldAnswer) >= n || b[28] > 1 {
		return errRange
	}
	a.clock.take(b[28:])
	b, err := a.shots.read(b[streamHeader:])
	if err != nil {
		return err
	}
	scalars := a.scalars()
	if len(b) < 4*(len(scalars)+len(a.numbers)) {
		return errShort
	}
	for _, v := range scalars {
		*v = math.Float32frombits(binary.LittleEndian.Uint32(b))
		b = b[4:]
	}
	takeFloats(a.numbers, b)
	b = b[4*len(a.numbers):]
	if !a.sane() {
		return errRange
	}
	for l := range a.c {
		if b, err = a.cache.readLabel(b, l, a.seen, nil); err != nil {
			return err
		}
	}
	if len(b) != 0 {
		return fmt.Errorf("%d bytes too many", len(b))
	}
	return nil
}

// streamLargest bounds logits with votes, at the largest scale and temperature
// that a session takes.
const streamLargest = 1e10

// sane says whether restored numbers are of the kind that Adapt makes, so that
// it makes finite ones of them.
func (a *stream) sane() bool {
	if !(within(0, streamWindow+1, a.n, a.oldN) && within(0, 1<<24, a.length, a.doubt, a.oldD) &&
		within(-streamMost, streamMost, a.g) && within(0, 1, a.w, a.slow, a.quick) && within(streamFew, streamDoubts, a.shown) &&
		within(-streamLargest, streamLargest, a.table...) && within(-streamLargest, streamLargest, a.shot...) &&
		within(0, streamCap, a.weight...)) {
		return false
	}
	n := a.space.answers()
	for _, p := range [][]float32{a.q, a.pi, a.prior, a.old[0], a.old[1]} {
		var sum float32
		for _, v := range p {
			sum += v
		}
		if !(within(0, 1.001, p[:n]...) && within(0, 0, p[n:]...) && sum > 0.9 && sum < 1.1) {
			return false
		}
	}
	for _, logs := range append([][]float32{a.mean, a.old[2]}, a.lately[:]...) {
		if !within(-32, 0, logs...) {
			return false
		}
	}
	return true
}

func within(low, high float32, x ...float32) bool {
	for _, v := range x {
		if !(v >= low && v <= high) {
			return false
		}
	}
	return true
}
