// Package order puts frames of a pool in the order of a stream: the ways in
// which pictures come at a camera, from shuffled as papers have it to clips with
// cuts, gaps and changing light. Orders are pure functions of labels and a seed,
// the same on every platform.
package order

import "lqa/tta/shift"

// Step is one frame of a stream.
type Step struct {
	At     int  // which frame of the pool
	Domain int  // under which of the caller's conditions it is seen; 0 is the first
	Cut    bool // another thing comes into view with it
}

// Shuffled is all n frames, each once.
func Shuffled(n int, seed uint64) []Step {
	return steps(permutation(n, shift.NewSource(seed)))
}

// Block is all frames in runs of one label, run long where that many are left;
// two runs of a label follow each other only where no other is left.
func Block(labels []int, run int, seed uint64) []Step {
	s := shift.NewSource(seed)
	left := byLabel(labels, s)
	var out []Step
	for last := -1; ; {
		var ready []int
		for l, frames := range left {
			if len(frames) > 0 && (l != last || len(out)+len(frames) == len(labels)) {
				ready = append(ready, l)
			}
		}
		if len(ready) == 0 {
			return out
		}
		last = ready[s.N(len(ready))]
		n := min(run, len(left[last]))
		out = append(out, steps(left[last][:n])...)
		out[len(out)-n].Cut = true
		left[last] = left[last][n:]
	}
}

// Video is photos of which each has views frames, one after the other in the
// pool: near-duplicates, then the next photo.
func Video(photos, views int, seed uint64) []Step {
	out := make([]Step, 0, photos*views)
	for _, p := range permutation(photos, shift.NewSource(seed)) {
		for v := range views {
			out = append(out, Step{At: p*views + v, Cut: v == 0})
		}
	}
	return out
}

// Imbalanced has shares that fall exponentially from label to label, the first
// ratio times the last, shuffled. Which label is first is the seed's choice;
// every label has one frame at least, and no frame comes twice.
func Imbalanced(labels []int, ratio float64, seed uint64) []Step {
	s := shift.NewSource(seed)
	frames := byLabel(labels, s)
	most := 0
	for _, f := range frames {
		most = max(most, len(f))
	}
	// ratio^(1/(k-1)) by bisection: no power function has the same bits everywhere.
	lo, hi := 1., ratio
	for range 60 {
		mid, power := (lo+hi)/2, 1.
		for range len(frames) - 1 {
			power *= mid
		}
		if power > ratio {
			hi = mid
		} else {
			lo = mid
		}
	}
	var out []int
	share := float64(most)
	for _, l := range permutation(len(frames), s) {
		out = append(out, frames[l][:min(max(1, int(share+.5)), len(frames[l]))]...)
		share /= lo
	}
	return steps(shuffle(out, s))
}

// Few shows k labels alone, in runs of run, n frames in all; frames repeat,
// reshuffled, where a label has not enough.
func Few(labels []int, k, run, n int, seed uint64) []Step {
	s := shift.NewSource(seed)
	frames := byLabel(labels, s)
	chosen := permutation(len(frames), s)[:min(k, len(frames))]
	next := make([]int, len(frames))
	var out []Step
	for last := -1; len(out) < n; {
		l := chosen[s.N(len(chosen))]
		if l == last && len(chosen) > 1 {
			continue
		}
		last = l
		for i := range min(run, n-len(out)) {
			if next[l] == len(frames[l]) {
				next[l] = 0
				shuffle(frames[l], s)
			}
			out = append(out, Step{At: frames[l][next[l]], Cut: i == 0})
			next[l]++
		}
	}
	return out
}

// Domains shuffles n frames and gives them the domains of plan, each for an
// equal part of the stream. Slow drift is {0, 1, 2, 1} with domains of rising
// severity, sudden drift {0, 1}.
func Domains(n int, plan []int, seed uint64) []Step {
	out := Shuffled(n, seed)
	for i := range out {
		out[i].Domain = plan[i*len(plan)/n]
	}
	return out
}

// Recurring shuffles n frames; the domain changes every run frames, round and
// round through all.
func Recurring(n, domains, run int, seed uint64) []Step {
	out := Shuffled(n, seed)
	for i := range out {
		out[i].Domain = i / run % domains
	}
	return out
}

// Poison returns count frames of those that the model takes for one label,
// wrongly and most confidently. Of the labels that have so many the seed
// chooses; if none has, it is the one that has most.
func Poison(labels, answers []int, confidence []float32, count int, seed uint64) []int {
	wrong := make(map[int][]int)
	var order []int // of labels, by first wrong frame: maps have none
	most := 0
	for i, a := range answers {
		if a == labels[i] {
			continue
		}
		if wrong[a] == nil {
			order = append(order, a)
		}
		wrong[a] = append(wrong[a], i)
		most = max(most, len(wrong[a]))
	}
	var ready []int
	for _, a := range order {
		if len(wrong[a]) >= min(count, most) {
			ready = append(ready, a)
		}
	}
	if len(ready) == 0 {
		return nil
	}
	frames := wrong[ready[shift.NewSource(seed).N(len(ready))]]
	for i := range frames { // insertion: there are few
		for j := i; j > 0 && confidence[frames[j]] > confidence[frames[j-1]]; j-- {
			frames[j], frames[j-1] = frames[j-1], frames[j]
		}
	}
	return frames[:min(count, len(frames))]
}

// Insert puts frames into a stream, the first before its step at, the others
// every steps later: 0 is a burst. at returns where they are in the new stream.
func Insert(stream []Step, frames []int, at, every int) (out []Step, where []int) {
	for i, s := range stream {
		for len(where) < len(frames) && i >= at+len(where)*every {
			where = append(where, len(out))
			out = append(out, Step{At: frames[len(where)-1]})
		}
		out = append(out, s)
	}
	return out, where
}

// byLabel returns each label's frames, shuffled; labels are 0..k-1, those
// without frames left out.
func byLabel(labels []int, s *shift.Source) (frames [][]int) {
	for i, l := range labels {
		for len(frames) <= l {
			frames = append(frames, nil)
		}
		frames[l] = append(frames[l], i)
	}
	kept := frames[:0]
	for _, f := range frames {
		if len(f) > 0 {
			kept = append(kept, shuffle(f, s))
		}
	}
	return kept
}

func permutation(n int, s *shift.Source) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	return shuffle(p, s)
}

// shuffle is Fisher and Yates', in place.
func shuffle(p []int, s *shift.Source) []int {
	for i := len(p) - 1; i > 0; i-- {
		j := s.N(i + 1)
		p[i], p[j] = p[j], p[i]
	}
	return p
}

func steps(frames []int) []Step {
	out := make([]Step, len(frames))
	for i, f := range frames {
		out[i].At = f
	}
	return out
}
