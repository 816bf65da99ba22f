package engine_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"lqa/quant/calibrate"
	"lqa/quant/clip"
	"lqa/quant/convert"
	"lqa/quant/device"
	"lqa/quant/engine"
	"lqa/quant/engine/enginetest"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
)

// TestPosterior_Reference: a float tower ends as clip.RefHead says, for
// odd widths and numbers of classes.
func TestPosterior_Reference(t *testing.T) {
	for _, c := range []struct{ embed, hidden, classes int }{{24, 17, 29}, {23, 0, 1}, {21, 8, 8}, {22, 1, 130}, {19, 33, 0}} {
		cfg := enginetest.PosteriorConfig()
		cfg.Embed, cfg.Image.Hidden, cfg.Image.Posterior = c.embed, c.hidden, c.classes
		cfg.Text.Defaults, cfg.Text.Ready = nil, 0
		values := enginetest.Values(cfg, 3)
		var l device.Layout
		m := clip.Layout(cfg, cfg.FloatKinds(), &l)
		dev, err := device.Start(newHost(), &l, device.Options{Lists: m.Lists()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dev.Close() })
		if err := m.Start(dev); err != nil {
			t.Fatal(err)
		}
		for _, s := range cfg.Tensors() {
			if s.Default == qtype.U8 {
				continue
			}
			if err := m.PutFloat(s.Name, values[s.Name]); err != nil {
				t.Fatal(err)
			}
		}
		steps := m.ImageSteps()
		at := slices.IndexFunc(steps.Linear, func(s clip.Step) bool { return s.Layer == "image.project" })
		features := make([]float32, cfg.Image.Features)
		got, want := make([]float32, c.embed), make([]float32, c.embed)
		for seed := range uint32(3) {
			frame, _ := m.Frame()
			if err := errors.Join(dev.Write(frame, enginetest.Picture(90, 80, seed)), m.Look(90, 80), m.Encode(got), dev.ReadF32(steps.Linear[at].GEMM.A, features)); err != nil {
				t.Fatal(err)
			}
			clip.RefHead(want, features, &clip.Head{
				W: values["image.project.weight"], B: values["image.project.bias"],
				U: values["image.hidden.weight"], A: values["image.hidden.bias"], V: values["image.widen.weight"],
				C: values["image.posterior.weight"], Z: values[clip.PosteriorBias], N: values[clip.PosteriorNames],
			})
			for i, w := range want {
				if d := got[i] - w; d < -1e-5 || d > 1e-5 {
					t.Errorf("%+v, picture %d: [%d] is %v, want %v", c, seed, i, got[i], w)
				}
			}
		}
	}
}

// TestPosterior_Kinds: both layers may be of any kind, without a bias too; the
// memory is what was predicted.
func TestPosterior_Kinds(t *testing.T) {
	float := load(t, convertDir(t, "tiny-posterior", convert.Options{Float: true}))
	for kind, least := range map[qtype.Kind]float32{qtype.Q4: 0.98, qtype.Q5: 0.99, qtype.Q6: 0.995, qtype.Q7: 0.995, qtype.Q8C: 0.998, "q4g32": 0.98, qtype.F16: 1 - 1e-6} {
		o := convert.Options{Float: kind == qtype.F16, Kinds: []calibrate.Choice{{Pattern: "*", Kind: qtype.F16}, {Pattern: "image.posterior.weight", Kind: kind}, {Pattern: "image.names.weight", Kind: kind}, {Pattern: "image.widen.weight", Kind: kind}, {Pattern: "image.hidden.weight", Kind: kind}},
			Keep: []string{"image.block.*.depthwise.weight"}}
		e := load(t, convertDir(t, "tiny-posterior", o))
		for seed := range uint32(5) {
			p := enginetest.Picture(90, 90, seed)
			if d := numeric.Dot(encode(t, e, p, 90, 90), encode(t, float, p, 90, 90)); d < least {
				t.Errorf("%s: picture %d: cosine %v", kind, seed, d)
			}
		}
		if memory, err := convert.Memory(e.Manifest()); err != nil || memory != e.Memory() {
			t.Errorf("%s: %+v, predicted %+v, %v", kind, e.Memory(), memory, err)
		}
	}
}

