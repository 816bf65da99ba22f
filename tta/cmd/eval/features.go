package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"

	"lqa/tta"
	"lqa/tta/cmd/eval/npy"
	"lqa/tta/shift/order"
)

// featureFiles are somebody's own embeddings.
type featureFiles struct {
	images, text, labels string
	scale                float64
}

var errFeatureFiles = errors.New("features that do not go together")

// world reads the files: images [n][D], text [C][D], labels [n] with numbers
// from 0. Rows are given norm 1.
func (f *featureFiles) world() (*world, *look, error) {
	images, err := readRows(f.images)
	if err != nil {
		return nil, nil, err
	}
	text, err := readRows(f.text)
	if err != nil {
		return nil, nil, err
	}
	a, err := npy.ReadFile(f.labels)
	if err != nil {
		return nil, nil, err
	}
	labels, err := a.Ints()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.labels, err)
	}
	d := len(text[0])
	switch {
	case len(a.Shape) != 1 || len(labels) != len(images):
		return nil, nil, fmt.Errorf("%w: labels of shape %v for %d images", errFeatureFiles, a.Shape, len(images))
	case len(images[0]) != d:
		return nil, nil, fmt.Errorf("%w: images of width %d, text of width %d", errFeatureFiles, len(images[0]), d)
	case len(text) > tta.MaxLabels || d > tta.MaxWidth:
		return nil, nil, fmt.Errorf("%w: %d labels of width %d, at most %d of %d", errFeatureFiles, len(text), d, tta.MaxLabels, tta.MaxWidth)
	case !(f.scale > 0 && f.scale <= 1e4):
		return nil, nil, fmt.Errorf("%w: a scale of %v", errFeatureFiles, f.scale)
	}
	for _, file := range []struct {
		name string
		rows [][]float32
	}{{f.images, images}, {f.text, text}} {
		for i, row := range file.rows {
			for _, v := range row {
				if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
					return nil, nil, fmt.Errorf("%w: %s: row %d is not finite", errFeatureFiles, file.name, i)
				}
			}
		}
	}
	w := &world{set: strings.TrimSuffix(filepath.Base(f.images), ".npy"), space: tta.Space{Scale: float32(f.scale), Labels: text}}
	for i, l := range labels {
		if l < 0 || l >= int64(len(text)) {
			return nil, nil, fmt.Errorf("%w: %s: label %d of image %d, there are %d", errFeatureFiles, f.labels, l, i, len(text))
		}
		w.label, w.unit = append(w.label, int(l)), append(w.unit, i)
	}
	return w, w.look(images), nil
}

// features runs the adapters on somebody's own embeddings: as they come, and in
// the orders of stills that need no pictures.
func (r *run) features(ctx context.Context, f featureFiles) error {
	w, l, err := f.world()
	if err != nil {
		return err
	}
	methods, err := r.methods()
	if err != nil {
		return err
	}
	given := r.cell("given", "", condition{}, func(w *world, _ []*look, _ uint64) plan {
		steps := make([]order.Step, len(w.label))
		for i := range steps {
			steps[i] = order.Step{At: i, Cut: i == 0 || w.label[i] != w.label[i-1]}
		}
		return plan{steps: steps}
	})
	given.seeds = 1
	cells := append([]cell{given}, r.stills(nil, false)...)
	r.progress.Begin("streams", int64(len(cells)), "kinds of streams")
	defer r.progress.End()
	var all []shiftLine
	for i := range cells {
		r.progress.On(cells[i].Stream)
		lines, t, err := cells[i].run(ctx, w, []*look{l}, methods, r.jobs)
		if err != nil {
			return fmt.Errorf("%s: %w", cells[i].Stream, err)
		}
		if t != nil && r.plots != "" {
			if err := t.write(r.plots); err != nil {
				return err
			}
		}
		for i := range lines {
			lines[i].Suite = "features"
			if err := r.print(lines[i]); err != nil {
				return err
			}
		}
		all = append(all, lines...)
		r.progress.Add(1)
	}
	r.tabulate(shiftTables(all))
	return r.finish()
}
