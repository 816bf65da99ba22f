package kernel

import (
	"slices"
	"sort"

	"lqa/quant/qtype"
)

// Trial is a list of the integer GEMMs that other lists spend most of their
// time in, one of a shape, each behind the quantization of its rows: for timing
// Paths, and for seeing that they agree.
type Trial struct {
	List List // empty: there is no integer GEMM
	Low  bool // it holds low-bit GEMMs: the form matters
	// From and End bound its buffers, which Fill gives something to compute.
	// Results are what Outputs, pairs of offset and size, name.
	From, End int
	Outputs   [][2]int
}

// trialShapes are how many of a model's layer shapes are tried.
const trialShapes = 2

// NewTrial makes the trial of lists; its buffers begin at from.
func NewTrial(lists []List, from int) *Trial {
	type shape struct {
		op            Op
		m, k, n, unit uint32
	}
	type layer struct {
		shape
		args []uint32
		macs int
	}
	bits := map[Op]int{opGEMMQ8C: 8, opGEMMQ4: 4, opGEMMQ5: 5, opGEMMQ6: 6, opGEMMQ7: 7,
		opGEMMQ8CCodes: 8, opGEMMQ4Codes: 4, opGEMMQ5Codes: 5, opGEMMQ6Codes: 6, opGEMMQ7Codes: 7}
	var layers []layer
	for _, l := range lists {
		for op, args := range l.commands() {
			if bits[op] == 0 {
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
	sort.SliceStable(layers, func(i, j int) bool { return layers[i].macs > layers[j].macs })
	t := &Trial{From: from, End: from}
	at := func(bytes int) uint32 {
		offset := t.End
		t.End += qtype.RoundUp(bytes, 16)
		return uint32(offset)
	}
	for _, l := range layers[:min(len(layers), trialShapes)] {
		a := slices.Clone(l.args)
		m, k, panels, b := int(l.m), int(l.k), int(l.n), bits[l.op]
		x := at(4*m*k + 64)
		a[0], a[1], a[2] = at(2*m*qtype.RoundUp(k, 16)), at(8*m), at(m*k)     // Q, S, Starts
		a[3], a[4], a[5] = at(panels*8*(k+16)), at(panels*4*k), at(panels*96) // codes, scales, Cols
		a[6], a[7] = at(m*int(a[11])), at(int(a[13]))                         // Y, Scratch
		a[14] = mask(false)
		if b == 8 {
			t.List = t.List.add(opQuant, x, a[0], a[1], l.m, l.k, 4*l.k)
		} else {
			t.List = t.List.add(opQuantLow, x, a[0], a[1], l.m, l.k, 4*l.k, a[2], l.unit, uint32(period(b)), uint32(-(int32(1) << (b - 1))))
			t.Low = true
		}
		t.List = t.List.add(l.op, a...)
		t.Outputs = append(t.Outputs, [2]int{int(a[6]), m * int(a[11])})
	}
	if len(t.List) > 0 {
		t.List = t.List.End()
	}
	return t
}

// Fill is what the buffers hold at first, again and again: words that are
// harmless as float32, as halves and as codes, and differ. Some are so small
// beside the others that rows have codes of both signs.
func (t *Trial) Fill() []byte {
	b := make([]byte, min(4*16381, t.End-t.From))
	s := uint32(1)
	for i := 0; i+4 <= len(b); i += 4 {
		s = s*1664525 + 1013904223
		b[i], b[i+1], b[i+2], b[i+3] = byte(s>>25), 0x3c, byte(s>>17)&0x7f, 0x34|byte(s>>28)&8
	}
	return b
}
