// Package checkpoint reads other people's model files: safetensors and torch
// archives as named float tensors, one at a time, and CLIP's checkpoints, in
// transformers' and OpenCLIP's layout, under our names and with our
// configuration. It executes nothing and touches neither files nor network: a
// caller hands in a [Folder] or an io.ReaderAt.
package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// Ways for a file to be refused. An error of the underlying reader other than
// the end of the file is passed on, wrapped.
var (
	ErrTruncated = errors.New("checkpoint: truncated")      // ends before a promised byte
	ErrCorrupt   = errors.New("checkpoint: corrupt")        // breaks a rule of the format
	ErrTooLarge  = errors.New("checkpoint: too large")      // over the Limits
	ErrDType     = errors.New("checkpoint: unusable dtype") // stored as no float that can be widened
	ErrMissing   = errors.New("checkpoint: no such tensor") // asked for by a name the file lacks

	ErrForbidden    = errors.New("checkpoint: no plain state dict") // a pickle does what data has no need of
	ErrTorchScript  = errors.New("checkpoint: TorchScript program") // code, not a state dict
	ErrFolder       = errors.New("checkpoint: incomplete folder")   // lacks weights or a configuration
	ErrConfig       = errors.New("checkpoint: bad configuration")   // cannot be read, or has a value out of bounds
	ErrArchitecture = errors.New("checkpoint: unsupported architecture")
	ErrContradicts  = errors.New("checkpoint: contradiction") // between configuration, tensors and vocabulary
)

// Limits bound what a file may ask for, checked before memory is allocated. A
// zero field means its default.
type Limits struct {
	HeaderBytes int64 // of a safetensors header, a pickle, a zip directory; default 8 MiB
	Tensors     int   // of a file; default 65536
	TensorBytes int64 // one tensor as float32; default 2 GiB
	TextBytes   int64 // of a configuration or vocabulary; default 16 MiB
}

func (l Limits) filled() Limits {
	return Limits{
		HeaderBytes: positive(l.HeaderBytes, 8<<20),
		Tensors:     positive(l.Tensors, 1<<16),
		TensorBytes: positive(l.TensorBytes, 2<<30),
		TextBytes:   positive(l.TextBytes, 16<<20),
	}
}

func positive[T int | int64](v, otherwise T) T { return cmp.Or(max(v, 0), otherwise) }

// Folder is a checkpoint's files, wherever they lie: a directory, a hub's
// repository, files dropped on a page.
type Folder interface {
	Names() []string                // plain file names, no slashes
	Open(name string) (File, error) // fs.ErrNotExist if it is not there
}

// File is an open file of a Folder.
type File interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// ReadText reads a small file whole; it is nil if there is none.
func ReadText(f Folder, name string, l Limits) ([]byte, error) {
	l = l.filled()
	file, err := f.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer file.Close()
	if n := file.Size(); n > l.TextBytes {
		return nil, fmt.Errorf("%w: %s has %d bytes, limit %d", ErrTooLarge, name, n, l.TextBytes)
	}
	text := make([]byte, file.Size())
	if err := readAt(file, text, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return text, nil
}

// tensors is a file of named tensors, or several.
type tensors interface {
	Names() []string
	Shape(name string) ([]int, bool)
	Float32(name string) ([]float32, error)
}
