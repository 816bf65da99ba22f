package calibrate

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lqa/quant/checkpoint"
	"lqa/quant/clip"
	"lqa/quant/engine/enginetest"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
)

// outliers are a model whose channels are scaled by up to 50 where that changes
// nothing, with the inverse in the layers that read them: what makes real CLIPs
// hard to quantize.
func outliers(t *testing.T, cfg *clip.Config, src Source) Source {
	t.Helper()
	edges := edgesOf(cfg)
	f, err := balance(src, edges, func(*edge, int, float32) float32 { return 1 }, 1)
	if err != nil {
		t.Fatal(err)
	}
	for n, e := range edges {
		for c := range e.s {
			e.s[c] = 1
			switch (c + n) % 17 {
			case 3:
				e.s[c] = 1.0 / 50
			case 8:
				e.s[c] = 50
			case 12:
				e.s[c] = 1.0 / 20
			}
		}
	}
	return f
}

// far is the largest difference of embeddings.
func far(a, b [][]float32) float64 {
	var most float64
	for i := range a {
		for j := range a[i] {
			most = max(most, math.Abs(float64(a[i][j]-b[i][j])))
		}
	}
	return most
}

// TestFold: outliers in or not, the folded model computes the same, what is
// said of it is what would be seen of it, and no channel stands out any more.
func TestFold(t *testing.T) {
	for name, config := range towers {
		for _, planted := range []bool{false, true} {
			t.Run(name+map[bool]string{true: "/outliers", false: ""}[planted], func(t *testing.T) {
				cfg := config()
				var src Source = random{cfg}
				m := open(t, cfg, src, 1)
				p, tx := pictures(5), texts(cfg)
				want := embeddings(t, m, p, tx)
				if err := m.Load(float16s{src}); err != nil {
					t.Fatal(err)
				}
				rounding := far(embeddings(t, m, p, tx), want)
				if planted {
					src = outliers(t, cfg, src)
				}
				if err := m.Load(src); err != nil {
					t.Fatal(err)
				}
				if d := far(embeddings(t, m, p, tx), want); d > 1e-4 {
					t.Fatalf("the planted scales move embeddings by %v", d)
				}
				stats, err := m.Collect(p, tx, nil)
				if err != nil {
					t.Fatal(err)
				}
				before := unevenness(cfg, stats)
				src, err = Fold(cfg, src, stats, Alpha)
				if err != nil {
					t.Fatal(err)
				}
				if err := m.Load(float16s{src}); err != nil {
					t.Fatal(err)
				}
				if d := far(embeddings(t, m, p, tx), want); d > 2*rounding {
					t.Errorf("folded and stored as float16, embeddings move by %v, not folded %v", d, rounding)
				}
				if err := m.Load(src); err != nil {
					t.Fatal(err)
				}
				if d := far(embeddings(t, m, p, tx), want); d > 1e-4 {
					t.Errorf("folding moves embeddings by %v", d)
				}
				seen, err := m.Collect(p, tx, nil)
				if err != nil {
					t.Fatal(err)
				}
				for name, l := range seen.layers {
					said := stats.Layer(name)
					for i := range l.K {
						for j := range l.K {
							// The layers before have moved by roundings alone.
							size := math.Sqrt(float64(l.At(i, i)) * float64(l.At(j, j)))
							if d := math.Abs(float64(said.At(i, j) - l.At(i, j))); d > 1e-4*size+1e-20 {
								t.Fatalf("%s: H[%d,%d] is said to be %v, and is %v", name, i, j, said.At(i, j), l.At(i, j))
							}
						}
						if d := math.Abs(float64(said.Max[i] - l.Max[i])); d > 1e-3*float64(l.Max[i])+1e-6 {
							t.Fatalf("%s: Max[%d] is said to be %v, and is %v", name, i, said.Max[i], l.Max[i])
						}
					}
				}
				after := unevenness(cfg, stats)
				t.Logf("largest channel over the median: %.1f, folded %.1f", before, after)
				if planted && !(after < before/3) {
					t.Errorf("outliers are still there: the largest channel is %.1f times the median, was %.1f", after, before)
				}
			})
		}
	}
}

