package tta

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// everyMethod is Methods and Ablations.
func everyMethod() []Method { return append(slices.Clone(Methods), Ablations...) }

// at gives frame i its time, five a second, and space's "none of these".
func at(f Frame, i int) Frame {
	f.Time = time.Duration(i+1) * 200 * time.Millisecond
	return f
}

// cameraStream is testStream with runs of 25 frames and fewer changes within.
func cameraStream(s Space, n int, seed uint64) []Frame {
	frames := testStream(s, n/25*8+8, seed)
	out := make([]Frame, n)
	for i := range out {
		out[i] = at(frames[i/25*8+i%8], i)
	}
	return out
}

// TestMethods holds every method to what Adapter promises: finite logits, dst
// that may be f.Logits, a Reset that forgets to the bit, a state of the length
// that Report says from which another adapter goes on with the same bits, and no
// allocation.
func TestMethods(t *testing.T) {
	spaces := map[string]Space{
		"one label":  testSpace(1, 16, 24),
		"few labels": testSpace(5, 16, 24),
		"none":       testSpace(7, 16, 24),
		"many":       testSpace(230, 8, 24),
		"CLIP":       testSpace(12, 32, 100),
	}
	none := spaces["none"]
	none.HasNone, none.None, none.Temperature = true, 5, 1.3
	spaces["none"] = none
	for name, space := range spaces {
		for _, m := range everyMethod() {
			t.Run(m.Name+"/"+name, func(t *testing.T) {
				c := len(space.Labels)
				frames := cameraStream(space, 150, 3)
				frames[40].Embedding = make([]float32, len(space.Labels[0])) // a frame without any feature
				frames[40].Logits = make([]float32, c)
				a, b := m.New(space), m.New(space)
				floats := m.Name == "stream-noint8" // its keys are no state
				first := make([][]float32, len(frames))
				for round := range 2 {
					for i, f := range frames {
						f.Logits = slices.Clone(f.Logits)
						a.Adapt(f.Logits, f) // in place
						for _, v := range f.Logits {
							if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
								t.Fatalf("frame %d: logit %v", i, v)
							}
						}
						if round == 0 {
							first[i] = f.Logits
						} else if differ(first[i], f.Logits) {
							t.Fatalf("frame %d after Reset: %v, before %v", i, f.Logits, first[i])
						}
						if i == 70 {
							if err := b.Restore(a.AppendState(nil)); err != nil {
								t.Fatal(err)
							}
						}
						if i > 70 && !floats {
							again := make([]float32, c)
							b.Adapt(again, frames[i])
							if differ(again, f.Logits) {
								t.Fatalf("frame %d: a restored adapter answers otherwise", i)
							}
						}
						if n := len(a.AppendState(nil)); n != a.Report().StateBytes {
							t.Fatalf("frame %d: Report says %d bytes, the state has %d", i, a.Report().StateBytes, n)
						}
					}
					if !floats && !bytes.Equal(a.AppendState(nil), b.AppendState(nil)) {
						t.Error("the restored adapter's state differs")
					}
					if r := a.Report(); r.Stickiness < 0 || r.Stickiness > 1 || r.Text == "" {
						t.Errorf("report %+v", r)
					}
					a.Reset()
				}
			})
		}
	}
}

func TestMethods_NoAllocations(t *testing.T) {
	s := testSpace(20, 32, 24)
	frames := cameraStream(s, 100, 7)
	out := make([]float32, 20)
	for _, m := range Methods {
		a := m.New(s)
		i := 0
		if n := testing.AllocsPerRun(90, func() {
			a.Adapt(out, frames[i%100])
			a.Report()
			i++
		}); n != 0 {
			t.Errorf("%s: %v allocations a frame", m.Name, n)
		}
	}
}

