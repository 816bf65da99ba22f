package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"lqa/quant/numeric"
	"lqa/tta"
	"lqa/tta/cmd/eval/dataset"
	"lqa/tta/shift"
)

const (
	unknownLabels = 10  // offered to each picture, less where the set has less
	unknownShare  = 0.9 // of known pictures, which the threshold-free figure keeps
	unknownDraws  = 10  // of labels, for a picture of the background
)

// peopleStreams show a person and nothing that is asked for: streams, and the
// classes of theirs that do not.
var peopleStreams = map[string][]string{"hands": {"no hand"}, "actions": nil}

// peopleWords are the desk words that are not asked of peopleStreams, because
// they may be seen there.
var peopleWords = []string{"hand", "face", "person", "glasses", "headphones", "chair", "sofa", "bed", "window", "door", "wall", "ceiling",
	"lamp", "light bulb", "plant", "bag", "backpack", "shoe", "hat", "shirt", "ball", "watch"}

// Kinds of pictures in the suite unknown. A set is asked twice: with the
// picture's own label among ten, and with ten others; where there are not as
// many, with all others. They are then kinds of one thing (hand signs, clothes),
// and such sets are not in the mean of what is left out.
const (
	kindKnown      = "known"
	kindLeftOut    = "left out"
	kindBackground = "background" // caltech101/background, desk words
	kindPeople     = "people"     // frames of peopleStreams, desk words
	kindUnknown    = "unknown"    // mean over the three kinds
)

// unknownLine is a JSON line of the suite unknown.
type unknownLine struct {
	Suite     string   `json:"suite"`
	Set       string   `json:"set"` // "mean" in the last lines
	Split     string   `json:"split"`
	Kind      string   `json:"kind"`
	Labels    int      `json:"labels"`    // offered at once
	N         int      `json:"n"`         // questions
	Top1      float64  `json:"top1"`      // percent right at the manifest's threshold; of unknown pictures "none of these" is
	Kept      float64  `json:"kept"`      // percent given a label at the manifest's threshold
	Refused90 float64  `json:"refused90"` // percent refused at the threshold that keeps 90% of the known pictures, sets counting alike
	ECE       float64  `json:"ece"`       // at the manifest's temperature and threshold
	Threshold *float32 `json:"threshold"` // cosine, of the manifest; null where it has none
	At90      float32  `json:"at90"`      // cosine
	Text      string   `json:"text"`
	Model     string   `json:"model"`
}

// asked are the answers to questions of one kind.
type asked struct {
	set, split, kind string
	tally            tally
	kept, labels     int
	scores           []float32 // cosine of the best label
}

// question puts the labels of these indices and "none of these" to e; want is
// the right one's place among them, -1 where none is right.
func (a *asked) question(m *model, q *question, offered []int, e []float32, want int) error {
	session, err := q.session(m, offered, "", m.None)
	if err != nil {
		return err
	}
	var answer tta.Result
	if err := session.Still(e, &answer); err != nil {
		return err
	}
	a.tally.add(answer.ZeroShot, want)
	a.labels = len(offered)
	if answer.ZeroShot.Best() >= 0 {
		a.kept++
	}
	best := float32(-1)
	for _, i := range offered {
		best = max(best, numeric.Dot(e, q.embeddings[i]))
	}
	a.scores = append(a.scores, best)
	return nil
}

func unknownSuite(ctx context.Context, r *run) error {
	return r.withModel(ctx, nil, func(ctx context.Context, m *model, splits []dataset.Split) error {
		d, err := r.readDesk()
		if err != nil {
			return err
		}
		return r.unknown(ctx, m, d, splits)
	})
}

func (r *run) unknown(ctx context.Context, m *model, d desk, splits []dataset.Split) error {
	splits = slices.DeleteFunc(slices.Clone(splits), func(s dataset.Split) bool {
		_, people := peopleStreams[s.Set]
		return s.Stream && !people
	})
	background, err := dataset.Loose(filepath.Join(r.data, "caltech101", "background.tar"))
	if err != nil {
		r.progress.Note("no background: %v", err)
	} else {
		splits = append(splits, background)
	}
	words, err := d.ask(m, asking{byTable, r.prompts})
	if err != nil {
		return err
	}
	var all, things []int // words; those that people's frames do not show
	for i, w := range d.words {
		all = append(all, i)
		if !slices.Contains(peopleWords, w) {
			things = append(things, i)
		}
	}
	r.begin("pictures", splits)
	random := shift.NewSource(drawSeed)
	var answers []*asked
	for i := range splits {
		s := &splits[i]
		f, err := r.embed(ctx, m, s)
		if err != nil {
			return err
		}
		var got []*asked
		switch {
		case s.Tar == background.Tar:
			a := &asked{set: s.Set, split: s.Name, kind: kindBackground}
			got, err = a.others(m, &words, all, f, nil, random, unknownDraws)
		case s.Stream:
			a := &asked{set: s.Set, split: s.Name, kind: kindPeople}
			shown := peopleStreams[s.Set]
			got, err = a.others(m, &words, things, f, func(c uint16) bool { return slices.Contains(shown, s.Classes[c].Folder) }, random, 1)
		default:
			got, err = r.askOwn(m, s, f, random)
		}
		if err != nil {
			return fmt.Errorf("%s/%s: %w", s.Set, s.Name, err)
		}
		answers = append(answers, got...)
	}
	return r.printUnknown(m, answers)
}

