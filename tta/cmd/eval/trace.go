package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"lqa/tta"
	"lqa/tta/shift/order"
)

// trace is what a cell's plots are drawn from.
type trace struct {
	name   string      // of files
	title  string      // for people
	names  []string    // of methods
	right  [][]float64 // [method][frame] share of the seeds that were right; NaN where nothing counts
	belief []calibration
}

func newTrace(c *cell, set string, methods []tta.Method, plans []plan, results [][]outcome) *trace {
	name := fmt.Sprintf("%s-%s-%s-%d", set, c.Stream, c.Shift, c.Severity)
	if c.Detail != "" {
		name += "-" + c.Detail
	}
	t := &trace{name: strings.Map(slug, name), title: fmt.Sprintf("%s, %s, %s %d %s", set, c.Stream, c.Shift, c.Severity, c.Detail)}
	for m, method := range methods {
		var sum, n []float64
		var belief calibration
		for s, r := range results[m] {
			for i, ok := range r.score.ok {
				if len(n) == i {
					sum, n = append(sum, 0), append(n, 0)
				}
				if !r.score.counts[i] {
					continue
				}
				n[i]++
				if ok {
					sum[i]++
				}
			}
			belief.merge(results[m][s].score.calibration)
		}
		for i := range sum {
			sum[i] /= n[i] // NaN of nothing
		}
		t.names, t.right, t.belief = append(t.names, method.Name), append(t.right, sum), append(t.belief, belief)
	}
	return t
}

// window is how many frames a point of the plot is the mean of: 5 s.
const window = 5 * order.FPS

// write draws accuracy over time and reliability into dir.
func (t *trace) write(dir string) error {
	time := chart{title: t.title, x: "seconds", y: "right, %", xMax: 1, yMax: 100}
	belief := chart{title: t.title, x: "confidence, %", y: "right, %", xMax: 100, yMax: 100}
	for m, name := range t.names {
		line, marks := chartLine{name: name}, chartLine{name: name, dots: true}
		for i := 0; i+window <= len(t.right[m]); i += window {
			sum, n := 0., 0.
			for _, v := range t.right[m][i : i+window] {
				if !math.IsNaN(v) {
					sum += v
					n++
				}
			}
			at := (float64(i) + window/2.) / order.FPS
			line.points = append(line.points, [2]float64{at, 100 * sum / n})
			time.xMax = max(time.xMax, float64(i+window)/order.FPS)
		}
		for _, b := range t.belief[m].bins {
			if b.n > 0 {
				marks.points = append(marks.points, [2]float64{100 * b.confidence / float64(b.n), 100 * float64(b.right) / float64(b.n)})
			}
		}
		time.lines, belief.lines = append(time.lines, line), append(belief.lines, marks)
	}
	belief.lines = append(belief.lines, chartLine{name: "perfect", points: [][2]float64{{0, 0}, {100, 100}}, dashed: true})
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for name, c := range map[string]*chart{"time": &time, "reliability": &belief} {
		if err := os.WriteFile(filepath.Join(dir, t.name+"-"+name+".svg"), []byte(c.svg()), 0o666); err != nil {
			return err
		}
	}
	return nil
}
