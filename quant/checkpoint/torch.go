package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// Torch is an open file of torch.save that holds a state dict, or a dict with
// one as "state_dict": the zip form, and the one before torch 1.6. Its pickle
// is read by a machine that knows the opcodes and names of state dicts and
// refuses the rest; nothing in it is executed.
type Torch struct {
	r      io.ReaderAt
	limits Limits
	names  []string
	views  map[string]*view
	begin  map[*storage]int64 // byte of r
}

// OpenTorch reads and checks the structure of a file of size bytes; tensors
// are read by Float32. Errors wrap ErrForbidden where the pickle does what a
// state dict has no need of, ErrTorchScript where the file is a program.
func OpenTorch(r io.ReaderAt, size int64, l Limits) (*Torch, error) {
	t := &Torch{r: r, limits: l.filled(), views: map[string]*view{}, begin: map[*storage]int64{}}
	var magic [len(legacyMagic)]byte
	n := min(size, int64(len(magic)))
	if err := readAt(r, magic[:n], 0); err != nil {
		return nil, err
	}
	var root any
	var err error
	switch {
	case bytes.HasPrefix(magic[:n], []byte("PK\x03\x04")):
		root, err = t.openZip(size)
	case string(magic[:n]) == legacyMagic:
		root, err = t.openLegacy(size)
	case n < int64(len(magic)):
		err = fmt.Errorf("%w: %d bytes", ErrTruncated, size)
	default:
		err = fmt.Errorf("%w: neither a zip archive nor a pickle of torch.save: begins with %q", ErrCorrupt, magic)
	}
	if err != nil {
		return nil, err
	}
	return t, t.stateDict(root)
}

// openZip reads <prefix>/data.pkl and finds the storages, <prefix>/data/KEY.
func (t *Torch) openZip(size int64) (any, error) {
	entries, err := readZip(t.r, size, t.limits)
	if err != nil {
		return nil, err
	}
	const pickleName = "/data.pkl"
	files := map[string]entry{}
	prefix := ""
	for _, e := range entries {
		files[e.name] = e
		if p, ok := strings.CutSuffix(e.name, pickleName); ok {
			if prefix != "" {
				return nil, fmt.Errorf("%w: two pickles, %q and %q", ErrCorrupt, prefix+pickleName, e.name)
			}
			prefix = p
		}
	}
	if prefix == "" || strings.Contains(prefix, "/") {
		return nil, fmt.Errorf("%w: a zip archive without a data.pkl in its one folder: not of torch.save", ErrCorrupt)
	}
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.name, prefix+"/")
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: zip entry %.80q is not in %q", ErrCorrupt, e.name, prefix)
		case name == "constants.pkl" || strings.HasPrefix(name, "code/"):
			return nil, fmt.Errorf("%w: it has %q; save model.state_dict() with torch.save instead", ErrTorchScript, e.name)
		case name == "byteorder":
			order := make([]byte, min(e.size, 16))
			if err := readAt(t.r, order, e.begin); err != nil {
				return nil, err
			}
			if string(order) != "little" {
				return nil, fmt.Errorf("%w: byte order %q", ErrDType, order)
			}
		}
	}
	text, err := t.text(files[prefix+pickleName])
	if err != nil {
		return nil, err
	}
	storages := map[string]*storage{}
	root, end, err := readPickle(text, 0, storages)
	if err != nil {
		return nil, err
	}
	if end != len(text) {
		return nil, fmt.Errorf("%w: %d bytes follow the pickle", ErrForbidden, len(text)-end)
	}
	for key, s := range storages {
		e, ok := files[prefix+"/data/"+key]
		if !ok {
			return nil, fmt.Errorf("%w: there is no storage %.80q", ErrCorrupt, key)
		}
		if want := s.size * dtypeBytes[s.dtype]; e.size != want {
			return nil, fmt.Errorf("%w: storage %.80q has %d bytes, its tensors say %d", ErrCorrupt, key, e.size, want)
		}
		t.begin[s] = e.begin
	}
	return root, nil
}

// text reads a pickle whole.
func (t *Torch) text(e entry) ([]byte, error) {
	if e.size > t.limits.HeaderBytes {
		return nil, fmt.Errorf("%w: pickle of %d bytes, limit %d", ErrTooLarge, e.size, t.limits.HeaderBytes)
	}
	text := make([]byte, e.size)
	return text, readAt(t.r, text, e.begin)
}

// legacyMagic is what the form before torch 1.6 begins with: a pickle of
// 0x1950a86a20f9469cfc6c, then one of the protocol's number, 1001.
const legacyMagic = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03."

