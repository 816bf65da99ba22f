package tta

import "fmt"

// zeroShot is the method that adapts nothing: the baseline beside which the
// others are shown. Its state has no bytes.
type zeroShot struct{}

func newZeroShot(Space) Adapter { return zeroShot{} }

func (zeroShot) Adapt(dst []float32, f Frame) { copy(dst, f.Logits) }

func (zeroShot) Reset() {}

func (zeroShot) AppendState(b []byte) []byte { return b }

func (zeroShot) Restore(state []byte) error {
	if len(state) != 0 {
		return fmt.Errorf("%w: %d bytes for zeroshot, which has none", ErrState, len(state))
	}
	return nil
}

func (zeroShot) Report() Report {
	return Report{Method: "zeroshot", Entered: -1, Text: "The model's own answer; nothing is learned."}
}
