package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lqa/quant/numeric"
	"lqa/tta"
	"lqa/tta/cmd/eval/npy"
	"lqa/tta/shift/order"
)

// The suite real-clip runs every adapter on embeddings of OpenAI's CLIP
// ViT-B/32 itself: photographs of ten kinds, a hundred each, of which these six
// have a name among the ready text embeddings. So the adapters are seen on a
// tower that is neither ours nor small.
var realClipClasses = []struct {
	class int    // the photograph's number / 100
	name  string // asked as "a NAME"
}{{0, "person"}, {1, "swimsuit"}, {3, "bus"}, {5, "elephant"}, {7, "horse"}, {9, "food"}}

const (
	realClipSeeds  = 10
	realClipFrames = 500 // a stream
	realClipScale  = 100 // CLIP's own
	frameTime      = time.Second / order.FPS
)

// pool is embeddings with their labels and what they are asked.
type pool struct {
	Set        string
	Labels     []string
	Text       [][]float32 // [C][D]
	Mean       []float32   // [D] of training images, or nil
	Scale      float32
	Label      []int       // [n]
	Embeddings [][]float32 // [n][D]
}

// streamResult is a JSON line of the suite real-clip. Figures are means over
// the seeds; percentages have two decimals.
type streamResult struct {
	Suite      string  `json:"suite"`
	Set        string  `json:"set"`
	Stream     string  `json:"stream"`
	Adapter    string  `json:"adapter"`
	Seeds      int     `json:"seeds"`
	N          int     `json:"n"` // frames of a stream
	Top1       float64 `json:"top1"`
	ZeroShot   float64 `json:"zero_shot_top1"`
	Gain       float64 `json:"gain"`
	Interval   float64 `json:"interval"` // half the paired 95% interval of gain
	Worst      float64 `json:"worst"`    // smallest gain of a seed
	Tail       float64 `json:"tail"`     // mean top-1 of the worst tenth of the streams
	ECE        float64 `json:"ece"`
	Flicker    float64 `json:"flicker"`     // changes of the answer a second, at 5 frames a second
	StateBytes int     `json:"state_bytes"` // largest, after the last frame
}

func realClipSuite(ctx context.Context, r *run) error {
	p, err := readRealClip(r.models)
	if err != nil {
		return err
	}
	r.progress.Begin("streams", int64(len(realClipOrders)*len(tta.Methods)*realClipSeeds), "streams")
	defer r.progress.End()
	out := json.NewEncoder(r.stdout)
	var all []streamResult
	for _, o := range realClipOrders {
		for _, m := range tta.Methods {
			r.progress.On(o.name + " " + m.Name)
			res, err := r.streams(ctx, p, o, m.Name)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", o.name, m.Name, err)
			}
			r.progress.End()
			if err := out.Encode(res); err != nil {
				return err
			}
			all = append(all, res)
		}
	}
	return r.writeMarkdown(streamTable(all))
}

// streams runs one adapter over one kind of stream, a session a seed.
func (r *run) streams(ctx context.Context, p *pool, o streamOrder, adapter string) (streamResult, error) {
	res := streamResult{Suite: "real-clip", Set: p.Set, Stream: o.name, Adapter: adapter, Seeds: realClipSeeds}
	var top1, gain []float64
	var c calibration
	changes := 0
	for seed := range uint64(realClipSeeds) {
		if err := ctx.Err(); err != nil {
			return res, err
		}
		session, err := tta.NewSession(nil, tta.SessionConfig{Labels: p.Labels, Embeddings: p.Text, Scale: p.Scale, ImageMean: p.Mean, Adapter: adapter})
		if err != nil {
			return res, err
		}
		steps := o.of(p.Label, seed)
		res.N = len(steps)
		var answer tta.Result
		right, base, last := 0, 0, -1
		for i, step := range steps {
			at := step.At
			if err := session.Frame(time.Duration(i)*frameTime, p.Embeddings[at], &answer); err != nil {
				return res, err
			}
			best := answer.Adapted.Best()
			ok := best == p.Label[at]
			if ok {
				right++
			}
			c.add(answer.Adapted.P[best], ok)
			if answer.ZeroShot.Best() == p.Label[at] {
				base++
			}
			if i > 0 && best != last {
				changes++
			}
			last = best
		}
		n := float64(len(steps))
		top1, gain = append(top1, float64(right)/n), append(gain, float64(right-base)/n)
		res.StateBytes = max(res.StateBytes, session.Report().StateBytes)
		r.progress.Add(1)
	}
	slices.Sort(top1)
	spread := interval(gain)
	res.Top1, res.Gain = percent(mean(top1), 1), percent(spread.Mean, 1)
	res.ZeroShot = percent(mean(top1)-spread.Mean, 1)
	res.Interval, res.Worst = percent(spread.High-spread.Mean, 1), percent(slices.Min(gain), 1)
	res.Tail = percent(mean(top1[:(len(top1)+9)/10]), 1)
	res.ECE = percent(c.error(), 1)
	res.Flicker = percent(float64(changes), 100*float64(len(top1)*res.N)*frameTime.Seconds())
	return res, nil
}

