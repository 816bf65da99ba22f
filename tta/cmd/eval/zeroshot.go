package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"lqa/quant/cmd/progress"
	"lqa/tta"
	"lqa/tta/cmd/eval/dataset"
)

// run is what the command line asked for.
type run struct {
	modelFile, float, data, models, keep, desk, markdown string
	prompts                                              dataset.Prompts
	sets                                                 []string
	limit, jobs                                          int
	streamOptions

	lines    []any  // printed so far
	table    string // of a suite that makes its own
	stdout   io.Writer
	stderr   io.Writer
	progress *progress.Bar
}

// result is a JSON line of the suite zero-shot. Percentages have two decimals.
type result struct {
	Suite      string  `json:"suite"`
	Set        string  `json:"set"`
	Split      string  `json:"split"`
	Of         string  `json:"of,omitempty"` // which pictures, with all labels offered; "" for all
	N          int     `json:"n"`
	Top1       float64 `json:"top1"`               // percent
	ECE        float64 `json:"ece"`                // percent
	LQATop1    float64 `json:"lqa_top1,omitempty"` // streams: percent with the adapter lqa, frames in the tar's order
	Text       string  `json:"text"`
	Prompts    bool    `json:"prompts"` // whether better wordings were looked up
	Classes    int     `json:"classes"`
	Known      int     `json:"known"`
	Reworded   int     `json:"reworded,omitempty"`
	Unreadable int     `json:"unreadable,omitempty"`
	MS         float64 `json:"ms,omitempty"` // a picture, decoding included
	Model      string  `json:"model"`
}

// summary is a last line of the suite: means over sets, each by all its
// pictures and with the prompts.
type summary struct {
	Suite       string  `json:"suite"`
	Set         string  `json:"set"` // "mean"
	Of          string  `json:"of"`
	Sets        int     `json:"sets"`
	Top1        float64 `json:"top1"`
	ECE         float64 `json:"ece"`
	TowerTop1   float64 `json:"tower_top1"`
	TowerECE    float64 `json:"tower_ece"`
	Loss        float64 `json:"loss"` // points of tower against table
	LargestLoss float64 `json:"largest_loss"`
	LargestIn   string  `json:"largest_in"` // set/split
	Model       string  `json:"model"`
}

func zeroShotSuite(ctx context.Context, r *run) error {
	return r.withModel(ctx, nil, r.zeroShot)
}

// withModel opens the model, with these outputs of its classifier mute, finds
// the splits, and writes the table of what measure prints.
func (r *run) withModel(ctx context.Context, mute []int, measure func(context.Context, *model, []dataset.Split) error) error {
	splits, err := r.find()
	if err != nil {
		return err
	}
	if r.modelFile == "" {
		if r.modelFile, err = newestModel("assets"); err != nil {
			return err
		}
	}
	m, err := openModel(ctx, r.modelFile, r.jobs, mute)
	if err != nil {
		return err
	}
	defer m.Close()
	r.progress.Note("%s (%s), %d splits", r.modelFile, m.Name, len(splits))
	defer r.progress.End()
	if err := measure(ctx, m, splits); err != nil {
		return err
	}
	return r.finish()
}

// find returns the splits that --sets lets through.
func (r *run) find() ([]dataset.Split, error) {
	splits, notes, err := dataset.Find(r.data)
	if err != nil {
		return nil, err
	}
	for _, n := range notes {
		r.progress.Note("passed over: %s", n)
	}
	if len(r.sets) > 0 {
		for _, want := range r.sets {
			if !slices.ContainsFunc(splits, func(s dataset.Split) bool { return s.Set == want }) {
				return nil, fmt.Errorf("no set %q in %s", want, r.data)
			}
		}
		splits = slices.DeleteFunc(splits, func(s dataset.Split) bool { return !slices.Contains(r.sets, s.Set) })
	}
	if len(splits) == 0 {
		return nil, fmt.Errorf("no test split in %s", r.data)
	}
	return splits, nil
}

func (r *run) zeroShot(ctx context.Context, m *model, splits []dataset.Split) error {
	r.begin("pictures", splits)
	var all []result // by all pictures and with the prompts: table, tower, table, tower ...
	var streams []bool
	for i := range splits {
		s := &splits[i]
		f, err := r.embed(ctx, m, s)
		if err != nil {
			return err
		}
		ways := []asking{{byTable, r.prompts}, {byTower, r.prompts}}
		if s.Stream && r.prompts != nil {
			ways = append(ways, asking{byTable, nil})
		}
		for j, a := range ways {
			results, err := r.score(m, s, f, a)
			if err != nil {
				return fmt.Errorf("%s/%s: %w", s.Set, s.Name, err)
			}
			for _, res := range results {
				if err := r.print(res); err != nil {
					return err
				}
			}
			if j < 2 {
				all = append(all, results[0])
			}
		}
		streams = append(streams, s.Stream)
	}
	for _, of := range []string{"pictures", "streams", "all"} {
		var some []result
		for i, stream := range streams {
			if of == "all" || stream == (of == "streams") {
				some = append(some, all[2*i:2*i+2]...)
			}
		}
		if len(some) > 0 && (of != "all" || slices.Contains(streams, true) && slices.Contains(streams, false)) {
			if err := r.print(summarize(of, some)); err != nil {
				return err
			}
		}
	}
	return nil
}

// embed is the function embed for the pictures that --limit lets through.
func (r *run) embed(ctx context.Context, m *model, s *dataset.Split) (*features, error) {
	r.progress.On(s.Set + "/" + s.Name)
	f, err := embed(ctx, m, s, step(s.Pictures, r.limit), effect{}, r.keep, r.progress)
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", s.Set, s.Name, err)
	}
	return f, nil
}

