package tta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"lqa/quant/numeric"
)

// ErrState means bytes that AppendState did not write: of another version or
// another label list, or damaged.
var ErrState = errors.New("tta: bad adapter state")

// Constants of lqa, one set for every model and label list.
const (
	lqaPositives = 3 // exemplars a label in the positive cache
	lqaNegatives = 2 // and in the negative one

	lqaAlpha    = 2     // weight of a positive exemplar, in logits at scale 100
	lqaBeta     = 5     // sharpness of its vote
	lqaNegAlpha = 0.117 // the same of a negative one
	lqaNegBeta  = 1

	lqaEntropyLow  = 0.2 // H/Hmax between which a frame is a negative exemplar
	lqaEntropyHigh = 0.5
	lqaMaskLow     = 0.03 // probabilities between which a label is voted against
	lqaMaskHigh    = 1

	// lqaMask is the most labels whose probability exceeds lqaMaskLow: 34 of
	// them would sum to more than 1.
	lqaMask = 33

	lqaVersion = 2
)

// lqa is Q-TTA, the gradient-free adaptation of LQA (arXiv 2602.07849): caches
// of confident and of doubtful frames, kept at low precision, that vote on the
// frames to come.
//
// The paper's full text and code were not to be had, and neither were its
// constants. What is known of it describes TDA (Karmanov et al., "Efficient
// Test-Time Adaptation of Vision-Language Models", CVPR 2024; code kdiAAA/TDA,
// update_cache and compute_cache_logits) with int8 keys, so this is TDA with
// its ImageNet constants and int8 keys. For a frame with embedding f, logits l,
// p = softmax(l), entropy H, label y = argmax l:
//
//  1. f enters the positive cache of y. If three are there, it replaces the
//     one of highest entropy, provided its own is lower.
//  2. If 0.2 < H/Hmax < 0.5, f enters the negative cache of y (two, the same
//     rule) with the labels j of 0.03 < p_j < 1, which it will vote against.
//  3. l' = l + (s/100)·(α Σ_pos exp(-β(1 - f·key)) onehot(y_key)
//     - α⁻ Σ_neg exp(-β⁻(1 - f·key)) mask_key).
//
// A frame thus votes for its own label.
//
// Departs from TDA's code: keys are int8 rows with a float16 scale, and f is
// rounded the same way before it is compared, so that f·key is an exact integer
// sum; the votes are scaled by s/100, s the model's logit scale, since α is
// meant for CLIP's 100; Hmax is ln C, the largest entropy of C labels, where
// the code divides nats by log2 C (its 0.2 to 0.5 are 0.29 to 0.72 of ln C). A
// single label has no entropy to normalise: nothing is doubtful then.
//
// Time and memory are O(C·D) a frame, 5·C·D multiply-adds at most. The state of
// C labels of width D takes at most
// 16 + C·(2 + 3·(10+D) + 2·(7+D+2·min(33, C))) bytes: 273 kB for 100 labels of
// width 512.
type lqa struct {
	space Space
	c, d  int

	pos, neg *cache
	mask     [][lqaMask]uint16 // [C·2] labels a negative exemplar votes against, ascending
	masked   []uint8           // [C·2] how many of them; 0 where there is no exemplar
	masks    int               // their sum
	seen     uint32            // frames since Reset; stays at its largest

	keys  keys      // those of pos, then of neg
	frame *exemplar // f, rounded as keys are
	p     []float32 // [C] softmax of the logits, times sum
	sum   float32
	down  []float32 // [C] Σ over the negative cache

	// Of the last frame; not part of the state.
	shift   float32
	entered int // its slot, or -1
}

func newLQA(s Space) Adapter { return makeLQA(s, false) }

// makeLQA has float keys for tests that compare with TDA's equations.
func makeLQA(s Space, floatKeys bool) *lqa {
	c, d := len(s.Labels), len(s.Labels[0])
	a := &lqa{
		space: s, c: c, d: d,
		pos:    newCache(c, lqaPositives, d, floatKeys),
		neg:    newCache(c, lqaNegatives, d, floatKeys),
		mask:   make([][lqaMask]uint16, c*lqaNegatives),
		masked: make([]uint8, c*lqaNegatives),
		frame:  &exemplar{key: newKey(d)},
		p:      make([]float32, c),
		down:   make([]float32, c),

		entered: -1,
	}
	a.pos.when = make([]uint32, c*lqaPositives)
	a.keys = newKeys(s, a.frame, floatKeys, a.pos, a.neg)
	return a
}

func (a *lqa) Adapt(dst []float32, f Frame) {
	if len(dst) != a.c || len(f.Logits) != a.c || len(f.Embedding) != a.d {
		panic("tta: lqa: frame of another shape than the space")
	}
	y, h := a.look(f.Logits)
	a.frame.float = f.Embedding
	defer func() { a.frame.float = nil }() // not ours to keep
	a.frame.set(f.Embedding)
	if a.seen < math.MaxUint32 {
		a.seen++
	}
	a.entered = -1
	if !f.Frozen {
		if a.entered = a.pos.offer(y, h, a.frame); a.entered >= 0 {
			a.pos.when[a.entered] = a.seen
			a.keys.keep(a.pos, a.entered)
		}
	}
	if rel := a.relative(h); !f.Frozen && rel > lqaEntropyLow && rel < lqaEntropyHigh {
		if slot := a.neg.offer(y, h, a.frame); slot >= 0 {
			a.setMask(slot)
			a.keys.keep(a.neg, slot)
		}
	}

	a.keys.vote()
	clear(a.down)
	for slot, n := range a.masked {
		if n > 0 {
			w := a.keys.like[a.neg.first+slot]
			for _, j := range a.mask[slot][:n] {
				a.down[j] += w
			}
		}
	}
	unit := a.space.Scale / 100
	a.shift = 0
	for l := range dst {
		var up float32
		slot, end := a.pos.slots(l)
		for _, v := range a.keys.like[slot:end] {
			up += v
		}
		delta := float32(unit * (float32(lqaAlpha*up) - float32(lqaNegAlpha*a.down[l])))
		a.shift = further(a.shift, delta)
		dst[l] = f.Logits[l] + delta
	}
}

