package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"lqa/quant/clip"
	"lqa/quant/convert"
)

// embedLabels gives s the embeddings of its default labels, made by its own
// text side at full precision; with dry only their shape.
func embedLabels(ctx context.Context, s *source, dry bool) error {
	cfg, err := clip.ParseConfig(s.Config)
	if err != nil {
		return err
	}
	var shape []int
	if n := len(cfg.Text.Defaults); n > 0 {
		shape = []int{n, cfg.Embed}
	}
	var rows []float32
	if !dry {
		if rows, err = labelEmbeddings(ctx, s, cfg); err != nil {
			return fmt.Errorf("default labels: %w", err)
		}
	}
	s.Tensors = convert.With(s.Tensors, "label.default.weight", shape, rows)
	return nil
}

// labelEmbeddings returns [labels, D]. The engine that makes them has a
// make-believe image tower: the real one would double its memory.
func labelEmbeddings(ctx context.Context, s *source, cfg *clip.Config) ([]float32, error) {
	labels := cfg.Text.Defaults
	text := *cfg.Whole()
	text.Text.Defaults = nil
	text.ImageMean = false
	text.Image = clip.Image{Kind: "efficientnet-lite", Size: 32, Std: [3]float32{1, 1, 1}, Stem: 8, Features: 8,
		Blocks: []clip.Block{{Kernel: 3, Stride: 1, Expand: 1, In: 8, Out: 8}}}
	in := s.Input
	var err error
	if in.Config, err = json.Marshal(&text); err != nil {
		return nil, err
	}
	in.Tensors = textOnly{cancelled{s.Tensors, ctx}, &text}
	var file bytes.Buffer
	if err := convert.Convert(&file, in, convert.Options{Name: "text", Float: true}); err != nil {
		return nil, err
	}
	e, err := loadEngine(ctx, &file)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	var out []float32
	for _, l := range labels {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		x, err := e.EmbedText([]string{l})
		if err != nil {
			return nil, err
		}
		out = append(out, x[0]...)
	}
	return out, nil
}

// textOnly is a Source whose image tower is all zeros, of cfg's shapes.
type textOnly struct {
	convert.Source
	cfg *clip.Config
}

func (t textOnly) Names() []string {
	names := slices.DeleteFunc(slices.Clone(t.Source.Names()), func(n string) bool {
		return strings.HasPrefix(n, "image.") || n == "label.default.weight"
	})
	for _, s := range t.cfg.Tensors() {
		if strings.HasPrefix(s.Name, "image.") {
			names = append(names, s.Name)
		}
	}
	return names
}

func (t textOnly) Shape(name string) ([]int, bool) {
	if !strings.HasPrefix(name, "image.") {
		return t.Source.Shape(name)
	}
	for _, s := range t.cfg.Tensors() {
		if s.Name == name {
			return s.Shape, true
		}
	}
	return nil, false
}

func (t textOnly) Float32(name string) ([]float32, error) {
	if !strings.HasPrefix(name, "image.") {
		return t.Source.Float32(name)
	}
	shape, _ := t.Shape(name)
	n := 1
	for _, d := range shape {
		n *= d
	}
	return make([]float32, n), nil
}
