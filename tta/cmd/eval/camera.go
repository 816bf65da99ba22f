package main

import (
	"context"
	"fmt"
	"slices"

	"lqa/tta/cmd/eval/dataset"
)

// What the suite camera does to pictures.
const (
	cameraSeverity = 3
	cameraPictures = 300 // of a split, evenly taken
)

var cameraEffects = []string{"dark", "blur", "noise", "cast"}

// cameraSoft are sets of pictures of 32 and 64 pixels: their views are blurred
// already.
var cameraSoft = []string{"cifar10", "tiny_imagenet"}

// cameraLine is a JSON line of the suite camera.
type cameraLine struct {
	Suite    string  `json:"suite"`
	Set      string  `json:"set"` // "mean" over the splits, in the last lines
	Split    string  `json:"split"`
	Effect   string  `json:"effect"` // "clean" for none, "mean" over the effects
	Severity int     `json:"severity,omitempty"`
	N        int     `json:"n"`
	Top1     float64 `json:"top1"`
	Loss     float64 `json:"loss"` // points of top1 against clean
	ECE      float64 `json:"ece"`
	Text     string  `json:"text"`
	Model    string  `json:"model"`
}

func cameraSuite(ctx context.Context, r *run) error { return r.withModel(ctx, nil, r.camera) }

// camera measures what effects at severity 3 on the view cost.
func (r *run) camera(ctx context.Context, m *model, splits []dataset.Split) error {
	splits = slices.DeleteFunc(slices.Clone(splits), func(s dataset.Split) bool { return s.Stream || slices.Contains(cameraSoft, s.Set) })
	if len(splits) == 0 {
		return fmt.Errorf("no sharp pictures in %s", r.data)
	}
	names := append([]string{"clean"}, cameraEffects...)
	effects := make([]effect, 1) // the first changes nothing
	for _, name := range cameraEffects {
		fx, err := condition{name: name, severity: cameraSeverity}.effect(func(number int) uint64 { return uint64(number) })
		if err != nil {
			return err
		}
		effects = append(effects, fx)
	}
	limit := cameraPictures
	if r.limit > 0 {
		limit = min(limit, r.limit)
	}
	total := 0
	for _, s := range splits {
		every := step(s.Pictures, limit)
		total += len(effects) * ((s.Pictures + every - 1) / every)
	}
	r.progress.Begin("pictures", int64(total), "pictures")

	lines := make([][]cameraLine, len(effects)) // by effect
	for i := range splits {
		s := &splits[i]
		q, err := r.ask(m, s, asking{byTable, r.prompts})
		if err != nil {
			return err
		}
		for j, fx := range effects {
			line := cameraLine{Suite: "camera", Set: s.Set, Split: s.Name, Effect: names[j], Text: byTable, Model: m.Name}
			if j > 0 {
				line.Severity = cameraSeverity
			}
			r.progress.On(s.Set + "/" + s.Name + " " + line.Effect)
			f, err := embed(ctx, m, s, step(s.Pictures, limit), fx, r.keep, r.progress)
			if err != nil {
				return fmt.Errorf("%s/%s, %s: %w", s.Set, s.Name, line.Effect, err)
			}
			var t tally
			if err := q.tally(m, f, nil, func(uint16) bool { return true }, &t); err != nil {
				return err
			}
			line.N, line.Top1, line.ECE = t.n, t.top1(), t.ece()
			if j > 0 {
				line.Loss = round(lines[0][i].Top1 - line.Top1)
			}
			if err := r.print(line); err != nil {
				return err
			}
			lines[j] = append(lines[j], line)
		}
	}

	var worse []cameraLine // means of the effects
	for _, of := range lines {
		l := meanLine(of)
		l.Effect, l.Severity = of[0].Effect, of[0].Severity
		if l.Effect != "clean" {
			worse = append(worse, l)
		}
		if err := r.print(l); err != nil {
			return err
		}
	}
	l := meanLine(worse)
	l.Effect, l.Severity, l.N = "mean", cameraSeverity, worse[0].N
	return r.print(l)
}

// meanLine is the mean of lines' figures, n their sum.
func meanLine(lines []cameraLine) cameraLine {
	var top1, loss, ece []float64
	l := cameraLine{Suite: "camera", Set: "mean", Text: lines[0].Text, Model: lines[0].Model}
	for _, x := range lines {
		l.N += x.N
		top1, loss, ece = append(top1, x.Top1), append(loss, x.Loss), append(ece, x.ECE)
	}
	l.Top1, l.Loss, l.ECE = round(mean(top1)), round(mean(loss)), round(mean(ece))
	return l
}
