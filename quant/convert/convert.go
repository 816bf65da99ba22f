// Package convert turns a model's named float tensors into a .shq file, and
// checks such files. It touches neither files nor network.
package convert

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strings"

	"lqa/quant/calibrate"
	"lqa/quant/clip"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
	"lqa/quant/shq"
)

// Input is a float model: the parts of a float model directory.
type Input struct {
	Config     []byte // model.json: the manifest's "model" object, as clip.ParseConfig reads it
	Tensors    Source // model.safetensors: every tensor of the configuration that is no text
	Vocab      []byte // vocab.txt or merges.txt, becomes text.vocab or text.merges
	ReadyNames []byte // ready_names.txt, becomes label.ready.names; empty if there are none
}

// Options say how to convert.
type Options struct {
	Name       string
	Provenance shq.Provenance
	Float      bool // keep every weight as float16, whatever Kinds and Keep say
	// Kinds choose how linear layers' weights are stored; the last that fits
	// holds, and others get the model's default.
	Kinds []Choice
	// Keep lists patterns (path.Match) of weights that stay float16: the
	// layers whose rounding costs more than their bytes.
	Keep []string
	// Round quantizes a linear layer's weight w [n,k] to the bytes of kind, in
	// place of rounding to nearest (calibrate.Round); it may be nil.
	Round calibrate.Rounder
	// Plan goes into the manifest: how the kinds were chosen. It is JSON, or empty.
	Plan []byte
	// Progress is called with each tensor's outcome; it may be nil.
	Progress func(Outcome)
}

// Choice is a storage kind for the linear weights whose names fit a pattern.
type Choice = calibrate.Choice

// Outcome says what became of one tensor.
type Outcome struct {
	Name  string
	Kind  qtype.Kind
	Shape []int
	Bytes int // as stored, before compression
	// Error is ‖stored - float‖ / ‖float‖, 0 for text.
	Error float64
}

// Ways for an input to be refused.
var (
	ErrTensors = errors.New("convert: tensors do not fit the configuration")
	ErrValue   = errors.New("convert: value cannot be stored") // NaN, infinite, or beyond a half's range
	ErrText    = errors.New("convert: bad text file")          // vocabulary, ready names, templates
)

// Convert writes in as a .shq file to w. Every tensor of the configuration
// must be there with its shape, and no other; all faults of that kind are
// reported at once. The same input and options give the same bytes.
//
// What is held at a time is the file, compressed, and one tensor of the source.
func Convert(w io.Writer, in Input, o Options) error {
	_, specs, err := in.check(o)
	if err != nil {
		return err
	}
	file, err := shq.NewWriter(shq.Manifest{Name: o.Name, Model: in.Config, Plan: o.Plan, Provenance: o.Provenance})
	if err != nil {
		return err
	}
	tensors := &parts{src: in.Tensors}
	for _, spec := range specs {
		t, failure, err := store(spec, in, tensors, o)
		if err != nil {
			return err
		}
		if err := file.Add(spec.Stage, t); err != nil {
			return err
		}
		if o.Progress != nil {
			o.Progress(Outcome{Name: t.Name, Kind: t.Kind, Shape: t.Shape, Bytes: len(t.Data), Error: failure})
		}
	}
	_, err = file.WriteTo(w)
	return err
}

// check checks all that needs no tensor's values and packs the vocabulary.
func (in *Input) check(o Options) (*clip.Config, []clip.TensorSpec, error) {
	cfg, err := clip.ParseConfig(in.Config)
	if err != nil {
		return nil, nil, err
	}
	specs := cfg.Tensors()
	if err := checkNames(cfg.Whole().Tensors(), in.Tensors); err != nil {
		return nil, nil, err
	}
	if err := checkChoices(o, specs); err != nil {
		return nil, nil, err
	}
	if in.Vocab, err = in.vocab(cfg); err != nil {
		return nil, nil, err
	}
	return cfg, specs, checkText(cfg, in.Vocab, in.ReadyNames)
}

