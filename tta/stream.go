package tta

import (
	"encoding/binary"
	"fmt"
	"math"

	"lqa/quant/numeric"
)

// Constants of stream, one set for every model, camera and label list. They
// were chosen on CIFAR-10, Tiny-ImageNet and the hands of persons h1 to h4
// alone, on EfficientNet embeddings of width 512. Probabilities are those after
// the temperature; logarithms are natural; a step is a fifth of a second.
const (
	// Shots. x is the cosine distance to the frame before, X that of unrelated
	// frames, M the running log x; gap = log X - M.
	streamStart   = 0.4   // X before anything else was seen
	streamRise    = 0.5   // X follows larger distances by this part
	streamFade    = 0.005 // and smaller ones by this part a second
	streamLevel   = 0.1   // M follows by this part a step
	streamVideo   = 0.8   // gap from which frames follow each other as video
	streamVideoW  = 0.05
	streamMiddle  = 0.62 // a cut lies this far from M towards log X
	streamMiddleW = 0.15

	// Evidence of a shot.
	streamWindow = 25  // steps that its mean remembers
	streamGain   = 0.3 // n steps say 1 + 0.3 ln n times what one says
	streamDrift  = 0.6 // doubt that a step may raise
	streamDoubt  = 4   // sum of doubts at which the shot counts as another one

	// Persistence from shot to shot, and its gates.
	streamStay     = 0.95
	streamInVideo  = 0.25 // what is left of it where frames are video: shots tell them
	streamTemper   = 0.5  // exponent of probabilities in the evidence gate
	streamKeep     = 0.95 // of the evidence, a shot
	streamEvidence = 3    // the gate opens around this many nats
	streamSlow     = 0.02 // of the long mean of answers, a shot
	streamMemory   = 0.04 // of the autocorrelation, a shot
	streamAuto     = 0.12 // autocorrelation around which the gate opens
	streamAutoW    = 0.04
	streamCentre   = 64 // shots that logits are centred by

	// Offset.
	streamPrior    = 20   // shots' worth of no offset
	streamCap      = 6    // shots of a label that count
	streamLeast    = 0.05 // weight of a shot that shows the same label again
	streamSticky   = 0.5  // part of the offset that persistence takes away
	streamVideoOff = 0.8  // and video
	streamUnsure   = 2    // full offset from a mean doubt of 1/2
	streamUnsureR  = 0.02 // of that mean, a shot
	streamWithin   = 0.15 // a frame within a shot counts as this part of one
	streamRows     = 200  // labels up to which each has its own row

	// Drift.
	streamQuick  = 0.1  // of the quick mean of doubt, a shot
	streamDrifts = 0.2  // quick and slow mean apart: another light, another room
	streamForget = 0.25 // what the offset keeps of its weight then

	streamVersion = 1
)

// Parts of stream that ablations turn off.
const (
	noCache = 1 << iota
	noCut
	noBalance
	noEvidence
	noAutocorrelation
	noMargin
	noOffset
	noDrift
	floatKeys
)

// stream is made for cameras, where frames are near-duplicates of one thing,
// then of another. It works on lqa's logits l (its caches come first) in four
// steps.
//
//  1. Offset. l' = l - g·d, d_j the mean centred logit of label j over shots
//     believed to show other labels, every believed label weighing the same up
//     to 6 shots. It takes away what light, noise and room add to a label. Its
//     weight g falls where the model is sure anyway (the margin guard), where
//     labels persist and in video, where shots are few. When the mean doubt
//     jumps, most of it is forgotten.
//  2. Shots. Frames follow each other as video when their distances lie far
//     below those of unrelated frames; a frame that is nearer to the latter
//     begins a new shot. So does one after which the answers of the shot
//     have contradicted it by 4 nats (CUSUM: Page, Biometrika 1954).
//  3. Evidence. Near-duplicates repeat their errors, so what a shot says is the
//     mean of its log-probabilities, over five seconds, times a factor that
//     grows with the logarithm of its length only.
//  4. Persistence. The answer before is the prior of a new shot as far as two
//     gates allow: a likelihood ratio says that labels persist, and the
//     autocorrelation of centred logits says so too, which a collapse onto few
//     labels does not raise. With both shut, in pictures without order, what is
//     left is the model's answer but for step 1: the guard.
//
// Departs from the recipe it began as: shots take the place of novelty weights,
// the table of offsets leaves out a label's own row, and no statistics of
// training pictures are needed.
//
// Time is O(C·D) a frame and O(C²) a shot up to 200 labels. The state has
// 93 + D + 28·C + 4·R·(C+1) bytes beside lqa's, R = C up to 200 labels and 1
// beyond.
type stream struct {
	space Space
	off   int // parts turned off
	c     int
	rows  int // of the table of offsets: c, or 1 for all labels together
	cache *lqa
	clock clock

	// State.
	prev      []int8 // [D] the frame before
	prevScale float32
	started   bool
	x, m      float32   // X and M
	n         float32   // steps of this shot in mean
	length    float32   // and in shot
	doubt     float32   // CUSUM
	g, a, v   float32   // evidence, autocovariance, variance
	w         float32   // persistence from shot to shot
	centred   float32   // shots in centre
	slow      float32   // mean doubt
	quick     float32   // mean doubt
	table     []float32 // [rows][C] mean centred logits of a believed label's shots
	weight    []float32 // [rows] shots in them
	shot      []float32 // [C] mean centred logits of this shot
	last      []float32 // [C] centred logits of the frame before
	centre    []float32 // [C] mean of centred logits
	q, pi     []float32 // [C+1] belief and its long mean
	prior     []float32 // [C+1] of this shot
	mean      []float32 // [C+1] mean log-probabilities of this shot

	// Of the last frame; not part of the state.
	p, e    []float32 // [C+1]
	lp      []float32 // [C+1] logarithms of p
	l, d    []float32 // [C]
	same    float32
	changed float32
}

