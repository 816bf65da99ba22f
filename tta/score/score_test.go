package score_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"lqa/quant/device"
	"lqa/quant/numeric"
	"lqa/tta"
	"lqa/tta/score"
	"lqa/tta/ttatest"
)

func unit(r *rand.Rand, d int) []float32 {
	x := make([]float32, d)
	for i := range x {
		x[i] = r.Float32() - 0.5
	}
	numeric.Normalize(x)
	return x
}

// config is of c labels of width d, as far apart as those of real models.
func config(c, d int, adapter string) tta.SessionConfig {
	r := rand.New(rand.NewPCG(uint64(c), uint64(d)))
	s := tta.SessionConfig{Scale: 60, Adapter: adapter}
	common := unit(r, d)
	for i := range c {
		x := unit(r, d)
		for k := range x {
			x[k] += common[k]
		}
		numeric.Normalize(x)
		s.Labels, s.Embeddings = append(s.Labels, fmt.Sprintf("label %d", i)), append(s.Embeddings, x)
	}
	return s
}

// frames are n of labels in turn, some of them clear and some not.
func frames(c tta.SessionConfig, n int) [][]float32 {
	r := rand.New(rand.NewPCG(uint64(n), 5))
	out := make([][]float32, n)
	for i := range out {
		x := unit(r, len(c.Embeddings[0]))
		near := r.Float32()
		for k, v := range c.Embeddings[r.IntN(len(c.Embeddings))] {
			x[k] += float32(near * v)
		}
		numeric.Normalize(x)
		out[i] = x
	}
	return out
}

func open(t testing.TB, c tta.SessionConfig, host func() device.Host) *tta.Session {
	t.Helper()
	if host != nil {
		c.Kernels = score.On(host)
	}
	s, err := tta.NewSession(nil, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// pair is a session with kernels and one without.
type pair struct {
	t           *testing.T
	plain, fast *tta.Session
	want, got   tta.Result
	frames      [][]float32
	seen        int
}

// look shows both n frames and compares what they answer, bit for bit.
func (p *pair) look(n int) {
	p.t.Helper()
	for range n {
		f, at := p.frames[p.seen%len(p.frames)], time.Duration(p.seen)*time.Second/5
		p.seen++
		if err := errors.Join(p.plain.Frame(at, f, &p.want), p.fast.Frame(at, f, &p.got)); err != nil {
			p.t.Fatal(err)
		}
		for _, c := range []struct{ got, want tta.Scores }{{p.got.ZeroShot, p.want.ZeroShot}, {p.got.Adapted, p.want.Adapted}} {
			if !slices.EqualFunc(c.got.P, c.want.P, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
				p.t.Fatalf("frame %d: other answers with kernels", p.seen)
			}
		}
		if !slices.Equal(p.fast.Exemplars(nil), p.plain.Exemplars(nil)) {
			p.t.Fatalf("frame %d: other votes with kernels", p.seen)
		}
	}
	if !bytes.Equal(p.fast.AppendState(nil), p.plain.AppendState(nil)) {
		p.t.Fatalf("frame %d: another state with kernels", p.seen)
	}
}

func newPair(t *testing.T, c, d int, adapter string) *pair {
	cfg := config(c, d, adapter)
	return &pair{t: t, plain: open(t, cfg, nil), fast: open(t, cfg, newHost), frames: frames(cfg, 64)}
}

// TestKernels: the same bits with and without, from empty caches on, through
// all that changes them at once.
func TestKernels(t *testing.T) {
	for _, s := range []struct {
		c, d    int
		adapter string
	}{{32, 1, "lqa"}, {33, 8, "lqa"}, {37, 13, "stream"}, {40, 100, "lqa+sticky"}, {101, 65, "stream"}, {203, 512, "stream"}} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			p := newPair(t, s.c, s.d, s.adapter)
			if p.fast.KernelBytes() == 0 || p.plain.KernelBytes() != 0 {
				t.Fatalf("kernels of %d and %d bytes", p.fast.KernelBytes(), p.plain.KernelBytes())
			}
			p.look(70)
			state := p.plain.AppendState(nil)
			both := func(f func(s *tta.Session) error) {
				t.Helper()
				if err := errors.Join(f(p.plain), f(p.fast)); err != nil {
					t.Fatal(err)
				}
				p.look(15)
			}
			both(func(s *tta.Session) error { s.Reset(); return nil })
			both(func(s *tta.Session) error { return s.Restore(state) })
			both(func(s *tta.Session) error {
				if s.Restore(state[:len(state)-1]) == nil {
					return errors.New("half a state was taken")
				}
				return nil
			})
			both(func(s *tta.Session) error { _, err := s.Teach(3, p.frames[5]); return err })
			both(func(s *tta.Session) error { return s.SetAdapter("zeroshot") })
			both(func(s *tta.Session) error { return s.SetAdapter("lqa") })
			both(func(s *tta.Session) error { s.Freeze(true); return nil })
			p.fast.Close()
			if p.fast.KernelBytes() != 0 {
				t.Error("closed kernels hold memory")
			}
			p.look(15)
		})
	}
}

