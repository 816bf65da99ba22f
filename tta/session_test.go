package tta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"lqa/quant/numeric"
)

func TestCleanLabels(t *testing.T) {
	for _, c := range []struct{ in, want []string }{
		{nil, nil},
		{[]string{"", "  ", "\t\n"}, nil},
		{[]string{" mug ", "banana", "mug"}, []string{"mug", "banana"}},
		{[]string{"Mug", "mug", "MUG "}, []string{"Mug"}},
		{[]string{"coffee  mug", "coffee mug"}, []string{"coffee mug"}},
		{[]string{"b", "a", "b", "c"}, []string{"b", "a", "c"}},
		{[]string{"caf\xff"}, []string{"caf\uFFFD"}},
		{[]string{"line\nbreak"}, []string{"line break"}},
	} {
		if got := CleanLabels(c.in); !slices.Equal(got, c.want) {
			t.Errorf("CleanLabels(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func labelNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("label %d", i)
	}
	return names
}

func newTestSession(t testing.TB, c, d int, change func(*SessionConfig)) *Session {
	t.Helper()
	cfg := SessionConfig{Labels: labelNames(c), Embeddings: testSpace(c, d, 24).Labels, Scale: 24, Adapter: "lqa"}
	if change != nil {
		change(&cfg)
	}
	s, err := NewSession(nil, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNewSession_Errors(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		name   string
		change func(*SessionConfig)
		want   error
	}{
		{"no labels", func(c *SessionConfig) { c.Labels = nil }, ErrNoLabels},
		{"empty labels", func(c *SessionConfig) { c.Labels = []string{" ", ""} }, ErrNoLabels},
		{"too many", func(c *SessionConfig) { c.Labels = labelNames(MaxLabels + 1) }, ErrTooManyLabels},
		{"doubles", func(c *SessionConfig) { c.Labels = []string{"a", "b", "A"} }, ErrLabels},
		{"fewer embeddings", func(c *SessionConfig) { c.Embeddings = c.Embeddings[:2] }, ErrDimension},
		{"no embeddings, no encoder", func(c *SessionConfig) { c.Embeddings = nil }, ErrDimension},
		{"width 0", func(c *SessionConfig) { c.Embeddings = [][]float32{{}, {}, {}} }, ErrDimension},
		{"widths differ", func(c *SessionConfig) { c.Embeddings = [][]float32{{1, 0}, {1}, {0, 1}} }, ErrDimension},
		{"NaN", func(c *SessionConfig) { c.Embeddings = [][]float32{{1, 0}, {nan, 0}, {0, 1}} }, ErrNotFinite},
		{"Inf", func(c *SessionConfig) { c.Embeddings = [][]float32{{1, 0}, {inf, 0}, {0, 1}} }, ErrNotFinite},
		{"long", func(c *SessionConfig) { c.Embeddings = [][]float32{{1, 0}, {1, 1}, {0, 1}} }, ErrNorm},
		{"scale", func(c *SessionConfig) { c.Scale = 0 }, ErrNotFinite},
		{"scale NaN", func(c *SessionConfig) { c.Scale = nan }, ErrNotFinite},
		{"temperature", func(c *SessionConfig) { c.Temperature = -1 }, ErrNotFinite},
		{"none", func(c *SessionConfig) { c.NoneCosine = &nan }, ErrNotFinite},
		{"image mean", func(c *SessionConfig) { c.ImageMean = []float32{1} }, ErrDimension},
		{"adapter", func(c *SessionConfig) { c.Adapter = "magic" }, ErrAdapter},
	} {
		cfg := SessionConfig{Labels: labelNames(3), Embeddings: testSpace(3, 8, 24).Labels, Scale: 24}
		c.change(&cfg)
		if _, err := NewSession(nil, cfg); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// fakeEncoder embeds a label by its length.
type fakeEncoder struct{ Encoder }

func (fakeEncoder) EmbedText(labels []string) ([][]float32, error) {
	out := make([][]float32, len(labels))
	for i, l := range labels {
		out[i] = make([]float32, 8)
		out[i][len(l)%8] = 1
	}
	return out, nil
}

func TestNewSession_Encoder(t *testing.T) {
	s, err := NewSession(fakeEncoder{}, SessionConfig{Labels: []string{" ab", "", "abc", "AB"}, Scale: 24})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Labels(); !slices.Equal(got, []string{"ab", "abc"}) {
		t.Errorf("labels %q", got)
	}
	var r Result
	if err := s.Frame(0, []float32{0, 0, 0, 1, 0, 0, 0, 0}, &r); err != nil {
		t.Fatal(err)
	}
	if r.ZeroShot.Best() != 1 || s.Adapter() != "zeroshot" || s.Width() != 8 {
		t.Errorf("%+v by %s", r, s.Adapter())
	}
}

// TestSession_Probabilities works the softmax out in float64, "none of these"
// and temperature included.
func TestSession_Probabilities(t *testing.T) {
	none := float32(0.3)
	s := newTestSession(t, 7, 16, func(c *SessionConfig) {
		c.NoneCosine, c.Temperature = &none, 1.7
	})
	var r Result
	for i, f := range testStream(s.space, 20, 1) {
		if err := s.Frame(time.Duration(i)*time.Second, f.Embedding, &r); err != nil {
			t.Fatal(err)
		}
		want := make([]float64, 8)
		sum := 0.0
		for l := range 7 {
			want[l] = math.Exp(float64(f.Logits[l]) / 1.7)
			sum += want[l]
		}
		want[7] = math.Exp(24 * 0.3 / 1.7)
		sum += want[7]
		total := r.Adapted.None
		for l, p := range r.ZeroShot.P {
			if math.Abs(float64(p)-want[l]/sum) > 1e-5 {
				t.Errorf("p[%d] = %v, want %v", l, p, want[l]/sum)
			}
			total += r.Adapted.P[l]
		}
		if math.Abs(float64(r.ZeroShot.None)-want[7]/sum) > 1e-5 {
			t.Errorf("none = %v, want %v", r.ZeroShot.None, want[7]/sum)
		}
		if math.Abs(float64(total)-1) > 1e-5 {
			t.Errorf("adapted probabilities sum to %v", total)
		}
	}
	if r.Report.Method != "lqa" || r.Report.Entries == 0 {
		t.Errorf("report %+v", r.Report)
	}
}

func TestScores_Best(t *testing.T) {
	for _, c := range []struct {
		s    Scores
		want int
	}{
		{Scores{P: []float32{0.2, 0.5, 0.3}}, 1},
		{Scores{P: []float32{0.4, 0.4, 0.2}}, 0},
		{Scores{P: []float32{0.2, 0.2}, None: 0.6}, -1},
	} {
		if got := c.s.Best(); got != c.want {
			t.Errorf("%v: %d, want %d", c.s, got, c.want)
		}
	}
}

// TestCosines: the unrolled loop gives numeric.Dot's bits.
func TestCosines(t *testing.T) {
	for _, c := range []int{1, 2, 3, 4, 5, 8, 11} {
		for _, d := range []int{1, 3, 8, 65} {
			s := testSpace(c, d, 1)
			var table []float32
			for _, l := range s.Labels {
				table = append(table, l...)
			}
			f := testSpace(1, d, 1).Labels[0]
			got := make([]float32, c)
			cosines(got, table, f)
			for l := range got {
				if want := numeric.Dot(s.Labels[l], f); got[l] != want {
					t.Errorf("%d labels of width %d: [%d] = %v, want %v", c, d, l, got[l], want)
				}
			}
		}
	}
}

func TestDotInt8(t *testing.T) {
	for n := range 40 {
		a, b := make([]int8, n), make([]int8, n)
		want := int32(0)
		for i := range a {
			a[i], b[i] = int8(i*37%255-127), int8(127-i*91%255)
			if i%3 == 0 {
				a[i], b[i] = -127, 127
			}
			want += int32(a[i]) * int32(b[i])
		}
		if got := dotInt8(a, b); got != want {
			t.Errorf("%d codes: %d, want %d", n, got, want)
		}
	}
}

// TestSession_ZeroShot: the method that adapts nothing returns its input.
func TestSession_ZeroShot(t *testing.T) {
	s := newTestSession(t, 5, 16, func(c *SessionConfig) { c.Adapter = "zeroshot" })
	var r Result
	for _, f := range testStream(s.space, 50, 1) {
		if err := s.Frame(0, f.Embedding, &r); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(r.ZeroShot.P, r.Adapted.P) || r.ZeroShot.None != r.Adapted.None {
			t.Fatalf("zero-shot %v, adapted %v", r.ZeroShot, r.Adapted)
		}
	}
	if r.Report.StateBytes != 0 || r.Report.Entries != 0 {
		t.Errorf("report %+v", r.Report)
	}
}

// TestSession_Still: a single picture leaves the adapter alone.
func TestSession_Still(t *testing.T) {
	s := newTestSession(t, 5, 16, nil)
	frames := testStream(s.space, 20, 1)
	var r Result
	for _, f := range frames {
		s.Frame(0, f.Embedding, &r)
	}
	before := s.AppendState(nil)
	if err := s.Still(frames[0].Embedding, &r); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.ZeroShot.P, r.Adapted.P) {
		t.Error("a still was adapted")
	}
	if !bytes.Equal(before, s.AppendState(nil)) {
		t.Error("a still changed the adapter")
	}
}

func TestSession_FrameErrors(t *testing.T) {
	s := newTestSession(t, 3, 4, nil)
	var r Result
	if err := s.Frame(0, []float32{1, 0, 0, 0}, &r); err != nil {
		t.Fatal(err)
	}
	before, p := s.AppendState(nil), slices.Clone(r.Adapted.P)
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for _, c := range []struct {
		f    []float32
		want error
	}{
		{nil, ErrDimension},
		{[]float32{1, 0, 0}, ErrDimension},
		{[]float32{nan, 0, 0, 0}, ErrNotFinite},
		{[]float32{0, 0, 0, inf}, ErrNotFinite},
		{[]float32{2, 0, 0, 0}, ErrNorm},
		{[]float32{3e38, 3e38, 0, 0}, ErrNorm},
	} {
		if err := s.Frame(0, c.f, &r); !errors.Is(err, c.want) {
			t.Errorf("%v: %v, want %v", c.f, err, c.want)
		}
		if err := s.Still(c.f, &r); !errors.Is(err, c.want) {
			t.Errorf("%v still: %v, want %v", c.f, err, c.want)
		}
	}
	if !bytes.Equal(before, s.AppendState(nil)) || !slices.Equal(p, r.Adapted.P) {
		t.Error("a refused frame left traces")
	}
	if err := s.Frame(0, make([]float32, 4), &r); err != nil { // a frame without any feature
		t.Errorf("zero embedding: %v", err)
	}
}

// TestSession_Independent: two sessions on one model do not touch each other,
// and switching and resetting begin anew.
func TestSession_Independent(t *testing.T) {
	run := func(s *Session, frames []Frame) (out []float32) {
		var r Result
		for _, f := range frames {
			if err := s.Frame(0, f.Embedding, &r); err != nil {
				t.Fatal(err)
			}
			out = append(out, r.Adapted.P...)
		}
		return out
	}
	a := newTestSession(t, 6, 16, nil)
	frames := testStream(a.space, 100, 1)
	want := run(a, frames)

	b := newTestSession(t, 6, 16, nil)
	other := newTestSession(t, 9, 16, nil)
	var r Result
	var got []float32
	for _, f := range frames {
		other.Frame(0, f.Embedding, &r)
		b.Frame(0, f.Embedding, &r)
		got = append(got, r.Adapted.P...)
	}
	if differ(got, want) {
		t.Error("a session beside another answers otherwise")
	}

	b.Reset()
	if differ(run(b, frames), want) {
		t.Error("answers after Reset differ")
	}
	if err := b.SetAdapter("lqa"); err != nil || b.Report().Entries == 0 {
		t.Errorf("naming the adapter it has: %v, %+v", err, b.Report())
	}
	if err := b.SetAdapter("nothing"); !errors.Is(err, ErrAdapter) || b.Adapter() != "lqa" {
		t.Errorf("unknown adapter: %v, now %s", err, b.Adapter())
	}
	b.SetAdapter("zeroshot")
	b.SetAdapter("lqa")
	if differ(run(b, frames), want) {
		t.Error("answers after a switch there and back differ")
	}
}

// TestSession_Switch: nothing holds the adapter before.
func TestSession_Switch(t *testing.T) {
	s := newTestSession(t, 3, 4, nil)
	state := s.AppendState(nil)
	for name, change := range map[string]func() error{
		"SetAdapter": func() error { return s.SetAdapter("zeroshot") },
		"Restore":    func() error { return s.Restore(state) },
	} {
		s.kernels.owner = new(keys)
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if s.kernels.owner != nil {
			t.Errorf("%s: the kernels have keys of the adapter before", name)
		}
	}
}

func TestSession_State(t *testing.T) {
	a := newTestSession(t, 6, 16, nil)
	frames := testStream(a.space, 120, 1)
	var ra, rb Result
	for _, f := range frames[:60] {
		a.Frame(0, f.Embedding, &ra)
	}
	state := a.AppendState([]byte("before"))
	if !strings.HasPrefix(string(state), "beforeTTAS") {
		t.Fatalf("state begins with %q", state[:10])
	}
	state = state[len("before"):]
	if n := len(state) - a.Report().StateBytes; n > 64 {
		t.Errorf("the session adds %d bytes, want at most 64", n)
	}

	b := newTestSession(t, 6, 16, func(c *SessionConfig) { c.Adapter = "zeroshot" })
	if err := b.Restore(state); err != nil {
		t.Fatal(err)
	}
	if b.Adapter() != "lqa" || !bytes.Equal(b.AppendState(nil), state) {
		t.Error("restored session differs")
	}
	for _, f := range frames[60:] {
		a.Frame(0, f.Embedding, &ra)
		b.Frame(0, f.Embedding, &rb)
		if differ(ra.Adapted.P, rb.Adapted.P) {
			t.Fatal("restored session answers otherwise")
		}
	}

	after := b.AppendState(nil)
	otherLabels := newTestSession(t, 6, 16, func(c *SessionConfig) { c.Labels[0] = "another" })
	otherModel := newTestSession(t, 6, 16, func(c *SessionConfig) { c.Embeddings[0][0] += 0.001 })
	for what, s := range map[string]*Session{"labels": otherLabels, "model": otherModel} {
		if err := s.Restore(state); !errors.Is(err, ErrState) {
			t.Errorf("other %s: %v, want ErrState", what, err)
		}
	}
	for i := range state {
		bad := bytes.Clone(state)
		bad[i] ^= 1
		if err := b.Restore(bad); !errors.Is(err, ErrState) {
			t.Fatalf("byte %d flipped: %v, want ErrState", i, err)
		}
		if err := b.Restore(state[:i]); !errors.Is(err, ErrState) {
			t.Fatalf("first %d bytes: %v, want ErrState", i, err)
		}
	}
	if !bytes.Equal(b.AppendState(nil), after) {
		t.Error("a refused state changed the session")
	}
}

// FuzzSession_Restore mutates what stands before the checksum, which no guess
// would get past.
func FuzzSession_Restore(f *testing.F) {
	s := newTestSession(f, 3, 4, nil)
	var r Result
	f.Add(s.AppendState(nil))
	for _, fr := range testStream(s.space, 10, 1) {
		s.Frame(0, fr.Embedding, &r)
	}
	f.Add(s.AppendState(nil))
	s.SetAdapter("zeroshot")
	f.Add(s.AppendState(nil))
	for label, e := range [][]float32{{0, 0, 0, 1}, {0, 0, 0, 0}, {0, 0, 0, 1}} {
		if _, err := s.Teach(label, e); err != nil {
			f.Fatal(err)
		}
		f.Add(s.AppendState(nil))
	}
	s.SetAdapter("stream")
	for _, fr := range cameraStream(s.space, 30, 1) {
		s.Frame(fr.Time, fr.Embedding, &r)
	}
	f.Add(s.AppendState(nil))
	f.Fuzz(func(t *testing.T, state []byte) {
		if n := len(state) - 4; n >= 0 {
			state = binary.LittleEndian.AppendUint32(state[:n:n], crc32.ChecksumIEEE(state[:n]))
		}
		s := newTestSession(t, 3, 4, nil)
		if err := s.Restore(state); err != nil {
			if !errors.Is(err, ErrState) && !errors.Is(err, ErrAdapter) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if got := s.AppendState(nil); !bytes.Equal(got, state) {
			t.Fatalf("accepted %x, wrote %x", state, got)
		}
		for _, e := range [][]float32{{0, 0, 0, 1}, {0.5, -0.5, 0.5, -0.5}, {0, 0, 0, 0}} {
			var out Result
			for what, look := range []func() error{
				func() error { return s.Still(e, &out) },
				func() error { return s.Frame(time.Second, e, &out) },
			} {
				if err := look(); err != nil {
					t.Fatal(err)
				}
				sum := out.Adapted.None
				for _, p := range out.Adapted.P {
					sum += p
				}
				if !(sum > 0.999 && sum < 1.001) {
					t.Fatalf("%x, %d: answers %+v", state, what, out.Adapted)
				}
			}
		}
	})
}

func TestSession_Many(t *testing.T) {
	for _, c := range []int{1, 2000, MaxLabels} {
		s := newTestSession(t, c, 8, nil)
		var r Result
		for _, f := range testStream(s.space, 5, 1) {
			if err := s.Frame(0, f.Embedding, &r); err != nil {
				t.Fatal(err)
			}
		}
		if len(r.Adapted.P) != c {
			t.Errorf("%d probabilities for %d labels", len(r.Adapted.P), c)
		}
	}
}

func TestSession_NoAllocations(t *testing.T) {
	for _, name := range Names() {
		none := float32(0.2)
		s := newTestSession(t, 20, 64, func(c *SessionConfig) { c.Adapter, c.NoneCosine = name, &none })
		frames := testStream(s.space, 64, 7)
		var r Result
		s.Frame(0, frames[0].Embedding, &r)
		i := 0
		if n := testing.AllocsPerRun(60, func() {
			if err := s.Frame(time.Duration(i), frames[i%64].Embedding, &r); err != nil {
				t.Fatal(err)
			}
			i++
		}); n != 0 {
			t.Errorf("%s: %v allocations a frame", name, n)
		}
	}
}

func BenchmarkSession(b *testing.B) {
	for _, c := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("labels=%d/width=512", c), func(b *testing.B) {
			s := newTestSession(b, c, 512, nil)
			frames := testStream(s.space, 8*c, 13)
			var r Result
			for _, f := range frames {
				s.Frame(0, f.Embedding, &r)
			}
			i := 0
			for b.Loop() {
				s.Frame(0, frames[i%len(frames)].Embedding, &r)
				i++
			}
		})
	}
}