// TestPosterior_Calibrated: pictures steer the rounding and the kinds of the
// classifier, but not how its names are rounded.
func TestPosterior_Calibrated(t *testing.T) {
	if !isNative {
		t.Skip("models are converted natively")
	}
	in := input(t, "tiny-posterior")
	var pictures []calibrate.Picture
	for i := range 6 {
		pictures = append(pictures, calibrate.Picture{RGBA: enginetest.Picture(80, 70, uint32(i)), W: 80, H: 70})
	}
	k, err := convert.Calibrate(in, convert.Calibration{Hosts: []device.Host{newHost()}, Pictures: pictures})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	o, err := k.Options(convert.Options{}, convert.Fit{Method: calibrate.GPTQ, Drift: 0.01})
	if err != nil {
		t.Fatal(err)
	}
	planned := map[string]bool{}
	for _, c := range o.Kinds {
		planned[c.Pattern] = true
	}
	for _, name := range []string{"image.project.weight", "image.hidden.weight", "image.widen.weight", "image.posterior.weight", clip.PosteriorNames} {
		if !planned[name] {
			t.Errorf("%s has no place in the plan", name)
		}
	}
	e, float := load(t, convertInput(t, k.Input, o)), load(t, convertDir(t, "tiny-posterior", convert.Options{Float: true}))
	for seed := range uint32(4) {
		p := enginetest.Picture(90, 90, 100+seed)
		if d := numeric.Dot(encode(t, e, p, 90, 90), encode(t, float, p, 90, 90)); d < 0.98 {
			t.Errorf("picture %d: cosine %v", seed, d)
		}
	}

	names, err := in.Tensors.Float32(clip.PosteriorNames)
	if err != nil {
		t.Fatal(err)
	}
	shape, _ := in.Tensors.Shape(clip.PosteriorNames)
	want, err := calibrate.Round(calibrate.Clipped, qtype.Q4, names, shape[0], shape[1], nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := o.Round(clip.PosteriorNames, qtype.Q4, names, shape[0], shape[1]); err != nil || !bytes.Equal(got, want) {
		t.Errorf("names are rounded by what the pictures were of (%v)", err)
	}
}

// TestMute: a class that is mute is one whose bias is out of reach; one that is
// not there is refused.
func TestMute(t *testing.T) {
	open := func(file []byte, mute ...int) (*engine.Engine, error) {
		return engine.Open(bytes.NewReader(file), engine.Options{Host: newHost(), Mute: mute})
	}
	in := input(t, "tiny-posterior")
	bias, err := in.Tensors.Float32(clip.PosteriorBias)
	if err != nil {
		t.Fatal(err)
	}
	shape := []int{len(bias)}
	file := convertInput(t, in, convert.Options{})
	mute := []int{7} // twice
	for class := range len(bias) {
		if class%4 != 1 {
			mute = append(mute, class)
			bias[class] = -65504
		}
	}
	e, err := open(file, mute...)
	if err != nil {
		t.Fatal(err)
	}
	loadAll(t, e)
	in.Tensors = convert.With(in.Tensors, clip.PosteriorBias, shape, bias)
	p := enginetest.Picture(80, 60, 2)
	x := encode(t, e, p, 80, 60)
	if !slices.Equal(x, encode(t, load(t, convertInput(t, in, convert.Options{})), p, 80, 60)) {
		t.Error("other bits than with a low bias")
	}
	if slices.Equal(x, encode(t, load(t, file), p, 80, 60)) {
		t.Error("nothing changed")
	}
	for _, class := range []int{-1, len(bias), 1 << 40} {
		if _, err := open(file, 0, class); !errors.Is(err, engine.ErrMute) {
			t.Errorf("class %d: %v", class, err)
		}
	}
	if _, err := open(enginetest.SHQ(t, 1, false), 0); !errors.Is(err, engine.ErrMute) {
		t.Errorf("without a posterior: %v", err)
	}
}
