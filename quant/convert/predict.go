package convert

import (
	"fmt"

	"lqa/quant/clip"
	"lqa/quant/device"
	"lqa/quant/qtype"
	"lqa/quant/shq"
)

// Prediction is what Convert would make.
type Prediction struct {
	Tensors []Outcome // in the order of the file; without errors
	Bytes   int64     // of all tensors, before compression
	// Memory is what the kernels will take of an engine that has loaded the file.
	Memory device.Memory
}

// Predict checks in and o as Convert does and works out sizes from shapes
// alone: no tensor is read.
func Predict(in Input, o Options) (*Prediction, error) {
	cfg, specs, err := in.check(o)
	if err != nil {
		return nil, err
	}
	p := &Prediction{}
	kinds := map[string]qtype.Kind{}
	for _, spec := range specs {
		t := Outcome{Name: spec.Name, Kind: o.kind(spec), Shape: spec.Shape}
		if t.Kind == qtype.U8 {
			t.Shape = []int{len(in.text(spec.Name))}
		}
		if t.Bytes, err = t.Kind.Size(t.Shape); err != nil {
			return nil, err
		}
		p.Tensors = append(p.Tensors, t)
		p.Bytes += int64(t.Bytes)
		kinds[t.Name] = t.Kind
	}
	p.Memory = memoryOf(cfg, kinds)
	return p, nil
}

// Memory is what the kernels take of an engine that has loaded a file with this
// manifest.
func Memory(m *shq.Manifest) (device.Memory, error) {
	cfg, err := clip.ParseConfig(m.Model)
	if err != nil {
		return device.Memory{}, fmt.Errorf("%w: %w", ErrContent, err)
	}
	if err := matchTensors(m, cfg); err != nil {
		return device.Memory{}, fmt.Errorf("%w: %w", ErrContent, err)
	}
	kinds := map[string]qtype.Kind{}
	for _, t := range m.Tensors {
		kinds[t.Name] = t.Kind
	}
	return memoryOf(cfg, kinds), nil
}

func memoryOf(cfg *clip.Config, kinds map[string]qtype.Kind) device.Memory {
	var l device.Layout
	clip.Layout(cfg, kinds, &l)
	return l.Memory()
}
