package main

import (
	"math"
	"testing"

	"lqa/tta"
)

func TestCalibration(t *testing.T) {
	var c calibration
	if c.error() != 0 {
		t.Error("no answers have an error")
	}
	// Bin 13 (0.867 to 0.933): 0.9 sure, 1 of 2 right. The last: 1 sure, right.
	c.add(0.9, true)
	c.add(0.9, false)
	c.add(1, true)
	if got, want := c.error(), (2*0.4)/3; math.Abs(got-want) > 1e-6 {
		t.Errorf("error %v, want %v", got, want)
	}
}

// TestTally: of four pictures one is right by its second word, one is rightly
// refused, one wrong, one unreadable.
func TestTally(t *testing.T) {
	var c tally
	c.add(tta.Scores{P: []float32{0.125, 0.875}}, 0, 1)
	c.add(tta.Scores{P: []float32{0.25, 0.25}, None: 0.5}, -1)
	c.add(tta.Scores{P: []float32{0.75, 0.25}}, 1)
	c.miss()
	if c.top1() != 50 {
		t.Errorf("top-1 %v, want 50", c.top1())
	}
	// Each is alone in its bin: (0.125 + 0.5 + 0.75) / 3.
	if want := 45.83; c.ece() != want {
		t.Errorf("ECE %v, want %v", c.ece(), want)
	}
	if none := new(tally); none.top1() != 0 || none.ece() != 0 {
		t.Error("nothing was asked")
	}
}

func TestRank(t *testing.T) {
	scores := []float32{0.9, 0.2, 0.5, 0.5, 0.7}
	for _, c := range []struct{ first, end, want int }{{0, 1, 0}, {1, 2, 4}, {1, 3, 2}, {2, 4, 2}, {3, 5, 1}} {
		if got := rank(scores, c.first, c.end); got != c.want {
			t.Errorf("rank of [%d,%d) is %d, want %d", c.first, c.end, got, c.want)
		}
	}
}

func TestKeeping(t *testing.T) {
	// Two sets that count alike: one of four pictures, one of two.
	known := []weighted{{0.1, 0.25}, {0.2, 0.25}, {0.3, 0.25}, {0.4, 0.25}, {0.35, 0.5}, {0.15, 0.5}}
	for _, c := range []struct {
		share float64
		want  float32
	}{{1, 0.1}, {0.875, 0.15}, {0.9, 0.1}, {0.5, 0.3}, {0.1, 0.4}} {
		if got := keeping(known, c.share); got != c.want {
			t.Errorf("keeping %v: %v, want %v", c.share, got, c.want)
		}
	}
	if got := keeping(nil, 0.9); !math.IsInf(float64(got), -1) {
		t.Errorf("nothing known: %v", got)
	}
	if got := below([]float32{0.1, 0.2, 0.3}, 0.2); got != 33.33 {
		t.Errorf("below: %v%%, want 33.33", got)
	}
}
