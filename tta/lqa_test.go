package tta

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"lqa/quant/numeric"
)

// randomUnit returns a unit vector whose bits are the same on every platform.
func randomUnit(r *rand.Rand, d int) []float32 {
	v := make([]float32, d)
	for i := range v {
		v[i] = r.Float32() + r.Float32() + r.Float32() - 1.5
	}
	numeric.Normalize(v)
	return v
}

// testSpace has c random labels of width d, seeded.
func testSpace(c, d int, scale float32) Space {
	r := rand.New(rand.NewPCG(1, uint64(c)))
	s := Space{Scale: scale}
	for range c {
		s.Labels = append(s.Labels, randomUnit(r, d))
	}
	return s
}

func logitsOf(s Space, f []float32) []float32 {
	l := make([]float32, len(s.Labels))
	for i, e := range s.Labels {
		l[i] = float32(s.Scale * numeric.Dot(e, f))
	}
	return l
}

// testStream returns n frames near the labels of s: runs of eight
// near-duplicates, some clear, some doubtful.
func testStream(s Space, n int, seed uint64) []Frame {
	r := rand.New(rand.NewPCG(seed, 2))
	d := len(s.Labels[0])
	frames := make([]Frame, n)
	var scene []float32
	for t := range frames {
		if t%8 == 0 {
			scene = randomUnit(r, d)
			w := r.Float32()
			for i, v := range s.Labels[r.IntN(len(s.Labels))] {
				scene[i] = float32(scene[i]*w) + v
			}
		}
		f := randomUnit(r, d)
		for i := range f {
			f[i] = float32(f[i]*0.3) + scene[i]
		}
		numeric.Normalize(f)
		frames[t] = Frame{Embedding: f, Logits: logitsOf(s, f)}
	}
	return frames
}

func near(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	for i := range want {
		if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= tolerance) {
			t.Errorf("%s: [%d] = %v, want %v ± %v", what, i, got[i], want[i], tolerance)
		}
	}
}

// TestLQA_ByHand is a stream of six frames. Two labels e0 = (1,0), e1 = (0,1),
// s = 100, so that votes are unscaled and p is 0 or 1 but near the diagonal.
//
//	a = (1,0)  b = (0.6,0.8)  c = (0.8,0.6)
//	d = (0.721948,0.691948): logits 3 apart, p = (0.953,0.047), H/ln 2 = 0.275
//	e = d mirrored
//
//	1. a -> pos0 {a}.          up0 = 2·1
//	2. b -> pos1 {b}.          up0 = 2·exp(-5·0.4) = 0.27067           up1 = 2
//	3. c -> pos0 {a,c}.        up0 = 2(exp(-1) + 1) = 2.73576          up1 = 2·exp(-5·0.04) = 1.63746
//	4. d -> pos0 {a,c,d}, neg0 {d: both labels}.
//	   up0 = 2(exp(-5·0.278052) + exp(-5·0.007273) + 1) = 4.42660      up1 = 2·exp(-5·0.013273) = 1.87158
//	   down = 0.117·1 for both
//	5. a -> pos0 is full: its own entropy, about 0, is below d's 0.19: {a,c,a}.
//	   up0 = 2(1 + exp(-1) + 1) = 4.73576                              up1 = 2·exp(-5·0.4) = 0.27067
//	   down = 0.117·exp(-0.278052) = 0.08860
//	6. e -> pos1 {b,e}, neg1 {e: both}.
//	   up0 = 2(2·exp(-5·0.308052) + exp(-5·0.013273)) = 2.72892        up1 = 2(exp(-5·0.007273) + 1) = 3.92858
//	   down = 0.117(exp(-0.0009) + 1) = 0.23389
func TestLQA_ByHand(t *testing.T) {
	space := Space{Scale: 100, Labels: [][]float32{{1, 0}, {0, 1}}}
	const x, y = 0.721948, 0.691948
	stream := []struct {
		f, want []float32
	}{
		{[]float32{1, 0}, []float32{102, 0}},
		{[]float32{0.6, 0.8}, []float32{60.27067, 82}},
		{[]float32{0.8, 0.6}, []float32{82.73576, 61.63746}},
		{[]float32{x, y}, []float32{76.50440, 70.94938}},
		{[]float32{1, 0}, []float32{104.64716, 0.18207}},
		{[]float32{y, x}, []float32{71.68983, 75.88949}},
	}
	for _, mode := range []struct {
		name      string
		float     bool
		tolerance float64
	}{
		{"float keys", true, 2e-4},
		// A key of two values, each off by at most 1/254, moves a cosine by
		// at most 2·√2/254·½ and a vote by 2·5 times that; three votes.
		{"int8 keys", false, 3 * 2 * 5 * math.Sqrt2 / 254},
	} {
		t.Run(mode.name, func(t *testing.T) {
			a := makeLQA(space, mode.float)
			first := make([][]float32, len(stream))
			for round := range 2 {
				for i, s := range stream {
					got := logitsOf(space, s.f)
					a.Adapt(got, Frame{Embedding: s.f, Logits: got}) // dst is f.Logits
					near(t, fmt.Sprintf("frame %d", i+1), got, s.want, mode.tolerance)
					if round == 0 {
						first[i] = got
					} else if got[0] != first[i][0] || got[1] != first[i][1] {
						t.Errorf("frame %d after Reset: %v, before %v", i+1, got, first[i])
					}
				}
				if r := a.Report(); r.Entries != 3+2+1+1 || r.StateBytes != len(a.AppendState(nil)) {
					t.Errorf("report %+v", r)
				}
				a.Reset()
				if r := a.Report(); r.Entries != 0 || r.Shift != 0 {
					t.Errorf("report after Reset %+v", r)
				}
			}
		})
	}
}

