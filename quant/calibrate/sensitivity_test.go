package calibrate

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"lqa/quant/clip"
	"lqa/quant/device"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
)

func labels(n, embed int) (l [][]float32) {
	rng := rand.New(rand.NewPCG(8, 9))
	for range n {
		x := make([]float32, embed)
		for i := range x {
			x[i] = rng.Float32()*2 - 1
		}
		numeric.Normalize(x)
		l = append(l, x)
	}
	return l
}

// TestSensitivity holds drifts to those of models in which the one layer is
// really quantized, and sees that the model is as it was afterwards.
func TestSensitivity(t *testing.T) {
	for name, config := range towers {
		t.Run(name, func(t *testing.T) {
			cfg := config()
			src := random{cfg}
			m := open(t, cfg, src, 1)
			trial := Trial{Pictures: pictures(4), Texts: texts(cfg), Labels: labels(5, cfg.Embed)}
			want := embeddings(t, m, trial.Pictures, trial.Texts)
			got, err := m.Sensitivity(trial)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(embeddings(t, m, trial.Pictures, trial.Texts), want, slices.Equal) {
				t.Error("the model is another afterwards")
			}
			two, err := open(t, cfg, src, 2).Sensitivity(trial)
			if err != nil {
				t.Fatal(err)
			}
			var specs []clip.TensorSpec
			for _, s := range cfg.Tensors() {
				if s.Linear() {
					specs = append(specs, s)
				}
			}
			if len(got) != len(specs) {
				t.Fatalf("%d layers of %d", len(got), len(specs))
			}
			for i, l := range got {
				if l.Name != specs[i].Name {
					t.Fatalf("layer %d is %s, want %s", i, l.Name, specs[i].Name)
				}
				if !slices.Equal(l.Tried, two[i].Tried) {
					t.Errorf("%s: two hosts measure %v, one %v", l.Name, two[i].Tried, l.Tried)
				}
				for _, c := range l.Tried {
					if size, _ := c.Kind.Size(l.Shape); c.Bytes != size || c.Inferred {
						t.Errorf("%s: %+v, want %d bytes and a run", l.Name, c, size)
					}
					if zero := c.Kind == qtype.F16; (c.Drift == 0) != zero || (c.Error == 0) != zero || (c.Logits == 0) != zero {
						t.Errorf("%s: %+v", l.Name, c)
					}
				}
				// Quantized alone, attn.in and project bring other kernels along:
				// attention in integers, or none of the codes that a block has.
				if strings.HasSuffix(l.Name, "attn.in.weight") || keepsCodes(cfg, strings.TrimSuffix(l.Name, ".weight")) {
					continue
				}
				c := l.Tried[len(l.Tried)-2]
				base := want[:len(trial.Pictures)]
				if specs[i].Stage > 0 {
					base = want[len(base):]
				}
				var drifted float64
				for j, x := range quantizedAlone(t, cfg, src, specs[i], c.Kind, trial) {
					drifted += drift(x, base[j]) / float64(len(base))
				}
				if !(math.Abs(drifted-c.Drift) <= 0.02*drifted+1e-9) {
					t.Errorf("%s as %s drifts by %.4g, said to be %.4g", l.Name, c.Kind, drifted, c.Drift)
				}
			}
		})
	}
}

// quantizedAlone are embeddings of the tower of one layer with that layer
// quantized to nearest.
func quantizedAlone(t *testing.T, cfg *clip.Config, src Source, spec clip.TensorSpec, kind qtype.Kind, trial Trial) [][]float32 {
	t.Helper()
	kinds := towersOf(cfg).FloatKinds()
	kinds[spec.Name] = kind
	if spec.Stage > 0 {
		return quantized(t, cfg, src, kinds, nil, trial.Texts)
	}
	return quantized(t, cfg, src, kinds, trial.Pictures, nil)
}

