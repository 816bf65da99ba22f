// Package shq is the container: one file, written once, read as a stream,
// checked as it comes. FORMAT.md is its definition.
package shq

import (
	"bytes"
	"encoding/hex"
	"fmt"

	"lqa/quant/json"
	"lqa/quant/qtype"
)

// Manifest describes a file's content.
type Manifest struct {
	Name       string     `json:"name"`
	Model      json.Raw   `json:"model"` // clip.Config; the container does not look inside
	Tensors    []Tensor   `json:"tensors"`
	Frames     []Frame    `json:"frames"`
	Plan       json.Raw   `json:"plan,omitempty"` // how the kinds were chosen (calibrate.Plan), for people and tools
	Provenance Provenance `json:"provenance"`
}

// Tensor is one named array. Its bytes start at Offset of frame Frame's raw
// bytes and may run on into the frames that follow in the same stage.
type Tensor struct {
	Name   string     `json:"name"`
	Kind   qtype.Kind `json:"kind"`
	Shape  []int      `json:"shape"`
	Frame  int        `json:"frame"`
	Offset int        `json:"offset"` // a multiple of Align
}

// Frame is one independent zstd frame.
type Frame struct {
	Stage  int    `json:"stage"`
	Offset int64  `json:"offset"` // from the start of the file
	Size   int    `json:"size"`   // compressed
	Raw    int    `json:"raw"`    // decompressed
	SHA256 string `json:"sha256"` // of the compressed bytes, lower-case hex
}

// Provenance says where a model comes from and under what terms.
type Provenance struct {
	Source  string `json:"source"`
	Licence string `json:"licence"`
	Tool    string `json:"tool"`
}

// Sizes that the format fixes.
const (
	Version     = 1
	HeaderBytes = 44 // magic, version, manifest length, SHA-256 of the manifest
	Align       = 16 // of a tensor in its stage's raw stream
	maxName     = 128
)

// Magic starts every file.
const Magic = "SHQ1"

// Limits bound what a file may ask for. They are checked before memory is
// allocated. A zero field means its default.
type Limits struct {
	ManifestBytes int   // default 1 MiB
	Tensors       int   // default 4096
	Frames        int   // default 4096
	FrameRawBytes int   // one frame, decompressed; default 2 MiB
	RawBytes      int64 // all frames, decompressed; default 1 GiB
}

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.ManifestBytes, 1<<20)
	def(&l.Tensors, 4096)
	def(&l.Frames, 4096)
	def(&l.FrameRawBytes, 2<<20)
	if l.RawBytes <= 0 {
		l.RawBytes = 1 << 30
	}
	return l
}

// frameSizeBound is the most bytes a frame of raw bytes may take compressed.
// zstd adds 3 bytes a block of 128 KiB at worst, and a header of up to 18.
func frameSizeBound(raw int) int { return raw + raw/1024 + 64 }

// Bytes returns the size of the tensor's data. It is 0 for a tensor that no
// Reader has checked and whose kind or shape is bad.
func (t *Tensor) Bytes() int {
	n, err := t.Kind.Size(t.Shape)
	if err != nil {
		return 0
	}
	return n
}

// FileBytes returns the length of the whole file.
func (m *Manifest) FileBytes() int64 {
	if len(m.Frames) == 0 {
		return 0
	}
	f := &m.Frames[len(m.Frames)-1]
	return f.Offset + int64(f.Size)
}

// Stages returns how many stages the file has.
func (m *Manifest) Stages() int {
	if len(m.Frames) == 0 {
		return 0
	}
	return m.Frames[len(m.Frames)-1].Stage + 1
}

// Place returns where tensor i starts: its stage, and its offset in that
// stage's raw stream, which is the stage's frames decompressed and joined.
func (m *Manifest) Place(i int) (stage int, offset int64) {
	t := &m.Tensors[i]
	stage = m.Frames[t.Frame].Stage
	offset = int64(t.Offset)
	for f := t.Frame - 1; f >= 0 && m.Frames[f].Stage == stage; f-- {
		offset += int64(m.Frames[f].Raw)
	}
	return stage, offset
}

