// Package ttatest makes a session's worst case, for measuring.
package ttatest

import (
	"encoding/binary"
	"hash/crc32"
	"math"

	"lqa/quant/numeric"
)

// Full takes the state of a session that has seen nothing, of so many labels of
// a width and with the adapter lqa or stream, to that of one whose caches have
// no room left: of each label three views, and with lqa two doubtful ones that
// vote against six labels each, which are as many at least.
func Full(empty []byte, labels, width int) []byte {
	const checksum = 4
	le := binary.LittleEndian
	name := string(empty[6 : 6+int(empty[5])])
	// The adapter's length stands behind magic, version, name, fingerprint and
	// what was taught: nothing.
	length := 6 + len(name) + 8 + 8
	adapter := length + 4
	// The caches stand last: a count of each label's views, and of doubtful ones.
	counts, seen, doubtful := 2*labels, adapter+12, 2
	if name == "stream" {
		counts, seen, doubtful = labels, adapter+16, 0
	}
	state := append([]byte{}, empty[:len(empty)-checksum-counts]...)
	le.PutUint32(state[seen:], uint32(5*labels))
	seed := uint32(1)
	entry := func(entropy float32) {
		state = le.AppendUint32(state, math.Float32bits(entropy))
		state = numeric.AppendFloat16(state, 1/(11*float32(math.Sqrt(float64(width)))))
		for range width { // codes of ±15, so that its length is below 1
			seed = seed*1664525 + 1013904223
			state = append(state, byte(int(seed>>24)%31-15))
		}
	}
	for range labels {
		state = append(state, 3)
		for range 3 {
			entry(0.1)
			state = le.AppendUint32(state, 1) // its frame
		}
		if doubtful == 0 {
			continue
		}
		state = append(state, byte(doubtful))
		for range doubtful {
			entry(1)
			state = append(state, 6)
			for k := range 6 {
				state = le.AppendUint16(state, uint16(k*labels/6))
			}
		}
	}
	le.PutUint32(state[length:], uint32(len(state)-adapter))
	return le.AppendUint32(state, crc32.ChecksumIEEE(state))
}
