package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/urfave/cli/v3"

	"lqa/quant/calibrate/pictures"
	"lqa/quant/cmd/progress"
	"lqa/quant/convert"
	"lqa/quant/device/native"
	"lqa/quant/engine"
	"lqa/quant/picture"
)

// comparison is how close a model comes to its original.
type comparison struct {
	Original   string  `json:"original"`
	Pictures   int     `json:"pictures"`
	Unreadable int     `json:"unreadable"`
	CosineMean float64 `json:"cosine_mean"` // of the pictures' embeddings
	CosineMin  float64 `json:"cosine_min"`
	Worst      string  `json:"worst"`            // picture
	Labels     int     `json:"labels"`           // 0: no answers were compared
	LabelMean  float64 `json:"label_mean"`       // cosine of the labels' embeddings
	LabelMin   float64 `json:"label_min"`        //
	Agreement  float64 `json:"top1_agreement"`   // part of the pictures with the same best label
	MaxDrift   float64 `json:"max_logit_change"` // of the cosine to any label
}

// faults are the thresholds of the command line that a misses.
func (a *comparison) faults(c *cli.Command) (list []string) {
	under := func(what string, got, want float64) {
		if !(got >= want) {
			list = append(list, fmt.Sprintf("%s is %.5f, under %v", what, got, want))
		}
	}
	under("mean cosine", a.CosineMean, c.Float("min-cosine"))
	under("worst cosine", a.CosineMin, c.Float("min-worst"))
	if a.Labels > 0 {
		under("agreement", a.Agreement, c.Float("min-agreement"))
	}
	return list
}

// compare runs the model at path and its original side by side.
func compare(ctx context.Context, c *cli.Command, path string) (*comparison, error) {
	name := c.String("against")
	set, closeSet, err := openPictures(c.String("pictures"))
	if err != nil {
		return nil, err
	}
	defer closeSet()
	bar := newBar(c)
	defer bar.End()
	mine, err := openEngine(ctx, path)
	if err != nil {
		return nil, err
	}
	defer mine.Close()
	theirs, err := openOriginal(ctx, c, name, bar)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer theirs.Close()
	d := mine.Config().Embed
	if n := theirs.Config().Embed; n != d {
		return nil, fmt.Errorf("%s has embeddings of %d, %s of %d: they are no versions of one model", name, n, path, d)
	}

	a := &comparison{Original: name, CosineMin: 1, LabelMin: 1}
	labels := mine.Config().Text.Defaults
	if file := c.String("labels"); file != "" {
		if labels, err = readLines(file); err != nil {
			return nil, err
		}
	}
	var mineText, theirText [][]float32
	if a.Labels = len(labels); a.Labels > 0 {
		if mineText, err = mine.EmbedText(labels); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if theirText, err = theirs.EmbedText(labels); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for i := range labels {
			cos := dot(mineText[i], theirText[i])
			a.LabelMean += cos / float64(len(labels))
			a.LabelMin = min(a.LabelMin, cos)
		}
	}

	x, y := make([]float32, d), make([]float32, d)
	began, agree := false, 0
	err = picture.Take(set, c.Int("count"), engine.MaxPixels, func(p picture.Picture, total int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !began {
			began = true
			bar.Begin("comparing", int64(total), "pictures")
		}
		bar.Add(1)
		if p.Err != nil {
			a.Unreadable++
			bar.Note("%s: %v", p.Name, p.Err)
			return nil
		}
		for _, e := range []struct {
			*engine.Engine
			dst []float32
		}{{mine, x}, {theirs, y}} {
			if err := e.SetFrame(p.RGBA, p.W, p.H); err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
			if err := e.Encode(e.dst); err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
		}
		a.Pictures++
		cos := dot(x, y)
		a.CosineMean += cos
		if cos <= a.CosineMin {
			a.CosineMin, a.Worst = cos, p.Name
		}
		if a.Labels > 0 {
			m, mBest := answers(x, mineText)
			t, tBest := answers(y, theirText)
			if mBest == tBest {
				agree++
			}
			for i := range m {
				a.MaxDrift = max(a.MaxDrift, math.Abs(m[i]-t[i]))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if a.Pictures == 0 {
		return nil, fmt.Errorf("%w: none of the pictures could be read", picture.ErrSet)
	}
	a.CosineMean /= float64(a.Pictures)
	a.Agreement = float64(agree) / float64(a.Pictures)
	return a, nil
}

func dot(x, y []float32) (sum float64) {
	for i := range x {
		sum += float64(x[i]) * float64(y[i])
	}
	return sum
}

// answers are the cosines to each label, and the best one's index.
func answers(x []float32, labels [][]float32) (cos []float64, best int) {
	for i, l := range labels {
		if cos = append(cos, dot(x, l)); cos[i] > cos[best] {
			best = i
		}
	}
	return cos, best
}

// openPictures opens a folder, a tar, or those that ship.
func openPictures(name string) (picture.Set, func() error, error) {
	if name == "" {
		return picture.Folder(pictures.FS), func() error { return nil }, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, nil, err
	}
	if info.IsDir() {
		return picture.Folder(os.DirFS(name)), func() error { return nil }, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	return picture.Tar(f, info.Size()), f.Close, nil
}

// openEngine loads a .shq natively.
func openEngine(ctx context.Context, path string) (*engine.Engine, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return loadEngine(ctx, f)
}

func loadEngine(ctx context.Context, r io.Reader) (*engine.Engine, error) {
	e, err := engine.Open(r, engine.Options{Host: native.New(), Limits: limits})
	if err != nil {
		return nil, err
	}
	for err == nil {
		_, err = e.LoadStage(ctx)
	}
	if err != io.EOF {
		e.Close()
		return nil, err
	}
	return e, nil
}

// openOriginal loads a .shq, or what convert takes by way of a float .shq in a
// temporary file.
func openOriginal(ctx context.Context, c *cli.Command, name string, bar *progress.Bar) (*engine.Engine, error) {
	if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
		return openEngine(ctx, name)
	}
	src, err := openSource(ctx, name, hubOptions(c), bar)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	if _, err := (texts{merges: c.String("merges"), original: true}).apply(src); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp("", "shq-original-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	src.Tensors = cancelled{src.Tensors, ctx}
	if err := convert.Convert(f, src.Input, convert.Options{Name: "original", Float: true}); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return loadEngine(ctx, f)
}
