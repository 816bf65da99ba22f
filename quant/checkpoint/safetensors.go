// Package checkpoint reads other people's model files into named float
// tensors, one at a time. It touches neither files nor network: a caller hands
// in an io.ReaderAt.
package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"unicode/utf8"

	"lqa/quant/numeric"
)

// Ways for a file to be refused. An error of the underlying reader other than
// the end of the file is passed on, wrapped.
var (
	ErrTruncated = errors.New("checkpoint: truncated")      // ends before a promised byte
	ErrCorrupt   = errors.New("checkpoint: corrupt")        // breaks a rule of the format
	ErrTooLarge  = errors.New("checkpoint: too large")      // over the Limits
	ErrDType     = errors.New("checkpoint: unusable dtype") // stored as no float that can be widened
	ErrMissing   = errors.New("checkpoint: no such tensor") // asked for by a name the file lacks
)

// Limits bound what a file may ask for, checked before memory is allocated. A
// zero field means its default.
type Limits struct {
	HeaderBytes int64 // default 8 MiB
	Tensors     int   // default 65536
	TensorBytes int64 // one tensor as float32; default 2 GiB
}

// DType names how a safetensors file stores elements.
type DType string

// dtypeBytes holds every type of a whole number of bytes that the format
// knows; ReadFloat32 takes F32, F16 and BF16.
var dtypeBytes = map[DType]int64{
	"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1,
	"U16": 2, "I16": 2, "F16": 2, "BF16": 2,
	"U32": 4, "I32": 4, "F32": 4,
	"U64": 8, "I64": 8, "F64": 8,
}

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
	if l.HeaderBytes <= 0 {
		l.HeaderBytes = 8 << 20
	}
	if l.Tensors <= 0 {
		l.Tensors = 1 << 16
	}
	if l.TensorBytes <= 0 {
		l.TensorBytes = 2 << 30
	}
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

// parse reads the header's JSON key by key: encoding/json alone would let the
// last of two equal keys win.
func (s *Safetensors) parse(head []byte) error {
	if len(head) == 0 || head[0] != '{' || !utf8.Valid(head) {
		return fmt.Errorf("%w: header is no JSON object in UTF-8", ErrCorrupt)
	}
	seen := map[string]bool{}
	return eachKey(head, "header", func(dec *json.Decoder, key string) error {
		if key == "__metadata__" {
			if seen[key] {
				return fmt.Errorf("%w: key %q stands twice", ErrCorrupt, key)
			}
			seen[key] = true
			if err := dec.Decode(&s.meta); err != nil {
				return fmt.Errorf("%w: __metadata__: %v", ErrCorrupt, err)
			}
			return nil
		}
		if _, double := s.index[key]; double {
			return fmt.Errorf("%w: key %q stands twice", ErrCorrupt, key)
		}
		if len(s.list) == s.limits.Tensors {
			return fmt.Errorf("%w: over %d tensors", ErrTooLarge, s.limits.Tensors)
		}
		var entry json.RawMessage
		if err := dec.Decode(&entry); err != nil {
			return fmt.Errorf("%w: tensor %q: %v", ErrCorrupt, key, err)
		}
		info, err := parseEntry(entry)
		if err != nil {
			return fmt.Errorf("%w: tensor %q: %v", ErrCorrupt, key, err)
		}
		info.Name = key
		s.index[key] = len(s.list)
		s.list = append(s.list, info)
		return nil
	})
}

func parseEntry(raw []byte) (Info, error) {
	var info Info
	var shape []int64
	var offsets []int64
	seen := map[string]bool{}
	err := eachKey(raw, "entry", func(dec *json.Decoder, key string) error {
		if seen[key] {
			return fmt.Errorf("key %q stands twice", key)
		}
		seen[key] = true
		switch key {
		case "dtype":
			return dec.Decode(&info.DType)
		case "shape":
			return dec.Decode(&shape)
		case "data_offsets":
			return dec.Decode(&offsets)
		}
		return fmt.Errorf("unknown key %q", key)
	})
	if err != nil {
		return info, err
	}
	width, ok := dtypeBytes[info.DType]
	switch {
	case len(seen) != 3 || shape == nil:
		return info, errors.New("needs dtype, shape and data_offsets")
	case !ok:
		return info, fmt.Errorf("unknown dtype %.32q", string(info.DType))
	case len(offsets) != 2 || offsets[0] < 0 || offsets[1] < offsets[0]:
		return info, fmt.Errorf("bad data_offsets of length %d", len(offsets))
	case len(shape) > 8:
		return info, fmt.Errorf("rank %d", len(shape))
	}
	n := width
	for _, d := range shape {
		if d < 0 || d > math.MaxInt32 || d > 0 && n > math.MaxInt64/d {
			return info, fmt.Errorf("bad shape %v", shape)
		}
		n *= d
		info.Shape = append(info.Shape, int(d))
	}
	if offsets[1]-offsets[0] != n {
		return info, fmt.Errorf("%d bytes for %s %v", offsets[1]-offsets[0], info.DType, shape)
	}
	info.begin, info.end = offsets[0], offsets[1]
	return info, nil
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

// eachKey calls f for each key of a JSON object; f decodes the value.
func eachKey(raw []byte, what string, f func(dec *json.Decoder, key string) error) error {
	bad := func(err error) error { return fmt.Errorf("%w: %s: %v", ErrCorrupt, what, err) }
	dec := json.NewDecoder(bytes.NewReader(raw))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return fmt.Errorf("%w: %s is no JSON object", ErrCorrupt, what)
	}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return bad(err)
		}
		if err := f(dec, tok.(string)); err != nil { // a key: More was true within an object
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return bad(err)
	}
	if tok, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("%w: %s goes on with %v", ErrCorrupt, what, tok)
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

// Float32 reads a tensor, row-major. Halves and bfloat16 are widened exactly;
// other types are ErrDType.
func (s *Safetensors) Float32(name string) ([]float32, error) {
	i, ok := s.index[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrMissing, name)
	}
	t := s.list[i]
	switch t.DType {
	case "F32", "F16", "BF16":
	default:
		return nil, fmt.Errorf("%w: tensor %q is %s", ErrDType, name, t.DType)
	}
	n := t.Elements()
	if n > s.limits.TensorBytes/4 {
		return nil, fmt.Errorf("%w: tensor %q has %d elements", ErrTooLarge, name, n)
	}
	raw := make([]byte, t.end-t.begin) // in the file: place compared it with its size
	if err := readAt(s.r, raw, t.begin); err != nil {
		return nil, fmt.Errorf("tensor %q: %w", name, err)
	}
	x := make([]float32, n)
	switch t.DType {
	case "F32":
		for i := range x {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
	case "F16":
		numeric.FromFloat16(x, raw)
	case "BF16":
		for i := range x {
			x[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(raw[2*i:])) << 16)
		}
	}
	return x, nil
}

func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: at byte %d", ErrTruncated, off+int64(n))
	default:
		return fmt.Errorf("checkpoint: read: %w", err)
	}
}