// TestMethods_Bits: a thousand frames leave these bytes on every platform, of
// answers and of state. The test runs natively and under js/wasm.
func TestMethods_Bits(t *testing.T) {
	want := map[string]string{
		"zeroshot":   "bb19520e5b09a35e96f07cb35a956013",
		"average":    "2a5c7acba9188860981c73583d10b441",
		"sticky":     "5348793e9d24fa9b3ee32b79264dffc7",
		"lqa":        "9d312f1e589f871a83570e845fbef541",
		"lqa+sticky": "69cbe7a9e967957ba4d8cf9b5fd419f2",
		"stream":     "9f6bad3e015b74649b7c042745aed395",
	}
	s := testSpace(12, 64, 27)
	s.Temperature = 1.1
	frames := cameraStream(s, 1000, 5)
	out := make([]float32, 12)
	for _, m := range Methods {
		a := m.New(s)
		h := sha256.New()
		for _, f := range frames {
			a.Adapt(out, f)
			binary.Write(h, binary.LittleEndian, out)
		}
		h.Write(a.AppendState(nil))
		if got := hex.EncodeToString(h.Sum(nil)[:16]); got != want[m.Name] {
			t.Errorf("%s: answers and state hash to %s, want %s", m.Name, got, want[m.Name])
		}
	}
}

// TestMethods_RestoreRejects: what is cut off or too long is refused and changes
// nothing.
func TestMethods_RestoreRejects(t *testing.T) {
	s := testSpace(4, 8, 24)
	for _, m := range Methods {
		a := m.New(s)
		out := make([]float32, 4)
		for _, f := range cameraStream(s, 60, 9) {
			a.Adapt(out, f)
		}
		good := a.AppendState(nil)
		for n := range good {
			if err := a.Restore(good[:n]); !errors.Is(err, ErrState) {
				t.Fatalf("%s: first %d bytes: %v, want ErrState", m.Name, n, err)
			}
		}
		if err := a.Restore(append(bytes.Clone(good), 0)); !errors.Is(err, ErrState) {
			t.Errorf("%s: a byte too many: %v", m.Name, err)
		}
		for i := 0; i+4 <= len(good); i++ { // NaN anywhere
			bad := bytes.Clone(good)
			binary.LittleEndian.PutUint32(bad[i:], 0x7fc00000)
			if err := m.New(s).Restore(bad); err != nil && !errors.Is(err, ErrState) {
				t.Errorf("%s: NaN at %d: %v", m.Name, i, err)
			}
		}
		if !bytes.Equal(a.AppendState(nil), good) {
			t.Errorf("%s: a refused state changed the adapter", m.Name)
		}
	}
}

// FuzzMethods_Restore: whatever is accepted comes out again byte for byte, and
// finite answers come of it, with and without "none of these" and a mean image.
func FuzzMethods_Restore(f *testing.F) {
	spaces := [2]Space{testSpace(3, 4, 24), testSpace(3, 4, 24)}
	spaces[1].HasNone, spaces[1].None, spaces[1].ImageMean = true, 12, spaces[1].Labels[0]
	frames := cameraStream(spaces[0], 60, 11)
	out := make([]float32, 3)
	for i := range 2 * len(Methods) {
		a := Methods[i/2].New(spaces[i%2])
		f.Add(uint8(i), a.AppendState(nil))
		for _, fr := range frames {
			a.Adapt(out, fr)
		}
		f.Add(uint8(i), a.AppendState(nil))
	}
	f.Fuzz(func(t *testing.T, i uint8, state []byte) {
		m := Methods[int(i)/2%len(Methods)]
		a := m.New(spaces[i%2])
		if err := a.Restore(state); err != nil {
			if !errors.Is(err, ErrState) {
				t.Fatalf("%s: untyped error %v", m.Name, err)
			}
			return
		}
		if got := a.AppendState(nil); !bytes.Equal(got, state) {
			t.Fatalf("%s: accepted %x, wrote %x", m.Name, state, got)
		}
		for i, fr := range frames[:40] {
			a.Adapt(out, fr)
			for _, v := range out {
				if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
					t.Fatalf("%s: frame %d: logit %v", m.Name, i, v)
				}
			}
		}
	})
}

// TestMethods_Soak: a long stream, its things shown again and again, leaves
// every method as good as it was.
func TestMethods_Soak(t *testing.T) {
	const frames, part = 20000, 2000
	s := testSpace(6, 24, 24)
	var stretch []Frame
	for _, m := range Methods {
		a := m.New(s)
		out := make([]float32, 6)
		right, bytes := [2]int{}, 0
		for i := range frames {
			seed := uint64(i/200%10 + 1)
			if i%200 == 0 {
				stretch = cameraStream(s, 200, seed)
			}
			f := at(stretch[i%200], i)
			a.Adapt(out, f)
			if i == part {
				bytes = a.Report().StateBytes
			}
			ok := argmax(out) == argmax(f.Logits)
			if ok && i < part {
				right[0]++
			} else if ok && i >= frames-part {
				right[1]++
			}
		}
		if d := right[0] - right[1]; d > part/100 {
			t.Errorf("%s: agrees with the model on %d of the first %d frames, on %d of the last", m.Name, right[0], part, right[1])
		}
		if got := a.Report().StateBytes; got > bytes+bytes/4+64 {
			t.Errorf("%s: the state grew from %d to %d bytes", m.Name, bytes, got)
		}
	}
}

