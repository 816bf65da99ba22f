package shq

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"

	"lqa/quant/qtype"
)

// TensorData is a tensor to be written: Data has Kind.Size(Shape) bytes.
type TensorData struct {
	Name  string
	Kind  qtype.Kind
	Shape []int
	Data  []byte
	// Alone gives the tensor a frame to itself, so that it can be fetched
	// without the rest of its stage. It is FrameRawBytes long at most.
	Alone bool
}

// FrameRawBytes is how many raw bytes a Writer puts in a frame. It bounds what
// a reader holds at once; larger frames gain under 1% in size.
const FrameRawBytes = 1 << 20

// Writer makes a file tensor by tensor. It keeps the compressed frames until
// WriteTo: the manifest, which stands before them, lists them all.
type Writer struct {
	m      *Manifest
	enc    *zstd.Encoder
	packed [][]byte
	raw    []byte // of the next frame
	stage  int
	alone  bool  // what raw holds wants no company
	err    error // sticky
}

// NewWriter begins a file with the name, the model (a JSON object), the plan
// and the provenance of about.
func NewWriter(about Manifest) (*Writer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		return nil, fmt.Errorf("shq: zstd: %w", err)
	}
	m := &Manifest{Name: about.Name, Model: about.Model, Plan: about.Plan, Provenance: about.Provenance}
	return &Writer{m: m, enc: enc, raw: make([]byte, 0, FrameRawBytes)}, nil
}

// Add appends a tensor, of the stage of the one before or of the next; t.Data is
// not kept. What is needed first has stage 0.
func (w *Writer) Add(stage int, t TensorData) error {
	if w.err == nil {
		w.err = w.add(stage, t)
	}
	return w.err
}

func (w *Writer) add(stage int, t TensorData) error {
	size, err := t.Kind.Size(t.Shape)
	switch {
	case err != nil:
		return fmt.Errorf("shq: tensor %q: %w", t.Name, err)
	case len(t.Data) != size:
		return fmt.Errorf("shq: tensor %q has %d bytes, want %d", t.Name, len(t.Data), size)
	case t.Alone && size > FrameRawBytes:
		return fmt.Errorf("shq: tensor %q of %d bytes does not fit a frame", t.Name, size)
	}
	if stage != w.stage {
		w.flush()
		w.stage = stage
	}
	w.raw = append(w.raw, make([]byte, -len(w.raw)&(Align-1))...)
	if len(w.raw) == FrameRawBytes || w.alone || t.Alone {
		w.flush()
	}
	w.alone = t.Alone
	w.m.Tensors = append(w.m.Tensors, Tensor{Name: t.Name, Kind: t.Kind, Shape: t.Shape, Frame: len(w.m.Frames), Offset: len(w.raw)})
	for data := t.Data; len(data) > 0; {
		n := min(len(data), FrameRawBytes-len(w.raw))
		w.raw = append(w.raw, data[:n]...)
		if data = data[n:]; len(w.raw) == FrameRawBytes && len(data) > 0 {
			w.flush()
		}
	}
	return nil
}

// flush ends the frame.
func (w *Writer) flush() {
	if len(w.raw) == 0 {
		return
	}
	b := w.enc.EncodeAll(w.raw, nil)
	sum := sha256.Sum256(b)
	w.m.Frames = append(w.m.Frames, Frame{Stage: w.stage, Size: len(b), Raw: len(w.raw), SHA256: hex.EncodeToString(sum[:])})
	w.packed = append(w.packed, b)
	w.raw = w.raw[:0]
}

var errWritten = errors.New("shq: the file is written")

// WriteTo ends the file and writes it. It obeys the default Limits except
// RawBytes; what a Reader would refuse is an error here, before a byte is
// written. The same tensors give the same bytes.
func (w *Writer) WriteTo(out io.Writer) (n int64, err error) {
	if w.err != nil {
		return 0, w.err
	}
	w.err = errWritten
	w.flush()
	w.enc.Close()
	manifest, first, err := w.m.layOut()
	if err != nil {
		return 0, err
	}
	if _, err := w.m.check(first, Limits{RawBytes: math.MaxInt64}.withDefaults()); err != nil {
		return 0, fmt.Errorf("shq: not written: %w", err)
	}
	head := binary.LittleEndian.AppendUint32([]byte(Magic), Version)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(manifest)))
	sum := sha256.Sum256(manifest)
	head = append(head, sum[:]...)
	for _, b := range append([][]byte{head, manifest}, w.packed...) {
		k, err := out.Write(b)
		if n += int64(k); err != nil {
			return n, fmt.Errorf("shq: write: %w", err)
		}
	}
	return n, nil
}

// Write is Writer for tensors that are all at hand: stages[0] is needed first.
func Write(out io.Writer, about Manifest, stages [][]TensorData) error {
	w, err := NewWriter(about)
	if err != nil {
		return err
	}
	for stage, tensors := range stages {
		for _, t := range tensors {
			if err := w.Add(stage, t); err != nil {
				return err
			}
		}
	}
	_, err = w.WriteTo(out)
	return err
}

// layOut sets the frames' offsets, which stand in the manifest and depend on
// its length: it is encoded again until that length no longer moves.
func (m *Manifest) layOut() (manifest []byte, first int64, err error) {
	for first = HeaderBytes; ; {
		next := first
		for i := range m.Frames {
			m.Frames[i].Offset = next
			next += int64(m.Frames[i].Size)
		}
		if manifest, err = m.encode(); err != nil {
			return nil, 0, err
		}
		if limit := (Limits{}).withDefaults().ManifestBytes; len(manifest) > limit {
			return nil, 0, fmt.Errorf("shq: not written: %w: manifest of %d bytes", ErrTooLarge, len(manifest))
		}
		want := HeaderBytes + int64(len(manifest))
		if want == first {
			return manifest, first, nil
		}
		first = want // grows only: more digits never make the manifest shorter
	}
}