func newStream(s Space) Adapter { return makeStream(s, 0) }

func makeStream(s Space, off int) *stream {
	c := len(s.Labels)
	a := &stream{space: s, off: off, c: c, rows: c, cache: makeLQA(s, off&floatKeys != 0)}
	if c > streamRows || off&noBalance != 0 {
		a.rows = 1
	}
	a.prev = make([]int8, a.cache.d)
	a.table = make([]float32, a.rows*c)
	a.weight = make([]float32, a.rows)
	for _, v := range a.vectors() {
		*v = make([]float32, c)
	}
	for _, v := range a.answers() {
		*v = make([]float32, c+1)
	}
	a.l, a.d = make([]float32, c), make([]float32, c)
	a.p, a.lp, a.e = make([]float32, c+1), make([]float32, c+1), make([]float32, c+1)
	a.Reset()
	return a
}

// vectors and answers list the state's slices of C and of C+1 values, scalars
// its numbers.
func (a *stream) vectors() []*[]float32 { return []*[]float32{&a.shot, &a.last, &a.centre} }
func (a *stream) answers() []*[]float32 { return []*[]float32{&a.q, &a.pi, &a.prior, &a.mean} }
func (a *stream) scalars() [13]*float32 {
	return [13]*float32{&a.prevScale, &a.x, &a.m, &a.n, &a.length, &a.doubt, &a.g, &a.a, &a.v, &a.w,
		&a.centred, &a.slow, &a.quick}
}

func (a *stream) Reset() {
	a.cache.Reset()
	clear(a.prev)
	clear(a.table)
	clear(a.weight)
	for _, v := range a.vectors() {
		clear(*v)
	}
	for _, v := range a.answers() {
		clear(*v)
	}
	n := a.space.answers()
	for i := range n {
		a.q[i] = 1 / float32(n)
	}
	copy(a.pi, a.q)
	copy(a.prior, a.q)
	for _, v := range a.scalars() {
		*v = 0
	}
	a.x, a.m = streamStart, numeric.Log(streamStart)
	a.slow, a.quick = 0.5, 0.5
	a.started, a.clock, a.same, a.changed = false, clock{}, 0, 0
}

func (a *stream) Adapt(dst []float32, f Frame) {
	step := min(float32(5*a.clock.step(f.Time)), 1)
	a.cache.Adapt(a.l, f)
	if a.off&noCache != 0 {
		copy(a.l, f.Logits)
	}
	a.look(step)
	a.offset()
	top := a.space.posterior(a.p, a.d)
	logsOf(a.lp, a.p, 1e-9)
	a.persist(f.Frozen)
	a.believe(step)
	a.changed = a.space.logits(dst, a.q, f.Logits, top)
}

// look compares the frame with the one before it.
func (a *stream) look(step float32) {
	frame := &a.cache.frame
	a.same = 0
	if a.started {
		dot := float32(dotInt8(a.prev, frame.codes)) * a.prevScale * frame.scale
		x := max(1-dot, 1e-3)
		lx := numeric.Log(x)
		if x > a.x {
			a.x += float32(streamRise * (x - a.x))
		} else {
			a.x -= float32((a.x - x) * float32(streamFade/5*step))
		}
		a.m += float32(streamLevel * step * min(max(lx-a.m, -1), 1))
		if a.off&noCut == 0 {
			middle := a.m + float32(streamMiddle*a.gap())
			a.same = float32(a.video() * numeric.Sigmoid((middle-lx)/streamMiddleW))
		}
	}
	copy(a.prev, frame.codes)
	a.prevScale, a.started = frame.scale, true
}

