package tta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"lqa/quant/numeric"
	"lqa/quant/qtype"
)

// key is a vector of length 1, rounded.
type key struct {
	codes []int8  // [D] round(x/scale)
	scale float32 // a float16 value
}

func newKey(d int) key { return key{codes: make([]int8, d)} }

func (a *key) set(x []float32) { a.scale = qtype.QuantizeRow(a.codes, x) }

func (a *key) dot(b *key) float32 {
	return float32(float32(dotInt8(a.codes, b.codes)) * float32(a.scale*b.scale))
}

// exemplar is a frame as caches keep it.
type exemplar struct {
	key
	float []float32 // [D] the frame itself, read where keys are floats
}

// cache holds up to per exemplars of each label; those of label l stand in
// slots l·per and following.
type cache struct {
	per, d  int
	first   int       // slot of the first among those of all caches
	used    int       // exemplars in all
	count   []uint8   // [C]
	entropy []float32 // [C·per]
	scale   []float32 // [C·per]
	codes   []int8    // [C·per][D]
	when    []uint32  // [C·per] number of the exemplar's frame; nil where nobody asks
	floats  []float32 // [C·per][D] in tests, nil else
}

func newCache(c, per, d int, floats bool) *cache {
	k := &cache{
		per: per, d: d,
		count:   make([]uint8, c),
		entropy: make([]float32, c*per),
		scale:   make([]float32, c*per),
		codes:   make([]int8, c*per*d),
	}
	if floats {
		k.floats = make([]float32, c*per*d)
	}
	return k
}

func (k *cache) clear() {
	clear(k.count)
	k.used = 0
}

// slots are those of a label's exemplars: from the first up to end.
func (k *cache) slots(label int) (first, end int) {
	first = label * k.per
	return first, first + int(k.count[label])
}

// offer stores x under label if a slot is free, or in place of the first
// exemplar of highest entropy if h is lower. It returns the slot, or -1.
func (k *cache) offer(label int, h float32, x *exemplar) int {
	slot := label * k.per
	if n := int(k.count[label]); n < k.per {
		slot += n
		k.count[label]++
		k.used++
	} else {
		for i := slot + 1; i < (label+1)*k.per; i++ {
			if k.entropy[i] > k.entropy[slot] {
				slot = i
			}
		}
		if h >= k.entropy[slot] {
			return -1
		}
	}
	k.set(slot, h, x)
	return slot
}

// set puts x into a slot.
func (k *cache) set(slot int, h float32, x *exemplar) {
	k.entropy[slot] = h
	k.scale[slot] = x.scale
	copy(k.codes[slot*k.d:], x.codes)
	if k.floats != nil {
		copy(k.floats[slot*k.d:], x.float)
	}
}

// votes writes e^(-β(1 - key·x)) of each key to dst at the key's slot.
func (k *cache) votes(dst []float32, x *exemplar, beta float32) {
	for l := range k.count {
		for slot, end := k.slots(l); slot < end; slot++ {
			dst[k.first+slot] = numeric.Exp(float32(-beta * (1 - k.dot(slot, x))))
		}
	}
}

// exemplars appends all of them, a vote of 1 being worth so many logits.
func (k *cache) exemplars(dst []Exemplar, votes []float32, unit float32) []Exemplar {
	for l := range k.count {
		for slot, end := k.slots(l); slot < end; slot++ {
			dst = append(dst, Exemplar{Slot: slot, Label: l, Frame: k.when[slot], Weight: float32(unit * votes[slot])})
		}
	}
	return dst
}

// key is the one in a slot, in the cache's memory.
func (k *cache) key(slot int) key {
	return key{k.codes[slot*k.d : (slot+1)*k.d], k.scale[slot]}
}

// dot returns key·x.
func (k *cache) dot(slot int, x *exemplar) float32 {
	if k.floats != nil {
		return numeric.Dot(k.floats[slot*k.d:(slot+1)*k.d], x.float)
	}
	y := k.key(slot)
	return y.dot(&x.key)
}

// dotInt8 is Σ a[i]·b[i], exact for up to 2¹⁷ codes. The slices have equal
// length.
func dotInt8(a, b []int8) int32 {
	var s0, s1, s2, s3 int32 // independent sums: integers add in any order
	for len(a) >= 8 && len(b) >= 8 {
		x, y := (*[8]int8)(a), (*[8]int8)(b)
		s0 += int32(x[0])*int32(y[0]) + int32(x[4])*int32(y[4])
		s1 += int32(x[1])*int32(y[1]) + int32(x[5])*int32(y[5])
		s2 += int32(x[2])*int32(y[2]) + int32(x[6])*int32(y[6])
		s3 += int32(x[3])*int32(y[3]) + int32(x[7])*int32(y[7])
		a, b = a[8:], b[8:]
	}
	for i, v := range a {
		s0 += int32(v) * int32(b[i])
	}
	return s0 + s1 + s2 + s3
}

