package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"slices"
	"testing"

	"lqa/quant/calibrate"
	"lqa/quant/clip"
	"lqa/quant/convert"
	"lqa/quant/engine"
	"lqa/quant/engine/enginetest"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
	"lqa/quant/shq"
)

// load opens a file and reads all of it.
func load(t testing.TB, file []byte) *engine.Engine {
	t.Helper()
	e, err := engine.Open(bytes.NewReader(file), engine.Options{Host: newHost()})
	if err != nil {
		t.Fatal(err)
	}
	return loadAll(t, e)
}

// loadAll reads all of an opened file.
func loadAll(t testing.TB, e *engine.Engine) *engine.Engine {
	t.Helper()
	t.Cleanup(func() { e.Close() })
	for want := 0; ; want++ {
		stage, err := e.LoadStage(context.Background())
		if err == io.EOF {
			return e
		}
		if err != nil || stage != want {
			t.Fatalf("stage %d, %v; want %d", stage, err, want)
		}
	}
}

func encode(t testing.TB, e *engine.Engine, rgba []byte, w, h int) []float32 {
	t.Helper()
	x := make([]float32, e.Config().Embed)
	if err := e.SetFrame(rgba, w, h); err != nil {
		t.Fatal(err)
	}
	if err := e.Encode(x); err != nil {
		t.Fatal(err)
	}
	return x
}

// models are the small ones of enginetest.
var models = []struct {
	name string
	shq  func(t testing.TB, seed uint64, float bool) []byte
}{{"lite", enginetest.SHQ}, {"clip", enginetest.CLIP}, {"posterior", enginetest.Posterior}}

// TestStages: pictures and default labels are answered before the text side
// has come; other labels say that it has not.
func TestStages(t *testing.T) {
	var seen []engine.Progress
	file := enginetest.SHQ(t, 1, false)
	e, err := engine.Open(bytes.NewReader(file), engine.Options{Host: newHost(), Progress: func(p engine.Progress) { seen = append(seen, p) }})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	x := make([]float32, 24)
	if err := e.Encode(x); !errors.Is(err, engine.ErrNotLoaded) {
		t.Errorf("before the first stage: %v", err)
	}
	if stage, err := e.LoadStage(context.Background()); stage != engine.StageImage || err != nil {
		t.Fatal(stage, err)
	}
	encode(t, e, enginetest.Picture(80, 60, 1), 80, 60)
	if _, err := e.EmbedText([]string{"Mug"}); err != nil {
		t.Errorf("a default label: %v", err)
	}
	if _, err := e.EmbedText([]string{"keyboard"}); !errors.Is(err, engine.ErrTextNotReady) {
		t.Errorf("another label: %v", err)
	}
	if stage, err := e.LoadStage(context.Background()); stage != engine.StageText || err != nil {
		t.Fatal(stage, err)
	}
	if _, err := e.LoadStage(context.Background()); err != io.EOF {
		t.Errorf("after the last stage: %v", err)
	}
	if got := e.Known([]string{"MUG", "red_dog", "keyboard"}); !got[0] || got[1] || !got[2] {
		t.Errorf("known %v", got)
	}
	if last := seen[len(seen)-1]; last.LoadedBytes != last.TotalBytes || last.TotalBytes != int64(len(file)) {
		t.Errorf("progress ends at %+v of %d bytes", last, len(file))
	}
}

// TestImageMean: a model has a mean embedding where its configuration says so.
func TestImageMean(t *testing.T) {
	if mean, err := load(t, enginetest.SHQ(t, 1, false)).ImageMean(); mean != nil || err != nil {
		t.Errorf("a model without one: %v, %v", mean, err)
	}
	cfg := enginetest.Config()
	cfg.ImageMean = true
	file := enginetest.SHQOf(t, cfg, 1, false)
	mean, err := load(t, file).ImageMean()
	if err != nil || len(mean) != cfg.Embed {
		t.Fatal(mean, err)
	}
	if want := stored(t, file, "image.mean.weight"); !slices.Equal(mean, want) {
		t.Errorf("the mean is %v, the file says %v", mean, want)
	}
}

// TestProjection: the image tower's last layer is read back as the file has it,
// whatever its kind, without the gate of a posterior.
func TestProjection(t *testing.T) {
	for _, kind := range []qtype.Kind{qtype.Q4, qtype.Q6, qtype.Q8C, qtype.F16} {
		file := convertDir(t, "tiny-posterior", convert.Options{Float: kind == qtype.F16, Kinds: []calibrate.Choice{{Pattern: "image.project.weight", Kind: kind}}})
		e := load(t, file)
		w, err := e.Projection()
		if err != nil {
			t.Fatal(err)
		}
		c := e.Config()
		if want := stored(t, file, "image.project.weight")[:c.Embed*c.Image.Features]; !slices.Equal(w, want) {
			t.Errorf("%s: not the file's weight", kind)
		}
	}
}

