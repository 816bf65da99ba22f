package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lqa/quant/cmd/progress"
	"lqa/tta"
	"lqa/tta/cmd/eval/dataset"
)

// run is what the command line asked for.
type run struct {
	modelFile, float, data, models, keep, markdown string
	prompts                                        dataset.Prompts
	sets                                           []string
	limit, jobs                                    int
	streamOptions

	stdout   io.Writer
	stderr   io.Writer
	progress *progress.Bar
}

// result is a JSON line of the suite zero-shot. Percentages have two decimals.
type result struct {
	Suite      string  `json:"suite"`
	Set        string  `json:"set"`
	Split      string  `json:"split"`
	N          int     `json:"n"`
	Top1       float64 `json:"top1"`               // percent
	ECE        float64 `json:"ece"`                // percent
	LQATop1    float64 `json:"lqa_top1,omitempty"` // streams: percent with the adapter lqa, frames in the tar's order
	Classes    int     `json:"classes"`
	Known      int     `json:"known"`
	Reworded   int     `json:"reworded,omitempty"`
	Unreadable int     `json:"unreadable,omitempty"`
	MS         float64 `json:"ms,omitempty"` // a picture, decoding included
	Model      string  `json:"model"`
}

func zeroShotSuite(ctx context.Context, r *run) error {
	splits, err := r.find()
	if err != nil {
		return err
	}
	if r.modelFile == "" {
		if r.modelFile, err = newestModel("assets"); err != nil {
			return err
		}
	}
	m, err := openModel(ctx, r.modelFile, r.jobs)
	if err != nil {
		return err
	}
	defer m.Close()
	r.progress.Note("%s (%s), %d splits", r.modelFile, m.Name, len(splits))
	return r.zeroShot(ctx, m, splits)
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
	defer r.progress.End()
	out := json.NewEncoder(r.stdout)
	var results []result
	for i := range splits {
		s := &splits[i]
		r.progress.On(s.Set + "/" + s.Name)
		f, err := embed(ctx, m, s, step(s.Pictures, r.limit), effect{}, r.keep, r.progress)
		if err != nil {
			return fmt.Errorf("%s/%s: %w", s.Set, s.Name, err)
		}
		res, err := r.score(m, s, f)
		if err != nil {
			return fmt.Errorf("%s/%s: %w", s.Set, s.Name, err)
		}
		r.progress.End()
		if err := out.Encode(res); err != nil {
			return err
		}
		results = append(results, res)
	}
	return r.writeMarkdown(table(results))
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

// writeMarkdown writes a table where --markdown says.
func (r *run) writeMarkdown(table string) error {
	if r.markdown == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(r.markdown), 0o777); err != nil {
		return err
	}
	return os.WriteFile(r.markdown, []byte(table), 0o666)
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

// ask embeds a split's labels.
func (r *run) ask(m *model, s *dataset.Split) (q question, err error) {
	known := m.engines[0].Known
	names := dataset.Names(s.Classes, known)
	for _, ok := range known(names) {
		if ok {
			q.known++
		}
	}
	q.reworded = r.prompts.Reword(s.Classes, names)
	q.labels = tta.CleanLabels(names)
	if q.embeddings, err = m.engines[0].EmbedText(q.labels); err != nil {
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

// score answers each picture with the split's labels. A picture that could not
// be read counts as wrong.
func (r *run) score(m *model, s *dataset.Split, f *features) (result, error) {
	q, err := r.ask(m, s)
	res := result{Suite: "zero-shot", Set: s.Set, Split: s.Name, N: len(f.Class), Unreadable: f.Unreadable(),
		Classes: q.classes, Known: q.known, Reworded: q.reworded, Model: m.Name}
	if err != nil {
		return res, err
	}
	adapter := "zeroshot"
	if s.Stream {
		adapter = "lqa"
	}
	session, err := tta.NewSession(nil, tta.SessionConfig{Labels: q.labels, Embeddings: q.embeddings, Scale: m.Scale, Temperature: m.Temperature, Adapter: adapter})
	if err != nil {
		return res, err
	}

	var answer tta.Result
	var c calibration
	right, adapted := 0, 0
	for i, e := range f.Embeddings {
		if e == nil {
			continue
		}
		if err := session.Frame(0, e, &answer); err != nil {
			return res, fmt.Errorf("picture %d: %w", i, err)
		}
		best := answer.ZeroShot.Best()
		ok := best == q.label[f.Class[i]]
		if ok {
			right++
		}
		if answer.Adapted.Best() == q.label[f.Class[i]] {
			adapted++
		}
		c.add(answer.ZeroShot.P[best], ok)
	}
	res.Top1 = percent(float64(right), float64(res.N))
	if s.Stream {
		res.LQATop1 = percent(float64(adapted), float64(res.N))
	}
	res.ECE = percent(c.error(), 1)
	if f.Encoded > 0 {
		res.MS = math.Round(float64(f.Encode.Microseconds())/float64(f.Encoded)/10) / 100
	}
	return res, nil
}

func percent(part, whole float64) float64 {
	return math.Round(1e4*part/whole) / 100
}

// calibration is the expected calibration error over fifteen bins of equal
// width (Guo et al., ICML 2017).
type calibration struct {
	bins [15]struct {
		n, right   int
		confidence float64
	}
	n int
}

func (c *calibration) add(confidence float32, right bool) {
	b := &c.bins[min(int(confidence*float32(len(c.bins))), len(c.bins)-1)]
	b.n++
	b.confidence += float64(confidence)
	if right {
		b.right++
	}
	c.n++
}

// error is Σ n_b/n · |right_b/n_b - confidence_b|, 0 without answers.
func (c *calibration) error() (e float64) {
	for _, b := range c.bins {
		e += math.Abs(float64(b.right) - b.confidence)
	}
	return e / float64(max(1, c.n))
}

// table is the results in Markdown.
func table(results []result) string {
	var b strings.Builder
	b.WriteString("| set | split | n | classes | known | top-1, % | ECE, % | with lqa, % |\n|---|---|---|---|---|---|---|---|\n")
	sorted := slices.Clone(results)
	slices.SortStableFunc(sorted, func(x, y result) int { return cmp.Compare(x.Set, y.Set) })
	for _, r := range sorted {
		lqa := ""
		if r.Split == "clips" {
			lqa = fmt.Sprintf("%.1f", r.LQATop1)
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %.1f | %.1f | %s |\n", r.Set, r.Split, r.N, r.Classes, r.Known, r.Top1, r.ECE, lqa)
	}
	return b.String()
}