// keyBytes are a key's but for its codes.
const keyBytes = 2

// A cache's state, little-endian: for each label the number of its exemplars u8
// and these, each its entropy f32, scale f16, codes [D] int8 and, where it is
// kept, the number of its frame u32.

// size is the length of the state.
func (k *cache) size() int { return len(k.count) + k.used*k.entryBytes() }

func (k *cache) entryBytes() int {
	n := 4 + keyBytes + k.d
	if k.when != nil {
		n += 4
	}
	return n
}

// appendLabel writes a label's part. more, if not nil, writes what follows an
// exemplar.
func (k *cache) appendLabel(b []byte, label int, more func(b []byte, slot int) []byte) []byte {
	b = append(b, k.count[label])
	for slot, end := k.slots(label); slot < end; slot++ {
		b = appendFloats(b, k.entropy[slot:slot+1])
		b = k.appendKey(b, slot)
		if k.when != nil {
			b = binary.LittleEndian.AppendUint32(b, k.when[slot])
		}
		if more != nil {
			b = more(b, slot)
		}
	}
	return b
}

// readLabel takes up a label's part, of frames up to seen, into a cache that
// has none of it, and returns the rest of b.
func (k *cache) readLabel(b []byte, label int, seen uint32, more func(b []byte, slot int) ([]byte, error)) ([]byte, error) {
	if len(b) < 1 {
		return nil, errShort
	}
	n := b[0]
	if int(n) > k.per {
		return nil, fmt.Errorf("%d exemplars for label %d, at most %d", n, label, k.per)
	}
	k.count[label] = n
	k.used += int(n)
	b = b[1:]
	for slot, end := k.slots(label); slot < end; slot++ {
		var err error
		if b, err = k.readEntry(b, slot, seen); err == nil && more != nil {
			b, err = more(b, slot)
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (k *cache) readEntry(b []byte, slot int, seen uint32) ([]byte, error) {
	if len(b) < k.entryBytes() {
		return nil, errShort
	}
	h := math.Float32frombits(binary.LittleEndian.Uint32(b))
	if !(h >= 0 && h <= maxEntropy) || math.Signbit(float64(h)) {
		return nil, fmt.Errorf("entropy %v", h)
	}
	k.entropy[slot] = h
	b, err := k.readKey(b[4:], slot)
	if err != nil || k.when == nil {
		return b, err
	}
	when := binary.LittleEndian.Uint32(b)
	if when < 1 || when > seen {
		return nil, fmt.Errorf("exemplar of frame %d of %d", when, seen)
	}
	k.when[slot] = when
	return b[4:], nil
}

func (k *cache) appendKey(b []byte, slot int) []byte {
	y := k.key(slot)
	return y.append(b)
}

func (k *cache) readKey(b []byte, slot int) ([]byte, error) {
	if len(b) < keyBytes+k.d {
		return nil, errShort
	}
	y := k.key(slot)
	err := y.read(b)
	k.scale[slot] = y.scale
	return b[keyBytes+k.d:], err
}

// maxEntropy is above ln C for every C up to MaxLabels.
const maxEntropy = 16

// append writes the scale f16 and the codes.
func (a *key) append(b []byte) []byte {
	b = numeric.AppendFloat16(b, a.scale)
	for _, c := range a.codes {
		b = append(b, byte(c))
	}
	return b
}

// read takes up what append wrote at the head of b, which has enough bytes.
func (a *key) read(b []byte) error {
	var scale [1]float32
	numeric.FromFloat16(scale[:], b[:2])
	if a.scale = scale[0]; !(a.scale > 0 && a.scale <= 1) {
		return fmt.Errorf("scale %v", a.scale)
	}
	square := int32(0)
	for i, c := range b[keyBytes : keyBytes+len(a.codes)] {
		if c == 0x80 { // -128: no rounding makes it
			return errors.New("code -128")
		}
		square += int32(int8(c)) * int32(int8(c))
		a.codes[i] = int8(c)
	}
	if !(float32(square)*float32(a.scale*a.scale) <= 1.1) { // 1.02 and what rounding adds
		return errors.New("exemplar longer than 1")
	}
	return nil
}

var errShort = errors.New("ends too early")