func (a *stream) gap() float32 { return numeric.Log(a.x) - a.m }

// video says how far frames follow each other as video.
func (a *stream) video() float32 { return numeric.Sigmoid((a.gap() - streamVideo) / streamVideoW) }

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

// offset writes l' to d.
func (a *stream) offset() {
	g := float32((1 - float32(streamSticky*a.w)) * (1 - float32(streamVideoOff*a.video())))
	if a.off&noMargin == 0 {
		g *= min(1, float32(streamUnsure*a.slow))
	}
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
		a.d[j] = l - float32(g*d/(streamPrior+n))
	}
}

// persist makes the prior of a shot that begins, learns from the one that ends
// and moves the gates.
func (a *stream) persist(frozen bool) {
	fresh := 1 - a.same // how far this frame begins a shot
	n := a.space.answers()
	each := 1 / float32(n)
	r := float32(float32(streamStay*a.w) * (1 - float32((1-streamInVideo)*a.video())))
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
		if a.length > 0 {
			a.learn(float32(fresh * max(streamLeast, 1-again/sum)))
		}
		a.drift(max(fresh, streamWithin), 1-largest(a.p))
	}
	a.g = min(max(a.g+float32(fresh*(numeric.Log(stays/goes)-float32((1-streamKeep)*a.g))), -30), 30)
	a.correlate(fresh)
	a.w = 1
	if a.off&noEvidence == 0 {
		a.w = numeric.Sigmoid(a.g - streamEvidence)
	}
	if a.off&noAutocorrelation == 0 {
		a.w *= numeric.Sigmoid((a.a/max(a.v, 1e-9) - streamAuto) / streamAutoW)
	}
	for i := range n {
		a.pi[i] += float32(float32(streamSlow*fresh) * (a.p[i] - a.pi[i]))
	}
}

// drift follows the mean doubt and forgets most of the offset when it jumps.
func (a *stream) drift(part, doubt float32) {
	a.slow += float32(float32(streamUnsureR*part) * (doubt - a.slow))
	a.quick += float32(float32(streamQuick*part) * (doubt - a.quick))
	if d := a.quick - a.slow; a.off&noDrift == 0 && (d > streamDrifts || d < -streamDrifts) {
		a.slow = a.quick
		for k := range a.weight {
			a.weight[k] *= streamForget
		}
	}
}

// correlate updates the autocorrelation of centred logits and the shot's mean.
func (a *stream) correlate(fresh float32) {
	var level float32
	for _, v := range a.l {
		level += v
	}
	level /= float32(a.c)
	var square, product float32
	for i, v := range a.l {
		y := v - level - a.centre[i]
		square += float32(y * y)
		product += float32(y * (a.last[i] - a.centre[i]))
	}
	part := float32(streamMemory * fresh)
	a.v += float32(part * (square - a.v))
	if a.centred > 0 {
		a.a += float32(part * (product - a.a))
	}
	a.centred = min(a.centred+fresh, streamCentre)
	a.length = float32(a.same*a.length) + 1
	follow := fresh / max(a.centred, 1)
	for i, v := range a.l {
		z := v - level
		a.centre[i] += float32(follow * (z - a.centre[i]))
		a.shot[i] += (z - a.shot[i]) / a.length
		a.last[i] = z
	}
}

// believe takes the frame into the shot's evidence and makes the answer.
func (a *stream) believe(step float32) {
	n := a.space.answers()
	var agree float32
	for i := range n {
		agree += float32(a.q[i] * a.p[i])
	}
	a.doubt = max(0, float32(a.same*a.doubt)+float32(step*(largest(a.lp)-logOf(agree)-streamDrift)))
	a.n = min(float32(a.same*a.n), streamWindow)
	if a.doubt > streamDoubt && a.off&noCut == 0 {
		a.doubt, a.n = 0, 0
	}
	a.n += step
	part := step / a.n
	gain := 1 + float32(streamGain*numeric.Log(max(a.n, 1)))
	e := a.e[:n]
	logsOf(e, a.prior[:n], 1e-9)
	for i := range e {
		a.mean[i] += float32(part * (a.lp[i] - a.mean[i]))
		e[i] += float32(gain * a.mean[i])
	}
	numeric.Softmax(a.q, e)
}