// fill makes a stream's state as large as it gets.
func fill(a *stream) {
	for range shotPast * shotEvery {
		a.shots.look(a.frame, 1)
	}
	for l := range a.c {
		for range streamPer {
			a.cache.offer(l, 0, a.frame)
		}
	}
}

// TestStream_Size: the doc of stream says how large.
func TestStream_Size(t *testing.T) {
	const d = 24
	for _, c := range []int{1, 10, 100, streamRows, streamRows + 1, 1000} {
		a := makeStream(testSpace(c, d, 24), 0)
		fill(a)
		rows := c
		if c > 200 {
			rows = 1
		}
		most := 235 + 13*(d+2) + 45*c + 4*rows*(c+1) + 3*c*(d+10)
		if n := len(a.AppendState(nil)); n != most || a.size() != n {
			t.Errorf("%d labels: %d bytes, size says %d, the doc %d", c, n, a.size(), most)
		}
	}
}

// TestStateBound: ten labels of width 512, taught six times each, stay below
// 64 KB, a thousand below 6 MB.
func TestStateBound(t *testing.T) {
	for _, c := range []struct{ labels, most int }{{10, 64 << 10}, {1000, 6e6}} {
		s := newTestSession(t, c.labels, 512, func(g *SessionConfig) { g.Adapter = "stream" })
		for l := range c.labels {
			for range MaxTaught {
				if _, err := s.Teach(l, s.space.Labels[l]); err != nil {
					t.Fatal(err)
				}
			}
		}
		a := s.adapter.(*stream)
		fill(a)
		got := len(s.AppendState(nil))
		if got > c.most {
			t.Errorf("%d labels: up to %d bytes, want at most %d", c.labels, got, c.most)
		}
	}
}

// TestSticky_ByHand: two labels, p = (0.9, 0.1), then the other way round.
//
//	stay = exp(-0.2565·0.2) = 0.95; the belief begins at (0.5, 0.5)
//	1. h = (0.5, 0.5), q ∝ (0.45, 0.05) = (0.9, 0.1)
//	2. h = 0.95·q + 0.025 = (0.88, 0.12), q ∝ (0.088, 0.108) = (0.449, 0.551)
func TestSticky_ByHand(t *testing.T) {
	s := Space{Scale: 1, Labels: [][]float32{{1, 0}, {0, 1}}}
	a := newSticky(s)
	p, out := make([]float32, 3), make([]float32, 2)
	l := float32(math.Log(9))
	for i, c := range []struct{ logits, want []float32 }{
		{[]float32{l, 0}, []float32{0.9, 0.1}},
		{[]float32{0, l}, []float32{0.449, 0.551}},
	} {
		a.Adapt(out, at(Frame{Logits: c.logits}, i))
		s.posterior(p, out)
		near(t, fmt.Sprint("frame ", i+1), p[:2], c.want, 1e-3)
	}
}

// TestAverage_ByHand: of frames half a second apart the last two count.
func TestAverage_ByHand(t *testing.T) {
	s := Space{Scale: 1, Labels: [][]float32{{1, 0}, {0, 1}}, HasNone: true}
	a := newAverage(s)
	p, out := make([]float32, 3), make([]float32, 2)
	log := func(x float64) float32 { return float32(math.Log(x)) }
	for i, c := range []struct{ logits, want []float32 }{
		{[]float32{log(2), log(1)}, []float32{0.5, 0.25, 0.25}},
		{[]float32{log(1), log(2)}, []float32{0.375, 0.375, 0.25}},
		{[]float32{log(1), log(2)}, []float32{0.25, 0.5, 0.25}},
	} {
		a.Adapt(out, Frame{Time: time.Duration(i) * time.Second / 2, Logits: c.logits})
		s.posterior(p, out)
		near(t, fmt.Sprint("frame ", i+1), p, c.want, 1e-4)
	}
}
