package calibrate

import (
	"errors"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"lqa/quant/clip"
	"lqa/quant/device"
	"lqa/quant/engine/enginetest"
	"lqa/quant/qtype"
)

// random is a model of random weights that keep the spread of activations, made
// anew at each call.
type random struct{ cfg *clip.Config }

func (r random) spec(name string) (clip.TensorSpec, bool) {
	for _, s := range r.cfg.Tensors() {
		if s.Name == name && s.Default != qtype.U8 {
			return s, true
		}
	}
	return clip.TensorSpec{}, false
}

func (r random) Names() []string {
	var names []string
	for _, s := range r.cfg.Tensors() {
		if s.Default != qtype.U8 {
			names = append(names, s.Name)
		}
	}
	return names
}

func (r random) Shape(name string) ([]int, bool) {
	s, ok := r.spec(name)
	return s.Shape, ok
}

func (r random) Float32(name string) ([]float32, error) {
	s, _ := r.spec(name)
	n, cols := 1, s.Shape[len(s.Shape)-1]
	for _, d := range s.Shape {
		n *= d
	}
	var middle, spread float32 = 0, 0.1
	switch {
	case strings.HasSuffix(name, ".bias"):
	case len(s.Shape) == 1:
		middle, spread = 1, 0.3
	default:
		spread = 2.4 / float32(math.Sqrt(float64(cols)))
	}
	h := fnv.New64()
	h.Write([]byte(name))
	rng := rand.New(rand.NewPCG(h.Sum64(), 0))
	x := make([]float32, n)
	for i := range x {
		x[i] = middle + (rng.Float32()*2-1)*spread
	}
	return x, nil
}

func vitB32() *clip.Config {
	cfg := enginetest.CLIPConfig()
	cfg.Embed = 512
	cfg.Image.Size, cfg.Image.Patch, cfg.Image.Width = 224, 32, 768
	cfg.Image.Transformer = clip.Transformer{Layers: 12, Heads: 12, MLP: 3072, Activation: "quick_gelu", Eps: 1e-5}
	cfg.Text.Vocab, cfg.Text.Width, cfg.Text.Context, cfg.Text.EOS = 49408, 512, 77, 49407
	cfg.Text.Transformer = clip.Transformer{Layers: 12, Heads: 8, MLP: 2048, Activation: "quick_gelu", Eps: 1e-5}
	return cfg
}

func pictures(n int) (p []Picture) {
	for i := range n {
		w, h := 80+i%7*9, 70+i%5*13
		p = append(p, Picture{enginetest.Picture(w, h, uint32(i)), w, h})
	}
	return p
}

