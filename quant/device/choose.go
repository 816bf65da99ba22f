package device

import (
	"time"

	"lqa/quant/kernel"
)

// Timing is what a path took for a model's costliest layers.
type Timing struct {
	Path kernel.Path
	MS   float64 // a run of them, the least of some means
}

// How long candidates are timed. JavaScript engines compile hot functions anew,
// better, while they run: warm is enough for that on layers of any size.
const (
	warm   = 8 * time.Millisecond
	look   = 2 * time.Millisecond // of one candidate, in one round
	rounds = 3
)

// choose times the candidates in turn on the shapes that lists spend most of
// their time in, and returns the fastest. Chips and browsers differ by more
// than twice, and no name or version says which is which.
func choose(h Host, paths []kernel.Path, lists []kernel.List) (kernel.Path, []Timing, error) {
	trial, size, low := kernel.Trial(lists, kernel.ControlBytes)
	var timings []Timing
	for _, p := range paths {
		if low || !p.Form.Relaxed() {
			timings = append(timings, Timing{Path: p})
		}
	}
	if len(timings) < 2 || len(trial) == 0 {
		return paths[0], nil, nil
	}
	hosts := make([]Host, len(timings))
	defer func() {
		for _, h := range hosts {
			if h != nil {
				h.Close()
			}
		}
	}()
	words := make([]byte, 0, 4*len(trial))
	for _, w := range trial {
		words = append(words, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
	}
	// The mean time of runs that last for at least d together.
	run := func(h Host, d time.Duration) (float64, error) {
		begin, n := time.Now(), 0
		for n == 0 || time.Since(begin) < d {
			if err := h.Run(size); err != nil {
				return 0, err
			}
			n++
		}
		return time.Since(begin).Seconds() * 1000 / float64(n), nil
	}
	pages := (size + len(words) + slack + page - 1) / page
	for i := range timings {
		module, err := kernel.Module(kernel.Spec{Pages: pages, Path: timings[i].Path, Lists: []kernel.List{trial}})
		if err != nil {
			return paths[0], nil, err
		}
		hosts[i] = h.Alone()
		if err := hosts[i].Start(module, pages); err != nil {
			return paths[0], nil, err
		}
		if err := hosts[i].Write(size, words); err != nil {
			return paths[0], nil, err
		}
		if _, err := run(hosts[i], warm); err != nil {
			return paths[0], nil, err
		}
	}
	best := 0
	for round := range rounds {
		for i := range timings {
			ms, err := run(hosts[i], look)
			if err != nil {
				return paths[0], nil, err
			}
			if round == 0 || ms < timings[i].MS {
				timings[i].MS = ms
			}
			if round == rounds-1 && timings[i].MS < timings[best].MS {
				best = i
			}
		}
	}
	return timings[best].Path, timings, nil
}