// Alone reports whether tensor i has one frame, and that to itself.
func (m *Manifest) Alone(i int) bool {
	t := &m.Tensors[i]
	return t.Offset == 0 && t.Bytes() <= m.Frames[t.Frame].Raw && (i+1 == len(m.Tensors) || m.Tensors[i+1].Frame != t.Frame)
}

// StageEnd returns the length of the file up to the end of stage.
func (m *Manifest) StageEnd(stage int) (end int64) {
	for i := range m.Frames {
		if f := &m.Frames[i]; f.Stage <= stage {
			end = f.Offset + int64(f.Size)
		}
	}
	return end
}

// parseManifest decodes a manifest without building more tensors or frames
// than l allows: three bytes of JSON would else become a hundred of memory.
func parseManifest(raw []byte, l Limits) (*Manifest, error) {
	m := new(Manifest)
	r := new(json.Reader)
	var limit error
	list := func(n, most int, what string) bool {
		if n == most {
			limit = fmt.Errorf("%w: over %d %s", ErrTooLarge, most, what)
			r.Stop(limit)
		}
		return n < most
	}
	err := r.Read(raw, func() {
		r.Object(func(key []byte) {
			switch string(key) {
			case "name":
				m.Name = r.String()
			case "model":
				m.Model = r.Raw()
			case "tensors":
				m.Tensors = []Tensor{}
				r.Array(func() {
					if list(len(m.Tensors), l.Tensors, "tensors") {
						m.Tensors = append(m.Tensors, readTensor(r))
					}
				})
			case "frames":
				m.Frames = []Frame{}
				r.Array(func() {
					if list(len(m.Frames), l.Frames, "frames") {
						m.Frames = append(m.Frames, readFrame(r))
					}
				})
			case "plan":
				m.Plan = bytes.Clone(r.Raw())
			case "provenance":
				m.Provenance = readProvenance(r)
			}
		})
	})
	switch {
	case limit != nil && err == limit:
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: manifest: %w", ErrCorrupt, err)
	case len(m.Model) == 0 || m.Model[0] != '{':
		return nil, fmt.Errorf("%w: manifest has no model object", ErrCorrupt)
	case m.Tensors == nil:
		return nil, fmt.Errorf("%w: manifest has no list of tensors", ErrCorrupt)
	case m.Frames == nil:
		return nil, fmt.Errorf("%w: manifest has no list of frames", ErrCorrupt)
	}
	m.Model = bytes.Clone(m.Model) // the manifest's text goes
	return m, nil
}

func readTensor(r *json.Reader) (t Tensor) {
	r.Object(func(key []byte) {
		switch string(key) {
		case "name":
			t.Name = r.String()
		case "kind":
			t.Kind = qtype.Kind(r.String())
		case "shape":
			r.Array(func() { t.Shape = append(t.Shape, r.Int()) })
		case "frame":
			t.Frame = r.Int()
		case "offset":
			t.Offset = r.Int()
		}
	})
	return t
}

func readFrame(r *json.Reader) (f Frame) {
	r.Object(func(key []byte) {
		switch string(key) {
		case "stage":
			f.Stage = r.Int()
		case "offset":
			f.Offset = r.Int64()
		case "size":
			f.Size = r.Int()
		case "raw":
			f.Raw = r.Int()
		case "sha256":
			f.SHA256 = r.String()
		}
	})
	return f
}

func readProvenance(r *json.Reader) (p Provenance) {
	r.Object(func(key []byte) {
		switch string(key) {
		case "source":
			p.Source = r.String()
		case "licence":
			p.Licence = r.String()
		case "tool":
			p.Tool = r.String()
		}
	})
	return p
}