func open(t testing.TB, cfg *clip.Config, src Source, hosts int) *Model {
	t.Helper()
	more := make([]device.Host, hosts-1)
	for i := range more {
		more[i] = newHost()
	}
	m, err := Open(newHost(), cfg, src, more...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// towers are the small models' configurations.
var towers = map[string]func() *clip.Config{"lite": enginetest.Config, "vit": enginetest.CLIPConfig, "posterior": enginetest.PosteriorConfig}

// texts are token ids of texts of several lengths.
func texts(cfg *clip.Config) (t [][]int32) {
	for n := 3; n < 7; n++ {
		var ids []int32
		for i := range n {
			ids = append(ids, int32((i*5+n)%cfg.Text.Vocab))
		}
		if cfg.Text.Kind == "transformer" {
			ids[n-1] = int32(cfg.Text.EOS)
		}
		t = append(t, ids)
	}
	return t
}

// embeddings are those of pictures and of texts, by whole runs.
func embeddings(t *testing.T, m *Model, pictures []Picture, texts [][]int32) (out [][]float32) {
	t.Helper()
	w := m.workers[0]
	for i := range len(pictures) + len(texts) {
		x := make([]float32, m.cfg.Embed)
		var err error
		if i < len(pictures) {
			if err = w.show(pictures[i]); err == nil {
				err = w.model.Encode(x)
			}
		} else {
			err = w.model.EncodeText(x, texts[i-len(pictures)])
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, x)
	}
	return out
}

// TestCollect holds statistics to plain sums over the rows that a layer reads.
func TestCollect(t *testing.T) {
	for name, config := range towers {
		t.Run(name, func(t *testing.T) {
			cfg := config()
			m := open(t, cfg, random{cfg}, 1)
			p, tx := pictures(11), texts(cfg)
			stats, err := m.Collect(p, tx, nil)
			if err != nil {
				t.Fatal(err)
			}
			two, err := open(t, cfg, random{cfg}, 2).Collect(p, tx, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string][][]float32{}
			for i := range len(p) + len(tx) {
				input, at := m.pictureSteps(p), i
				if i >= len(p) {
					input, at = m.textSteps(tx), i-len(p)
				}
				steps, err := input(m.workers[0], at)
				if err != nil {
					t.Fatal(err)
				}
				from := 0
				for _, s := range steps.Linear {
					if err := steps.Run(from, s.From); err != nil {
						t.Fatal(err)
					}
					from = s.From
					x, err := m.workers[0].read(nil, s.GEMM)
					if err != nil {
						t.Fatal(err)
					}
					for r := range s.GEMM.M {
						want[s.Layer] = append(want[s.Layer], slices.Clone(x[r*s.GEMM.LDA:][:s.GEMM.K]))
					}
				}
			}
			for _, s := range cfg.Tensors() {
				layer, ok := strings.CutSuffix(s.Name, ".weight")
				if !ok || !s.Linear() {
					continue
				}
				l, rows := stats.Layer(layer), want[layer]
				if l == nil || len(rows) == 0 {
					t.Fatalf("%s: nothing was seen", layer)
				}
				if o := two.Layer(layer); !slices.Equal(o.H, l.H) || !slices.Equal(o.Max, l.Max) || o.N != l.N {
					t.Errorf("%s: two hosts give other sums", layer)
				}
				if all := l.N == int64(len(rows)); !all && l.N > maxRows {
					t.Errorf("%s: %d rows of %d", layer, l.N, len(rows))
				} else if all {
					for i := range l.K {
						for j := range l.K {
							var sum, size float64
							for _, r := range rows {
								v := float64(r[i]) * float64(r[j])
								sum, size = sum+v, size+math.Abs(v)
							}
							if d := math.Abs(float64(l.At(i, j)) - sum); !(d <= gramRows*0x1p-24*size) {
								t.Fatalf("%s: H[%d,%d] is %v, want %v", layer, i, j, l.At(i, j), sum)
							}
						}
					}
				}
				for i := range l.K {
					var most float32
					for _, r := range rows {
						most = max(most, r[i], -r[i])
					}
					if most != l.Max[i] {
						t.Fatalf("%s: Max[%d] is %v, want %v", layer, i, l.Max[i], most)
					}
				}
			}
			e := embeddings(t, m, p, nil)
			for i, got := range stats.ImageMean {
				var sum float64
				for _, x := range e {
					sum += float64(x[i])
				}
				if want := sum / float64(len(e)); math.Abs(float64(got)-want) > 1e-6 {
					t.Fatalf("ImageMean[%d] is %v, want %v", i, got, want)
				}
			}
		})
	}
}

// TestGram: more rows than go in one call, and fewer than a panel's columns.
func TestGram(t *testing.T) {
	cfg := enginetest.CLIPConfig()
	w := open(t, cfg, random{cfg}, 1).workers[0]
	rng := rand.New(rand.NewPCG(1, 2))
	for _, s := range [][2]int{{1, 1}, {3, 65}, {gramRows + 5, 7}, {2*gramRows + 1, 100}} {
		n, k := s[0], s[1]
		x := make([]float32, n*k)
		for i := range x {
			x[i] = rng.Float32()*2 - 1
		}
		l := &Layer{K: k, H: make([]float32, k*(k+1)/2)}
		if err := w.gram.add(w.dev, l, x); err != nil {
			t.Fatal(err)
		}
		for i := range k {
			for j := range k {
				var sum, size float64
				for r := range n {
					v := float64(x[r*k+i]) * float64(x[r*k+j])
					sum, size = sum+v, size+math.Abs(v)
				}
				if d := math.Abs(float64(l.At(i, j)) - sum); !(d <= gramRows*0x1p-24*size) {
					t.Fatalf("%v: H[%d,%d] is %v, want %v", s, i, j, l.At(i, j), sum)
				}
			}
		}
	}
}

func TestCollect_Refused(t *testing.T) {
	cfg := enginetest.Config()
	m := open(t, cfg, random{cfg}, 1)
	for _, p := range []Picture{{}, {make([]byte, 16), 2, 3}, {nil, 1 << 31, 1 << 31}, {nil, -1, 4}} {
		if _, err := m.Collect([]Picture{p}, nil, nil); !errors.Is(err, ErrInput) {
			t.Errorf("%d × %d: %v", p.W, p.H, err)
		}
	}
	for _, ids := range [][]int32{{}, {-1}, {1 << 20}, make([]int32, 100)} {
		if _, err := m.Collect(nil, [][]int32{ids}, nil); !errors.Is(err, clip.ErrConfig) {
			t.Errorf("%d tokens: %v", len(ids), err)
		}
	}
}

// TestSteps: a tower run in parts, its buffers taken out and put back in
// between, gives the bits of a whole run; so does a layer's product on a copy of
// its input, and a weight that was changed and changed back.
func TestSteps(t *testing.T) {
	for name, config := range towers {
		t.Run(name, func(t *testing.T) {
			cfg := config()
			src := random{cfg}
			m := open(t, cfg, src, 1)
			w, p, tx := m.workers[0], pictures(2), texts(cfg)
			want := embeddings(t, m, p, tx)
			for i := range len(p) + len(tx) {
				input, at := m.pictureSteps(p), i
				if i >= len(p) {
					input, at = m.textSteps(tx), i-len(p)
				}
				steps, err := input(w, at)
				if err != nil {
					t.Fatal(err)
				}
				from := 0
				saved, junk := make([]byte, steps.SaveBytes()), make([]byte, steps.SaveBytes())
				got := make([]float32, cfg.Embed)
				must := func(errs ...error) {
					t.Helper()
					if err := errors.Join(errs...); err != nil {
						t.Fatal(err)
					}
				}
				for j, s := range steps.Linear {
					must(steps.Run(from, s.From), steps.Save(saved))
					x, err := w.read(nil, s.GEMM)
					must(err, w.dev.WriteF32(w.input, x))
					weight, err := src.Float32(s.Layer + ".weight")
					must(err)
					changed := slices.Clone(weight)
					for i := range changed {
						changed[i] *= 1.5
					}
					must(w.model.PutFloat(s.Layer+".weight", changed), steps.RunOn(j, w.input), steps.Run(s.To, steps.End), steps.Embedding(got))
					if slices.Equal(got, want[i]) {
						t.Fatalf("%s: another weight changes nothing", s.Layer)
					}
					must(w.model.PutFloat(s.Layer+".weight", weight), steps.Load(junk), steps.Load(saved))
					must(steps.RunOn(j, w.input), steps.Run(s.To, steps.End), steps.Embedding(got))
					if !slices.Equal(got, want[i]) {
						t.Fatalf("%s: run in parts, the embedding is another", s.Layer)
					}
					must(steps.Load(saved))
					from = s.From
				}
			}
			if again := embeddings(t, m, p, tx); !slices.EqualFunc(again, want, slices.Equal) {
				t.Error("the lists are not as they were")
			}
			if err := m.Load(src); err != nil {
				t.Fatal(err)
			}
			if again := embeddings(t, m, p, tx); !slices.EqualFunc(again, want, slices.Equal) {
				t.Error("loading twice is not loading once")
			}
		})
	}
}

// TestLarge prints how long a ViT-B/32 takes; it is given LQA_LARGE.
func TestLarge(t *testing.T) {
	if os.Getenv("LQA_LARGE") == "" {
		t.Skip("LQA_LARGE is not set: this takes minutes")
	}
	cfg := vitB32()
	begin := time.Now()
	m := open(t, cfg, random{cfg}, 2)
	t.Log("open", time.Since(begin))
	begin = time.Now()
	if _, err := m.Collect(pictures(128), texts(cfg), nil); err != nil {
		t.Fatal(err)
	}
	t.Log("128 pictures seen", time.Since(begin))
	begin = time.Now()
	got, err := m.Sensitivity(Trial{Pictures: pictures(16), Texts: texts(cfg), Labels: labels(10, cfg.Embed)})
	if err != nil {
		t.Fatal(err)
	}
	t.Log("sensitivity from 16", time.Since(begin))
	var smallest int64
	for _, l := range got {
		smallest += int64(l.Tried[0].Bytes)
	}
	p, err := Allocate(got, Budget{Bytes: smallest * 9 / 8})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range p {
		t.Logf("%-30s %-4s %8d %.2g %s", l.Name, l.Kind, l.Bytes, l.Drift, l.Why)
	}
}