type golden struct {
	space  Space
	frames []Frame
	want   [][]float32 // adapted logits, float keys
}

// readGolden reads testdata/golden.bin, which testdata/golden.py writes.
func readGolden(t *testing.T) golden {
	t.Helper()
	b, err := os.ReadFile("testdata/golden.bin")
	if err != nil {
		t.Fatal(err)
	}
	c, d, n := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
	g := golden{space: Space{Scale: math.Float32frombits(binary.LittleEndian.Uint32(b[12:]))}}
	b = b[16:]
	rows := func(count, width uint32) [][]float32 {
		out := make([][]float32, count)
		for i := range out {
			out[i] = make([]float32, width)
			for k := range out[i] {
				out[i][k] = math.Float32frombits(binary.LittleEndian.Uint32(b))
				b = b[4:]
			}
		}
		return out
	}
	g.space.Labels = rows(c, d)
	for _, f := range rows(n, d) {
		g.frames = append(g.frames, Frame{Embedding: f, Logits: logitsOf(g.space, f)})
	}
	g.want = rows(n, c)
	return g
}

func argmax(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

// TestLQA_Golden: with float keys the logits are those of an independent NumPy
// version; int8 keys change at most one answer in 200.
func TestLQA_Golden(t *testing.T) {
	g := readGolden(t)
	float, int8s := makeLQA(g.space, true), makeLQA(g.space, false)
	got := make([]float32, len(g.space.Labels))
	changed, moved := 0, 0
	var worst float64
	for i, f := range g.frames {
		float.Adapt(got, f)
		for l, v := range got {
			worst = max(worst, math.Abs(float64(v)-float64(g.want[i][l])))
		}
		answer := argmax(got)
		if answer != argmax(f.Logits) {
			moved++
		}
		int8s.Adapt(got, f)
		if argmax(got) != answer {
			changed++
		}
	}
	t.Logf("largest difference %.1e of a logit; adaptation changes %d answers of %d, int8 keys %d", worst, moved, len(g.frames), changed)
	if worst > 1e-5 {
		t.Errorf("logits differ by %v, want at most 1e-5", worst)
	}
	if moved == 0 {
		t.Error("the stream does not test anything: no answer moved")
	}
	if 200*changed > len(g.frames) {
		t.Errorf("int8 keys change %d of %d answers, want at most 0.5%%", changed, len(g.frames))
	}
}

// TestLQA_Shapes: every number of labels works, one included, state stays under
// its documented bound, and a restored adapter goes on with the same bits.
func TestLQA_Shapes(t *testing.T) {
	for _, c := range []int{1, 2, 3, 10, 33, 34, 101, 2000} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			const d = 48
			s := testSpace(c, d, 24)
			frames := testStream(s, 200, 3)
			a, b := makeLQA(s, false), makeLQA(s, false)
			got, again := make([]float32, c), make([]float32, c)
			for i, f := range frames {
				a.Adapt(got, f)
				for _, v := range got {
					if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
						t.Fatalf("frame %d: logit %v", i, v)
					}
				}
				if i == 100 {
					if err := b.Restore(a.AppendState(nil)); err != nil {
						t.Fatal(err)
					}
				}
				if i > 100 {
					b.Adapt(again, f)
					if differ(got, again) {
						t.Fatalf("frame %d: restored adapter answers otherwise", i)
					}
				}
			}
			state := a.AppendState(nil)
			if !bytes.Equal(state, b.AppendState(nil)) {
				t.Error("states differ")
			}
			if bound := 16 + c*(2+3*(10+d)+2*(7+d+2*min(33, c))); len(state) > bound {
				t.Errorf("state has %d bytes, bound %d", len(state), bound)
			}
			if r := a.Report(); r.StateBytes != len(state) {
				t.Errorf("Report says %d bytes, state has %d", r.StateBytes, len(state))
			}
		})
	}
}

func differ(a, b []float32) bool {
	for i := range a {
		if a[i] != b[i] {
			return true
		}
	}
	return false
}

