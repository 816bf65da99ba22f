package page

import (
	"slices"

	"lqa/wasm/proto"
)

// settled is how much better a score must be for its row to overtake the one
// above. Frames of a steady picture differ by less, and rows that swap for
// nothing cannot be read.
const settled = 0.02

// Settle orders the labels of scores (best first) with as few moves as
// possible from the order they had: a row overtakes another only when it is
// clearly better. The best is always first.
func Settle(order []string, scores []proto.Score) []string {
	value := make(map[string]float32, len(scores))
	for _, s := range scores {
		value[s.Label] = s.Score
	}
	order = slices.DeleteFunc(order, func(l string) bool { _, ok := value[l]; return !ok })
	for _, s := range scores {
		if !slices.Contains(order, s.Label) {
			order = append(order, s.Label)
		}
	}
	for i := range order {
		for j := i; j > 0 && value[order[j]] > value[order[j-1]]+settled; j-- {
			order[j], order[j-1] = order[j-1], order[j]
		}
	}
	if len(scores) > 0 {
		best := slices.Index(order, scores[0].Label)
		copy(order[1:], order[:best])
		order[0] = scores[0].Label
	}
	return order
}
