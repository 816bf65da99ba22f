package shq

import (
	"errors"
	"fmt"
)

// Ways for a file to be refused. An error of the underlying reader other than
// the end of the file is passed on, wrapped.
var (
	ErrMagic     = errors.New("shq: bad magic")           // not "SHQ1": another kind of file, or an error page
	ErrVersion   = errors.New("shq: unsupported version") // written for another reader
	ErrTruncated = errors.New("shq: truncated")           // ends before a promised byte: a cut download, retry it
	ErrCorrupt   = errors.New("shq: corrupt")             // a rule of FORMAT.md is broken: retrying will not help
	ErrTooLarge  = errors.New("shq: too large")           // asks for more than the Limits allow
)

// TensorError is a fault in one tensor's manifest entry. It prints as
//
//	shq: corrupt: tensor "text.vocab" at byte 4096 of frame 3: name used twice
type TensorError struct {
	Name   string
	Frame  int // as the manifest states it
	Offset int // in the frame's raw bytes, as the manifest states it
	Reason string
	Err    error // ErrCorrupt or ErrTooLarge
}

func (e *TensorError) Error() string {
	return fmt.Sprintf("%v: tensor %.140q at byte %d of frame %d: %s", e.Err, e.Name, e.Offset, e.Frame, e.Reason)
}

// Unwrap returns e.Err.
func (e *TensorError) Unwrap() error { return e.Err }

// FrameError is a fault in one frame or its manifest entry. It prints as
//
//	shq: corrupt: frame 3 at byte 812345: SHA-256 differs
type FrameError struct {
	Frame  int
	Offset int64 // from the start of the file
	Reason string
	Err    error // ErrCorrupt, ErrTooLarge, ErrTruncated, or what reading gave
}

func (e *FrameError) Error() string {
	return fmt.Sprintf("%v: frame %d at byte %d: %s", e.Err, e.Frame, e.Offset, e.Reason)
}

// Unwrap returns e.Err.
func (e *FrameError) Unwrap() error { return e.Err }
