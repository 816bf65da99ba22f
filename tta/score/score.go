// Package score does the large sums of a session on the engine's kernels, in a
// memory of their own beside the model's, which is fixed: a hundredth of what a
// vision transformer takes for a frame, with a thousand labels.
package score

import (
	"encoding/binary"
	"math"
	"slices"

	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/tta"
)

// scorer is tta.Kernels on a host.
type scorer struct {
	dev           *device.Device
	slots, width  int    // of keys; the width in bytes, padded
	f, y          uint32 // a frame, its cosines with the labels
	x, like       uint32 // the frame's codes, its votes
	keys, scales  uint32
	cosine, votes uint32 // command lists
	bytes         []byte // staging
}

// On makes tta.Kernels on hosts of its own, which have one thread.
func On(newHost func() device.Host) func(tta.KernelShape) (tta.Kernels, error) {
	return func(shape tta.KernelShape) (tta.Kernels, error) {
		h := newHost()
		s, err := start(h, shape)
		if err != nil {
			h.Close()
			return nil, err
		}
		return s, nil
	}
}

func start(h device.Host, shape tta.KernelShape) (*scorer, error) {
	c, d := len(shape.Labels), len(shape.Labels[0])
	s := &scorer{slots: shape.Slots, width: (d + 31) / 32 * 32}
	var l device.Layout
	alloc := func(bytes int) uint32 { return l.Alloc(device.Activations, bytes) }
	c16, d4 := (c+15)/16*16, (d+3)/4*4
	table := l.Alloc(device.Weights, 4*c16*d4)
	s.f, s.y = alloc(4*d4), alloc(4*c16)
	n := (s.slots + 3) / 4 * 4
	s.x, s.keys, s.scales, s.like = alloc(kernel.VoteHead+2*s.width), alloc(n*s.width), alloc(4*n), alloc(4*n)
	cosine := kernel.Dots{X: s.f, W: table, Y: s.y, K: d, N: c}.Append(nil).End()
	var votes kernel.List
	end := s.slots
	for _, b := range slices.Backward(shape.Betas) {
		at := uint32(4 * b.From)
		votes = kernel.Vote{X: s.x, Keys: s.keys + uint32(b.From*s.width), Scales: s.scales + at, Y: s.like + at, N: end - b.From, K: d, Beta: b.Beta}.Append(votes)
		end = b.From
	}
	votes = votes.End()
	s.cosine, s.votes = l.Alloc(device.Commands, 4*len(cosine)), l.Alloc(device.Commands, 4*len(votes))
	var err error
	if s.dev, err = device.Start(h, &l, device.Options{Lists: []kernel.List{cosine, votes}}); err != nil {
		return nil, err
	}
	if err := s.dev.WriteU32(s.cosine, cosine); err != nil {
		return nil, err
	}
	if err := s.dev.WriteU32(s.votes, votes); err != nil {
		return nil, err
	}
	// By panels: all at once would be as much again in Go's memory.
	for i := 0; i < c; i += 16 {
		if err := s.dev.WriteF32(table+uint32(4*i*d4), kernel.PackDots(shape.Labels[i:min(i+16, c)], d)); err != nil {
			return nil, err
		}
	}
	// Once before there are keys: a host keeps views of what it is asked for first.
	if err := s.Cosines(make([]float32, c), shape.Labels[0]); err != nil {
		return nil, err
	}
	return s, s.Votes(make([]float32, s.slots), 0, make([]int8, d))
}

// Cosines implements tta.Kernels.
func (s *scorer) Cosines(dst, f []float32) error {
	if err := s.dev.WriteF32(s.f, f); err != nil {
		return err
	}
	if err := s.dev.Run(s.cosine); err != nil {
		return err
	}
	return s.dev.ReadF32(s.y, dst)
}

// Clear implements tta.Kernels.
func (s *scorer) Clear() error { return s.dev.Write(s.scales, make([]byte, 4*s.slots)) }

// Keep implements tta.Kernels.
func (s *scorer) Keep(slot int, scale float32, codes []int8) error {
	s.bytes = s.bytes[:0]
	for _, c := range codes {
		s.bytes = append(s.bytes, byte(c))
	}
	if err := s.dev.Write(s.keys+uint32(slot*s.width), s.bytes); err != nil {
		return err
	}
	s.bytes = binary.LittleEndian.AppendUint32(s.bytes[:0], math.Float32bits(scale))
	return s.dev.Write(s.scales+uint32(4*slot), s.bytes)
}

// Votes implements tta.Kernels.
func (s *scorer) Votes(dst []float32, scale float32, codes []int8) error {
	s.bytes = binary.LittleEndian.AppendUint32(s.bytes[:0], math.Float32bits(scale))
	s.bytes = append(s.bytes, make([]byte, kernel.VoteHead-4)...)
	for _, c := range codes {
		s.bytes = append(s.bytes, byte(c), byte(int16(c)>>8))
	}
	if err := s.dev.Write(s.x, s.bytes); err != nil {
		return err
	}
	if err := s.dev.Run(s.votes); err != nil {
		return err
	}
	return s.dev.ReadF32(s.like, dst)
}

// Bytes implements tta.Kernels.
func (s *scorer) Bytes() int { return s.dev.Memory().Total }

// Close implements tta.Kernels.
func (s *scorer) Close() error { return s.dev.Close() }