// faulty fails after some calls.
type faulty struct {
	device.Host
	left *int
}

var errFaulty = errors.New("broken")

func (f faulty) fails() bool {
	*f.left--
	return *f.left < 0
}

func (f faulty) Write(offset int, b []byte) error {
	if f.fails() {
		return errFaulty
	}
	return f.Host.Write(offset, b)
}

func (f faulty) Read(offset int, b []byte) error {
	if f.fails() {
		return errFaulty
	}
	return f.Host.Read(offset, b)
}

func (f faulty) Run(list int) error {
	if f.fails() {
		return errFaulty
	}
	return f.Host.Run(list)
}

// TestKernels_Fail: wherever a host fails, the session goes on in plain Go.
func TestKernels_Fail(t *testing.T) {
	cfg := config(32, 16, "stream")
	for _, after := range []int{0, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 41, 77} {
		p := &pair{t: t, plain: open(t, cfg, nil), frames: frames(cfg, 64)}
		p.fast = open(t, cfg, func() device.Host { return faulty{newHost(), &after} })
		p.look(20)
		if p.fast.KernelBytes() != 0 {
			t.Fatalf("it did not fail: %d calls left", after)
		}
	}
}

// TestKernels_NoAllocations: syscall/js alone allocates.
func TestKernels_NoAllocations(t *testing.T) {
	if !isNative {
		t.Skip("a call of JavaScript's allocates its arguments")
	}
	cfg := config(64, 40, "stream")
	s, f := open(t, cfg, newHost), frames(cfg, 64)
	var r tta.Result
	i := 0
	if n := testing.AllocsPerRun(100, func() {
		if err := s.Frame(time.Duration(i), f[i%64], &r); err != nil {
			t.Fatal(err)
		}
		i++
	}); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

// vit is the milliseconds of a frame of ViT-B/32 in Chromium, on one thread of
// the machine that KERNELS.md names.
const vit = 46

// BenchmarkFrame prints a frame's median milliseconds with full caches, the
// tower not counted, and the share of a ViT-B/32 frame's that they are.
func BenchmarkFrame(b *testing.B) {
	for _, adapter := range []string{"zeroshot", "lqa", "stream"} {
		for _, c := range []int{10, 100, 1000} {
			for name, host := range map[string]func() device.Host{"plain": nil, "kernels": newHost} {
				b.Run(fmt.Sprintf("%s/labels=%d/%s", adapter, c, name), func(b *testing.B) {
					cfg := config(c, 512, adapter)
					s, f := open(b, cfg, host), frames(cfg, 100)
					if host != nil && s.KernelBytes() == 0 {
						b.Skip("so few labels have none")
					}
					if adapter != "zeroshot" {
						if err := s.Restore(ttatest.Full(s.AppendState(nil), c, 512)); err != nil {
							b.Fatal(err)
						}
					}
					var r tta.Result
					var times []float64
					i := 0
					// A browser's clock is coarse: ten frames are one time.
					for range 30 {
						s.Frame(time.Duration(i)*time.Second/5, f[i%100], &r)
						i++
					}
					for b.Loop() {
						begin := time.Now()
						for range 10 {
							s.Frame(time.Duration(i)*time.Second/5, f[i%100], &r)
							i++
						}
						times = append(times, time.Since(begin).Seconds()*100)
					}
					slices.Sort(times)
					median := times[len(times)/2]
					b.ReportMetric(median, "ms/frame")
					b.ReportMetric(100*median/vit, "%of-ViT-B/32")
					b.ReportMetric(0, "ns/op")
				})
			}
		}
	}
}
