package shq

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
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
}

// FrameRawBytes is how many raw bytes Write puts in a frame. It bounds what a
// reader holds at once; larger frames gain under 1% in size.
const FrameRawBytes = 1 << 20

// Write writes a file with the name, the model (a JSON object), the plan and
// the provenance of about: stages[0] is needed first. The same input gives the
// same bytes. The result obeys the default Limits except RawBytes; what a
// Reader would refuse is an error here, before a byte is written.
func Write(w io.Writer, about Manifest, stages [][]TensorData) error {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		return fmt.Errorf("shq: zstd: %w", err)
	}
	defer enc.Close()

	m := &Manifest{Name: about.Name, Model: about.Model, Plan: about.Plan, Provenance: about.Provenance}
	var packed [][]byte
	raw := make([]byte, 0, FrameRawBytes)
	flush := func(stage int) {
		if len(raw) == 0 {
			return
		}
		b := enc.EncodeAll(raw, nil)
		sum := sha256.Sum256(b)
		m.Frames = append(m.Frames, Frame{Stage: stage, Size: len(b), Raw: len(raw), SHA256: hex.EncodeToString(sum[:])})
		packed = append(packed, b)
		raw = raw[:0]
	}
	for stage, tensors := range stages {
		for _, t := range tensors {
			size, err := t.Kind.Size(t.Shape)
			if err != nil {
				return fmt.Errorf("shq: tensor %q: %w", t.Name, err)
			}
			if len(t.Data) != size {
				return fmt.Errorf("shq: tensor %q has %d bytes, want %d", t.Name, len(t.Data), size)
			}
			raw = append(raw, make([]byte, -len(raw)&(Align-1))...)
			if len(raw) == FrameRawBytes {
				flush(stage)
			}
			m.Tensors = append(m.Tensors, Tensor{Name: t.Name, Kind: t.Kind, Shape: t.Shape, Frame: len(m.Frames), Offset: len(raw)})
			for data := t.Data; len(data) > 0; {
				n := min(len(data), FrameRawBytes-len(raw))
				raw = append(raw, data[:n]...)
				if data = data[n:]; len(raw) == FrameRawBytes && len(data) > 0 {
					flush(stage)
				}
			}
		}
		flush(stage)
	}

	manifest, first, err := m.layOut()
	if err != nil {
		return err
	}
	if _, err := m.check(first, Limits{RawBytes: math.MaxInt64}.withDefaults()); err != nil {
		return fmt.Errorf("shq: not written: %w", err)
	}
	head := binary.LittleEndian.AppendUint32([]byte(Magic), Version)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(manifest)))
	sum := sha256.Sum256(manifest)
	head = append(head, sum[:]...)
	for _, b := range append([][]byte{head, manifest}, packed...) {
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("shq: write: %w", err)
		}
	}
	return nil
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
