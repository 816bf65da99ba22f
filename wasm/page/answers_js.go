package page

import (
	"strconv"

	"lqa/wasm/proto"
)

// maxRows bounds the rows of a list of answers, "none of these" not counted.
const maxRows = 10

const noneLabel = "none of these"

// answers is a list of bars. A row keeps its place in the document while its
// rank moves: the style sheet lets it glide there.
type answers struct {
	doc  *document
	list element
	rows map[string]*row // by label; "" is "none of these"
}

type row struct {
	item, percent element
	seen          bool
}

func newAnswers(doc *document, id string) *answers {
	return &answers{doc, doc.el(id), map[string]*row{}}
}

func (a *answers) row(label string) *row {
	if r := a.rows[label]; r != nil {
		return r
	}
	item := a.doc.create("li", "row", "")
	item.SetAttribute("data-label", label)
	name := label
	if label == "" {
		name = noneLabel
		item.SetAttribute("data-none", "")
	}
	text := a.doc.create("span", "row-label", name)
	text.SetAttribute("title", name)
	percent := a.doc.create("span", "row-score", "")
	bar := a.doc.create("span", "row-bar", "")
	bar.SetAttribute("aria-hidden", "true")
	add(item, text, percent, bar)
	add(a.list, item)
	r := &row{item: item, percent: percent}
	a.rows[label] = r
	return r
}

// set shows scores, best first, and where "none of these" stands among them.
func (a *answers) set(s proto.Scores) {
	for _, r := range a.rows {
		r.seen = false
	}
	rank, noneShown := 0, false
	place := func(label string, score float32) {
		r := a.row(label)
		r.seen = true
		setText(r.percent, Percent(score))
		r.item.SetAttribute("data-score", strconv.FormatFloat(float64(score), 'f', 4, 32))
		r.item.SetAttribute("data-rank", strconv.Itoa(rank))
		r.item.Style().SetProperty("--row", strconv.Itoa(rank), "")
		r.item.Style().SetProperty("--score", strconv.FormatFloat(float64(score), 'f', 3, 32), "")
		rank++
	}
	shown := s.Scores[:min(len(s.Scores), maxRows)]
	for _, score := range shown {
		if !noneShown && s.None > score.Score {
			place("", s.None)
			noneShown = true
		}
		place(score.Label, score.Score)
	}
	if !noneShown {
		place("", s.None)
	}
	for label, r := range a.rows {
		if !r.seen {
			r.item.Remove()
			delete(a.rows, label)
		}
	}
	a.list.Style().SetProperty("--rows", strconv.Itoa(rank), "")
}

// top is the best answer and its score; "" is "none of these".
func top(s proto.Scores) (string, float32) {
	if len(s.Scores) == 0 || s.None > s.Scores[0].Score {
		return "", s.None
	}
	return s.Scores[0].Label, s.Scores[0].Score
}

func named(label string) string {
	if label == "" {
		return noneLabel
	}
	return label
}
