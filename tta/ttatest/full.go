// Package ttatest makes a session's worst case, for measuring.
package ttatest

import (
	"encoding/binary"
	"hash/crc32"
	"math"

	"lqa/quant/numeric"
)

// Full takes the state of a session that has seen nothing, of so many labels of
// a width and with an adapter whose state ends with lqa's, to that of one whose
// caches have no room left: of each label three views, and two doubtful ones
// that speak against six labels each.
func Full(empty []byte, labels, width int) []byte {
	const version, header, checksum = 2, 16, 4
	le := binary.LittleEndian
	state := append([]byte{}, empty[:len(empty)-checksum-(header+2*labels)]...)
	for _, v := range []int{version, labels, width, 5 * labels} {
		state = le.AppendUint32(state, uint32(v))
	}
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
		state = append(state, 2)
		for range 2 {
			entry(1)
			state = append(state, 6)
			for k := range 6 {
				state = le.AppendUint16(state, uint16(k*labels/6))
			}
		}
	}
	// The adapter's length stands behind magic, version, name, fingerprint and
	// what was taught: nothing.
	at := 4 + 2 + int(state[5]) + 8 + 8
	le.PutUint32(state[at:], uint32(len(state)-at-4))
	return le.AppendUint32(state, crc32.ChecksumIEEE(state))
}
