package page

import (
	"slices"
	"strconv"

	"lqa/wasm/proto"
)

// maxRows bounds the rows of a list of answers, "none of these" not counted.
const maxRows = 10

const noneLabel = "none of these"

// answers is a list of bars. A row keeps its place in the document while its
// place on the screen moves: the style sheet lets it glide there.
type answers struct {
	doc   *document
	list  element
	rows  map[string]*row // by label; "" is "none of these"
	order []string        // as on the screen
}

type row struct {
	item, percent element
}

func newAnswers(doc *document, id string) *answers {
	return &answers{doc: doc, list: doc.el(id), rows: map[string]*row{}}
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

// set shows scores, best first, with "none of these" among them.
func (a *answers) set(s proto.Scores) {
	shown := append([]proto.Score(nil), s.Scores[:min(len(s.Scores), maxRows)]...)
	at := 0
	for at < len(shown) && shown[at].Score >= s.None {
		at++
	}
	shown = slices.Insert(shown, at, proto.Score{Label: "", Score: s.None})

	score := make(map[string]float32, len(shown))
	for rank, v := range shown {
		score[v.Label] = v.Score
		r := a.row(v.Label)
		setText(r.percent, Percent(v.Score))
		r.item.SetAttribute("data-score", strconv.FormatFloat(float64(v.Score), 'f', 4, 32))
		r.item.SetAttribute("data-rank", strconv.Itoa(rank))
		r.item.Style().SetProperty("--score", strconv.FormatFloat(float64(v.Score), 'f', 3, 32), "")
	}
	for label, r := range a.rows {
		if _, ok := score[label]; !ok {
			r.item.Remove()
			delete(a.rows, label)
		}
	}
	a.order = Settle(a.order, shown)
	for place, label := range a.order {
		a.rows[label].item.Style().SetProperty("--row", strconv.Itoa(place), "")
	}
	a.list.Style().SetProperty("--rows", strconv.Itoa(len(a.order)), "")
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