// streamTable is the results in Markdown: a row an adapter, a column a stream.
func streamTable(all []streamResult) string {
	var streams, adapters []string
	cell := map[[2]string]streamResult{}
	for _, r := range all {
		if !slices.Contains(streams, r.Stream) {
			streams = append(streams, r.Stream)
		}
		if !slices.Contains(adapters, r.Adapter) {
			adapters = append(adapters, r.Adapter)
		}
		cell[[2]string{r.Stream, r.Adapter}] = r
	}
	var b strings.Builder
	b.WriteString("Gain in points ± half its 95% interval / worst seed; changes of the answer a second\n\n| adapter |")
	for _, s := range streams {
		fmt.Fprintf(&b, " %s (%.1f) |", s, cell[[2]string{s, adapters[0]}].ZeroShot)
	}
	b.WriteString(" bytes |\n|---|" + strings.Repeat("---|", len(streams)+1) + "\n")
	for _, a := range adapters {
		fmt.Fprintf(&b, "| %s |", a)
		bytes := 0
		for _, s := range streams {
			r := cell[[2]string{s, a}]
			fmt.Fprintf(&b, " %+.1f ± %.1f / %+.1f; %.1f |", r.Gain, r.Interval, r.Worst, r.Flicker)
			bytes = max(bytes, r.StateBytes)
		}
		fmt.Fprintf(&b, " %d |\n", bytes)
	}
	return b.String()
}

// readRealClip reads the embeddings and the text of their labels below dir.
func readRealClip(dir string) (*pool, error) {
	images, err := readRows(filepath.Join(dir, "clip_image_pairs", "embeddings_f16.npy"))
	if err != nil {
		return nil, err
	}
	texts, err := readRows(filepath.Join(dir, "clip_text", "embeddings_f16.npy"))
	if err != nil {
		return nil, err
	}
	// Prototypes of other photographs stand in for the mean training image.
	others, err := readRows(filepath.Join(dir, "clip_image_prototypes", "lvis_avg5_f16.npy"))
	if err != nil {
		return nil, err
	}
	names, err := os.ReadFile(filepath.Join(dir, "clip_text", "names.txt"))
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(string(names), "\n"), "\n")
	d := len(images[0])
	if len(lines) != len(texts) || len(texts[0]) != d || len(others[0]) != d || len(images) != 1000 {
		return nil, errors.New("real-clip: files that do not go together")
	}
	p := &pool{Set: "corel6", Scale: realClipScale, Mean: make([]float32, d)}
	for _, o := range others {
		for k, v := range o {
			p.Mean[k] += v / float32(len(others))
		}
	}
	for i, c := range realClipClasses {
		at := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, c.name+"\ta "+c.name+"\ta\t") })
		if at < 0 {
			return nil, fmt.Errorf("real-clip: no text of %q", c.name)
		}
		p.Labels, p.Text = append(p.Labels, c.name), append(p.Text, texts[at])
		for k := range 100 {
			p.Label, p.Embeddings = append(p.Label, i), append(p.Embeddings, images[100*c.class+k])
		}
	}
	return p, nil
}

// readRows reads a matrix of floats and gives its rows norm 1.
func readRows(name string) ([][]float32, error) {
	a, err := npy.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if len(a.Shape) != 2 || a.Len() == 0 {
		return nil, fmt.Errorf("%s: shape %v where rows are meant", name, a.Shape)
	}
	all := a.Floats()
	rows := make([][]float32, a.Shape[0])
	for i := range rows {
		rows[i] = all[i*a.Shape[1]:][:a.Shape[1]]
		numeric.Normalize(rows[i])
	}
	return rows, nil
}

// streamOrder is a kind of stream over labelled pictures.
type streamOrder struct {
	name string
	of   func(label []int, seed uint64) []order.Step
}

// realClipOrders are those of the trial that this suite repeats.
var realClipOrders = []streamOrder{
	{"shuffled", func(label []int, seed uint64) []order.Step { return order.Shuffled(len(label), seed)[:realClipFrames] }},
	{"block", func(label []int, seed uint64) []order.Step { return order.Block(label, 20, seed)[:realClipFrames] }},
	{"imbalanced", func(label []int, seed uint64) []order.Step { return order.Imbalanced(label, 20, seed) }},
	{"few", func(label []int, seed uint64) []order.Step { return order.Few(label, 3, 40, realClipFrames, seed) }},
}
