package tta

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"lqa/quant/numeric"
)

// view is a shot's frames: a thing of its own and what wanders around it.
type view struct {
	thing, drift []float32
	r            *rand.Rand
}

func newView(r *rand.Rand, d int) *view {
	return &view{randomUnit(r, d), make([]float32, d), r}
}

// frame is the next one, its looks wandering by so much.
func (v *view) frame(wander float32) *exemplar {
	f := randomUnit(v.r, len(v.thing))
	for i := range f {
		v.drift[i] = float32(0.8*v.drift[i]) + float32(wander*f[i])
		f[i] = v.thing[i] + v.drift[i]
	}
	numeric.Normalize(f)
	return asExemplar(f)
}

func asExemplar(f []float32) *exemplar {
	x := &exemplar{newKey(len(f)), f}
	x.set(f)
	return x
}

// TestShots_Cuts: in video every cut is seen when it comes, and little else.
func TestShots_Cuts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	s := newShots(64, false)
	found, wrong := 0, 0
	for range 40 {
		v := newView(r, 64)
		for i := range 25 {
			s.look(v.frame(0.4), 1)
			switch {
			case i == 0 && s.same < 0.5:
				found++
			case i > 0 && s.same < 0.5:
				wrong++
			}
		}
	}
	if found < 39 || wrong > 10 {
		t.Errorf("%d of 40 cuts, and %d of 960 frames wrongly taken for one", found, wrong)
	}
}

// TestShots_Twice: pictures that come twice, as a page gets them that is faster than
// its camera, are no reason to see cuts in quick moves.
func TestShots_Twice(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	s := newShots(64, false)
	found, wrong := 0, 0
	for shot := range 40 {
		v := newView(r, 64)
		for i := range 12 {
			wander := float32(0.3)
			if i%4 == 3 {
				wander = 0.8 // a quick move
			}
			f := v.frame(wander)
			s.look(f, 0.5)
			switch {
			case i == 0 && s.same < 0.5:
				found++
			case i > 0 && s.same < 0.5 && shot > 1:
				wrong++
			}
			if s.look(f, 0.5); s.same < 0.5 && shot > 1 {
				t.Fatal("a picture is another shot than itself")
			}
		}
	}
	if found < 39 || wrong > 4 {
		t.Errorf("%d of 40 cuts, and %d of 440 pictures wrongly taken for one", found, wrong)
	}
}

// TestShots_Pictures: pictures in an order that says nothing are no video, near
// to each other as they may be.
func TestShots_Pictures(t *testing.T) {
	for _, common := range []float32{0, 2, 6} { // of all frames, as noise or darkness give it
		r := rand.New(rand.NewPCG(3, 4))
		s := newShots(64, false)
		ground := randomUnit(r, 64)
		together := 0
		for i := range 600 {
			f := randomUnit(r, 64)
			for k := range f {
				f[k] += float32(common * ground[k])
			}
			numeric.Normalize(f)
			s.look(asExemplar(f), 1)
			if i > 20 && s.same > 0.5 {
				together++
			}
		}
		if together > 600/40 {
			t.Errorf("%v of a common part: %d of 600 pictures taken for video", common, together)
		}
	}
}

// TestShots_Back: a hand goes by; the frames behind it belong to the shot before.
func TestShots_Back(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	s := newShots(64, false)
	back, tries := 0, 0
	for range 20 {
		v := newView(r, 64)
		for range 20 {
			s.look(v.frame(0.4), 1)
		}
		s.look(newView(r, 64).frame(0), 1)
		if s.same > 0.5 {
			continue // not even a cut
		}
		tries++
		s.look(v.frame(0.4), 1)
		if s.back && s.same == 1 {
			back++
		}
	}
	if tries < 18 || back < tries-2 {
		t.Errorf("%d of %d cuts taken back", back, tries)
	}
}

// TestShots_Late: of views ever farther from the one before, the near ones
// belong to it and the far ones are cut at once; between them are some whose
// first frame is let pass, and which are cut when four frames are as far.
func TestShots_Late(t *testing.T) {
	kinds := map[string]int{}
	last := ""
	for i := range 400 {
		r := rand.New(rand.NewPCG(7, 8))
		s := newShots(64, false)
		for range 6 {
			v := newView(r, 64)
			for range 25 {
				s.look(v.frame(0.4), 1)
			}
		}
		v := newView(r, 64)
		for range 20 {
			s.look(v.frame(0.2), 1)
		}
		next := randomUnit(r, 64)
		for k := range next {
			next[k] = v.thing[k] + float32(float32(i)*0.005*next[k])
		}
		w := &view{next, make([]float32, 64), r}
		kind := "same"
		for n := range 6 {
			s.look(w.frame(0.02), 1)
			if s.same < 0.5 {
				kind = "cut"
				break
			}
			if s.late {
				kind = "late"
				if n != 3 {
					t.Errorf("made late at frame %d", n)
				}
				break
			}
		}
		kinds[kind]++
		last = kind
	}
	if kinds["same"] == 0 || kinds["late"] == 0 || last != "cut" {
		t.Errorf("%v, the farthest: %s", kinds, last)
	}
}

// TestShots_State: a restored one says the same of the frames to come.
func TestShots_State(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	s := newShots(32, false)
	for n := range 60 {
		v := newView(r, 32)
		for range 1 + n%9 {
			s.look(v.frame(0.4), 1)
		}
		state := s.append(nil)
		if len(state) != s.size() {
			t.Fatalf("%d bytes, size says %d", len(state), s.size())
		}
		o := newShots(32, false)
		if rest, err := o.read(state); err != nil || len(rest) != 0 {
			t.Fatalf("%v, %d bytes left", err, len(rest))
		}
		if !bytes.Equal(o.append(nil), state) {
			t.Fatal("a restored state differs")
		}
		for range 3 {
			f := v.frame(0.4)
			s.look(f, 1)
			o.look(f, 1)
			if s.same != o.same || s.back != o.back || s.late != o.late || s.video != o.video {
				t.Fatal("a restored one says otherwise")
			}
		}
	}
}
