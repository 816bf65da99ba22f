package main

import (
	"context"
	"fmt"
	"slices"

	"lqa/tta"
	"lqa/tta/cmd/eval/dataset"
	"lqa/tta/shift"
)

// keptOut are the classes, by set, that stay out of training altogether:
// pictures, names and synonyms (KEPT_OUT in assets/train/text_space.py).
var keptOut = map[string][]string{
	"caltech101":          caltechKeptOut,
	"caltech101_test_224": caltechKeptOut,
	"tiny_imagenet": {"abacus", "baboon", "christmas_stocking", "crane", "lifeboat", "meat_loaf", "oboe", "plunger",
		"swimming_trunks", "volleyball"},
}

var caltechKeptOut = []string{"anchor", "beaver", "brain", "buddha", "butterfly", "camera", "emu", "gerenuk", "ibis", "nautilus",
	"pigeon", "revolver", "rooster", "saxophone", "soccer_ball", "stapler", "sunflower", "tick", "wheelchair", "yin_yang"}

// keptOutClasses says for each class of s whether it is kept out; nil where
// none is.
func keptOutClasses(s *dataset.Split) []bool {
	var kept []bool
	for i, c := range s.Classes {
		if slices.Contains(keptOut[s.Set], c.Folder) {
			if kept == nil {
				kept = make([]bool, len(s.Classes))
			}
			kept[i] = true
		}
	}
	return kept
}

const (
	openLabels = 10 // offered at once
	openDraws  = 30 // of them, where there are more
	drawSeed   = 19
)

// opened is a JSON line of the suite open.
type opened struct {
	Suite  string  `json:"suite"`
	Set    string  `json:"set"`
	Split  string  `json:"split"`
	Of     string  `json:"of"`     // whose pictures
	Labels int     `json:"labels"` // offered at once
	Draws  int     `json:"draws,omitempty"`
	N      int     `json:"n"` // pictures
	Top1   float64 `json:"top1"`
	ECE    float64 `json:"ece"`
	Text   string  `json:"text"`
	Muted  bool    `json:"muted"` // whether the model has a posterior, of which these names are mute
	Model  string  `json:"model"`
}

func openSuite(ctx context.Context, r *run) error {
	var classes []int
	for _, m := range muted {
		classes = append(classes, m.class)
	}
	return r.withModel(ctx, classes, r.open)
}

// open asks pictures of kept-out classes for their names among themselves, all
// by the text tower, and among all the set's names.
func (r *run) open(ctx context.Context, m *model, splits []dataset.Split) error {
	splits = slices.DeleteFunc(slices.Clone(splits), func(s dataset.Split) bool { return keptOutClasses(&s) == nil })
	if len(splits) == 0 {
		return fmt.Errorf("no set with kept-out classes in %s", r.data)
	}
	r.begin("pictures", splits)
	for i := range splits {
		s := &splits[i]
		f, err := r.embed(ctx, m, s)
		if err != nil {
			return err
		}
		lines, err := r.openSplit(m, s, f)
		if err != nil {
			return fmt.Errorf("%s/%s: %w", s.Set, s.Name, err)
		}
		for _, l := range lines {
			if err := r.print(l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) openSplit(m *model, s *dataset.Split, f *features) ([]opened, error) {
	kept := keptOutClasses(s)
	q, err := r.ask(m, s, asking{byTable, r.prompts})
	if err != nil {
		return nil, err
	}
	tower, err := m.text(q.labels, byTower)
	if err != nil {
		return nil, err
	}
	var labels []int // of the kept-out classes
	for class, label := range q.label {
		if kept[class] && !slices.Contains(labels, label) {
			labels = append(labels, label)
			q.embeddings[label] = tower[label]
		}
	}
	line := func(of, text string, labels, draws int, t *tally) opened {
		return opened{Suite: "open", Set: s.Set, Split: s.Name, Of: of, Labels: labels, Draws: draws, N: t.n, Top1: t.top1(), ECE: t.ece(),
			Text: text, Muted: m.Muted, Model: m.Name}
	}
	isKept := func(class uint16) bool { return kept[class] }
	var lines []opened

	// Among ten, as a mean over draws where there are more.
	var few tally
	draws, pictures := 1, 0
	if len(labels) > openLabels {
		draws = openDraws
	}
	random := shift.NewSource(drawSeed)
	for range draws {
		offered := slices.Clone(labels)
		shuffle(offered, random)
		offered = offered[:min(openLabels, len(offered))]
		if err := q.tally(m, f, offered, isKept, &few); err != nil {
			return nil, err
		}
	}
	for _, class := range f.Class {
		if kept[class] {
			pictures++
		}
	}
	l := line("kept-out", byTower, min(openLabels, len(labels)), draws, &few)
	l.N = pictures
	lines = append(lines, l)

	for _, part := range []struct {
		of, text string
		offered  []int
		want     bool
	}{{"kept-out", byTower, labels, true}, {"kept-out", byBoth, nil, true}, {"trained", byBoth, nil, false}} {
		n := len(part.offered)
		if part.offered == nil {
			n = len(q.labels)
		} else if draws == 1 {
			continue // said already
		}
		var t tally
		if err := q.tally(m, f, part.offered, func(class uint16) bool { return kept[class] == part.want }, &t); err != nil {
			return nil, err
		}
		lines = append(lines, line(part.of, part.text, n, 0, &t))
	}
	return lines, nil
}

// tally counts the answers to pictures of the classes that of lets through and
// whose label is among those offered, nil for all.
func (q *question) tally(m *model, f *features, offered []int, of func(class uint16) bool, t *tally) error {
	session, err := q.session(m, offered, "", nil)
	if err != nil {
		return err
	}
	var answer tta.Result
	for i, e := range f.Embeddings {
		want := q.label[f.Class[i]]
		if offered != nil {
			want = slices.Index(offered, want)
		}
		switch {
		case want < 0 || !of(f.Class[i]):
		case e == nil:
			t.miss()
		default:
			if err := session.Still(e, &answer); err != nil {
				return fmt.Errorf("picture %d: %w", i, err)
			}
			t.add(answer.ZeroShot, want)
		}
	}
	return nil
}

// shuffle is Fisher and Yates'.
func shuffle(x []int, random *shift.Source) {
	for i := len(x) - 1; i > 0; i-- {
		j := random.N(i + 1)
		x[i], x[j] = x[j], x[i]
	}
}
