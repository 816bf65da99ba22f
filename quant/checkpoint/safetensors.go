package checkpoint

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"lqa/quant/json"
)

// Info describes a stored tensor.
type Info struct {
	Name  string
	DType DType
	Shape []int
	begin int64 // from the start of the file
	end   int64
}

// Elements returns the product of the shape, 1 for a scalar.
func (i Info) Elements() int64 {
	n := int64(1)
	for _, d := range i.Shape {
		n *= int64(d)
	}
	return n
}

// Safetensors is an open file of the safetensors format
// (huggingface/safetensors, README.md, "Format").
type Safetensors struct {
	r      io.ReaderAt
	limits Limits
	list   []Info // in the order of their bytes
	index  map[string]int
	meta   map[string]string
}

// OpenSafetensors reads and checks the header of a file of size bytes: unique
// keys, known dtypes, sizes that fit the shapes, and tensors that follow each
// other without overlap or hole from the header to the end of the file.
func OpenSafetensors(r io.ReaderAt, size int64, l Limits) (*Safetensors, error) {
	l = l.filled()
	var n [8]byte
	if size < int64(len(n)) {
		return nil, fmt.Errorf("%w: %d bytes", ErrTruncated, size)
	}
	if err := readAt(r, n[:], 0); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint64(n[:])
	switch {
	case length > uint64(l.HeaderBytes):
		return nil, fmt.Errorf("%w: header of %d bytes, limit %d", ErrTooLarge, length, l.HeaderBytes)
	case int64(length) > size-8:
		return nil, fmt.Errorf("%w: header of %d bytes in a file of %d", ErrTruncated, length, size)
	}
	head := make([]byte, length)
	if err := readAt(r, head, 8); err != nil {
		return nil, err
	}
	s := &Safetensors{r: r, limits: l, index: map[string]int{}, meta: map[string]string{}}
	if err := s.parse(head); err != nil {
		return nil, err
	}
	return s, s.place(8+int64(length), size)
}

// parse reads the header's JSON, in which no key may stand twice.
func (s *Safetensors) parse(head []byte) error {
	if len(head) == 0 || head[0] != '{' {
		return fmt.Errorf("%w: header is no JSON object", ErrCorrupt)
	}
	r := new(json.Reader)
	err := r.Read(head, func() {
		r.Object(func(key []byte) {
			if string(key) == "__metadata__" {
				r.Object(func(key []byte) { s.meta[string(key)] = r.String() })
				return
			}
			if len(s.list) == s.limits.Tensors {
				r.Stop(fmt.Errorf("%w: over %d tensors", ErrTooLarge, s.limits.Tensors))
				return
			}
			info, err := readEntry(r)
			if err != nil {
				r.Stop(fmt.Errorf("%w: tensor %q: %w", ErrCorrupt, key, err))
				return
			}
			info.Name = string(key)
			s.list = append(s.list, info)
		})
	})
	if syntax := new(json.Error); errors.As(err, &syntax) {
		return fmt.Errorf("%w: header: %w", ErrCorrupt, err)
	}
	return err
}

func readEntry(r *json.Reader) (Info, error) {
	var info Info
	var shape, offsets []int64
	var unknown string
	fields := 0
	r.Object(func(key []byte) {
		fields++
		switch string(key) {
		case "dtype":
			info.DType = DType(r.String())
		case "shape":
			shape = readInts(r)
		case "data_offsets":
			offsets = readInts(r)
		default:
			unknown = string(key)
		}
	})
	width, ok := dtypeBytes[info.DType]
	switch {
	case unknown != "":
		return info, fmt.Errorf("unknown key %.32q", unknown)
	case fields != 3:
		return info, errors.New("needs dtype, shape and data_offsets")
	case !ok:
		return info, fmt.Errorf("unknown dtype %.32q", string(info.DType))
	case len(offsets) != 2 || offsets[0] < 0 || offsets[1] < offsets[0]:
		return info, fmt.Errorf("bad data_offsets %v", offsets)
	case len(shape) > maxRank:
		return info, fmt.Errorf("more than %d dimensions", maxRank)
	}
	n, ok := elements(shape, width)
	if !ok {
		return info, fmt.Errorf("bad shape %v", shape)
	}
	if offsets[1]-offsets[0] != n*width {
		return info, fmt.Errorf("%d bytes for %s %v", offsets[1]-offsets[0], info.DType, shape)
	}
	for _, d := range shape {
		info.Shape = append(info.Shape, int(d))
	}
	info.begin, info.end = offsets[0], offsets[1]
	return info, nil
}

// readInts reads a list, of which more than any shape may have are left out.
func readInts(r *json.Reader) (list []int64) {
	r.Array(func() {
		if len(list) <= maxRank {
			list = append(list, r.Int64())
		}
	})
	return list
}

// place checks that the tensors tile the file from byte first to its end.
func (s *Safetensors) place(first, size int64) error {
	slices.SortFunc(s.list, func(a, b Info) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.Name, b.Name))
	})
	next := int64(0)
	for i := range s.list {
		t := &s.list[i]
		s.index[t.Name] = i
		switch {
		case t.begin != next:
			return fmt.Errorf("%w: tensor %q begins at %d: overlap or hole, expected at %d", ErrCorrupt, t.Name, t.begin, next)
		case t.end > size-first:
			return fmt.Errorf("%w: tensor %q ends at %d of %d", ErrTruncated, t.Name, t.end, size-first)
		}
		next = t.end
		t.begin, t.end = t.begin+first, t.end+first
	}
	if next != size-first {
		return fmt.Errorf("%w: %d bytes after the last tensor", ErrCorrupt, size-first-next)
	}
	return nil
}

// Tensors lists the tensors in the order of their bytes. The slice must not be
// changed.
func (s *Safetensors) Tensors() []Info { return s.list }

// Metadata returns the file's free-form notes. The map must not be changed.
func (s *Safetensors) Metadata() map[string]string { return s.meta }

// Shape returns a tensor's shape, and whether the file has it.
func (s *Safetensors) Shape(name string) ([]int, bool) {
	i, ok := s.index[name]
	if !ok {
		return nil, false
	}
	return s.list[i].Shape, true
}

// Names lists the tensors' names in the order of their bytes.
func (s *Safetensors) Names() []string {
	names := make([]string, len(s.list))
	for i := range s.list {
		names[i] = s.list[i].Name
	}
	return names
}

// Float32 reads a tensor, row-major. Halves and bfloat16 are widened exactly,
// float64 is rounded; other types are ErrDType.
func (s *Safetensors) Float32(name string) ([]float32, error) {
	i, ok := s.index[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrMissing, name)
	}
	t := s.list[i]
	if !t.DType.float() {
		return nil, fmt.Errorf("%w: tensor %q is %s", ErrDType, name, t.DType)
	}
	n := t.Elements()
	if n > s.limits.TensorBytes/4 {
		return nil, fmt.Errorf("%w: tensor %q has %d elements", ErrTooLarge, name, n)
	}
	x := make([]float32, n) // in the file: place compared its size with n
	if err := readFloats(s.r, t.begin, t.DType, x); err != nil {
		return nil, fmt.Errorf("tensor %q: %w", name, err)
	}
	return x, nil
}