// encode is the manifest as it stands in a file: in the order of the fields
// above, without space.
func (m *Manifest) encode() ([]byte, error) {
	var w json.Writer
	w.Open('{')
	w.Key("name")
	w.String(m.Name)
	w.Key("model")
	var err error
	if w.Text, err = json.Compact(w.Text, m.Model); err != nil {
		return nil, fmt.Errorf("shq: model: %w", err)
	}
	w.Key("tensors")
	w.Open('[')
	for i := range m.Tensors {
		t := &m.Tensors[i]
		w.Open('{')
		w.Key("name")
		w.String(t.Name)
		w.Key("kind")
		w.String(string(t.Kind))
		w.Key("shape")
		w.Open('[')
		for _, d := range t.Shape {
			w.Int(int64(d))
		}
		w.Close(']')
		w.Key("frame")
		w.Int(int64(t.Frame))
		w.Key("offset")
		w.Int(int64(t.Offset))
		w.Close('}')
	}
	w.Close(']')
	w.Key("frames")
	w.Open('[')
	for i := range m.Frames {
		f := &m.Frames[i]
		w.Open('{')
		w.Key("stage")
		w.Int(int64(f.Stage))
		w.Key("offset")
		w.Int(f.Offset)
		w.Key("size")
		w.Int(int64(f.Size))
		w.Key("raw")
		w.Int(int64(f.Raw))
		w.Key("sha256")
		w.String(f.SHA256)
		w.Close('}')
	}
	w.Close(']')
	if len(m.Plan) > 0 {
		w.Key("plan")
		if w.Text, err = json.Compact(w.Text, m.Plan); err != nil {
			return nil, fmt.Errorf("shq: plan: %w", err)
		}
	}
	w.Key("provenance")
	w.Open('{')
	w.Key("source")
	w.String(m.Provenance.Source)
	w.Key("licence")
	w.String(m.Provenance.Licence)
	w.Key("tool")
	w.String(m.Provenance.Tool)
	w.Close('}')
	w.Close('}')
	return w.Text, nil
}

// gap is a run of padding in a frame's raw bytes.
type gap struct{ frame, from, to int }

// check tests every rule of FORMAT.md that needs no frame's bytes. first is
// the file offset at which the first frame must stand. It returns where the
// padding between tensors lies.
func (m *Manifest) check(first int64, l Limits) ([]gap, error) {
	if len(m.Frames) == 0 || len(m.Tensors) == 0 {
		return nil, fmt.Errorf("%w: a file needs a tensor and a frame", ErrCorrupt)
	}
	if err := m.checkFrames(first, l); err != nil {
		return nil, err
	}
	return m.checkTensors(l)
}

func (m *Manifest) checkFrames(first int64, l Limits) error {
	next, rawSum := first, int64(0)
	for i := range m.Frames {
		f := &m.Frames[i]
		fail := func(err error, why string) error {
			return &FrameError{Frame: i, Offset: f.Offset, Reason: why, Err: err}
		}
		prev := -1
		if i > 0 {
			prev = m.Frames[i-1].Stage
		}
		switch {
		case f.Raw < 1 || f.Size < 1:
			return fail(ErrCorrupt, "size below 1")
		case f.Raw > l.FrameRawBytes:
			return fail(ErrTooLarge, fmt.Sprintf("%d raw bytes, limit %d", f.Raw, l.FrameRawBytes))
		case f.Size > frameSizeBound(f.Raw):
			return fail(ErrCorrupt, fmt.Sprintf("%d bytes for %d raw ones", f.Size, f.Raw))
		case f.Offset != next:
			return fail(ErrCorrupt, fmt.Sprintf("overlap or hole: expected at byte %d", next))
		case f.Stage != prev && f.Stage != prev+1 || i == 0 && f.Stage != 0:
			return fail(ErrCorrupt, fmt.Sprintf("stage %d after %d", f.Stage, prev))
		case i > 0 && f.Stage == prev && m.Frames[i-1].Raw%Align != 0:
			return fail(ErrCorrupt, "follows a frame whose raw size is no multiple of 16")
		}
		if b, err := hex.DecodeString(f.SHA256); err != nil || len(b) != 32 || hex.EncodeToString(b) != f.SHA256 {
			return fail(ErrCorrupt, "sha256 is not 64 lower-case hex digits")
		}
		next += int64(f.Size) // cannot overflow: Frames × FrameRawBytes bounds it
		rawSum += int64(f.Raw)
		if rawSum > l.RawBytes {
			return fail(ErrTooLarge, fmt.Sprintf("raw bytes add up to over %d", l.RawBytes))
		}
	}
	return nil
}

