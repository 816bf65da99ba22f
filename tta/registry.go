package tta

import (
	"errors"
	"fmt"
)

// ErrAdapter means a name that no method has.
var ErrAdapter = errors.New("tta: unknown adapter")

// Method is an entry of Methods.
type Method struct {
	Name  string // what messages, state and command lines call it
	Title string // for people
	Doc   string // one sentence
	New   func(Space) Adapter
}

// Methods is the one list of adapters: pages, eval and tests range over it.
var Methods = []Method{
	{"zeroshot", "Zero-shot", "Leaves the model's answer as it is.", newZeroShot},
	{"average", "Average", "Averages the answers of the last second.", newAverage},
	{"sticky", "Sticky", "Expects what is in view to stay.", newSticky},
	{"lqa", "LQA", "Remembers a few views of each label in int8 caches and lets them vote.", newLQA},
	{"lqa+sticky", "LQA + sticky", "LQA, and what is in view is expected to stay.", newLQASticky},
	{"stream", "Stream", "Made for cameras: learns what it sees and knows when the view changes.", newStream},
}

// Names returns the names of Methods, in order.
func Names() []string {
	names := make([]string, len(Methods))
	for i, m := range Methods {
		names[i] = m.Name
	}
	return names
}

// New returns an adapter of the named method in its initial state, or
// ErrAdapter. All labels of s have the same width.
func New(name string, s Space) (Adapter, error) {
	for _, m := range Methods {
		if m.Name == name {
			return m.New(s), nil
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrAdapter, name)
}