// vocab is the vocabulary as a file holds it.
func (in *Input) vocab(cfg *clip.Config) ([]byte, error) {
	if cfg.Text.VocabTensor() != mergesTensor {
		return in.Vocab, nil
	}
	packed, err := clip.PackMerges(strings.Split(strings.TrimSuffix(string(in.Vocab), "\n"), "\n"))
	if err != nil {
		return nil, fmt.Errorf("%w: merges: %w", ErrText, err)
	}
	return packed, nil
}

// text is the content of a tensor of kind U8.
func (in *Input) text(name string) []byte {
	switch name {
	case "text.vocab", mergesTensor:
		return in.Vocab
	case "label.ready.names":
		return in.ReadyNames
	}
	return nil
}

// mergesTensor holds a byte-pair vocabulary, which the input spells otherwise.
const mergesTensor = "text.merges"

// matches reports whether name fits one of the patterns, which Convert has
// checked.
func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(p, name)
		return ok
	})
}

// checkChoices refuses patterns that are malformed or fit no weight, and kinds
// that no linear layer has.
func checkChoices(o Options, specs []clip.TensorSpec) error {
	check := func(p string, fits func(clip.TensorSpec) bool) error {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("%w: pattern %q: %w", ErrTensors, p, err)
		}
		if !slices.ContainsFunc(specs, func(s clip.TensorSpec) bool { return fits(s) && matches([]string{p}, sourceName(s)) }) {
			return fmt.Errorf("%w: no weight fits the pattern %q", ErrTensors, p)
		}
		return nil
	}
	for _, c := range o.Kinds {
		if !c.Kind.Linear() {
			return fmt.Errorf("%w: no linear layer is stored as %q", ErrTensors, c.Kind)
		}
		if err := check(c.Pattern, clip.TensorSpec.Linear); err != nil {
			return err
		}
	}
	for _, p := range o.Keep {
		if err := check(p, func(s clip.TensorSpec) bool { return s.Default != qtype.U8 }); err != nil {
			return err
		}
	}
	return nil
}

// kind is how a tensor is stored.
func (o *Options) kind(spec clip.TensorSpec) qtype.Kind {
	if spec.Default == qtype.U8 {
		return qtype.U8
	}
	if o.Float || matches(o.Keep, sourceName(spec)) {
		return qtype.F16
	}
	kind := spec.Default
	for _, c := range o.Kinds {
		if spec.Linear() && matches([]string{c.Pattern}, spec.Name) {
			kind = c.Kind
		}
	}
	return kind
}

// checkNames compares names and shapes before anything is read.
func checkNames(specs []clip.TensorSpec, src Source) error {
	var faults []string
	want := map[string]bool{}
	for _, s := range specs {
		want[s.Name] = true
		if s.Default == qtype.U8 {
			continue
		}
		switch shape, ok := src.Shape(s.Name); {
		case !ok:
			faults = append(faults, fmt.Sprintf("%s %v is missing", s.Name, s.Shape))
		case !slices.Equal(shape, s.Shape):
			faults = append(faults, fmt.Sprintf("%s is %v, want %v", s.Name, shape, s.Shape))
		}
	}
	names := slices.Clone(src.Names())
	slices.Sort(names)
	for _, n := range names {
		if !want[n] {
			faults = append(faults, fmt.Sprintf("%q is none of this model's", n))
		}
	}
	if len(faults) == 0 {
		return nil
	}
	const most = 20
	if n := len(faults) - most; n > 0 {
		faults = append(faults[:most], fmt.Sprintf("and %d more", n))
	}
	return fmt.Errorf("%w:\n  %s", ErrTensors, strings.Join(faults, "\n  "))
}

