package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"lqa/tta"
	"lqa/tta/cmd/eval/dataset"
)

// desk is what the folder of --desk says.
type desk struct {
	words []string
	shows []dataset.Shows
}

// readDesk reads desk_words.txt and desk_classes.tsv.
func (r *run) readDesk() (d desk, err error) {
	if d.words, err = readFile(filepath.Join(r.desk, "desk_words.txt"), dataset.ReadWords); err != nil {
		return d, err
	}
	if d.shows, err = readFile(filepath.Join(r.desk, "desk_classes.tsv"), dataset.ReadShows); err != nil {
		return d, err
	}
	for _, s := range d.shows {
		for _, w := range s.Words {
			if !slices.Contains(d.words, w) {
				return d, fmt.Errorf("%s of %s shows %q, which is no desk word", s.Folder, s.Split, w)
			}
		}
	}
	return d, nil
}

func readFile[T any](name string, read func(io.Reader) (T, error)) (t T, err error) {
	f, err := os.Open(name)
	if err != nil {
		return t, err
	}
	defer f.Close()
	if t, err = read(f); err != nil {
		return t, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

// ask embeds the desk words, reworded; label i is word i.
func (d *desk) ask(m *model, a asking) (q question, err error) {
	classes := make([]dataset.Class, len(d.words))
	for i, w := range d.words {
		classes[i] = dataset.Class{Folder: w, Spellings: []string{w}}
	}
	names := slices.Clone(d.words)
	q.reworded = a.prompts.Reword(classes, names)
	if q.labels = tta.CleanLabels(names); len(q.labels) != len(names) {
		return q, fmt.Errorf("%d desk words, %d of them differ", len(names), len(q.labels))
	}
	q.classes = len(names)
	q.embeddings, err = m.text(q.labels, a.by)
	return q, err
}

// deskLine is a JSON line of the suite desk: of a split, of a word, of all.
type deskLine struct {
	Suite   string   `json:"suite"`
	Set     string   `json:"set"` // "all" for a word and for all
	Split   string   `json:"split"`
	Word    string   `json:"word,omitempty"`
	N       int      `json:"n"`
	Top1    float64  `json:"top1"`
	ECE     float64  `json:"ece"`
	Apart   bool     `json:"apart,omitempty"`   // not among all
	Instead string   `json:"instead,omitempty"` // a word's most frequent wrong answer
	Labels  int      `json:"labels"`
	Low     []string `json:"low,omitempty"` // words of ten or more pictures under 60%
	Text    string   `json:"text"`
	Model   string   `json:"model"`
}

const (
	lowPictures = 10
	lowTop1     = 60
)

func deskSuite(ctx context.Context, r *run) error {
	return r.withModel(ctx, nil, func(ctx context.Context, m *model, splits []dataset.Split) error {
		d, err := r.readDesk()
		if err != nil {
			return err
		}
		return r.deskWords(ctx, m, d, splits)
	})
}

// seen is a picture of a desk word.
type seen struct {
	embedding []float32 // nil: unreadable
	words     []int     // any is right; the first is meant
	split     string
	apart     bool
}

// deskPictures are those of splits that show a desk word.
func (r *run) deskPictures(ctx context.Context, m *model, d desk, splits []dataset.Split) ([]seen, error) {
	var pictures []seen
	for i := range splits {
		s := &splits[i]
		name := s.Set + "/" + s.Name
		shows := make(map[int]dataset.Shows) // by class
		for _, sh := range d.shows {
			if sh.Split != name {
				continue
			}
			class := slices.IndexFunc(s.Classes, func(c dataset.Class) bool { return c.Folder == sh.Folder })
			if class < 0 {
				return nil, fmt.Errorf("%s has no class %q", name, sh.Folder)
			}
			shows[class] = sh
		}
		f, err := r.embed(ctx, m, s)
		if err != nil {
			return nil, err
		}
		for j, e := range f.Embeddings {
			if sh, ok := shows[int(f.Class[j])]; ok {
				p := seen{embedding: e, split: name, apart: sh.Apart}
				for _, w := range sh.Words {
					p.words = append(p.words, slices.Index(d.words, w))
				}
				pictures = append(pictures, p)
			}
		}
	}
	if len(pictures) == 0 {
		return nil, fmt.Errorf("no picture of a desk word in %s", r.data)
	}
	return pictures, nil
}

// deskWords asks each picture of a desk word for all of them.
func (r *run) deskWords(ctx context.Context, m *model, d desk, splits []dataset.Split) error {
	splits = slices.DeleteFunc(slices.Clone(splits), func(s dataset.Split) bool {
		return !slices.ContainsFunc(d.shows, func(sh dataset.Shows) bool { return sh.Split == s.Set+"/"+s.Name })
	})
	r.begin("pictures", splits)
	pictures, err := r.deskPictures(ctx, m, d, splits)
	if err != nil {
		return err
	}
	for _, by := range []string{byTable, byTower} {
		q, err := d.ask(m, asking{by, r.prompts})
		if err != nil {
			return err
		}
		session, err := q.session(m, nil, "", nil)
		if err != nil {
			return err
		}
		line := func(set, split, word string, t *tally) deskLine {
			return deskLine{Suite: "desk", Set: set, Split: split, Word: word, N: t.n, Top1: t.top1(), ECE: t.ece(), Labels: len(q.labels), Text: by, Model: m.Name}
		}

		var names []string // of splits, in order
		apart := make(map[string]bool)
		bySplit := make(map[string]*tally)
		words := make([]tally, len(d.words))
		instead := make([]map[int]int, len(d.words)) // wrong answers of each
		for i := range instead {
			instead[i] = make(map[int]int)
		}
		var all tally
		var answer tta.Result
		for _, p := range pictures {
			if bySplit[p.split] == nil {
				names, bySplit[p.split], apart[p.split] = append(names, p.split), new(tally), p.apart
			}
			mine := []*tally{bySplit[p.split]}
			if !p.apart {
				mine = append(mine, &words[p.words[0]], &all)
			}
			if p.embedding == nil {
				for _, t := range mine {
					t.miss()
				}
				continue
			}
			if err := session.Still(p.embedding, &answer); err != nil {
				return err
			}
			right := false
			for _, t := range mine {
				right = t.add(answer.ZeroShot, p.words...)
			}
			if !right && !p.apart {
				instead[p.words[0]][answer.ZeroShot.Best()]++
			}
		}

		var lines []deskLine
		for _, n := range names {
			set, split := filepath.Split(n)
			l := line(filepath.Clean(set), split, "", bySplit[n])
			l.Apart = apart[n]
			lines = append(lines, l)
		}
		total := line("all", "", "", &all)
		for i := range words {
			t := &words[i]
			if t.n == 0 {
				continue
			}
			l := line("all", "", d.words[i], t)
			if wrong := mostFrequent(instead[i]); wrong >= 0 {
				l.Instead = d.words[wrong]
			}
			if t.n >= lowPictures && l.Top1 < lowTop1 {
				total.Low = append(total.Low, l.Word)
			}
			lines = append(lines, l)
		}
		for _, l := range append(lines, total) {
			if err := r.print(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// mostFrequent is the key with the largest count, the smallest of equals; -1
// where there is none.
func mostFrequent(counts map[int]int) int {
	best := -1
	for k, n := range counts {
		if best < 0 || cmp.Or(cmp.Compare(n, counts[best]), cmp.Compare(best, k)) > 0 {
			best = k
		}
	}
	return best
}