// summarize takes results in pairs: by table, by tower.
func summarize(of string, pairs []result) summary {
	s := summary{Suite: "zero-shot", Set: "mean", Of: of, Sets: len(pairs) / 2, LargestLoss: math.Inf(-1), Model: pairs[0].Model}
	var top1, ece [2][]float64
	for i, res := range pairs {
		top1[i%2], ece[i%2] = append(top1[i%2], res.Top1), append(ece[i%2], res.ECE)
		if i%2 == 1 {
			if loss := round(pairs[i-1].Top1 - res.Top1); loss > s.LargestLoss {
				s.LargestLoss, s.LargestIn = loss, res.Set+"/"+res.Split
			}
		}
	}
	s.Top1, s.ECE = round(mean(top1[0])), round(mean(ece[0]))
	s.TowerTop1, s.TowerECE = round(mean(top1[1])), round(mean(ece[1]))
	s.Loss = round(mean(top1[0]) - mean(top1[1]))
	return s
}

// begin starts the bar for all pictures of splits.
func (r *run) begin(what string, splits []dataset.Split) {
	total := 0
	for _, s := range splits {
		every := step(s.Pictures, r.limit)
		total += (s.Pictures + every - 1) / every
	}
	r.progress.Begin(what, int64(total), "pictures")
}

// question is what the pictures of a split are asked.
type question struct {
	labels     []string
	embeddings [][]float32 // of the labels
	classes    int         // labels that differ
	label      []int       // of each class
	known      int         // classes whose name stands ready in the model
	reworded   int
}

// asking is how labels are put: by table or tower, in which better wordings.
type asking struct {
	by      string
	prompts dataset.Prompts
}

// ask embeds a split's labels.
func (r *run) ask(m *model, s *dataset.Split, a asking) (q question, err error) {
	known := m.engines[0].Known
	names := dataset.Names(s.Classes, known)
	for _, ok := range known(names) {
		if ok {
			q.known++
		}
	}
	q.reworded = a.prompts.Reword(s.Classes, names)
	q.labels = tta.CleanLabels(names)
	if q.embeddings, err = m.text(q.labels, a.by); err != nil {
		return q, err
	}
	// Two classes may share a name (crane, the bird and the machine): either
	// folder is right then.
	index := make(map[string]int)
	for i, l := range q.labels {
		index[strings.ToLower(l)] = i
	}
	q.classes = len(index)
	q.label = make([]int, len(names))
	for i, n := range names {
		q.label[i] = index[strings.ToLower(strings.Join(strings.Fields(n), " "))]
	}
	return q, nil
}

// session asks for the labels of these indices, nil for all.
func (q *question) session(m *model, offered []int, adapter string, none *float32) (*tta.Session, error) {
	c := tta.SessionConfig{Labels: q.labels, Embeddings: q.embeddings, Scale: m.Scale, Temperature: m.Temperature, NoneCosine: none, Adapter: adapter}
	if offered != nil {
		c.Labels, c.Embeddings = nil, nil
		for _, i := range offered {
			c.Labels, c.Embeddings = append(c.Labels, q.labels[i]), append(c.Embeddings, q.embeddings[i])
		}
	}
	return tta.NewSession(nil, c)
}

// score answers each picture with the split's labels. A picture that could not
// be read counts as wrong. Sets with kept-out classes have a result for the
// pictures of these and one for the others as well.
func (r *run) score(m *model, s *dataset.Split, f *features, a asking) ([]result, error) {
	q, err := r.ask(m, s, a)
	if err != nil {
		return nil, err
	}
	adapter := "zeroshot"
	if s.Stream {
		adapter = "lqa"
	}
	session, err := q.session(m, nil, adapter, nil)
	if err != nil {
		return nil, err
	}

	var answer tta.Result
	parts := []string{""}
	kept := keptOutClasses(s)
	if kept != nil {
		parts = append(parts, "kept-out", "trained")
	}
	tallies := make([]tally, len(parts))
	adapted := 0
	for i, e := range f.Embeddings {
		class := f.Class[i]
		mine := []*tally{&tallies[0]}
		if kept != nil && kept[class] {
			mine = append(mine, &tallies[1])
		} else if kept != nil {
			mine = append(mine, &tallies[2])
		}
		if e != nil {
			if err := session.Frame(0, e, &answer); err != nil {
				return nil, fmt.Errorf("picture %d: %w", i, err)
			}
			if answer.Adapted.Best() == q.label[class] {
				adapted++
			}
		}
		for _, t := range mine {
			if e == nil {
				t.miss()
			} else {
				t.add(answer.ZeroShot, q.label[class])
			}
		}
	}
	var results []result
	for i, t := range tallies {
		res := result{Suite: "zero-shot", Set: s.Set, Split: s.Name, Of: parts[i], N: t.n, Top1: t.top1(), ECE: t.ece(),
			Text: a.by, Prompts: a.prompts != nil, Classes: q.classes, Known: q.known, Reworded: q.reworded, Model: m.Name}
		if i == 0 {
			res.Unreadable = f.Unreadable()
			if s.Stream {
				res.LQATop1 = percent(float64(adapted), float64(t.n))
			}
			if f.Encoded > 0 {
				res.MS = math.Round(float64(f.Encode.Microseconds())/float64(f.Encoded)/10) / 100
			}
		}
		results = append(results, res)
	}
	return results, nil
}
