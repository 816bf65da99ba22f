package tta

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"lqa/quant/numeric"
)

// room returns a frame of label's thing as a room shows it: the room is in all
// frames, the thing's look in none of the label's embedding.
func room(r *rand.Rand, place, thing []float32, noise float32) []float32 {
	f := randomUnit(r, len(place))
	for i := range f {
		f[i] = float32(noise*f[i]) + float32(0.6*place[i]) + thing[i]
	}
	numeric.Normalize(f)
	return f
}

// taughtSession teaches n frames of each of the first labels; frames returns
// test frames of all labels in the same place.
func taughtSession(t *testing.T, labels, taught, n int) (s *Session, frames [][]float32, of []int) {
	return taughtBy(t, nil, labels, taught, n)
}

func taughtBy(t *testing.T, metric *Metric, labels, taught, n int) (s *Session, frames [][]float32, of []int) {
	s = newTestSession(t, labels, 64, func(c *SessionConfig) {
		c.Adapter, c.Metric = "zeroshot", func() *Metric { return metric }
	})
	r := rand.New(rand.NewPCG(4, 4))
	place := randomUnit(r, 64)
	for l := range labels {
		thing := randomUnit(r, 64)
		for range n {
			f := room(r, place, thing, 0.35)
			if l < taught {
				if _, err := s.Teach(l, f); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 20 {
			frames, of = append(frames, room(r, place, thing, 0.35)), append(of, l)
		}
	}
	return s, frames, of
}

// score counts right answers of the model and of the taught session for labels
// lo to hi-1.
func score(t *testing.T, s *Session, frames [][]float32, of []int, lo, hi int) (zero, taught int) {
	var out Result
	for i, f := range frames {
		if of[i] < lo || of[i] >= hi {
			continue
		}
		if err := s.Still(f, &out); err != nil {
			t.Fatal(err)
		}
		if out.ZeroShot.Best() == of[i] {
			zero++
		}
		if out.Adapted.Best() == of[i] {
			taught++
		}
	}
	return
}

// TestBoth: a closer look counts by half beside the whole picture.
func TestBoth(t *testing.T) {
	x := []float32{1, 0, 0}
	Both(x, x, []float32{0, 0, 1})
	near(t, "both", x, []float32{0.894427, 0, 0.447214}, 1e-6)
	if Both(x, []float32{0, 0, 0}, []float32{0, 0, 0}); x[0] != 0 || x[2] != 0 {
		t.Errorf("of nothing: %v", x)
	}
}

// TestTeach_Share: stream is told which part of the labels was taught.
func TestTeach_Share(t *testing.T) {
	s, _, _ := taughtSession(t, 8, 6, 2)
	if got := s.taught.share(); got != 0.75 {
		t.Errorf("6 of 8 labels: %v", got)
	}
}

// TestTeach_All: three frames a label teach things that the model does not know.
func TestTeach_All(t *testing.T) {
	s, frames, of := taughtSession(t, 5, 5, 3)
	if zero, taught := score(t, s, frames, of, 0, 5); taught < 95 || zero > 60 {
		t.Errorf("%d of 100 right, the model %d", taught, zero)
	}
}

// TestTeach_One: the label that was taught gains, and those that were not lose
// nearly nothing.
func TestTeach_One(t *testing.T) {
	s, frames, of := taughtSession(t, 5, 1, 3)
	if zero, taught := score(t, s, frames, of, 0, 1); taught <= zero || taught < 15 {
		t.Errorf("taught label: %d of 20 right, the model %d", taught, zero)
	}
	if zero, taught := score(t, s, frames, of, 1, 5); taught < zero-2 {
		t.Errorf("other labels: %d of 80 right, the model %d", taught, zero)
	}
}

// TestTeach_ElsewhereLimited: in another room a confident answer stands, whatever
// was taught, and labels not taught keep their probability.
func TestTeach_ElsewhereLimited(t *testing.T) {
	s, _, _ := taughtSession(t, 5, 4, 3)
	r := rand.New(rand.NewPCG(9, 9))
	var out Result
	for range 50 {
		f := randomUnit(r, 64)
		label := r.IntN(5)
		for i, v := range s.space.Labels[label] {
			f[i] += float32(2 * v)
		}
		numeric.Normalize(f)
		if err := s.Still(f, &out); err != nil {
			t.Fatal(err)
		}
		if out.ZeroShot.P[label] > 0.999 && out.Adapted.Best() != label {
			t.Errorf("label %d had %v, now %v", label, out.ZeroShot.P, out.Adapted.P)
		}
		near(t, "untaught", out.Adapted.P[4:], out.ZeroShot.P[4:], 1e-3)
	}
}

// TestTeach_TaughtRoom: each label was taught in a room of its own. A thing that
// the model knows, shown in the room of another label, keeps its name; one that
// it does not know, shown where it was taught, gets it.
func TestTeach_TaughtRoom(t *testing.T) {
	const labels, n = 5, 20
	s := newTestSession(t, labels, 64, func(c *SessionConfig) { c.Adapter = "zeroshot" })
	r := rand.New(rand.NewPCG(7, 7))
	place, thing := make([][]float32, labels), make([][]float32, labels)
	for l := range labels {
		place[l], thing[l] = randomUnit(r, 64), randomUnit(r, 64)
		for range 3 {
			if _, err := s.Teach(l, room(r, place[l], thing[l], 0.35)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var elsewhere, here [][]float32
	var of []int
	for l := range labels {
		for i := range n {
			other := place[(l+1+i%(labels-1))%labels]
			known := make([]float32, 64) // a thing that looks as the model expects
			for d, v := range s.space.Labels[l] {
				known[d] = float32(0.6*v) + float32(0.4*other[d])
			}
			elsewhere = append(elsewhere, room(r, other, known, 0.35))
			here = append(here, room(r, place[l], thing[l], 0.35))
			of = append(of, l)
		}
	}
	for l := range labels {
		if zero, taught := score(t, s, elsewhere, of, l, l+1); taught < zero-n/20 {
			t.Errorf("label %d in rooms of others: %d of %d right, the model %d", l, taught, n, zero)
		}
	}
	if zero, taught := score(t, s, here, of, 0, labels); taught < labels*n*95/100 || zero > labels*n*60/100 {
		t.Errorf("where they were taught: %d of %d right, the model %d", taught, labels*n, zero)
	}
}

// TestTeach_Known: an example that the model had right changes little; one that it had
// wrong changes much.
func TestTeach_Known(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	place, thing := randomUnit(r, 64), randomUnit(r, 64)
	moved := func(known bool) float32 {
		s := newTestSession(t, 3, 64, func(c *SessionConfig) { c.Adapter = "zeroshot" })
		for l := range 2 {
			f := room(r, place, thing, 0)
			if known {
				f = room(r, place, s.space.Labels[l], 0)
			}
			if _, err := s.Teach(l, f); err != nil {
				t.Fatal(err)
			}
			thing = randomUnit(r, 64)
		}
		logits := make([]float32, 3)
		s.taught.apply(logits, randomUnit(r, 64))
		return max(logits[0]-logits[1], logits[1]-logits[0])
	}
	var known, unknown float32
	for range 20 {
		known += moved(true)
		unknown += moved(false)
	}
	if known > unknown/2 {
		t.Errorf("what the model knew moves answers by %v nats, what it did not know by %v", known/20, unknown/20)
	}
}

// TestTeach_Trust: a label that the model gives to examples of others is trusted the
// less the more there are, until they are taken back.
func TestTeach_Trust(t *testing.T) {
	s := newTestSession(t, 4, 64, func(c *SessionConfig) { c.Adapter = "zeroshot" })
	var out Result
	for l, looks := range []int{0, 1, 0, 0} { // like this label to the model
		if _, err := s.Teach(l, s.space.Labels[looks]); err != nil {
			t.Fatal(err)
		}
		if err := s.Still(s.space.Labels[3], &out); err != nil {
			t.Fatal(err)
		}
		want := [4]float32{1, 1, 1, 1}
		if l > 1 {
			want[0] = 1 / float32(teachTrust*float32(l))
		}
		near(t, "trust", s.taught.trust, want[:], 0.02)
	}
	for _, id := range []uint32{3, 4} {
		if err := s.Unteach(id); err != nil {
			t.Fatal(err)
		}
	}
	s.Still(s.space.Labels[3], &out)
	near(t, "trust, two taken back", s.taught.trust, []float32{1, 1, 1, 1}, 0.02)
}

// TestTeach_Explain: the weights satisfy the conditions of the least squares
// under which none is below zero (Karush, Kuhn, Tucker).
func TestTeach_Explain(t *testing.T) {
	for _, metric := range []*Metric{nil, testMetric()} {
		s, frames, _ := taughtBy(t, metric, 8, 8, 3)
		for _, f := range frames[:40] {
			s.taught.frame.set(f)
			s.taught.explain()
			for i, l := range s.taught.chosen[:8] {
				// Half the gradient: mₗ·(Σ w m - f) + λ w.
				w := s.taught.weight[i]
				g := float32(teachRidge*w) - s.taught.cos[l]
				for j := range 8 {
					g += float32(s.taught.gram[i][j] * s.taught.weight[j])
				}
				if w < 0 || g < -0.01 || w > 0 && g > 0.01 {
					t.Fatalf("label %d: weight %v, gradient %v", l, w, g)
				}
			}
		}
	}
}

// TestTeach_Many: of more labels than explain a frame those nearest to it do, and
// teaching still tells them apart.
func TestTeach_Many(t *testing.T) {
	const labels = 3 * teachMost
	s, frames, of := taughtSession(t, labels, labels, 1)
	if zero, taught := score(t, s, frames[:400], of, 0, labels); taught < 360 || zero > 100 {
		t.Errorf("%d of 400 right, the model %d", taught, zero)
	}
	least := float32(2)
	chosen := map[int]bool{}
	for _, l := range s.taught.chosen {
		chosen[l] = true
		least = min(least, s.taught.cos[l])
	}
	for l, c := range s.taught.cos {
		if len(chosen) != teachMost || !chosen[l] && c > least {
			t.Fatalf("%d chosen; label %d is at %v, a chosen one at %v", len(chosen), l, c, least)
		}
	}
	var out Result
	if n := testing.AllocsPerRun(10, func() { s.Still(frames[0], &out) }); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

// TestTeach_Replace: the seventh example takes the oldest one's place, an
// example can be taken back, and its place is free again.
func TestTeach_Replace(t *testing.T) {
	s := newTestSession(t, 3, 8, nil)
	r := rand.New(rand.NewPCG(1, 1))
	var first Taught
	for i := range MaxTaught + 1 {
		got, err := s.Teach(1, randomUnit(r, 8))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case i == 0:
			first = got
			fallthrough
		case i < MaxTaught:
			if got.Replaced != 0 || got.Label != 1 || got.ID != uint32(i+1) {
				t.Errorf("example %d: %+v", i, got)
			}
		case got.Replaced != first.ID:
			t.Errorf("the seventh replaced %d, not %d", got.Replaced, first.ID)
		}
	}
	list := s.Taught(nil)
	if len(list) != MaxTaught || list[0].ID != 2 || list[5].ID != 7 {
		t.Fatalf("kept %+v", list)
	}
	slots := map[int]bool{}
	for _, e := range s.Exemplars(nil) {
		if !e.Taught || e.Label != 1 || e.Slot < 3*3+6 || e.Slot >= 3*3+12 {
			t.Errorf("exemplar %+v", e)
		}
		slots[e.Slot] = true
	}
	if len(slots) != MaxTaught {
		t.Errorf("%d places", len(slots))
	}
	if err := s.Unteach(first.ID); !errors.Is(err, ErrTaught) {
		t.Errorf("taking back what was replaced: %v", err)
	}
	if err := s.Unteach(4); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Teach(1, randomUnit(r, 8)); err != nil || got.Replaced != 0 || got.ID != 8 {
		t.Errorf("after taking one back: %+v, %v", got, err)
	}
	for _, l := range []int{-1, 3} {
		if _, err := s.Teach(l, randomUnit(r, 8)); !errors.Is(err, ErrLabel) {
			t.Errorf("label %d: %v", l, err)
		}
	}
	if _, err := s.Teach(0, []float32{2, 0, 0, 0, 0, 0, 0, 0}); !errors.Is(err, ErrNorm) {
		t.Errorf("long embedding: %v", err)
	}
}

// TestTeach_Undone: without examples the answers are the model's to the bit.
func TestTeach_Undone(t *testing.T) {
	s, frames, _ := taughtSession(t, 4, 4, 2)
	var before, after Result
	if err := s.Still(frames[0], &before); err != nil {
		t.Fatal(err)
	}
	if !differ(before.Adapted.P, before.ZeroShot.P) {
		t.Error("teaching changed nothing")
	}
	for _, e := range s.Taught(nil) {
		if err := s.Unteach(e.ID); err != nil {
			t.Fatal(err)
		}
	}
	s.Still(frames[0], &after)
	if differ(after.Adapted.P, after.ZeroShot.P) {
		t.Error("what was taught is not undone")
	}
}

// TestTeach_Bits: what was taught gives these bytes on every platform. The test
// runs natively and under js/wasm.
func TestTeach_Bits(t *testing.T) {
	for _, c := range []struct {
		by     string
		metric *Metric
		want   string
	}{{"cosine", nil, "8ced0dd100a98e6aecb201da99aaa801"}, {"metric", testMetric(), "d6f4834e276e0f11f14176f413a4fafa"}} {
		s, frames, _ := taughtBy(t, c.metric, teachMost+8, teachMost+4, 3)
		h := sha256.New()
		var out Result
		for _, f := range frames {
			if err := s.Still(f, &out); err != nil {
				t.Fatal(err)
			}
			binary.Write(h, binary.LittleEndian, out.Adapted.P)
		}
		h.Write(s.AppendState(nil))
		if got := hex.EncodeToString(h.Sum(nil)[:16]); got != c.want {
			t.Errorf("by %s: answers and state hash to %s, want %s", c.by, got, c.want)
		}
	}
}

// TestTeach_State: what was taught travels with the state, and Reset keeps it.
func TestTeach_State(t *testing.T) {
	metric := testMetric()
	a, frames, _ := taughtBy(t, metric, 4, 3, 4)
	a.SetAdapter("stream")
	var ra, rb Result
	for _, f := range frames[:30] {
		a.Frame(0, f, &ra)
	}
	state := a.AppendState(nil)
	b := newTestSession(t, 4, 64, func(c *SessionConfig) { c.Metric = func() *Metric { return metric } })
	if err := b.Restore(state); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.AppendState(nil), state) {
		t.Error("the restored state differs")
	}
	for _, f := range frames[30:] {
		a.Frame(0, f, &ra)
		b.Frame(0, f, &rb)
		if differ(ra.Adapted.P, rb.Adapted.P) {
			t.Fatal("the restored session answers otherwise")
		}
	}
	a.Reset()
	if n := len(a.Taught(nil)); n != 12 {
		t.Errorf("%d examples after Reset, want 12", n)
	}
	a.ResetAll()
	if n := len(a.Taught(nil)); n != 0 {
		t.Errorf("%d examples after ResetAll", n)
	}
	if got, _ := a.Teach(0, frames[0]); got.ID != 13 {
		t.Errorf("ID %d after ResetAll: used again", got.ID)
	}
}

// TestTeach_LastID: a state may not bring identifiers to where they begin anew.
func TestTeach_LastID(t *testing.T) {
	s := newTestSession(t, 3, 8, nil)
	for _, next := range []uint32{0, 1<<31 + 1, math.MaxUint32} {
		s.taught.next = next
		if err := newTestSession(t, 3, 8, nil).Restore(s.AppendState(nil)); !errors.Is(err, ErrState) {
			t.Errorf("next ID %d: %v, want ErrState", next, err)
		}
	}
}

// TestSession_Exemplars: frames that entered the cache are reported by number and
// place, and a frozen session's frames do not enter.
func TestSession_Exemplars(t *testing.T) {
	s := newTestSession(t, 4, 16, func(c *SessionConfig) { c.Adapter = "stream" })
	var r Result
	entered := map[int]uint32{}
	for i, f := range testStream(s.space, 60, 1) {
		s.Freeze(i >= 40)
		if err := s.Frame(0, f.Embedding, &r); err != nil {
			t.Fatal(err)
		}
		if e := r.Report.Entered; e >= 0 {
			if i >= 40 {
				t.Errorf("frozen frame %d entered slot %d", i, e)
			}
			entered[e] = uint32(i + 1)
		}
	}
	list := s.Exemplars(nil)
	if len(list) != len(entered) || len(list) == 0 {
		t.Fatalf("%d exemplars, %d entered", len(list), len(entered))
	}
	voted := false
	for _, e := range list {
		if entered[e.Slot] != e.Frame || e.Label != e.Slot/3 {
			t.Errorf("%+v, entered by frame %d", e, entered[e.Slot])
		}
		voted = voted || e.Weight != 0
	}
	if !voted {
		t.Error("no exemplar votes")
	}
}