func (a *stream) Report() Report {
	r := a.cache.Report()
	r.Method, r.Stickiness, r.Shift = "stream", max(a.same, a.w), a.changed
	r.StateBytes += a.size()
	if r.Entries > 0 && a.same > 0.5 {
		r.Text = "Gathers what this view shows."
	} else if r.Entries > 0 && a.w > 0.5 {
		r.Text = "Expects the label to stay."
	}
	return r
}

func (a *stream) Exemplars(dst []Exemplar) []Exemplar { return a.cache.Exemplars(dst) }

// size is the length of the state without lqa's.
func (a *stream) size() int {
	return 16 + 9 + len(a.prev) + 4*(13+len(a.table)+len(a.weight)+3*a.c+4*(a.c+1))
}

// The state, little-endian: version u32, C u32, D u32, rows u32; whether a frame
// was seen u8 and its time i64; the frame before [D] int8; thirteen numbers, the
// table, its weights and the vectors, f32 each, in the order of the struct; then
// lqa's state.
func (a *stream) AppendState(b []byte) []byte {
	for _, v := range []int{streamVersion, a.c, len(a.prev), a.rows} {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	b = a.clock.append(b)
	for _, c := range a.prev {
		b = append(b, byte(c))
	}
	for _, v := range a.scalars() {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(*v))
	}
	b = appendFloats(appendFloats(b, a.table), a.weight)
	for _, v := range append(a.vectors(), a.answers()...) {
		b = appendFloats(b, *v)
	}
	return a.cache.AppendState(b)
}

func (a *stream) Restore(b []byte) error {
	bad := func(what string) error { return fmt.Errorf("%w: stream: %s", ErrState, what) }
	size := a.size()
	if len(b) < size {
		return bad("ends too early")
	}
	for i, v := range []int{streamVersion, a.c, len(a.prev), a.rows} {
		if binary.LittleEndian.Uint32(b[4*i:]) != uint32(v) {
			return bad("of another version or shape")
		}
	}
	head, floats := b[16:25+len(a.prev)], b[25+len(a.prev):size]
	if head[0] > 1 {
		return bad("neither seen nor not")
	}
	for i := 0; i < len(floats); i += 4 {
		v := math.Float32frombits(binary.LittleEndian.Uint32(floats[i:]))
		if !(v >= -streamLargest && v <= streamLargest) {
			return bad("a number out of range")
		}
	}
	fresh := makeStream(a.space, a.off)
	if err := fresh.cache.Restore(b[size:]); err != nil {
		return err
	}
	fresh.clock.take(head)
	fresh.started = fresh.clock.started
	for i, c := range head[9:] {
		fresh.prev[i] = int8(c)
	}
	take := func(dst []float32) {
		takeFloats(dst, floats)
		floats = floats[4*len(dst):]
	}
	for _, v := range fresh.scalars() {
		*v = math.Float32frombits(binary.LittleEndian.Uint32(floats))
		floats = floats[4:]
	}
	take(fresh.table)
	take(fresh.weight)
	for _, v := range append(fresh.vectors(), fresh.answers()...) {
		take(*v)
	}
	if !fresh.sane() {
		return bad("a number out of range")
	}
	*a = *fresh
	return nil
}

// streamLargest bounds every number of a state: logits, at most 1e4, and their
// squares summed over the labels.
const streamLargest = 1e13

// sane says whether restored numbers are of the kind that Adapt makes, so that
// it makes finite ones of them.
func (a *stream) sane() bool {
	unit := func(x float32) bool { return x >= 0 && x <= 1.001 }
	if !(unit(a.prevScale) && a.x > 0 && a.x < 3 && a.m > -8 && a.m < 2 && a.n >= 0 && a.n <= streamWindow+1 &&
		a.length >= 0 && a.doubt >= 0 && a.v >= 0 && unit(a.w) && a.centred >= 0 && a.centred <= streamCentre &&
		unit(a.slow) && unit(a.quick)) {
		return false
	}
	for _, w := range a.weight {
		if !(w >= 0 && w <= streamCap) {
			return false
		}
	}
	for _, v := range [][]float32{a.q, a.pi, a.prior} {
		var sum float32
		for _, p := range v {
			if !unit(p) {
				return false
			}
			sum += p
		}
		if !(sum > 0.9 && sum < 1.1) {
			return false
		}
	}
	for _, m := range a.mean {
		if !(m >= -32 && m <= 0) {
			return false
		}
	}
	return true
}