// checkTensors walks the stages' raw streams: each tensor starts at the first
// multiple of Align after the one before, and the last one ends its stage.
func (m *Manifest) checkTensors(l Limits) ([]gap, error) {
	var stages []int64                   // raw bytes per stage
	base := make([]int64, len(m.Frames)) // of a frame in its stage's stream
	for i, f := range m.Frames {
		if f.Stage == len(stages) {
			stages = append(stages, 0)
		}
		base[i] = stages[f.Stage]
		stages[f.Stage] += int64(f.Raw)
	}
	var gaps []gap
	names := make(map[string]bool, len(m.Tensors))
	stage, end := 0, int64(0) // end of the tensor before, in its stage's stream
	for i := range m.Tensors {
		t := &m.Tensors[i]
		fail := func(err error, format string, args ...any) error {
			return &TensorError{Name: t.Name, Frame: t.Frame, Offset: t.Offset, Reason: fmt.Sprintf(format, args...), Err: err}
		}
		if !validName(t.Name) {
			return nil, fail(ErrCorrupt, "bad name")
		}
		if names[t.Name] {
			return nil, fail(ErrCorrupt, "name used twice")
		}
		names[t.Name] = true
		if elementsOver(t.Shape, l.RawBytes) {
			return nil, fail(ErrTooLarge, "over %d elements", l.RawBytes)
		}
		size, err := t.Kind.Size(t.Shape)
		if err != nil {
			return nil, fail(ErrCorrupt, "%v", err)
		}
		if t.Frame < 0 || t.Frame >= len(m.Frames) || t.Offset < 0 || t.Offset >= m.Frames[t.Frame].Raw {
			return nil, fail(ErrCorrupt, "starts outside of its frame")
		}
		if s := m.Frames[t.Frame].Stage; s != stage {
			if s != stage+1 || end != stages[stage] {
				return nil, fail(ErrCorrupt, "in stage %d, with %d of %d bytes of stage %d taken", s, end, stages[stage], stage)
			}
			stage, end = s, 0
		}
		start := base[t.Frame] + int64(t.Offset)
		want := (end + Align - 1) / Align * Align
		if start != want {
			return nil, fail(ErrCorrupt, "overlap or hole: at %d of stage %d, expected at %d", start, stage, want)
		}
		if n := int(start - end); n > 0 {
			// Frames start at multiples of Align: the padding precedes the
			// tensor in its own frame, or ends the frame before.
			frame, to := t.Frame, t.Offset
			if to == 0 {
				frame--
				to = m.Frames[frame].Raw
			}
			gaps = append(gaps, gap{frame, to - n, to})
		}
		end = start + int64(size)
		if end > stages[stage] {
			return nil, fail(ErrCorrupt, "%d bytes run over the end of stage %d", size, stage)
		}
	}
	if stage != len(stages)-1 || end != stages[stage] {
		return nil, fmt.Errorf("%w: bytes after the last tensor of stage %d", ErrCorrupt, stage)
	}
	return gaps, nil
}

// elementsOver reports whether shape has more than limit elements.
func elementsOver(shape []int, limit int64) bool {
	n := int64(1)
	for _, d := range shape {
		if d < 1 {
			return false // qtype names the fault
		}
		if n > limit/int64(d) {
			return true
		}
		n *= int64(d)
	}
	return false
}

// validName reports whether s can name a tensor: 1 to 128 of a-z, A-Z, 0-9,
// dot, dash and underscore.
func validName(s string) bool {
	if len(s) == 0 || len(s) > maxName {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
