package main

import (
	"cmp"
	"math"
	"slices"

	"lqa/tta"
)

// percent has two decimals.
func percent(part, whole float64) float64 {
	return math.Round(1e4*part/whole) / 100
}

// round keeps two decimals.
func round(x float64) float64 { return math.Round(100*x) / 100 }

// mean of nothing is 0.
func mean(x []float64) (sum float64) {
	for _, v := range x {
		sum += v
	}
	return sum / float64(max(1, len(x)))
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

// tally counts answers. A picture that could not be read counts as wrong and
// says nothing of calibration.
type tally struct {
	n, right    int
	calibration calibration
}

// add counts an answer of which any in want is right, -1 for "none of these".
func (t *tally) add(s tta.Scores, want ...int) (right bool) {
	best, confidence := s.Best(), s.None
	if best >= 0 {
		confidence = s.P[best]
	}
	right = slices.Contains(want, best)
	t.n++
	if right {
		t.right++
	}
	t.calibration.add(confidence, right)
	return right
}

func (t *tally) miss() { t.n++ }

// top1 and ece are percentages.
func (t *tally) top1() float64 { return percent(float64(t.right), float64(max(1, t.n))) }
func (t *tally) ece() float64  { return percent(t.calibration.error(), 1) }

// rank is how many scores outside own, [first, end), exceed the best in it.
func rank(scores []float32, first, end int) (above int) {
	best := slices.Max(scores[first:end])
	for i, s := range scores {
		if s > best && (i < first || i >= end) {
			above++
		}
	}
	return above
}

// weighted is a score that counts for as much as its weight.
type weighted struct {
	score  float32
	weight float64
}

// keeping is the highest threshold that at least this share (0 to 1) of the
// weight of known reaches.
func keeping(known []weighted, share float64) float32 {
	sorted := slices.Clone(known)
	slices.SortFunc(sorted, func(a, b weighted) int { return cmp.Compare(b.score, a.score) })
	total := 0.0
	for _, w := range sorted {
		total += w.weight
	}
	sum := 0.0
	for _, w := range sorted {
		if sum += w.weight; sum >= share*total*(1-1e-12) { // sums of weights are not exact
			return w.score
		}
	}
	return float32(math.Inf(-1))
}

// below is the percentage of scores under a threshold.
func below(scores []float32, threshold float32) float64 {
	n := 0
	for _, s := range scores {
		if s < threshold {
			n++
		}
	}
	return percent(float64(n), float64(max(1, len(scores))))
}