// TestFold_Int8: outliers ruin eight-bit activations, and folding brings back
// what a model without them has: over random weights, and over the small CLIPs
// whose goldens are transformers'.
func TestFold_Int8(t *testing.T) {
	type model struct {
		cfg *clip.Config
		src Source
	}
	models := map[string]model{}
	for name, config := range towers {
		cfg := config()
		models[name] = model{cfg, random{cfg}}
	}
	for _, dir := range []string{"clip-quick", "clip-gelu"} {
		cfg, src := golden(t, dir)
		models[dir] = model{cfg, src}
	}
	for name, model := range models {
		t.Run(name, func(t *testing.T) {
			cfg, src := model.cfg, model.src
			kinds := towersOf(cfg).FloatKinds()
			for _, s := range towersOf(cfg).Tensors() {
				if kinds[s.Name] = s.Default; s.Linear() {
					kinds[s.Name] = qtype.Q8C
				}
			}
			m := open(t, cfg, src, 1)
			p, tx := pictures(8), texts(cfg)
			want := embeddings(t, m, p, tx)
			drifts := func(src Source) (images, texts float64) {
				got := quantized(t, cfg, src, kinds, p, tx)
				for i := range p {
					images += drift(got[i], want[i]) / float64(len(p))
				}
				for i := len(p); i < len(got); i++ {
					texts += drift(got[i], want[i]) / float64(len(tx))
				}
				return images, texts
			}
			image, text := drifts(src)
			hard := outliers(t, cfg, src)
			hardImage, hardText := drifts(hard)
			if err := m.Load(hard); err != nil {
				t.Fatal(err)
			}
			stats, err := m.Collect(pictures(20)[8:], tx, nil) // not those that are tried
			if err != nil {
				t.Fatal(err)
			}
			folded, err := Fold(cfg, hard, stats, Alpha)
			if err != nil {
				t.Fatal(err)
			}
			foldedImage, foldedText := drifts(folded)
			t.Logf("images drift by %.2g, with outliers %.2g, folded %.2g; texts by %.2g, %.2g, %.2g", image, hardImage, foldedImage, text, hardText, foldedText)
			if !(foldedImage < 0.01 && foldedImage < 4*image && foldedImage < hardImage/4) {
				t.Errorf("images drift by %.2g, with outliers %.2g, folded %.2g", image, hardImage, foldedImage)
			}
			if !(foldedText < 0.01 && foldedText < 4*text) || cfg.Text.Layers > 0 && !(foldedText < hardText/4) {
				t.Errorf("texts drift by %.2g, with outliers %.2g, folded %.2g", text, hardText, foldedText)
			}
		})
	}
}

