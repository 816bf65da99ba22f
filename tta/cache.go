package tta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"lqa/quant/numeric"
)

// exemplar is a frame as caches keep it.
type exemplar struct {
	codes []int8    // [D] round(f/scale)
	scale float32   // a float16 value
	float []float32 // [D] f itself, read where keys are floats
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
	floats  []float32 // [C·per][D] in tests, nil else
}

func newCache(c, per, d int, floats bool) cache {
	k := cache{
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
	for l, n := range k.count {
		for slot := l * k.per; slot < l*k.per+int(n); slot++ {
			dst[k.first+slot] = numeric.Exp(float32(-beta * (1 - k.dot(slot, x))))
		}
	}
}

// key is the codes in a slot.
func (k *cache) key(slot int) []int8 { return k.codes[slot*k.d : (slot+1)*k.d] }

// dot returns key·x.
func (k *cache) dot(slot int, x *exemplar) float32 {
	lo, hi := slot*k.d, (slot+1)*k.d
	if k.floats != nil {
		return numeric.Dot(k.floats[lo:hi], x.float)
	}
	return float32(float32(dotInt8(k.codes[lo:hi], x.codes)) * float32(k.scale[slot]*x.scale))
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

// An entry's bytes but its codes.
const (
	keyBytes   = 2 // scale
	entryBytes = 4 + keyBytes
)

func (k *cache) appendEntry(b []byte, slot int) []byte {
	return k.appendKey(binary.LittleEndian.AppendUint32(b, math.Float32bits(k.entropy[slot])), slot)
}

func (k *cache) appendKey(b []byte, slot int) []byte {
	b = numeric.AppendFloat16(b, k.scale[slot])
	for _, c := range k.codes[slot*k.d : (slot+1)*k.d] {
		b = append(b, byte(c))
	}
	return b
}

// readEntry checks an exemplar at the head of b, stores it if keep is set and
// returns the rest of b.
func (k *cache) readEntry(b []byte, slot int, keep bool) ([]byte, error) {
	if len(b) < entryBytes+k.d {
		return nil, errShort
	}
	h := math.Float32frombits(binary.LittleEndian.Uint32(b))
	if !(h >= 0 && h <= maxEntropy) || math.Signbit(float64(h)) {
		return nil, fmt.Errorf("entropy %v", h)
	}
	var codes []int8
	if keep {
		codes = k.codes[slot*k.d : (slot+1)*k.d]
	}
	scale, err := readKey(codes, b[4:entryBytes+k.d])
	if err != nil {
		return nil, err
	}
	if keep {
		k.entropy[slot], k.scale[slot] = h, scale
	}
	return b[entryBytes+k.d:], nil
}

// readKey stores the key at the head of b and returns the rest of b.
func (k *cache) readKey(b []byte, slot int) ([]byte, error) {
	if len(b) < keyBytes+k.d {
		return nil, errShort
	}
	var err error
	k.scale[slot], err = readKey(k.codes[slot*k.d:(slot+1)*k.d], b[:keyBytes+k.d])
	return b[keyBytes+k.d:], err
}

// maxEntropy is above ln C for every C up to MaxLabels.
const maxEntropy = 16

// readKey checks a scale f16 and the codes after it, and copies as many of them
// as codes takes.
func readKey(codes []int8, b []byte) (float32, error) {
	var scale [1]float32
	numeric.FromFloat16(scale[:], b[:2])
	if !(scale[0] > 0 && scale[0] <= 1) {
		return 0, fmt.Errorf("scale %v", scale[0])
	}
	b = b[2:]
	square := int32(0)
	for i, c := range b {
		if c == 0x80 { // -128: no rounding makes it
			return 0, errors.New("code -128")
		}
		square += int32(int8(c)) * int32(int8(c))
		if i < len(codes) {
			codes[i] = int8(c)
		}
	}
	if !(float32(square)*float32(scale[0]*scale[0]) <= 1.1) { // 1.02 and what rounding adds
		return 0, errors.New("exemplar longer than 1")
	}
	return scale[0], nil
}

var errShort = errors.New("ends too early")