// quantized are embeddings of a model of those kinds, rounded to nearest.
func quantized(t *testing.T, cfg *clip.Config, src Source, kinds map[string]qtype.Kind, pictures []Picture, texts [][]int32) [][]float32 {
	t.Helper()
	cfg = towersOf(cfg)
	l, host := new(device.Layout), newHost()
	w := &worker{model: clip.Layout(cfg, kinds, l)}
	var err error
	if w.dev, err = device.Start(host, l, device.Options{Paths: host.Paths()[:1], Lists: w.model.Lists()}); err == nil {
		err = w.model.Start(w.dev)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	for _, s := range cfg.Tensors() {
		if s.Default == qtype.U8 {
			continue
		}
		x, err := src.Float32(s.Name)
		if err != nil {
			t.Fatal(err)
		}
		if kinds[s.Name] == qtype.F16 { // as it is, lest its rounding be seen
			if err := w.model.PutFloat(s.Name, x); err != nil {
				t.Fatal(err)
			}
			continue
		}
		b, err := Round(Nearest, kinds[s.Name], x, s.Shape[0], s.Shape[1], nil)
		if err == nil {
			err = w.model.Put(s.Name, kinds[s.Name], s.Shape, b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return embeddings(t, &Model{cfg: cfg, workers: []*worker{w}}, pictures, texts)
}

// TestInfer: a kind that was not run gets its drift from the layer's error.
func TestInfer(t *testing.T) {
	tried := []Tried{
		{Kind: "q4", Error: 0.08, Drift: 0.064, Logits: 0.16},
		{Kind: "q5", Error: 0.04, Inferred: true},
		{Kind: "q6", Error: 0.02, Drift: 0.001, Logits: 0.04},
		{Kind: "q8c", Error: 0.01, Inferred: true},
	}
	infer(tried)
	// Between q4 and q6 drift goes with the cube of the error, beyond with the
	// square; logits with the error itself.
	for i, want := range []float64{0.064, 0.008, 0.001, 0.00025} {
		if got := tried[i].Drift; math.Abs(got-want) > 1e-5*want {
			t.Errorf("%s drifts by %v, want %v", tried[i].Kind, got, want)
		}
		if got, want := tried[i].Logits, 2*tried[i].Error; math.Abs(got-want) > 1e-5*want {
			t.Errorf("%s: logits change by %v, want %v", tried[i].Kind, got, want)
		}
	}
	for _, odd := range [][]Tried{nil, {{Error: 0, Drift: 0}, {Error: 1, Inferred: true}}, {{Error: 1, Drift: 1}, {Inferred: true}}} {
		infer(odd)
		for _, c := range odd {
			if c.Inferred && c.Drift != 0 {
				t.Errorf("%+v", odd)
			}
		}
	}
	for n := range 6 {
		for runs := 1; runs < 7; runs++ {
			if r := toRun(n, runs); len(r) != min(n, runs) || n > 0 && r[0] != 0 || len(slices.Compact(slices.Sorted(slices.Values(r)))) != len(r) {
				t.Errorf("of %d kinds %d are to be run: %v", n, runs, r)
			}
		}
	}
}

// TestScale: a guess gives the error of a kind that was not run.
func TestScale(t *testing.T) {
	tried := []Tried{{Kind: "q4", Error: 0.03}, {Kind: "q5", Inferred: true}, {Kind: "q6", Inferred: true}, {Kind: "q8c", Error: 0.004}}
	scale(tried, []float64{0.04, 0.02, 0.01, 0.005})
	for i, want := range []float64{0.03, 0.015, 0.008, 0.004} {
		if got := tried[i].Error; math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: error %v, want %v", tried[i].Kind, got, want)
		}
	}
}

// TestSensitivity_Guess: of what is not run, nothing is rounded by Round.
func TestSensitivity_Guess(t *testing.T) {
	cfg := towers["vit"]()
	m := open(t, cfg, random{cfg}, 1)
	rounded := map[string]int{}
	trial := Trial{Pictures: pictures(4), Work: 1,
		Round: func(name string, kind qtype.Kind, w []float32, n, k int) ([]byte, error) {
			rounded[name]++
			return Round(Clipped, kind, w, n, k, nil)
		},
		Guess: func(_ string, kind qtype.Kind, w []float32, n, k int) ([]byte, error) {
			return Round(Nearest, kind, w, n, k, nil)
		}}
	got, err := m.Sensitivity(trial)
	if err != nil {
		t.Fatal(err)
	}
	trial.Guess, trial.Work = nil, 0
	want, err := m.Sensitivity(trial)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range got {
		for j, c := range l.Tried {
			w := want[i].Tried[j]
			if c.Kind == qtype.F16 {
				continue
			}
			if c.Inferred != (j > 0) {
				t.Errorf("%s: %+v", l.Name, c)
			}
			if r := c.Error / w.Error; !(r > 1.0/1.5 && r < 1.5) || j == 0 && r != 1 {
				t.Errorf("%s as %s: error %.3g, run %.3g", l.Name, c.Kind, c.Error, w.Error)
			}
			if r := c.Drift / w.Drift; !(r > 0.2 && r < 5) || j == 0 && r != 1 {
				t.Errorf("%s as %s: drift %.3g, run %.3g", l.Name, c.Kind, c.Drift, w.Drift)
			}
		}
		if n, kinds := rounded[l.Name], len(l.Tried)-1; n != 1+kinds { // once, then all
			t.Errorf("%s was rounded %d times", l.Name, n)
		}
	}
}

// TestLogits: what is the same for all labels changes no answer.
func TestLogits(t *testing.T) {
	k := &walk{n: 1, float: [][]float32{{1, 0, 0}}, other: [][]float32{{0.6, 0.8, 0}, {0, 0.8, 0.6}}}
	// Both labels gain as much; then the first gains 0.1 of logits 0.6 apart.
	if got := k.logits([][]float32{{1, 0.5, 0}}); got > 1e-6 {
		t.Errorf("logits change by %v", got)
	}
	if got := k.logits([][]float32{{1 + 1.0/6, 0, 0}}); math.Abs(got-1.0/6) > 1e-6 {
		t.Errorf("logits change by %v, want 1/6", got)
	}
}

func TestSensitivity_Refused(t *testing.T) {
	cfg := towers["vit"]()
	m := open(t, cfg, random{cfg}, 1)
	bad := errors.New("no")
	for name, trial := range map[string]Trial{
		"label": {Labels: [][]float32{{1}}},
		"kind":  {Texts: texts(cfg), Kinds: func(clip.TensorSpec) []qtype.Kind { return []qtype.Kind{qtype.U8} }},
	} {
		if _, err := m.Sensitivity(trial); !errors.Is(err, ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
	round := func(string, qtype.Kind, []float32, int, int) ([]byte, error) { return nil, bad }
	if _, err := m.Sensitivity(Trial{Texts: texts(cfg), Round: round}); !errors.Is(err, bad) {
		t.Errorf("round: %v", err)
	}
	short := func(string, qtype.Kind, []float32, int, int) ([]byte, error) { return []byte{1}, nil }
	if _, err := m.Sensitivity(Trial{Texts: texts(cfg), Round: short}); !errors.Is(err, qtype.ErrShape) {
		t.Errorf("round: %v", err)
	}
	if got, err := m.Sensitivity(Trial{}); err != nil || len(got) != 0 {
		t.Errorf("nothing to look at: %v, %v", got, err)
	}
}
