package tta

import (
	"encoding/binary"
	"fmt"
)

// chain gives the logits of one adapter to the next.
type chain struct {
	name          string
	first, second Adapter
}

func newLQASticky(s Space) Adapter {
	return &chain{"lqa+sticky", newLQA(s), newSticky(s)}
}

func (a *chain) Adapt(dst []float32, f Frame) {
	a.first.Adapt(dst, f)
	f.Logits = dst
	a.second.Adapt(dst, f)
}

func (a *chain) Reset() {
	a.first.Reset()
	a.second.Reset()
}

func (a *chain) Report() Report {
	r, s := a.first.Report(), a.second.Report()
	r.Method, r.Stickiness, r.Shift = a.name, s.Stickiness, max(r.Shift, s.Shift)
	r.StateBytes += 4 + s.StateBytes
	return r
}

func (a *chain) Exemplars(dst []Exemplar) []Exemplar {
	return exemplarsOf(a.first, dst)
}

// The state: length of the first one's u32 and that, then the second one's.
func (a *chain) AppendState(b []byte) []byte {
	at := len(b)
	b = a.first.AppendState(append(b, 0, 0, 0, 0))
	binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return a.second.AppendState(b)
}

func (a *chain) Restore(b []byte) error {
	if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
		return fmt.Errorf("%w: %s: %w", ErrState, a.name, errShort)
	}
	n := 4 + int(binary.LittleEndian.Uint32(b))
	before := a.first.AppendState(nil)
	if err := a.first.Restore(b[4:n]); err != nil {
		return err
	}
	if err := a.second.Restore(b[n:]); err != nil {
		a.first.Restore(before)
		return err
	}
	return nil
}
