package main

import (
	"math"
	"strings"
	"testing"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-3 }

// TestInterval: 1, 2, 3, 4 have mean 2.5 and standard error √(5/3/4) = 0.6455;
// three degrees of freedom, 3.182.
func TestInterval(t *testing.T) {
	if s := interval([]float64{1, 2, 3, 4}); !near(s.Mean, 2.5) || !near(s.Low, 2.5-2.0540) || !near(s.High, 2.5+2.0540) {
		t.Errorf("%+v", s)
	}
	if s := interval([]float64{7}); s.Mean != 7 || s.Low > -1e300 || s.High < 1e300 {
		t.Errorf("one value says nothing of its spread: %+v", s)
	}
	for df := 1; df < 200; df++ {
		if a, b := studentT(df), studentT(df+1); b >= a || b < 1.96 {
			t.Errorf("%d degrees of freedom: %v, one more: %v", df, a, b)
		}
	}
	if q := studentT(60); !near(q, 2.001) {
		t.Errorf("60 degrees of freedom: %v, want 2.000", q)
	}
}

// TestDiffer pairs splits by name, whatever their order.
func TestDiffer(t *testing.T) {
	line := func(variant, set string, top1, cosine float64) rounded {
		return rounded{Variant: variant, Set: set, Split: "test", N: 10, Bytes: int64(100 * len(variant)), Top1: top1, CosineMean: cosine}
	}
	all := []rounded{
		line(float32Variant, "x", 60, 1), line(float32Variant, "y", 90, 1),
		line("a", "x", 50, 0.9), line("a", "y", 80, 0.8), line("bb", "y", 70, 0.7), line("bb", "x", 45, 0.9),
	}
	d := differ("a", "bb", all)
	if d.Sets != 2 || d.Top1.Mean != 7.5 || !near(d.Cosine.Mean, 0.05) || d.Bytes != 100 || d.AgainstBytes != 200 {
		t.Errorf("%+v", d)
	}
	table := quantTable(all, []difference{d})
	for _, want := range []string{"| a | 100 | 7.00 |", "| x test | 10 | 60.0 | 50.0 | ", "| a | bb | 100 | 200 | 2 | +7.50 ("} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
}

// TestDrift: pictures that nobody could read count in neither mean nor flips.
func TestDrift(t *testing.T) {
	of := func(best []int, e ...[]float32) answers { return answers{&features{Embeddings: e}, best} }
	var l rounded
	l.CosineMin = 1
	l.drift(of([]int{0, -1, 1}, []float32{1, 0}, nil, []float32{0, 1}), of([]int{0, -1, 0}, []float32{1, 0}, nil, []float32{0.6, 0.8}))
	if !near(l.CosineMean, 0.9) || !near(l.CosineMin, 0.8) || l.Flips != 50 {
		t.Errorf("%+v", l)
	}
}
