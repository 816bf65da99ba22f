package main

import (
	"context"
	"fmt"
	"path/filepath"

	"lqa/quant/numeric"
	"lqa/tta/cmd/eval/dataset"
)

// retrieved is the JSON line of the suite retrieval.
type retrieved struct {
	Suite      string  `json:"suite"`
	Set        string  `json:"set"`
	Split      string  `json:"split"`
	N          int     `json:"n"` // pictures
	Captions   int     `json:"captions"`
	Recall10   float64 `json:"recall10"` // percent of pictures with a caption of theirs among the first ten
	Recall1    float64 `json:"recall1"`
	Unreadable int     `json:"unreadable,omitempty"`
	Text       string  `json:"text"`
	Model      string  `json:"model"`
}

func retrievalSuite(ctx context.Context, r *run) error {
	return r.withModel(ctx, nil, func(ctx context.Context, m *model, _ []dataset.Split) error { return r.retrieval(ctx, m) })
}

// retrieval ranks all captions of a split for each of its pictures (Hodosh et
// al., JAIR 2013). Captions go through the text tower as they are.
func (r *run) retrieval(ctx context.Context, m *model) error {
	s, err := dataset.Loose(filepath.Join(r.data, "flickr8k", "test.tar"))
	if err != nil {
		return err
	}
	r.begin("pictures", []dataset.Split{s})
	f, err := r.embed(ctx, m, &s)
	if err != nil {
		return err
	}
	captions, err := s.Captions(step(s.Pictures, r.limit))
	if err != nil {
		return err
	}
	if len(captions) != len(f.Embeddings) {
		return fmt.Errorf("%s: captions of %d pictures, not %d", s.Tar, len(captions), len(f.Embeddings))
	}
	var all []string
	for _, own := range captions {
		all = append(all, own...)
	}
	text, err := m.engines[0].EmbedPrompts(all, []string{"{}"})
	if err != nil {
		return err
	}

	var first, ten, at int
	scores := make([]float32, len(all))
	for i, e := range f.Embeddings {
		end := at + len(captions[i])
		if e != nil {
			for j, t := range text {
				scores[j] = numeric.Dot(e, t)
			}
			above := rank(scores, at, end)
			if above < 10 {
				ten++
			}
			if above < 1 {
				first++
			}
		}
		at = end
	}
	n := float64(len(captions))
	return r.print(retrieved{Suite: "retrieval", Set: s.Set, Split: s.Name, N: len(captions), Captions: len(all),
		Recall10: percent(float64(ten), n), Recall1: percent(float64(first), n), Unreadable: f.Unreadable(), Text: byTower, Model: m.Name})
}
