package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"lqa/quant/cmd/progress"
	"lqa/tta"
	"lqa/tta/cmd/eval/dataset"
	"lqa/tta/shift"
	"lqa/tta/shift/corrupt"
	"lqa/tta/shift/order"
)

// condition is a shift by name, a corruption of ImageNet-C or an effect of a
// camera; the zero value is none.
type condition struct {
	name     string
	severity int
}

// publishedSide is the side of pictures for which corruptions are defined.
const publishedSide = 224

// effect returns what the condition does to pictures, seeded by their numbers.
func (c condition) effect(seed func(number int) uint64) (effect, error) {
	if c.name == "" {
		return effect{}, nil
	}
	fx := effect{name: fmt.Sprintf("%s %d", c.name, c.severity)}
	known, err := corrupt.New(c.name, c.severity)
	if err == nil {
		fx.side = publishedSide
		fx.apply = func(number int, rgba []byte, side int) error { return known.Apply(rgba, side, side, seed(number)) }
		return fx, nil
	}
	if _, err := shift.New(c.name, c.severity, 0); err != nil {
		return fx, fmt.Errorf("%w, and it is no corruption", err)
	}
	fx.apply = func(number int, rgba []byte, side int) error {
		e, err := shift.New(c.name, c.severity, seed(number))
		if err == nil {
			e.Apply(rgba, side, side)
		}
		return err
	}
	return fx, nil
}

func (c condition) String() string {
	if c.name == "" {
		return "none"
	}
	return c.name
}

// scene is a pool of a set's frames and what is done with it.
type scene struct {
	set     string
	chosen  bool // constants were chosen on it
	split   *dataset.Split
	every   int
	views   int            // of each picture; 0: the picture itself
	clips   []dataset.Clip // of streams: where the frames of split came from, Start among them
	shown   []dataset.Clip // those that streams are made of
	gaps    *dataset.Split // of streams: frames that show nothing listed; nil if there are none
	gapClip []dataset.Clip
	cells   []cell

	question question
	world    *world
}

// conditions are those that the scene's cells want, each once.
func (s *scene) conditions() (all []condition) {
	for _, c := range s.cells {
		for _, d := range c.domains {
			if !slices.Contains(all, d) {
				all = append(all, d)
			}
		}
	}
	return all
}

// pictures is how many embeddings a condition needs.
func (s *scene) pictures() int {
	n := (s.split.Pictures + s.every - 1) / s.every * max(1, s.views)
	if s.gaps != nil {
		n += s.gaps.Pictures
	}
	return n
}

// effects returns what a condition does to the frames of split and to those of
// gaps. What stays as it is while a camera runs, a cast or dirt, stays in a clip.
func (s *scene) effects(c condition) (frames, gaps effect, err error) {
	seeds := func(clips []dataset.Clip) func(int) uint64 {
		if clips == nil || c.name == "noise" || c.name == "rolling" {
			return func(number int) uint64 { return uint64(number) }
		}
		return func(number int) uint64 {
			return uint64(slices.IndexFunc(clips, func(c dataset.Clip) bool { return number < c.Start+c.Frames }))
		}
	}
	frames, err1 := c.effect(seeds(s.clips))
	gaps, err2 := c.effect(seeds(s.gapClip))
	frames.views = s.views
	return frames, gaps, errors.Join(err1, err2)
}

// names are those of the kept embeddings of a condition.
func (s *scene) names(m *model, c condition) (string, error) {
	fx, gapFx, err := s.effects(c)
	if err != nil {
		return "", err
	}
	name, err := keptName(m, s.split, s.every, fx)
	if err != nil || s.gaps == nil {
		return name, err
	}
	gap, err := keptName(m, s.gaps, 1, gapFx)
	return name + " " + gap, err
}

// look returns the frames of split, then those of gaps, under a condition. The
// first call makes the world.
func (r *run) look(ctx context.Context, m *model, s *scene, c condition, p *progress.Bar) (*look, error) {
	fx, gapFx, err := s.effects(c)
	if err != nil {
		return nil, err
	}
	f, err := embed(ctx, m, s.split, s.every, fx, r.keep, p)
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", s.set, c, err)
	}
	all := f.Embeddings
	if s.gaps != nil {
		g, err := embed(ctx, m, s.gaps, 1, gapFx, r.keep, p)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", s.gaps.Set, c, err)
		}
		all = append(all, g.Embeddings...)
	}
	if s.world == nil {
		mean, err := m.mean()
		if err != nil {
			return nil, err
		}
		w := &world{set: s.set, space: tta.Space{Scale: m.Scale, Temperature: m.Temperature, ImageMean: mean, Labels: s.question.embeddings}}
		for i := range all {
			label, unit := -1, i/max(1, s.views)
			if i < len(f.Class) {
				label = s.question.label[f.Class[i]]
			}
			if s.clips != nil {
				unit = slices.IndexFunc(s.clips, func(c dataset.Clip) bool { return i < c.Start+c.Frames })
			}
			w.label, w.unit = append(w.label, label), append(w.unit, max(unit, 0))
		}
		s.world = w
	}
	return s.world.look(all), nil
}

// mean is the mean embedding of training images that the model brings, or nil.
func (m *model) mean() ([]float32, error) {
	if e, ok := m.engines[0].(interface{ ImageMean() ([]float32, error) }); ok {
		return e.ImageMean()
	}
	return nil, nil
}

// metric compares frames with taught ones; nil where the engine has none.
func (m *model) metric() (*tta.Metric, error) {
	if e, ok := m.engines[0].(interface{ Projection() ([]float32, error) }); ok {
		w, err := e.Projection()
		return tta.NewMetric(w, m.Width), err
	}
	return nil, nil
}

// orderClips are the clips as orders want them, those of gaps without label.
func (s *scene) orderClips() (clips []order.Clip) {
	for _, c := range s.shown {
		clips = append(clips, order.Clip{Label: s.question.label[c.Class], Start: c.Start, Frames: c.Frames})
	}
	for _, c := range s.gapClip {
		clips = append(clips, order.Clip{Label: -1, Start: s.split.Pictures + c.Start, Frames: c.Frames})
	}
	return clips
}

// atRate selects frames of clips at order.FPS, from the middle of each clip at
// most perClip of them.
func atRate(clips []dataset.Clip, perClip int) (frames []int, chosen []dataset.Clip) {
	for _, c := range clips {
		step := max(1, int(math.Round(c.FPS/order.FPS)))
		n := (c.Frames + step - 1) / step
		first := c.Start
		if n > perClip {
			first += (n - perClip) / 2 * step
			n = perClip
		}
		c.FPS, c.Start, c.Frames = order.FPS, len(frames), n
		for i := range n {
			frames = append(frames, first+i*step)
		}
		chosen = append(chosen, c)
	}
	return frames, chosen
}
