package tta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"lqa/quant/numeric"
	"lqa/quant/qtype"
)

// MaxTaught is how many examples of a label are kept; the next one takes the
// oldest one's place.
const MaxTaught = 6

// Errors of teaching.
var (
	ErrLabel  = errors.New("tta: no such label")
	ErrTaught = errors.New("tta: no such taught example")
)

// Constants of teaching, one set for every model and label list. Cosines between
// frames are those of towers trained with a contrastive loss: frames of one shot
// are at 0.8 and above, other labels in the same room at 0.3 to 0.6.
const (
	teachWeight = 2    // of a class mean, times the scale ("means" of trial 2)
	teachLimit  = 4    // a mean's say where no example is near, in nats
	teachNear   = 0.62 // cosine to the nearest example from which means have their full say
	teachWidth  = 0.04 // softness of that
	teachSame   = 0.77 // cosine from which a frame shows what an example showed
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
	id    uint32
	slot  int // label·MaxTaught + place
	scale float32
	codes []int8
}

// teaching is what a session was taught: a layer between the model's logits and
// the adapter.
type teaching struct {
	space   *Space
	lessons []lesson // oldest first
	next    uint32   // ID of the next one

	count   []uint8   // [C] examples of each label
	inverse []float32 // [C] 1/(count · length of their mean)
	codes   []int8    // [D] the frame, rounded as examples are
	votes   []float32 // of each lesson in the last frame
	up      []float32 // [C]
	near    []float32 // [C] cosine to the nearest example of a label
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
	l := lesson{id: out.ID, slot: slot, codes: make([]int8, len(embedding))}
	l.scale = qtype.QuantizeRow(l.codes, embedding)
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

// changed counts a label's examples and measures their mean anew.
func (t *teaching) changed(label, by int) {
	t.count[label] = uint8(int(t.count[label]) + by)
	var own [MaxTaught]*lesson
	n := 0
	for i := range t.lessons {
		if t.lessons[i].slot/MaxTaught == label {
			own[n] = &t.lessons[i]
			n++
		}
	}
	var square float32 // of the length of their sum
	for _, a := range own[:n] {
		for _, b := range own[:n] {
			square += a.cosine(b.codes, b.scale)
		}
	}
	t.inverse[label] = 0
	if square > 1e-6 {
		t.inverse[label] = 1 / float32(math.Sqrt(float64(square))) // correctly rounded everywhere
	}
}

func (l *lesson) cosine(codes []int8, scale float32) float32 {
	return float32(float32(dotInt8(l.codes, codes)) * float32(l.scale*scale))
}

// apply adds what was taught to logits [C].
//
// A taught label's evidence is 2 s f·m_k, m_k the normalised mean of its
// examples, against the mean of that over the taught labels. What a room and a
// light have in common moves all of them alike and drops out. Where no example
// is near, the room is another one: the evidence is then limited to a few nats,
// so that a confident answer of the model stands. Only what is sure of labels
// among the taught ones is said by this: together they keep the probability
// that the model gives them, and labels not taught lose nothing. A frame that
// shows what an example showed raises its label above all.
func (t *teaching) apply(logits, embedding []float32) {
	if len(t.lessons) == 0 {
		return
	}
	scale := qtype.QuantizeRow(t.codes, embedding)
	clear(t.up)
	clear(t.near)
	nearest := float32(-1)
	for i := range t.lessons {
		l := &t.lessons[i]
		label := l.slot / MaxTaught
		cos := l.cosine(t.codes, scale)
		t.votes[i] = cos
		t.up[label] += cos
		t.near[label] = max(t.near[label], cos)
		nearest = max(nearest, cos)
	}
	s := t.space.Scale
	var mean, taught float32
	for l, n := range t.count {
		if n > 0 {
			t.up[l] = float32(teachWeight*s) * float32(t.up[l]*t.inverse[l])
			mean += t.up[l]
			taught++
		}
	}
	mean /= taught
	limit := float32(teachLimit * t.space.temperature())
	full := numeric.Sigmoid((nearest - teachNear) / teachWidth)
	top := float32(math.Inf(-1))
	for l, n := range t.count {
		if n > 0 {
			d := t.up[l] - mean
			t.up[l] = float32(full*d) + float32(float32((1-full)*limit)*numeric.Tanh(d/limit))
			top = max(top, logits[l], logits[l]+t.up[l])
		}
	}
	var before, after float32
	for l, n := range t.count {
		if n > 0 {
			before += numeric.Exp((logits[l] - top) / t.space.temperature())
			after += numeric.Exp((logits[l] + t.up[l] - top) / t.space.temperature())
		}
	}
	const least = 1e-30
	level := float32(t.space.temperature() * (numeric.Log(max(before, least)) - numeric.Log(max(after, least))))
	for l, n := range t.count {
		if n > 0 {
			t.up[l] += level + float32(float32(teachWeight*s)*max(0, t.near[l]-teachSame))
			logits[l] += t.up[l]
		}
	}
	// An example's vote is its part of what was added to its label.
	for i := range t.lessons {
		label := t.lessons[i].slot / MaxTaught
		t.votes[i] = t.up[label] / float32(t.count[label])
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
		b = append(b, byte(l.slot%MaxTaught))
		b = numeric.AppendFloat16(b, l.scale)
		for _, c := range l.codes {
			b = append(b, byte(c))
		}
	}
	return b
}

// readTeaching reads what appendState wrote and returns the rest of b.
func readTeaching(space *Space, b []byte) (teaching, []byte, error) {
	t := newTeaching(space)
	bad := func(what string) (teaching, []byte, error) {
		return teaching{}, nil, fmt.Errorf("%w: taught: %s", ErrState, what)
	}
	if len(b) < 8 {
		return bad("ends too early")
	}
	d := len(t.codes)
	n := binary.LittleEndian.Uint32(b[4:])
	t.next, b = binary.LittleEndian.Uint32(b), b[8:]
	if uint64(n)*uint64(lessonBytes+d) > uint64(len(b)) {
		return bad("ends too early")
	}
	used := make([]bool, len(t.count)*MaxTaught)
	last := uint32(0)
	for range n {
		l := lesson{id: binary.LittleEndian.Uint32(b), codes: make([]int8, d)}
		label, place := int(binary.LittleEndian.Uint16(b[4:])), int(b[6])
		l.slot = label*MaxTaught + place
		if l.id <= last || l.id >= t.next {
			return bad("identifiers out of order")
		}
		if label >= len(t.count) || place >= MaxTaught || used[l.slot] {
			return bad("no such place")
		}
		var err error
		if l.scale, err = readKey(l.codes, b[7:lessonBytes+d]); err != nil {
			return bad(err.Error())
		}
		last, used[l.slot] = l.id, true
		t.add(l)
		b = b[lessonBytes+d:]
	}
	return t, b, nil
}

func newTeaching(space *Space) teaching {
	c, d := len(space.Labels), len(space.Labels[0])
	return teaching{space: space, next: 1, count: make([]uint8, c), inverse: make([]float32, c),
		codes: make([]int8, d), up: make([]float32, c), near: make([]float32, c)}
}
