package page

import (
	"slices"
	"sort"
)

// window holds the latest values of a series.
type window struct {
	values []float64
	next   int
	size   int
}

func (w *window) add(v float64) {
	if len(w.values) < w.size {
		w.values = append(w.values, v)
		return
	}
	w.values[w.next] = v
	w.next = (w.next + 1) % w.size
}

// percentile is the value below which the share p (0..1) lies, nearest rank;
// 0 without values.
func (w *window) percentile(p float64) float64 {
	if len(w.values) == 0 {
		return 0
	}
	s := slices.Clone(w.values)
	sort.Slice(s, func(i, j int) bool { return s[i] < s[j] }) // slices' would be 13 kB of program
	return s[min(len(s)-1, int(p*float64(len(s))))]
}

// rate counts events a second over the last two seconds.
type rate struct{ times []float64 } // milliseconds

func (r *rate) add(now float64) {
	r.times = append(r.times, now)
	old := 0
	for old < len(r.times) && r.times[old] < now-2000 {
		old++
	}
	r.times = slices.Delete(r.times, 0, old)
}

func (r *rate) perSecond(now float64) float64 {
	n := 0
	for _, t := range r.times {
		if t >= now-2000 {
			n++
		}
	}
	if n < 2 {
		return 0
	}
	return float64(n-1) / (r.times[len(r.times)-1] - r.times[len(r.times)-n]) * 1000
}

// timings are the latest frames' times by stage, in milliseconds.
type timings struct {
	view, encode, adapt, total window
	frames                     rate
}

func newTimings() timings {
	const size = 120
	return timings{view: window{size: size}, encode: window{size: size}, adapt: window{size: size}, total: window{size: size}}
}

func (t *timings) add(now, view, encode, adapt float64) {
	t.view.add(view)
	t.encode.add(encode)
	t.adapt.add(adapt)
	t.total.add(view + encode + adapt)
	t.frames.add(now)
}
