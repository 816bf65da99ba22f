package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"lqa/tta"
	"lqa/tta/cmd/eval/dataset"
	"lqa/tta/shift/order"
)

// The suite soak plays a stream that does not end: photographs in blocks, or
// clips, over and over in new orders.
const (
	soakFrames = 100_000
	soakEnds   = 10_000 // frames at the beginning and at the end that are compared
)

var soakSets = []string{"cifar10", "hands"}

// soakLine is a JSON line of the suite soak.
type soakLine struct {
	Suite       string  `json:"suite"`
	Set         string  `json:"set"`
	Adapter     string  `json:"adapter"`
	N           int     `json:"n"`
	FirstTop1   float64 `json:"first_top1"`  // of the first 10,000 frames, percent
	LastTop1    float64 `json:"last_top1"`   // of the last
	Loss        float64 `json:"loss"`        // points, beside what zero-shot loses on the same frames
	HeapGrowth  int64   `json:"heap_growth"` // bytes, from the first 10,000 frames to the end
	StateGrowth int     `json:"state_growth"`
	StateBytes  int     `json:"state_bytes"`
	MS          float64 `json:"ms"`
	Met         bool    `json:"met"` // a loss of one point at most, and no growth
	Model       string  `json:"model"`
}

// soakSlack is what Go's own runtime may grow by, in bytes.
const soakSlack = 256 << 10

func soakSuite(ctx context.Context, r *run) error {
	return r.withModel(ctx, nil, func(ctx context.Context, m *model, splits []dataset.Split) error {
		methods, err := r.methods()
		if err != nil {
			return err
		}
		r.kinds = []string{"block", "camera"}
		scenes, err := r.scenes(splits)
		if err != nil {
			return err
		}
		var lines []soakLine
		for _, s := range scenes {
			if !slices.Contains(soakSets, s.set) {
				continue
			}
			if s.question, err = r.ask(m, s.split, asking{byTable, r.prompts}); err != nil {
				return err
			}
			r.progress.Begin(s.set, int64(s.pictures()), "pictures")
			l, err := r.look(ctx, m, s, condition{}, r.progress)
			if err != nil {
				return err
			}
			r.progress.Begin("soak", int64(len(methods)), "adapters")
			for _, method := range methods {
				r.progress.On(s.set + " " + method.Name)
				line, err := s.world.soak(ctx, method, l, s.endless, soakFrames, soakEnds)
				if err != nil {
					return err
				}
				line.Model = m.Name
				r.progress.Add(1)
				if err := r.print(line); err != nil {
					return err
				}
				lines = append(lines, line)
			}
		}
		r.tabulate(soakTable(lines))
		return nil
	})
}

// endless is the next part of a scene's stream.
func (s *scene) endless(part uint64) []order.Step {
	if s.clips != nil {
		return order.Camera(s.orderClips(), order.CameraOptions{Gaps: true}, part)
	}
	return order.Block(s.world.label, blockRun, part)
}

// soak plays parts until there are so many frames, and compares the ends.
func (w *world) soak(ctx context.Context, method tta.Method, l *look, next func(part uint64) []order.Step, frames, ends int) (soakLine, error) {
	line := soakLine{Suite: "soak", Set: w.set, Adapter: method.Name, N: frames}
	a := method.New(w.space)
	logits := make([]float32, len(w.space.Labels))
	var right, zero, count [2]float64
	var heap, state [2]int64
	var spent time.Duration
	n := 0
	for part := uint64(0); n < frames; part++ {
		if err := ctx.Err(); err != nil {
			return line, err
		}
		for _, s := range next(part) {
			if n == frames {
				break
			}
			start := time.Now()
			a.Adapt(logits, tta.Frame{Time: time.Duration(n) * frameTime, Embedding: l.embeddings[s.At], Logits: l.logits[s.At]})
			spent += time.Since(start)
			for _, v := range logits {
				if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
					return line, fmt.Errorf("%s, frame %d: a logit of %v", method.Name, n, v)
				}
			}
			for end, in := range [2]bool{n < ends, n >= frames-ends} {
				if want := w.label[s.At]; in && want >= 0 {
					count[end]++
					if w.judge(logits).label == want {
						right[end]++
					}
					if l.zero[s.At].label == want {
						zero[end]++
					}
				}
			}
			if n++; n == ends || n == frames {
				end := 0
				if n == frames {
					end = 1
				}
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				heap[end], state[end] = int64(m.HeapAlloc), int64(len(a.AppendState(nil)))
			}
		}
	}
	runtime.KeepAlive(a)
	share := func(x [2]float64, end int) float64 { return x[end] / max(1, count[end]) }
	line.FirstTop1, line.LastTop1 = percent(share(right, 0), 1), percent(share(right, 1), 1)
	line.Loss = percent(share(right, 0)-share(right, 1)-(share(zero, 0)-share(zero, 1)), 1)
	line.HeapGrowth, line.StateGrowth, line.StateBytes = heap[1]-heap[0], int(state[1]-state[0]), int(state[1])
	line.MS = float64(spent.Microseconds()/int64(frames)) / 1000
	line.Met = line.Loss <= 1 && line.HeapGrowth <= soakSlack
	return line, nil
}

func soakTable(lines []soakLine) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d frames in a row\n\n| set | adapter | first %d, %% | last, %% | loss beside zero-shot's | heap, bytes more | state, bytes | ms | |\n|---|---|---|---|---|---|---|---|---|\n", soakFrames, soakEnds)
	for _, l := range lines {
		met := "missed"
		if l.Met {
			met = "met"
		}
		fmt.Fprintf(&b, "| %s | %s | %.1f | %.1f | %+.2f | %d | %d | %.3f | %s |\n", l.Set, l.Adapter, l.FirstTop1, l.LastTop1, l.Loss, l.HeapGrowth, l.StateBytes, l.MS, met)
	}
	return b.String()
}