// stored are the values of one tensor of a file.
func stored(t *testing.T, file []byte, name string) (x []float32) {
	t.Helper()
	rd, err := shq.NewReader(bytes.NewReader(file), shq.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	for err == nil {
		_, err = rd.NextTensors(func(tensor *shq.Tensor, b []byte) (err error) {
			if tensor.Name == name {
				x, err = tensor.Kind.Dequantize(b, tensor.Shape)
			}
			return err
		})
	}
	if err != io.EOF || x == nil {
		t.Fatalf("%s: found %v, %v", name, x != nil, err)
	}
	return x
}

func TestEmbedText(t *testing.T) {
	e := load(t, enginetest.SHQ(t, 1, false))
	xs, err := e.EmbedText([]string{"mug", "red dog", "🙂", "keyboard", "dog red"})
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range xs {
		if n := numeric.Dot(x, x); math.Abs(float64(n)-1) > 1e-5 {
			t.Errorf("label %d has norm² %v", i, n)
		}
	}
	if d := numeric.Dot(xs[1], xs[4]); d < 0.9999 { // a bag knows no order
		t.Errorf("cosine of permuted words %v", d)
	}
	other, err := e.EmbedPrompts([]string{"mug"}, []string{"a red {}"})
	if err != nil {
		t.Fatal(err)
	}
	if d := numeric.Dot(other[0], xs[0]); d > 0.999 {
		t.Errorf("another template changes nothing: cosine %v", d)
	}
}

// TestView: what is read back can be put in again; an effect on it changes the
// answer.
func TestView(t *testing.T) {
	e := load(t, enginetest.SHQ(t, 1, false))
	before := encode(t, e, enginetest.Picture(100, 70, 3), 100, 70)
	view := make([]byte, 4*e.ViewSize()*e.ViewSize())
	if err := e.View(view); err != nil {
		t.Fatal(err)
	}
	again := make([]float32, len(before))
	step := func(v []byte) {
		t.Helper()
		if err := e.SetView(v); err != nil {
			t.Fatal(err)
		}
		if err := e.Encode(again); err != nil {
			t.Fatal(err)
		}
	}
	if step(view); numeric.Dot(before, again) < 0.99999 {
		t.Error("the same view gives another embedding")
	}
	for i := range view {
		view[i] /= 4
	}
	if step(view); numeric.Dot(before, again) > 0.9999 {
		t.Error("a darkened view gives the same embedding")
	}
	for name, err := range map[string]error{
		"short view":   e.SetView(view[1:]),
		"short buffer": e.View(view[1:]),
		"no pixels":    e.SetFrame([]byte{}, 0, 5),
		"wrong length": e.SetFrame(make([]byte, 7), 1, 2),
		"too large":    e.SetFrame(nil, 4000, 3000),
		"overflow":     e.SetFrame(nil, 1<<40, 1<<40),
	} {
		if !errors.Is(err, clip.ErrPicture) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCloser: a closer look is at the middle of the picture, and the whole one can be
// had again.
func TestCloser(t *testing.T) {
	e := load(t, enginetest.SHQ(t, 1, false))
	if err := e.Closer(0, 0); !errors.Is(err, clip.ErrPicture) {
		t.Errorf("of no picture: %v", err)
	}
	const w, h = 300, 200
	picture := make([]byte, 4*w*h) // white from 0.6 of the short side inwards
	for y := range h {
		for x := range w {
			if max(2*x-w, w-2*x) < 120 && max(2*y-h, h-2*y) < 120 {
				copy(picture[4*(y*w+x):], []byte{255, 255, 255, 255})
			}
		}
	}
	if err := e.SetFrame(picture, w, h); err != nil {
		t.Fatal(err)
	}
	n := 4 * e.ViewSize() * e.ViewSize()
	whole, closer, again := make([]byte, n), make([]byte, n), make([]byte, n)
	e.View(whole)
	if err := e.Closer(w, h); err != nil {
		t.Fatal(err)
	}
	e.View(closer)
	if slices.Min(closer) < 250 || slices.Min(whole) != 0 {
		t.Errorf("least of the middle %d, of the whole %d", slices.Min(closer), slices.Min(whole))
	}
	if err := e.SetFrame(nil, w, h); err != nil {
		t.Fatal(err)
	}
	if e.View(again); !bytes.Equal(again, whole) {
		t.Error("the whole picture has another view after a closer look")
	}
}

// TestSetFrame_Shapes: any picture within the limit has a view, and a closer one.
func TestSetFrame_Shapes(t *testing.T) {
	e := load(t, enginetest.SHQ(t, 1, false))
	for _, s := range [][2]int{{1, 1}, {2, 3}, {64, 64}, {1, 2000}, {2000, 1}, {1920, 1080}, {1080, 1920}, {1440, 1440}, {65, 64}} {
		x := encode(t, e, enginetest.Picture(s[0], s[1], 1), s[0], s[1])
		for _, v := range x {
			if v != v {
				t.Fatalf("%v: NaN", s)
			}
		}
		if err := e.Closer(s[0], s[1]); err != nil {
			t.Errorf("%v: a closer look: %v", s, err)
		}
	}
}

// TestQuantizedNearFloat: rounded weights change an embedding little.
func TestQuantizedNearFloat(t *testing.T) {
	for _, m := range models {
		q, f := load(t, m.shq(t, 5, false)), load(t, m.shq(t, 5, true))
		for seed := range uint32(5) {
			p := enginetest.Picture(90, 90, seed)
			if d := numeric.Dot(encode(t, q, p, 90, 90), encode(t, f, p, 90, 90)); d < 0.995 {
				t.Errorf("%s: picture %d: cosine %v", m.name, seed, d)
			}
		}
	}
}

// TestSameBits: the same RGBA bytes give the same embedding bits on every
// host; the constants were made once, natively.
func TestSameBits(t *testing.T) {
	want := map[string]string{"lite": "bef839c7e919a93a", "clip": "e16e60ce3cd66783", "posterior": "9e7c6a6d50e1441e"}
	for _, m := range models {
		e := load(t, m.shq(t, 7, false))
		h := sha256.New()
		for seed := range uint32(4) {
			w, ht := 120+17*int(seed), 90
			for _, v := range encode(t, e, enginetest.Picture(w, ht, seed), w, ht) {
				binary.Write(h, binary.LittleEndian, v)
			}
		}
		xs, err := e.EmbedText([]string{"red dog", "blue cat, mugs!"})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range xs {
			binary.Write(h, binary.LittleEndian, x)
		}
		if got := hex.EncodeToString(h.Sum(nil)[:8]); got != want[m.name] {
			t.Errorf("%s: hash %s, want %s", m.name, got, want[m.name])
		}
	}
}

// TestCLIP_Order: pictures may come before, between and after texts of any
// length; the bits stay the same.
func TestCLIP_Order(t *testing.T) {
	e := load(t, enginetest.CLIP(t, 3, false))
	p := enginetest.Picture(80, 60, 1)
	picture := encode(t, e, p, 80, 60)
	long := "a photo of a photo of a photo of a mug"
	first, err := e.EmbedPrompts([]string{"mug", long, "of mug"}, []string{"{}"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(encode(t, e, p, 80, 60), picture) {
		t.Error("texts change the next picture")
	}
	again, err := e.EmbedPrompts([]string{long, "of mug", "mug"}, []string{"{}"})
	if err != nil {
		t.Fatal(err)
	}
	for i, j := range []int{1, 2, 0} {
		if !slices.Equal(again[i], first[j]) {
			t.Errorf("text %d has other bits", j)
		}
	}
	if d := numeric.Dot(first[0], first[2]); d > 0.999 {
		t.Errorf("two texts are one: cosine %v", d)
	}
}

// TestBadFiles: what a download can do to a file, each with its own error.
func TestBadFiles(t *testing.T) {
	good := enginetest.SHQ(t, 1, false)
	flip := func(i int) []byte {
		b := bytes.Clone(good)
		b[i] ^= 1
		return b
	}
	for name, c := range map[string]struct {
		file []byte
		want error
	}{
		"empty":       {nil, shq.ErrTruncated},
		"HTML":        {[]byte("<!doctype html><title>404</title><p>not found, sorry, this is an error page"), shq.ErrMagic},
		"truncated":   {good[:len(good)-10], shq.ErrTruncated},
		"half":        {good[:len(good)/2], shq.ErrTruncated},
		"version":     {flip(4), shq.ErrVersion},
		"manifest":    {flip(100), shq.ErrCorrupt},
		"last byte":   {flip(len(good) - 1), shq.ErrCorrupt},
		"more at end": {append(bytes.Clone(good), 0), shq.ErrCorrupt},
	} {
		err := func() error {
			e, err := engine.Open(bytes.NewReader(c.file), engine.Options{Host: newHost()})
			if err != nil {
				return err
			}
			defer e.Close()
			for {
				if _, err := e.LoadStage(context.Background()); err != nil {
					return err
				}
			}
		}()
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestEncode_NoAllocations: a frame leaves nothing for the collector.
func TestEncode_NoAllocations(t *testing.T) {
	if !isNative {
		t.Skip("counts allocations of the native host only: calls into JavaScript allocate")
	}
	for _, m := range models {
		e := load(t, m.shq(t, 1, false))
		p, x := enginetest.Picture(80, 60, 1), make([]float32, e.Config().Embed)
		if n := testing.AllocsPerRun(20, func() {
			if e.SetFrame(p, 80, 60) != nil || e.Encode(x) != nil {
				t.Fatal("failed")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations a frame", m.name, n)
		}
	}
}

func TestLoadStage_Cancel(t *testing.T) {
	e, err := engine.Open(bytes.NewReader(enginetest.SHQ(t, 1, false)), engine.Options{Host: newHost()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := e.LoadStage(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
