package tta

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
	// dst[slot] for each slot with a key; the rest of dst [slots] is arbitrary.
	Votes(dst []float32, scale float32, codes []int8) error
	// Bytes is how much memory they hold.
	Bytes() int
	Close() error
}

// KernelShape is what Kernels are made for.
type KernelShape struct {
	Labels [][]float32 // [C][D]; not kept
	Slots  int
	Betas  []Beta // in the order of their slots
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
	owner *lqa
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

// votes fills a.like, or returns false: there are no kernels.
func (s *kernels) votes(a *lqa) bool {
	if s == nil || s.k == nil || s.owner != a && !s.did(s.own(a)) {
		return false
	}
	return s.did(s.k.Votes(a.like, a.frame.scale, a.frame.codes))
}

// own makes a's keys those that the kernels have.
func (s *kernels) own(a *lqa) error {
	if err := s.k.Clear(); err != nil {
		return err
	}
	for _, c := range []*cache{&a.pos, &a.neg} {
		for l, n := range c.count {
			for slot := l * c.per; slot < l*c.per+int(n); slot++ {
				if err := s.k.Keep(c.first+slot, c.scale[slot], c.codes[slot*c.d:(slot+1)*c.d]); err != nil {
					return err
				}
			}
		}
	}
	s.owner = a
	return nil
}

// keep tells of a key that came into one of a's caches.
func (s *kernels) keep(a *lqa, c *cache, slot int) {
	if s != nil && s.owner == a {
		s.did(s.k.Keep(c.first+slot, c.scale[slot], c.codes[slot*c.d:(slot+1)*c.d]))
	}
}

// forget is for keys that changed all at once.
func (s *kernels) forget(a *lqa) {
	if s != nil && s.owner == a {
		s.owner = nil
	}
}
