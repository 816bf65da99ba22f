package checkpoint

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"lqa/quant/json"
)

// weights are open files of tensors.
type weights struct {
	tensors
	files []io.Closer
}

func (w *weights) Close() error {
	var first error
	for _, f := range w.files {
		if err := f.Close(); err != nil && first == nil {
			first = err
		}
	}
	w.files = nil
	return first
}

const indexSuffix = ".index.json"

// openWeights opens a file of tensors by what its name ends in, or all files
// of an index.
func openWeights(f Folder, name string, l Limits) (*weights, error) {
	w := new(weights)
	var err error
	if strings.HasSuffix(name, indexSuffix) {
		err = w.openShards(f, name, l)
	} else {
		w.tensors, err = w.open(f, name, l)
	}
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return w, nil
}

func (w *weights) open(f Folder, name string, l Limits) (tensors, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	w.files = append(w.files, file)
	var head [32]byte
	n := min(file.Size(), int64(len(head)))
	if err := readAt(file, head[:n], 0); err != nil {
		return nil, err
	}
	for _, other := range []struct{ magic, what string }{
		{"version https://git-lfs", "a Git LFS pointer: the file itself was not fetched"},
		{"<", "a page, not a file of tensors"},
		{"7z\xbc\xaf\x27\x1c", "a 7z archive"},
		{"GGUF", "GGUF"},
	} {
		if bytes.HasPrefix(head[:n], []byte(other.magic)) {
			return nil, fmt.Errorf("%w: it is %s", ErrCorrupt, other.what)
		}
	}
	if strings.HasSuffix(name, ".safetensors") {
		return OpenSafetensors(file, file.Size(), l)
	}
	return OpenTorch(file, file.Size(), l)
}

// shards are the tensors of several files.
type shards struct {
	names []string
	in    map[string]tensors
}

func (s *shards) Names() []string { return s.names }

func (s *shards) Shape(name string) ([]int, bool) {
	t, ok := s.in[name]
	if !ok {
		return nil, false
	}
	return t.Shape(name)
}

func (s *shards) Float32(name string) ([]float32, error) {
	t, ok := s.in[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrMissing, name)
	}
	return t.Float32(name)
}

// openShards reads an index, {"weight_map": {tensor: file}}, and the files it
// names: plain names of the index's own kind. Each tensor must stand in the
// file that the index says, and in no other.
func (w *weights) openShards(f Folder, name string, l Limits) error {
	l = l.filled()
	text, err := ReadText(f, name, l)
	if err != nil {
		return err
	}
	where := map[string]string{}
	r := new(json.Reader)
	err = r.Read(text, func() {
		r.Object(func(key []byte) {
			if string(key) != "weight_map" {
				return
			}
			r.Object(func(key []byte) {
				if len(where) <= l.Tensors {
					where[string(key)] = r.String()
				}
			})
		})
	})
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	case len(where) == 0:
		return fmt.Errorf("%w: no weight_map", ErrCorrupt)
	case len(where) > l.Tensors:
		return fmt.Errorf("%w: over %d tensors", ErrTooLarge, l.Tensors)
	}
	base := strings.TrimSuffix(name, indexSuffix)
	kind := base[strings.LastIndexByte(base, '.'):]
	var files []string
	names := slices.Sorted(maps.Keys(where))
	for _, n := range names {
		file := where[n]
		if strings.ContainsAny(file, "/\\\x00") || !strings.HasSuffix(file, kind) {
			return fmt.Errorf("%w: %.80q is no name of a %s file beside the index", ErrCorrupt, file, kind)
		}
		if !slices.Contains(files, file) {
			files = append(files, file)
		}
		if len(files) > maxShards {
			return fmt.Errorf("%w: over %d files", ErrTooLarge, maxShards)
		}
	}
	slices.Sort(files)
	all := &shards{in: map[string]tensors{}}
	for _, file := range files {
		t, err := w.open(f, file, l)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, n := range t.Names() {
			if where[n] != file {
				return fmt.Errorf("%w: %s holds tensor %q, which the index puts into %q", ErrCorrupt, file, n, where[n])
			}
			all.names = append(all.names, n)
			all.in[n] = t
		}
	}
	for _, n := range names {
		if all.in[n] == nil {
			return fmt.Errorf("%w: %s holds no tensor %q, against the index", ErrCorrupt, where[n], n)
		}
	}
	w.tensors = all
	return nil
}

const maxShards = 256
