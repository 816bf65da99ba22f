package engine_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/draw"
	_ "image/jpeg"
	_ "image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lqa/quant/checkpoint"
	"lqa/quant/convert"
	"lqa/quant/engine"
	"lqa/quant/numeric"
)

// The goldens come from PyTorch and Pillow: assets/train/goldens.py says how.

func read(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// convertDir makes a .shq of a float model directory, as shq convert does.
func convertDir(t testing.TB, dir string, o convert.Options) []byte {
	t.Helper()
	return convertInput(t, input(t, dir), o)
}

func convertInput(t testing.TB, in convert.Input, o convert.Options) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := convert.Convert(&out, in, o); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func input(t testing.TB, dir string) convert.Input {
	t.Helper()
	vocab, ready := "vocab.txt", []byte(nil)
	if strings.HasPrefix(dir, "clip") {
		vocab = "merges.txt"
	} else {
		ready = read(t, dir, "ready_names.txt")
	}
	return convert.Input{Config: read(t, dir, "model.json"), Tensors: tensors(t, dir, "model.safetensors"), Vocab: read(t, dir, vocab), ReadyNames: ready}
}

func tensors(t testing.TB, path ...string) *checkpoint.Safetensors {
	t.Helper()
	b := read(t, path...)
	s, err := checkpoint.OpenSafetensors(bytes.NewReader(b), int64(len(b)), checkpoint.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rows splits a golden tensor [n,d].
func rows(t testing.TB, s *checkpoint.Safetensors, name string) [][]float32 {
	t.Helper()
	x, err := s.Float32(name)
	if err != nil {
		t.Fatal(err)
	}
	shape, _ := s.Shape(name)
	out := make([][]float32, shape[0])
	for i := range out {
		out[i] = x[i*shape[1] : (i+1)*shape[1]]
	}
	return out
}

// TestTowers_PyTorch: the float path agrees with PyTorch to 1e-4 of the
// largest value; eight bits stay near.
func TestTowers_PyTorch(t *testing.T) {
	var texts []struct {
		Text string
		IDs  []int32
	}
	if err := json.Unmarshal(read(t, "tiny", "texts.json"), &texts); err != nil {
		t.Fatal(err)
	}
	views := read(t, "tiny", "views.bin")
	compare := func(t *testing.T, what string, float bool, got, want []float32) {
		t.Helper()
		var worst, largest float32
		for i, w := range want {
			worst, largest = max(worst, got[i]-w, w-got[i]), max(largest, w, -w)
		}
		if cos := numeric.Dot(got, want); float && worst > 1e-4*largest || !float && cos < 0.995 {
			t.Errorf("%s: off by %.2g of %.2g, cosine %v", what, worst, largest, cos)
		}
	}
	for _, c := range []struct {
		dir   string
		float bool
	}{{"tiny", true}, {"tiny", false}, {"tiny-posterior", true}, {"tiny-posterior", false}} {
		float := c.float
		t.Run(fmt.Sprintf("%s, float=%v", c.dir, float), func(t *testing.T) {
			golden := tensors(t, c.dir, "golden.safetensors")
			e := load(t, convertDir(t, c.dir, convert.Options{Name: c.dir, Float: float}))
			n := 4 * e.ViewSize() * e.ViewSize()
			x := make([]float32, e.Config().Embed)
			for i, want := range rows(t, golden, "embeddings") {
				if err := e.SetView(views[i*n : (i+1)*n]); err != nil {
					t.Fatal(err)
				}
				if err := e.Encode(x); err != nil {
					t.Fatal(err)
				}
				compare(t, fmt.Sprint("view ", i), float, x, want)
			}
			for i, want := range rows(t, golden, "texts") {
				got, err := e.EmbedPrompts([]string{texts[i].Text}, []string{"{}"})
				if err != nil {
					t.Fatal(err)
				}
				compare(t, fmt.Sprintf("%q", texts[i].Text), float, got[0], want)
			}
		})
	}
}

// synthetic repeats goldens.py's picture.
func synthetic(w, h int) []byte {
	out := make([]byte, 0, w*h*4)
	for y := range uint32(h) {
		for x := range uint32(w) {
			n := x*2654435761 ^ y*2246822519
			n = (n ^ n>>15) * 3266489917
			for c := range uint32(3) {
				out = append(out, byte(n>>(8*c)%96+(x*(c+1)+y*2)%160))
			}
			out = append(out, 255)
		}
	}
	return out
}

// TestView_Pillow: views equal Pillow's, byte for byte.
func TestView_Pillow(t *testing.T) {
	var cases []struct {
		Width, Height int
		SHA256        string
		Middle        [3]byte
	}
	if err := json.Unmarshal(read(t, "resize.json"), &cases); err != nil {
		t.Fatal(err)
	}
	e := shipped(t)
	view := make([]byte, 4*e.ViewSize()*e.ViewSize())
	for _, c := range cases {
		if err := e.SetFrame(synthetic(c.Width, c.Height), c.Width, c.Height); err != nil {
			t.Fatal(err)
		}
		if err := e.View(view); err != nil {
			t.Fatal(err)
		}
		rgb := make([]byte, 0, len(view)/4*3)
		for i := 0; i < len(view); i += 4 {
			rgb = append(rgb, view[i:i+3]...)
		}
		if sum := sha256.Sum256(rgb); hex.EncodeToString(sum[:]) != c.SHA256 {
			m := (e.ViewSize() + 1) * (e.ViewSize() / 2) * 3
			t.Errorf("%d × %d: another view; its middle is %v, want %v", c.Width, c.Height, rgb[m:m+3], c.Middle)
		}
	}
}

// shipped loads the .shq of assets.
func shipped(t testing.TB) *engine.Engine {
	t.Helper()
	files, _ := filepath.Glob("../../assets/*.shq")
	if len(files) != 1 {
		t.Fatalf("assets hold %d .shq files, want one", len(files))
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return load(t, b)
}

// dataDir is where the photographs are.
func dataDir() string {
	if d := os.Getenv("LQA_DATA"); d != "" {
		return d
	}
	return "../../../shared/data"
}

// TestPhotographs_PyTorch: over 200 real photographs the shipped model's
// embeddings have a mean cosine of at least 0.99 to PyTorch's in float32.
// Besides rounding this holds the difference between Go's and Pillow's JPEG
// decoders.
func TestPhotographs_PyTorch(t *testing.T) {
	if !isNative {
		t.Skip("photographs are decoded natively only")
	}
	if _, err := os.Stat(dataDir()); err != nil {
		t.Skipf("no photographs: %v (set LQA_DATA)", err)
	}
	e := shipped(t)
	d := e.Config().Embed
	halves := read(t, "photos200.f16")
	want := map[string]map[string][]float32{}
	for i, line := range strings.Split(strings.TrimSpace(string(read(t, "photos200.tsv"))), "\n") {
		set, name, _ := strings.Cut(line, "\t")
		if want[set] == nil {
			want[set] = map[string][]float32{}
		}
		x := make([]float32, d)
		numeric.FromFloat16(x, halves[2*d*i:2*d*(i+1)])
		want[set][name] = x
	}
	var all []float32
	got := make([]float32, d)
	for set, members := range want {
		f, err := os.Open(filepath.Join(dataDir(), filepath.FromSlash(set)))
		if errors.Is(err, os.ErrNotExist) {
			t.Logf("%s is not there", set)
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var cosines []float32
		eachPhotograph(t, f, func(name string) bool { return members[name] != nil }, func(name string, r *image.RGBA) {
			if err := e.SetFrame(r.Pix, r.Rect.Dx(), r.Rect.Dy()); err != nil {
				t.Fatal(err)
			}
			if err := e.Encode(got); err != nil {
				t.Fatal(err)
			}
			cosines = append(cosines, numeric.Dot(got, members[name]))
		})
		t.Logf("%-28s n %d, mean cosine %.4f, worst %.4f", set, len(cosines), mean(cosines), slices.Min(cosines))
		all = append(all, cosines...)
	}
	if len(all) < 100 {
		t.Skipf("only %d of 200 photographs are there", len(all))
	}
	t.Logf("all: n %d, mean cosine %.4f, worst %.4f", len(all), mean(all), slices.Min(all))
	if m := mean(all); m < 0.99 {
		t.Errorf("mean cosine %v, want at least 0.99", m)
	}
}

// eachPhotograph decodes the members of a tar that are wanted, as they come.
func eachPhotograph(t *testing.T, r io.Reader, wanted func(name string) bool, use func(name string, r *image.RGBA)) {
	t.Helper()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if !wanted(h.Name) {
			continue
		}
		img, _, err := image.Decode(tr)
		if err != nil {
			t.Fatal(err)
		}
		r := image.NewRGBA(image.Rect(0, 0, img.Bounds().Dx(), img.Bounds().Dy()))
		draw.Draw(r, r.Bounds(), img, img.Bounds().Min, draw.Src)
		use(h.Name, r)
	}
}

func mean(x []float32) (m float32) {
	for _, v := range x {
		m += v / float32(len(x))
	}
	return m
}

// BenchmarkEncode is the shipped model's image tower on this host.
func BenchmarkEncode(b *testing.B) {
	e := shipped(b)
	x := make([]float32, e.Config().Embed)
	for b.Loop() {
		if err := e.Encode(x); err != nil {
			b.Fatal(err)
		}
	}
}