// checkText checks what the configuration says of vocabulary, ready names and
// templates. Verify applies it to a finished file too.
func checkText(cfg *clip.Config, vocab, ready []byte) error {
	if _, err := clip.NewTokenizer(&cfg.Text, vocab); err != nil {
		return fmt.Errorf("%w: vocabulary: %w", ErrText, err)
	}
	for i, t := range cfg.Text.Templates {
		if !strings.Contains(t, "{}") {
			return fmt.Errorf("%w: template %d, %.60q, has no {} for the label", ErrText, i, t)
		}
	}
	var names []string
	if len(ready) > 0 {
		text, ended := bytes.CutSuffix(ready, []byte("\n"))
		if !ended {
			return fmt.Errorf("%w: ready names: the last line is not ended", ErrText)
		}
		names = strings.Split(string(text), "\n")
	}
	if len(names) != cfg.Text.Ready {
		return fmt.Errorf("%w: %d ready names, the configuration says %d", ErrText, len(names), cfg.Text.Ready)
	}
	if err := checkLabels(names); err != nil {
		return fmt.Errorf("%w: ready names: %w", ErrText, err)
	}
	defaults := make([]string, len(cfg.Text.Defaults))
	for i, d := range cfg.Text.Defaults {
		defaults[i] = clip.NormalizeLabel(d)
	}
	if err := checkLabels(defaults); err != nil {
		return fmt.Errorf("%w: default labels: %w", ErrText, err)
	}
	return nil
}

// checkLabels reports names that no label would ever match.
func checkLabels(names []string) error {
	seen := make(map[string]int, len(names))
	for i, n := range names {
		if n == "" || n != clip.NormalizeLabel(n) {
			return fmt.Errorf("line %d, %.60q, is not in lower case with single spaces", i+1, n)
		}
		if j, double := seen[n]; double {
			return fmt.Errorf("%.60q stands in lines %d and %d", n, j+1, i+1)
		}
		seen[n] = i
	}
	return nil
}

// store makes a tensor's bytes, and its relative error.
//
// Int8 rows take their range from the largest magnitude. A search over smaller
// ranges was tried on EfficientNet-Lite0: 1% of rows gain, and the relative
// squared error falls by 3e-6 of itself.
func store(spec clip.TensorSpec, in Input, tensors *parts, o Options) (shq.TensorData, float64, error) {
	t := shq.TensorData{Name: spec.Name, Kind: o.kind(spec), Shape: spec.Shape, Alone: spec.Of != ""}
	if t.Kind == qtype.U8 {
		t.Data = in.text(spec.Name)
		t.Shape = []int{len(t.Data)}
		return t, 0, nil
	}
	x, err := tensors.read(spec)
	if err != nil {
		return t, 0, err
	}
	for i, v := range x {
		if v != v || math.IsInf(float64(v), 0) {
			return t, 0, fmt.Errorf("%w: %s has %v at element %d of %v", ErrValue, spec.Name, v, i, spec.Shape)
		}
	}
	switch rows := spec.Shape[0]; {
	case o.Round != nil && spec.Linear() && t.Kind != qtype.F16:
		if t.Data, err = o.Round(spec.Name, t.Kind, x, rows, spec.Shape[1]); err != nil {
			return t, 0, fmt.Errorf("convert: %s: %w", spec.Name, err)
		}
	case t.Kind == qtype.Q8C:
		t.Data = qtype.AppendQ8C(nil, x, rows, spec.Shape[1])
	case t.Kind == qtype.Q8R:
		t.Data = qtype.AppendQ8R(nil, x, rows, spec.Shape[1])
	case t.Kind == qtype.F16:
		t.Data = numeric.AppendFloat16(nil, x...)
	default:
		low, ok := t.Kind.Low()
		if !ok {
			panic("convert: no way to store this kind")
		}
		t.Data = low.Append(nil, x, rows, spec.Shape[1])
	}
	y, err := t.Kind.Dequantize(t.Data, t.Shape)
	if err != nil {
		return t, 0, err
	}
	var diff, norm float64
	for i, v := range x {
		d := float64(y[i]) - float64(v)
		diff += float64(d * d)
		norm += float64(float64(v) * float64(v))
	}
	if math.IsNaN(diff) || math.IsInf(diff, 0) {
		return t, 0, fmt.Errorf("%w: %s has a magnitude beyond a half's range", ErrValue, spec.Name)
	}
	if norm > 0 {
		return t, math.Sqrt(diff / norm), nil
	}
	return t, 0, nil
}