// golden is one of the models whose goldens are in package engine.
func golden(t *testing.T, name string) (*clip.Config, Source) {
	t.Helper()
	dir := filepath.Join("..", "engine", "testdata", name)
	raw, err := os.ReadFile(filepath.Join(dir, "model.json"))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clip.ParseConfig(raw)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	src, err := checkpoint.OpenSafetensors(bytes.NewReader(b), int64(len(b)), checkpoint.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return cfg, src
}

// TestEqualize: the tower computes the same, what makes a channel and what reads
// it are as large, and a transformer stays as it is.
func TestEqualize(t *testing.T) {
	cfg := enginetest.Config()
	src := outliers(t, cfg, random{cfg})
	m := open(t, cfg, src, 1)
	p, tx := pictures(3), texts(cfg)
	want := embeddings(t, m, p, tx)
	equal, err := Equalize(cfg, src)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Load(equal); err != nil {
		t.Fatal(err)
	}
	if d := far(embeddings(t, m, p, tx), want); d > 1e-4 {
		t.Errorf("equalizing moves embeddings by %v", d)
	}
	edges := stages(&cfg.Image)
	if len(edges) != 3 || len(edges[1].from) != 2 || len(edges[1].to) != 2 {
		t.Fatalf("%d stages", len(edges))
	}
	for n, e := range edges {
		made, read, err := e.ranges(equal)
		if err != nil {
			t.Fatal(err)
		}
		for c := range made {
			if r, first := made[c]/read[c], made[0]/read[0]; !(math.Abs(float64(r/first-1)) < 1e-3) {
				t.Errorf("stage %d: channel %d is made %v times as large as it is read, channel 0 %v", n, c, r, first)
			}
		}
	}
	vit := enginetest.CLIPConfig()
	same, err := Equalize(vit, random{vit})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range same.Names() {
		a, _ := random{vit}.Float32(name)
		if b, err := same.Float32(name); err != nil || !slices.Equal(a, b) {
			t.Errorf("%s has changed, %v", name, err)
		}
	}
}

// TestStages: streams that something else than linear layers makes or reads stay.
func TestStages(t *testing.T) {
	block := func(expand, stride, in, out int) clip.Block {
		return clip.Block{Kernel: 3, Stride: stride, Expand: expand, In: in, Out: out}
	}
	for want, blocks := range map[string][]clip.Block{
		// The stem's output is added to the first block's.
		"": {block(6, 1, 8, 8), block(6, 1, 8, 8)},
		// A depthwise layer reads the first stage.
		"01 features": {block(6, 1, 8, 12), block(1, 1, 12, 16)},
		"00 01 01 02; 02 03 03 features": {
			block(1, 1, 8, 12), block(6, 1, 12, 12), block(6, 2, 12, 12), block(6, 1, 12, 12)},
	} {
		var got []string
		for _, e := range stages(&clip.Image{Blocks: blocks}) {
			var parts []string
			for _, r := range e.from {
				parts = append(parts, r.layer)
			}
			got = append(got, strings.Join(append(parts, e.to...), " "))
		}
		short := strings.NewReplacer("image.", "", "block.", "", ".project", "", ".expand", "").Replace(strings.Join(got, "; "))
		if short != want {
			t.Errorf("%v: %q, want %q", blocks, short, want)
		}
	}
}

// unevenness is the worst of the layers that folding can help: their largest
// channel over the median.
func unevenness(cfg *clip.Config, s *Stats) (worst float32) {
	for _, e := range edgesOf(cfg) {
		for _, to := range e.to {
			m := slices.Clone(s.Layer(to).Max)
			slices.Sort(m)
			worst = max(worst, m[len(m)-1]/m[len(m)/2])
		}
	}
	return worst
}

// float16s rounds to float16, as a file does.
type float16s struct{ Source }

func (h float16s) Float32(name string) ([]float32, error) {
	x, err := h.Source.Float32(name)
	for i, v := range x {
		x[i] = numeric.RoundFloat16(v)
	}
	return x, err
}

// TestFold_Unseen: without pictures the image tower stays, bit for bit.
func TestFold_Unseen(t *testing.T) {
	cfg := enginetest.CLIPConfig()
	src := random{cfg}
	stats, err := open(t, cfg, src, 1).Collect(nil, texts(cfg), nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Fold(cfg, src, stats, Alpha)
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, name := range src.Names() {
		a, _ := src.Float32(name)
		b, err := f.Float32(name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a, b) {
			changed++
			if !strings.HasPrefix(name, "text.") {
				t.Errorf("%s has changed", name)
			}
		}
	}
	if changed == 0 {
		t.Error("the text tower has not changed")
	}
	for _, alpha := range []float32{-0.1, 1.1, float32(math.NaN())} {
		if _, err := Fold(cfg, src, stats, alpha); !errors.Is(err, ErrInput) {
			t.Errorf("alpha %v: %v", alpha, err)
		}
	}
}

// TestFactors: no range, however odd, takes weights out of float16's.
func TestFactors(t *testing.T) {
	values := []float32{0, 1e-30, 1e-6, 1, 300, 60000, 1e30}
	var x, made, read []float32
	for _, a := range values {
		for _, b := range values {
			for _, c := range values {
				x, made, read = append(x, a), append(made, b), append(read, c)
			}
		}
	}
	for _, alpha := range []float32{0, 0.5, 1} {
		for c, s := range factors(x, made, read, alpha) {
			if !(s >= 1/maxFactor && s <= maxFactor) {
				t.Fatalf("alpha %v: factor %v for %v, %v, %v", alpha, s, x[c], made[c], read[c])
			}
			for _, w := range [][2]float32{{made[c], made[c] / s}, {read[c], read[c] * s}} {
				if was, is := w[0], w[1]; is > was && is > 1.001*mostLarge || is < was && is < 0.999*leastLarge {
					t.Fatalf("alpha %v: %v becomes %v", alpha, was, is)
				}
			}
		}
	}
}