// openLegacy reads three more pickles, of the system's widths, the object and
// the list of storages, behind which the storages stand: an element count and
// the elements each.
func (t *Torch) openLegacy(size int64) (any, error) {
	text, err := t.text(entry{size: min(size, t.limits.HeaderBytes)})
	if err != nil {
		return nil, err
	}
	storages := map[string]*storage{}
	var parts [3]any
	at := len(legacyMagic)
	for i := range parts {
		if parts[i], at, err = readPickle(text, at, storages); err != nil {
			return nil, err
		}
	}
	system, _ := parts[0].(*dict)
	if system == nil || system.values["little_endian"] != true {
		return nil, fmt.Errorf("%w: byte order is not little", ErrDType)
	}
	keys, _ := parts[2].(*list)
	if keys == nil || len(keys.items) != len(storages) {
		return nil, fmt.Errorf("%w: the list of storages does not fit the %d that tensors use", ErrCorrupt, len(storages))
	}
	next := int64(at)
	for _, k := range keys.items {
		key, _ := k.(string)
		s := storages[key]
		if s == nil || t.begin[s] != 0 {
			return nil, fmt.Errorf("%w: storage %.80q is unused or stands twice", ErrCorrupt, key)
		}
		var count [8]byte
		if next > size-int64(len(count)) {
			return nil, fmt.Errorf("%w: before storage %.80q", ErrTruncated, key)
		}
		if err := readAt(t.r, count[:], next); err != nil {
			return nil, err
		}
		if n := int64(binary.LittleEndian.Uint64(count[:])); n != s.size {
			return nil, fmt.Errorf("%w: storage %.80q has %d elements, its tensors say %d", ErrCorrupt, key, n, s.size)
		}
		next += int64(len(count))
		t.begin[s] = next
		length := s.size * dtypeBytes[s.dtype]
		if length > size-next {
			return nil, fmt.Errorf("%w: in storage %.80q", ErrTruncated, key)
		}
		next += length
	}
	if next != size {
		return nil, fmt.Errorf("%w: %d bytes follow the last storage", ErrCorrupt, size-next)
	}
	return parts[1], nil
}

// stateDict lists the tensors of the object that was saved.
func (t *Torch) stateDict(root any) error {
	d, ok := root.(*dict)
	if !ok {
		return fmt.Errorf("%w: a %s was saved, not a dict", ErrForbidden, typeName(root))
	}
	if inner, ok := d.values["state_dict"].(*dict); ok {
		d = inner
	}
	for _, k := range d.keys {
		if v, ok := d.values[k].(*view); ok {
			t.names = append(t.names, k)
			t.views[k] = v
		}
	}
	switch n := len(t.names); {
	case n == 0:
		return fmt.Errorf("%w: no tensors in a dict of %.200q", ErrForbidden, d.keys[:min(len(d.keys), 8)])
	case n > t.limits.Tensors:
		return fmt.Errorf("%w: over %d tensors", ErrTooLarge, t.limits.Tensors)
	}
	return nil
}

// Names lists the tensors' names in the order they were saved in. The slice
// must not be changed.
func (t *Torch) Names() []string { return t.names }

// Shape returns a tensor's shape, and whether the file has it.
func (t *Torch) Shape(name string) ([]int, bool) {
	v, ok := t.views[name]
	if !ok {
		return nil, false
	}
	shape := make([]int, len(v.shape))
	for i, n := range v.shape {
		shape[i] = int(n)
	}
	return shape, true
}

// Float32 reads a tensor, row-major whatever its strides are. Halves and
// bfloat16 are widened exactly, float64 is rounded; other types are ErrDType.
func (t *Torch) Float32(name string) ([]float32, error) {
	v, ok := t.views[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrMissing, name)
	}
	if !v.storage.dtype.float() {
		return nil, fmt.Errorf("%w: tensor %q is %s", ErrDType, name, v.storage.dtype)
	}
	span, packed := v.span()
	if max(v.count, span) > t.limits.TensorBytes/4 {
		return nil, fmt.Errorf("%w: tensor %q has %d elements among %d", ErrTooLarge, name, v.count, span)
	}
	x := make([]float32, span)
	at := t.begin[v.storage] + v.offset*dtypeBytes[v.storage.dtype]
	if err := readFloats(t.r, at, v.storage.dtype, x); err != nil {
		return nil, fmt.Errorf("tensor %q: %w", name, err)
	}
	if packed {
		return x, nil
	}
	return v.gather(make([]float32, 0, v.count), x, 0), nil
}

// span is how many elements lie from the view's first to its last, and
// whether they are the view's in its order.
func (v *view) span() (n int64, packed bool) {
	if v.count == 0 {
		return 0, true
	}
	last, packed, step := int64(0), true, int64(1)
	for i := len(v.shape) - 1; i >= 0; i-- {
		last += v.stride[i] * (v.shape[i] - 1)
		packed = packed && (v.stride[i] == step || v.shape[i] == 1)
		step *= v.shape[i]
	}
	return last + 1, packed
}

// gather appends the elements of the view's dimensions from dim on, the first
// of which is x[0], to out.
func (v *view) gather(out, x []float32, dim int) []float32 {
	step := v.stride[dim]
	for i := range v.shape[dim] {
		if dim == len(v.shape)-1 {
			out = append(out, x[i*step])
		} else {
			out = v.gather(out, x[i*step:], dim+1)
		}
	}
	return out
}
