package kernel

import (
	"cmp"
	"slices"

	"lqa/quant/qtype"
)

// trialShapes are how many of a model's layer shapes are timed.
const trialShapes = 2

// Trial is a list of the integer GEMMs that lists spend most of their time in,
// one of a shape, for timing Paths. Its buffers lie from offset from on, end
// before the size that is returned and may hold anything. low says whether the
// form matters; an empty list, that nothing does.
func Trial(lists []List, from int) (trial List, size int, low bool) {
	type shape struct {
		op             Op
		m, k, n, group uint32
	}
	type layer struct {
		shape
		args []uint32
		macs int
	}
	var layers []layer
	for _, l := range lists {
		for op, args := range l.commands() {
			if op < opGEMMQ8C || op > opGEMMQ6Codes || op == opQuantLow {
				continue
			}
			s := shape{op, args[8], args[9], args[10], args[12]}
			i := slices.IndexFunc(layers, func(l layer) bool { return l.shape == s })
			if i < 0 {
				i = len(layers)
				layers = append(layers, layer{shape: s, args: args})
			}
			layers[i].macs += int(s.m) * int(s.k) * int(s.n) * 8
		}
	}
	slices.SortStableFunc(layers, func(a, b layer) int { return cmp.Compare(b.macs, a.macs) })
	next := from
	at := func(bytes int) uint32 {
		offset := next
		next += qtype.RoundUp(bytes, 16)
		return uint32(offset)
	}
	for _, l := range layers[:min(len(layers), trialShapes)] {
		a := slices.Clone(l.args)
		m, k, panels := int(l.m), int(l.k), int(l.n)
		a[0], a[1], a[2] = at(2*m*qtype.RoundUp(k, 16)), at(8*m), at(m*k) // Q, S, Starts
		a[3], a[4], a[5] = at(panels*8*k), at(panels*4*k), at(panels*96)  // codes, scales, Cols
		a[6], a[7] = at(m*int(a[11])), at(int(a[13]))                     // Y, Scratch
		trial = trial.add(l.op, a...)
		low = low || l.op >= opGEMMQ4
	}
	if len(trial) > 0 {
		trial = trial.End()
	}
	return trial, next, low
}