// TestLQA_Full: the caches fill up, and the mask with them.
func TestLQA_Full(t *testing.T) {
	const c, d = 40, 40
	s := Space{Scale: 100}
	for l := range c {
		e := make([]float32, d)
		e[l] = 1
		s.Labels = append(s.Labels, e)
	}
	a := makeLQA(s, false)
	out := make([]float32, c)
	for l := range c {
		for n := range 6 {
			// n+1 labels equally likely: masks of one to six labels.
			f := make([]float32, d)
			for j := range n + 1 {
				f[(l+j)%d] = 1
			}
			numeric.Normalize(f)
			f[l] += 1e-4
			a.Adapt(out, Frame{Embedding: f, Logits: logitsOf(s, f)})
		}
	}
	r := a.Report()
	if r.Entries != 5*c || r.StateBytes != len(a.AppendState(nil)) {
		t.Errorf("report %+v, want %d entries", r, 5*c)
	}
}

// TestLQA_Bits: a stream leaves these state bytes on every platform. The test
// runs natively and under js/wasm; it holds both to one constant.
func TestLQA_Bits(t *testing.T) {
	s := testSpace(12, 64, 20)
	a := makeLQA(s, false)
	h := sha256.New()
	out := make([]float32, 12)
	for _, f := range testStream(s, 400, 5) {
		a.Adapt(out, f)
		for _, v := range out {
			binary.Write(h, binary.LittleEndian, v)
		}
	}
	h.Write(a.AppendState(nil))
	const want = "ad763564ca003138f19bf9ec1bea8cded3e7d8597c4f1943374dd5ce7b646db2"
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("scores and state hash to %s, want %s", got, want)
	}
}

func TestLQA_NoAllocations(t *testing.T) {
	s := testSpace(20, 64, 24)
	frames := testStream(s, 64, 7)
	a := makeLQA(s, false)
	out := make([]float32, 20)
	i := 0
	if n := testing.AllocsPerRun(60, func() {
		a.Adapt(out, frames[i%len(frames)])
		i++
	}); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

// TestLQA_RestoreRejects: what AppendState cannot have written is refused and
// changes nothing.
func TestLQA_RestoreRejects(t *testing.T) {
	s := testSpace(5, 16, 24)
	a := makeLQA(s, false)
	out := make([]float32, 5)
	for _, f := range testStream(s, 100, 9) {
		a.Adapt(out, f)
	}
	good := a.AppendState(nil)
	change := func(at int, b ...byte) []byte {
		c := bytes.Clone(good)
		copy(c[at:], b)
		return c
	}
	entry := lqaHeader + 1
	for name, bad := range map[string][]byte{
		"empty":            nil,
		"version":          change(0, 9),
		"labels":           change(4, 6),
		"width":            change(8, 17),
		"count":            change(lqaHeader, 4),
		"entropy NaN":      change(entry, 0, 0, 0xc0, 0x7f),
		"entropy negative": change(entry, 0, 0, 0x80, 0xbf),
		"entropy -0":       change(entry, 0, 0, 0, 0x80),
		"entropy huge":     change(entry, 0, 0, 0x80, 0x7f),
		"scale zero":       change(entry+4, 0, 0),
		"scale infinite":   change(entry+4, 0, 0x7c),
		"code -128":        change(entry+6, 0x80),
		"long":             append(bytes.Clone(good), 0),
	} {
		if err := a.Restore(bad); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v, want ErrState", name, err)
		}
	}
	for n := range good {
		if err := a.Restore(good[:n]); !errors.Is(err, ErrState) {
			t.Fatalf("first %d bytes: %v, want ErrState", n, err)
		}
	}
	if !bytes.Equal(a.AppendState(nil), good) {
		t.Error("a refused state changed the adapter")
	}
}

// FuzzLQA_Restore: whatever is accepted comes out again byte for byte and can be
// worked with.
func FuzzLQA_Restore(f *testing.F) {
	s := testSpace(3, 4, 24)
	frames := testStream(s, 40, 11)
	a := makeLQA(s, false)
	out := make([]float32, 3)
	f.Add(a.AppendState(nil))
	for i, fr := range frames {
		a.Adapt(out, fr)
		if i == 2 || i == 39 {
			f.Add(a.AppendState(nil))
		}
	}
	f.Fuzz(func(t *testing.T, state []byte) {
		a := makeLQA(s, false)
		if a.Restore(state) != nil {
			return
		}
		if got := a.AppendState(nil); !bytes.Equal(got, state) {
			t.Fatalf("accepted %x, wrote %x", state, got)
		}
		for _, fr := range frames[:3] {
			a.Adapt(out, fr)
			for _, v := range out {
				if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
					t.Fatalf("logit %v", v)
				}
			}
		}
	})
}

func BenchmarkAdapt(b *testing.B) {
	for _, c := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("labels=%d/width=512", c), func(b *testing.B) {
			s := testSpace(c, 512, 24)
			frames := testStream(s, 8*c, 13)
			a := makeLQA(s, false)
			out := make([]float32, c)
			for _, f := range frames {
				a.Adapt(out, f)
			}
			i := 0
			for b.Loop() {
				a.Adapt(out, frames[i%len(frames)])
				i++
			}
			b.ReportMetric(float64(a.Report().Entries), "entries")
		})
	}
}