// askOwn asks each picture twice: with its own label, and without.
func (r *run) askOwn(m *model, s *dataset.Split, f *features, random *shift.Source) ([]*asked, error) {
	q, err := r.ask(m, s, asking{byTable, r.prompts})
	if err != nil || len(q.labels) < 2 {
		return nil, err
	}
	known := &asked{set: s.Set, split: s.Name, kind: kindKnown}
	left := &asked{set: s.Set, split: s.Name, kind: kindLeftOut}
	var order []int
	for i := range q.labels {
		order = append(order, i)
	}
	for i, e := range f.Embeddings {
		if e == nil {
			continue
		}
		own := q.label[f.Class[i]]
		var others []int
		shuffle(order, random)
		for _, label := range order {
			if label != own && len(others) < unknownLabels {
				others = append(others, label)
			}
		}
		if err := left.question(m, &q, others, e, -1); err != nil {
			return nil, err
		}
		with := append([]int{own}, others[:min(len(others), unknownLabels-1)]...)
		if err := known.question(m, &q, with, e, 0); err != nil {
			return nil, err
		}
	}
	return []*asked{known, left}, nil
}

// others asks each picture, but those of classes to pass over, for labels of
// pool in so many draws.
func (a *asked) others(m *model, q *question, pool []int, f *features, pass func(class uint16) bool, random *shift.Source, draws int) ([]*asked, error) {
	offered := slices.Clone(pool)
	for i, e := range f.Embeddings {
		if e == nil || pass != nil && pass(f.Class[i]) {
			continue
		}
		for range draws {
			shuffle(offered, random)
			if err := a.question(m, q, offered[:min(unknownLabels, len(offered))], e, -1); err != nil {
				return nil, err
			}
		}
	}
	return []*asked{a}, nil
}

func (r *run) printUnknown(m *model, answers []*asked) error {
	answers = slices.DeleteFunc(answers, func(a *asked) bool { return a.tally.n == 0 })
	var known []weighted
	for _, a := range answers {
		if a.kind == kindKnown {
			for _, s := range a.scores {
				known = append(known, weighted{s, 1 / float64(len(a.scores))})
			}
		}
	}
	if len(known) == 0 {
		return fmt.Errorf("no set of known pictures in %s", r.data)
	}
	at90 := keeping(known, unknownShare)
	line := func(set, split, kind string) unknownLine {
		return unknownLine{Suite: "unknown", Set: set, Split: split, Kind: kind, Threshold: m.None, At90: at90, Text: byTable, Model: m.Name}
	}
	of := make(map[string][]unknownLine)
	for _, a := range answers {
		l := line(a.set, a.split, a.kind)
		l.Labels, l.N, l.Top1, l.ECE = a.labels, a.tally.n, a.tally.top1(), a.tally.ece()
		l.Kept, l.Refused90 = percent(float64(a.kept), float64(a.tally.n)), below(a.scores, at90)
		of[a.kind] = append(of[a.kind], l)
		if err := r.print(l); err != nil {
			return err
		}
	}
	means := func(kind string, lines []unknownLine) unknownLine {
		l := line("mean", "", kind)
		var top1, kept, refused, ece []float64
		for _, x := range lines {
			l.N += x.N
			top1, kept, refused, ece = append(top1, x.Top1), append(kept, x.Kept), append(refused, x.Refused90), append(ece, x.ECE)
		}
		l.Top1, l.Kept, l.Refused90, l.ECE = round(mean(top1)), round(mean(kept)), round(mean(refused)), round(mean(ece))
		return l
	}
	var lines, unknown []unknownLine
	for _, kind := range []string{kindKnown, kindLeftOut, kindBackground, kindPeople} {
		if len(of[kind]) == 0 {
			continue
		}
		some := of[kind]
		if full := slices.DeleteFunc(slices.Clone(some), func(l unknownLine) bool { return l.Labels < unknownLabels }); kind == kindLeftOut && len(full) > 0 {
			some = full
		}
		l := means(kind, some)
		if lines = append(lines, l); kind != kindKnown {
			unknown = append(unknown, l)
		}
	}
	for _, l := range append(lines, means(kindUnknown, unknown)) {
		if err := r.print(l); err != nil {
			return err
		}
	}
	return nil
}
