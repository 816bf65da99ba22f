package clip

import (
	"slices"
	"sort"
	"sync"
)

// Canonical decomposition and composition of Unicode (UAX #15), for all
// characters of the version that unicode.go names.

const (
	firstMark = 0x300 // text of characters below is in NFC

	hangulBase = 0xac00
	hangulLast = 0xd7a3
	leadBase   = 0x1100
	leads      = 19
	vowelBase  = 0x1161
	vowels     = 21
	tailBase   = 0x11a7 // no tail
	tails      = 28

	classBits = 8
	runeBits  = 21
	runeMask  = 1<<runeBits - 1
)

// normal holds unicode.go, each field sorted: keys in the upper bits of an
// entry, what they stand for in the lower.
type normal struct {
	apart    []uint64 // character, its first part, its second or 0
	together []uint64 // first part, second, character
	classes  []uint64 // character, combining class
}

var normals = sync.OnceValue(func() *normal {
	n := new(normal)
	pack := func(a, b, c rune) uint64 { return uint64(a)<<(2*runeBits) | uint64(b)<<runeBits | uint64(c) }
	first, second, r := []rune(firsts), []rune(seconds), rune(0)
	for i, step := range []rune(composed) {
		if r += step; step >= 0xe000 {
			r -= 0x800
		}
		n.apart = append(n.apart, pack(r, first[i], second[i]))
		n.together = append(n.together, pack(first[i], second[i], r))
	}
	for s := []rune(apart); len(s) > 0; s = s[3:] {
		n.apart = append(n.apart, pack(s[0], s[1], s[2]))
	}
	for s := []rune(single); len(s) > 0; s = s[2:] {
		n.apart = append(n.apart, pack(s[0], s[1], 0))
	}
	from := rune(0xf900)
	for _, to := range ideographs {
		if from != to {
			n.apart = append(n.apart, pack(from, to, 0))
		}
		if from++; from == 0xfada {
			from = 0x2f800
		}
	}
	r = 0
	for s := []rune(marks); len(s) > 0; s = s[3:] {
		r += s[0]
		for last := r + s[1]; ; r++ {
			n.classes = append(n.classes, uint64(r)<<runeBits|uint64(s[2]))
			if r == last {
				break
			}
		}
	}
	ascend(n.apart)
	ascend(n.together)
	return n
})

// ascend sorts. It is sort's and not slices', whose each kind is 13 kB of the
// download.
func ascend(list []uint64) { sort.Slice(list, func(i, j int) bool { return list[i] < list[j] }) }

// lookup finds the entry with a key above its lowest bits, and returns those.
func lookup(sorted []uint64, key uint64, bits int) (uint64, bool) {
	i, _ := slices.BinarySearch(sorted, key<<bits)
	if i == len(sorted) || sorted[i]>>bits != key {
		return 0, false
	}
	return sorted[i] & (1<<bits - 1), true
}

// decompose appends what r is put together from, in full (NFD).
func decompose(dst []rune, r rune) []rune {
	if hangulBase <= r && r <= hangulLast {
		i := r - hangulBase
		dst = append(dst, leadBase+i/(vowels*tails), vowelBase+i/tails%vowels)
		if i%tails > 0 {
			dst = append(dst, tailBase+i%tails)
		}
		return dst
	}
	parts, ok := lookup(normals().apart, uint64(r), 2*runeBits)
	if !ok {
		return append(dst, r)
	}
	dst = decompose(dst, rune(parts>>runeBits))
	if second := rune(parts & runeMask); second > 0 {
		dst = append(dst, second)
	}
	return dst
}

// compose is text in NFC.
func compose(text []rune) []rune {
	parts := make([]rune, 0, len(text)+len(text)/2)
	for _, r := range text {
		parts = decompose(parts, r)
	}
	// Marks between two starters go by class, then by place: both stand above
	// the rune.
	all := make([]uint64, len(parts))
	first := 0
	for i, r := range parts {
		c := markClass(r)
		if c == 0 {
			ascend(all[first:i])
			first = i + 1
		}
		all[i] = c<<(64-classBits) | uint64(i)<<runeBits | uint64(r)
	}
	ascend(all[first:])

	out := parts[:0]
	starter, before := -1, uint64(0) // before is the class of the last rune of out
	for _, v := range all {
		r, c := rune(v&runeMask), v>>(64-classBits)
		if starter >= 0 && (starter == len(out)-1 || before < c) {
			if both, ok := combine(out[starter], r); ok {
				out[starter] = both
				continue
			}
		}
		if before = c; c == 0 {
			starter = len(out)
		}
		out = append(out, r)
	}
	return out
}

// markClass is the canonical combining class of r.
func markClass(r rune) uint64 {
	c, _ := lookup(normals().classes, uint64(r), runeBits)
	return c
}

// combine is the character that a and b make.
func combine(a, b rune) (rune, bool) {
	switch {
	case leadBase <= a && a < leadBase+leads && vowelBase <= b && b < vowelBase+vowels:
		return hangulBase + ((a-leadBase)*vowels+b-vowelBase)*tails, true
	case hangulBase <= a && a <= hangulLast && (a-hangulBase)%tails == 0 && tailBase < b && b < tailBase+tails:
		return a + b - tailBase, true
	}
	both, ok := lookup(normals().together, uint64(a)<<runeBits|uint64(b), runeBits)
	return rune(both), ok
}