// look fills a.p and returns the first likeliest label and
// the entropy in nats, ln Σe^z - Σ e^z·z / Σe^z with z = logit - largest.
func (a *lqa) look(logits []float32) (label int, entropy float32) {
	for l, v := range logits {
		if v > logits[label] {
			label = l
		}
	}
	top := logits[label]
	for l, v := range logits {
		a.p[l] = v - top
	}
	sum := numeric.Exps(a.p, a.p)
	var weighted float32
	for l, e := range a.p {
		weighted += float32(e * (logits[l] - top))
	}
	a.sum = sum
	return label, max(0, numeric.Log(sum)-weighted/sum)
}

// relative is H/Hmax in 0..1, and 0 for a single label.
func (a *lqa) relative(h float32) float32 {
	if a.c < 2 {
		return 0
	}
	return h / numeric.Log(float32(a.c))
}

// setMask gives a negative exemplar the labels it votes against.
func (a *lqa) setMask(slot int) {
	n := 0
	for l, e := range a.p {
		if p := e / a.sum; p > lqaMaskLow && p < lqaMaskHigh && n < lqaMask {
			a.mask[slot][n] = uint16(l)
			n++
		}
	}
	a.masks += n - int(a.masked[slot])
	a.masked[slot] = uint8(n)
}

func (a *lqa) Reset() {
	a.pos.clear()
	a.neg.clear()
	clear(a.masked)
	a.masks = 0
	a.seen, a.shift, a.entered = 0, 0, -1
	a.keys.forget()
}

func (a *lqa) Report() Report {
	r := Report{Method: "lqa", Shift: a.shift, Entered: a.entered, Entries: a.pos.used + a.neg.used}
	r.StateBytes = lqaHeader + a.pos.size() + a.neg.size() + a.neg.used + 2*a.masks
	switch a.pos.used {
	case 0:
		r.Text = "Has seen nothing yet."
	case lqaPositives * a.c:
		r.Text = "Knows every label; keeps the clearest views."
	default:
		r.Text = "Collects views of the labels it sees."
	}
	return r
}

// Exemplars appends the positive exemplars.
func (a *lqa) Exemplars(dst []Exemplar) []Exemplar {
	return a.pos.exemplars(dst, a.keys.like, float32(a.space.Scale/100*lqaAlpha))
}

// The state, little-endian: version u32, C u32, D u32, frames seen u32; then for
// each label what the caches write of it, the positive one first. A negative
// exemplar goes on with the number of masked labels u8 and these, u16 each,
// ascending.
const lqaHeader = 16

func (a *lqa) AppendState(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, lqaVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(a.c))
	b = binary.LittleEndian.AppendUint32(b, uint32(a.d))
	b = binary.LittleEndian.AppendUint32(b, a.seen)
	for l := range a.c {
		b = a.neg.appendLabel(a.pos.appendLabel(b, l, nil), l, a.appendMask)
	}
	return b
}

func (a *lqa) appendMask(b []byte, slot int) []byte {
	b = append(b, a.masked[slot])
	for _, j := range a.mask[slot][:a.masked[slot]] {
		b = binary.LittleEndian.AppendUint16(b, j)
	}
	return b
}

// Restore reads what AppendState wrote for as many labels of the same width.
func (a *lqa) Restore(state []byte) error {
	fresh := makeLQA(a.space, a.pos.floats != nil)
	if err := fresh.read(state); err != nil {
		return fmt.Errorf("%w: lqa: %w", ErrState, err)
	}
	a.keys.forget()
	*a = *fresh
	return nil
}

// read takes up a state; a is new.
func (a *lqa) read(b []byte) error {
	if len(b) < lqaHeader {
		return errShort
	}
	if v := binary.LittleEndian.Uint32(b); v != lqaVersion {
		return fmt.Errorf("version %d, not %d", v, lqaVersion)
	}
	if c, d := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]); c != uint32(a.c) || d != uint32(a.d) {
		return fmt.Errorf("%d labels of width %d, not %d of %d", c, d, a.c, a.d)
	}
	a.seen = binary.LittleEndian.Uint32(b[12:])
	b = b[lqaHeader:]
	var err error
	for l := range a.c {
		if b, err = a.pos.readLabel(b, l, a.seen, nil); err != nil {
			return err
		}
		if b, err = a.neg.readLabel(b, l, a.seen, a.readMask); err != nil {
			return err
		}
	}
	if len(b) != 0 {
		return fmt.Errorf("%d bytes too many", len(b))
	}
	return nil
}

func (a *lqa) readMask(b []byte, slot int) ([]byte, error) {
	if len(b) < 1 || len(b) < 1+2*int(b[0]) {
		return nil, errShort
	}
	n := int(b[0])
	if n > lqaMask {
		return nil, fmt.Errorf("%d masked labels, at most %d", n, lqaMask)
	}
	b = b[1:]
	last := -1
	for i := range n {
		j := int(binary.LittleEndian.Uint16(b[2*i:]))
		if j <= last || j >= a.c {
			return nil, fmt.Errorf("masked label %d after %d of %d", j, last, a.c)
		}
		last = j
		a.mask[slot][i] = uint16(j)
	}
	a.masks += n
	a.masked[slot] = uint8(n)
	return b[2*n:], nil
}
