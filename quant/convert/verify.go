package convert

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"lqa/quant/clip"
	"lqa/quant/qtype"
	"lqa/quant/shq"
)

// Report is what Verify found in a sound file.
type Report struct {
	Hash     [32]byte // of the manifest
	Manifest *shq.Manifest
	Bytes    int64 // of the file
}

// ErrContent is wrapped where a file is a sound container but no sound model.
var ErrContent = errors.New("convert: no sound model")

// Verify reads a .shq file to its end and checks all that a reader can check
// without running the model: the container's rules, the tensors the
// configuration demands, positive scales, finite halves, int8 codes within
// ±127, the vocabulary and the names.
func Verify(r io.Reader, l shq.Limits) (*Report, error) {
	rd, err := shq.NewReader(r, l, nil)
	if err != nil {
		return nil, err
	}
	defer rd.Close()
	m := rd.Manifest()
	cfg, err := clip.ParseConfig(m.Model)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrContent, err)
	}
	if err := matchTensors(m, cfg); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrContent, err)
	}
	text := map[string][]byte{}
	err = eachTensor(rd, func(t *shq.Tensor, b []byte) error {
		if t.Kind == qtype.U8 {
			text[t.Name] = append([]byte(nil), b...)
		}
		return checkValues(t, b)
	})
	if err != nil {
		return nil, err
	}
	if err := checkText(cfg, text[cfg.Text.VocabTensor()], text["label.ready.names"]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrContent, err)
	}
	return &Report{Hash: rd.Hash(), Manifest: m, Bytes: m.FileBytes()}, nil
}

// matchTensors compares the manifest with the configuration's list: same
// names, kinds, shapes, stages and shards.
func matchTensors(m *shq.Manifest, cfg *clip.Config) error {
	stored := make([]clip.Stored, len(m.Tensors))
	for i, t := range m.Tensors {
		stored[i] = clip.Stored{Name: t.Name, Kind: t.Kind, Shape: t.Shape, Stage: m.Frames[t.Frame].Stage, Alone: m.Alone(i)}
	}
	return cfg.Match(stored)
}

// eachTensor reads rd to its end and calls f with each tensor's bytes, which
// stay valid during the call.
func eachTensor(rd *shq.Reader, f func(*shq.Tensor, []byte) error) error {
	for {
		switch _, err := rd.NextTensors(f); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

func checkValues(t *shq.Tensor, b []byte) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: tensor %q: %s", ErrContent, t.Name, fmt.Sprintf(format, args...))
	}
	if err := t.Kind.CheckScales(b, t.Shape); err != nil {
		return bad("%v", err)
	}
	if low, ok := t.Kind.Low(); ok {
		n, k := t.Shape[0], t.Shape[1]
		codes := b[low.ScaleBytes(n, k):]
		for r := range qtype.RoundUp(n, qtype.PanelCols) {
			for c := range qtype.RoundUp(k, qtype.PanelK) {
				if (r >= n || c >= k) && low.Code(codes, r, c, k) != low.Zero() {
					return bad("padding at [%d,%d] is not zero", r, c)
				}
			}
		}
		return nil
	}
	switch t.Kind {
	case qtype.F16:
		for i := 0; i < len(b); i += 2 {
			if h := binary.LittleEndian.Uint16(b[i:]); h&0x7c00 == 0x7c00 {
				return bad("element %d is infinite or no number", i/2)
			}
		}
	case qtype.Q8C, qtype.Q8R:
		n, k := t.Shape[0], t.Shape[1]
		codes := b[t.Kind.ScaleBytes(n):]
		for i, c := range codes {
			if c == 0x80 {
				return bad("code %d is -128", i)
			}
		}
		if t.Kind == qtype.Q8R {
			return nil
		}
		for r := range qtype.RoundUp(n, qtype.PanelCols) {
			for c := range qtype.RoundUp(k, qtype.PanelK) {
				if (r >= n || c >= k) && codes[qtype.PanelIndex(r, c, k)] != 0 {
					return bad("padding at [%d,%d] is not zero", r, c)
				}
			}
		}
	}
	return nil
}
