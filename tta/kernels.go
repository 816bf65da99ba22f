package tta

import "lqa/quant/qtype"

// Kernels do the large sums of a session outside of Go, on SIMD, with the bits
// of the plain loops here. They have the label table and, of the adapter's
// cache, a copy of each key. Go's own stay complete: after an error the
// session goes on without them.
type Kernels interface {
	// Cosines writes numeric.Dot of f [D] and each label to dst [C].
	Cosines(dst, f []float32) error
	// Clear empties all slots.
	Clear() error
	// Keep puts a key, codes [D] times scale > 0, into a slot.
	Keep(slot int, scale float32, codes []int8) error
	// Votes writes e^(-β(1 - key·f)), where f is codes [D] times scale, to
	// dst[slot] for each slot with a key; the rest of dst is arbitrary. dst may
	// have the first slots alone.
	Votes(dst []float32, scale float32, codes []int8) error
	// Bytes is how much memory they hold.
	Bytes() int
	Close() error
}

// KernelShape is what Kernels are made for.
type KernelShape struct {
	Labels [][]float32 // [C][D]; not kept
	Slots  int         // of keys
	Betas  []Beta      // in the order of their slots
}

// Beta is the sharpness of the votes of slots from a multiple of four on.
type Beta struct {
	From int
	Beta float32
}

// kernelLabels is from where on a session has Kernels: for fewer labels the
// plain loops take less than a tenth of a millisecond, and no more memory.
const kernelLabels = 32

// kernels are a session's, or none; adapters share them. Their keys are those
// of the cache that asked last.
type kernels struct {
	k     Kernels
	owner *keys
}

// drop goes on without kernels.
func (s *kernels) drop() {
	if s.k != nil {
		s.k.Close()
	}
	s.k, s.owner = nil, nil
}

// did drops kernels that fail.
func (s *kernels) did(err error) bool {
	if err != nil {
		s.drop()
	}
	return err == nil
}

// cosines writes f's cosine with each label.
func (s *kernels) cosines(dst, table, f []float32) {
	if s.k == nil || !s.did(s.k.Cosines(dst, f)) {
		cosines(dst, table, f)
	}
}

func (s *kernels) keep(c *cache, slot int) error {
	y := c.key(slot)
	return s.k.Keep(c.first+slot, y.scale, y.codes)
}

// keys are those of an adapter's caches, which kernels may have a copy of.
type keys struct {
	kernels *kernels // nil: none
	frame   *exemplar
	caches  []*cache
	like    []float32 // e^(-β(1 - frame·key)) of each slot, cache after cache
}

func newKeys(s Space, frame *exemplar, floats bool, caches ...*cache) keys {
	k := keys{frame: frame, caches: caches}
	n := 0
	for _, c := range caches {
		c.first = qtype.RoundUp(n, 4) // as kernels group them
		n = c.first + len(c.scale)
	}
	k.like = make([]float32, n)
	if !floats {
		k.kernels = s.kernels
	}
	return k
}

// lqaFirst is the first slot of lqa's negative cache among those of both.
func lqaFirst(labels int) int { return qtype.RoundUp(lqaPositives*labels, 4) }

// vote fills like.
func (k *keys) vote() {
	if s := k.kernels; s != nil && s.k != nil && (s.owner == k || s.did(k.lend())) &&
		s.did(s.k.Votes(k.like, k.frame.scale, k.frame.codes)) {
		return
	}
	for i, beta := range []float32{lqaBeta, lqaNegBeta}[:len(k.caches)] {
		k.caches[i].votes(k.like, k.frame, beta)
	}
}

// lend gives all keys to the kernels.
func (k *keys) lend() error {
	s := k.kernels
	if err := s.k.Clear(); err != nil {
		return err
	}
	for _, c := range k.caches {
		for l := range c.count {
			for slot, end := c.slots(l); slot < end; slot++ {
				if err := s.keep(c, slot); err != nil {
					return err
				}
			}
		}
	}
	s.owner = k
	return nil
}

// keep tells of a key that came into one of the caches.
func (k *keys) keep(c *cache, slot int) {
	if s := k.kernels; s != nil && s.owner == k {
		s.did(s.keep(c, slot))
	}
}

// forget is for keys that changed all at once.
func (k *keys) forget() {
	if s := k.kernels; s != nil && s.owner == k {
		s.owner = nil
	}
}
