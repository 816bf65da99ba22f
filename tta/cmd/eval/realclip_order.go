package main

import (
	"math"
	"slices"
)

// Stand-ins until tta/shift/order is there.

// splitmix is Vigna's generator.
type splitmix uint64

func newSplitmix(seed, stream uint64) *splitmix {
	s := splitmix(seed<<8 + stream)
	return &s
}

func (s *splitmix) next() uint64 {
	*s += 0x9e3779b97f4a7c15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (s *splitmix) IntN(n int) int { return int(s.next() % uint64(n)) }

func (s *splitmix) Perm(n int) []int {
	p := make([]int, n)
	for i := range p {
		j := s.IntN(i + 1)
		p[i], p[j] = p[j], i
	}
	return p
}

func shuffled(label []int, seed uint64) []int {
	return newSplitmix(seed, 1).Perm(len(label))[:min(len(label), realClipFrames)]
}

func byLabel(label []int, r *splitmix) [][]int {
	groups := make([][]int, slices.Max(label)+1)
	for _, i := range r.Perm(len(label)) {
		groups[label[i]] = append(groups[label[i]], i)
	}
	return groups
}

// runs of length from the labels of which there are
func runs(groups [][]int, which []int, length int, r *splitmix) (order []int) {
	at := make([]int, len(groups))
	last := -1
	for len(order) < realClipFrames {
		l := which[r.IntN(len(which))]
		if l == last {
			continue
		}
		last = l
		for range length {
			order = append(order, groups[l][at[l]%len(groups[l])])
			at[l]++
		}
	}
	return order[:realClipFrames]
}

func block(label []int, seed uint64) []int {
	r := newSplitmix(seed, 2)
	g := byLabel(label, r)
	which := r.Perm(len(g))
	return runs(g, which, 20, r)
}

func few(label []int, seed uint64) []int {
	r := newSplitmix(seed, 3)
	g := byLabel(label, r)
	return runs(g, r.Perm(len(g))[:3], 40, r)
}

func imbalanced(label []int, seed uint64) (order []int) {
	r := newSplitmix(seed, 4)
	g := byLabel(label, r)
	for k, l := range r.Perm(len(g)) {
		n := float64(len(g[l])) * math.Pow(20, -float64(k)/float64(len(g)-1))
		order = append(order, g[l][:int(n)]...)
	}
	mixed := make([]int, len(order))
	for i, at := range r.Perm(len(order)) {
		mixed[i] = order[at]
	}
	return mixed
}
