package shq

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"lqa/quant/qtype"
)

// sample is a two-stage model whose second stage has a tensor over three
// frames and padding that ends a frame.
func sample(t testing.TB, big bool) ([][]TensorData, []byte) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	data := func(name string, k qtype.Kind, shape ...int) TensorData {
		size, err := k.Size(shape)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(rng.IntN(16)) // compresses somewhat
			if i >= 4096 {
				b[i] = b[i-4096] // and fast
			}
		}
		return TensorData{Name: name, Kind: k, Shape: shape, Data: b}
	}
	stages := [][]TensorData{
		{data("a.weight", qtype.F16, 3, 5), data("a.bias", qtype.F16, 3), data("b", qtype.Q8C, 9, 7)},
		{data("names", qtype.U8, 21), data("table", qtype.Q8R, 5, 4)},
	}
	if big {
		stages[1] = append(stages[1],
			data("fill", qtype.U8, FrameRawBytes-80-3),
			data("long", qtype.U8, 2*FrameRawBytes+77), data("last", qtype.U8, 1))
	}
	var buf bytes.Buffer
	err := Write(&buf, Manifest{Name: "sample", Model: []byte(`{"embed": 4}`), Plan: []byte(`[ {"name": "a"} ]`), Provenance: Provenance{Source: "random numbers", Licence: "CC0-1.0", Tool: "test"}}, stages)
	if err != nil {
		t.Fatal(err)
	}
	return stages, buf.Bytes()
}

// readAll reads a file to its end and returns the stages' raw streams.
func readAll(file []byte, l Limits) (*Manifest, [][]byte, error) {
	r, err := NewReader(bytes.NewReader(file), l, nil)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	streams := make([][]byte, r.Manifest().Stages())
	for {
		f, raw, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Manifest(), streams, nil
		}
		if err != nil {
			return nil, nil, err
		}
		s := r.Manifest().Frames[f].Stage
		streams[s] = append(streams[s], raw...)
	}
}

// readFrames reads header and manifest, then each frame by itself, the last one
// first, and returns the frames' raw bytes.
func readFrames(file []byte, l Limits, hash func([]byte) [32]byte) ([][]byte, error) {
	r, err := NewReader(bytes.NewReader(file), l, hash)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	frames := r.Manifest().Frames
	raw := make([][]byte, len(frames))
	for i := len(frames) - 1; i >= 0; i-- {
		f := &frames[i]
		n := int64(len(file))
		if raw[i], err = r.Decode(nil, i, file[min(f.Offset, n):min(f.Offset+int64(f.Size), n)]); err != nil {
			return nil, err
		}
	}
	return raw, nil
}

func TestWrite_RoundTrip(t *testing.T) {
	for _, big := range []bool{false, true} {
		stages, file := sample(t, big)
		m, streams, err := readAll(file, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if string(m.Plan) != `[{"name":"a"}]` {
			t.Errorf("plan is %s", m.Plan)
		}
		if m.FileBytes() != int64(len(file)) {
			t.Errorf("FileBytes is %d, file has %d", m.FileBytes(), len(file))
		}
		if m.Name != "sample" || m.Provenance.Licence != "CC0-1.0" || string(m.Model) != `{"embed":4}` {
			t.Errorf("manifest is %+v", m)
		}
		i := 0
		for stage, list := range stages {
			for _, want := range list {
				s, at := m.Place(i)
				got := m.Tensors[i]
				if got.Name != want.Name || got.Kind != want.Kind || s != stage || at%Align != 0 {
					t.Fatalf("tensor %d is %+v in stage %d at %d, want %s in stage %d", i, got, s, at, want.Name, stage)
				}
				if !bytes.Equal(streams[s][at:at+int64(got.Bytes())], want.Data) {
					t.Errorf("%s: content differs", want.Name)
				}
				i++
			}
		}
		frames, err := readFrames(file, Limits{}, nil)
		if err != nil || !bytes.Equal(slices.Concat(frames...), slices.Concat(streams...)) {
			t.Errorf("read frame by frame: other bytes (%v)", err)
		}
		_, again := sample(t, big)
		if !bytes.Equal(file, again) {
			t.Error("the same input gave other bytes")
		}
		if big && (len(m.Frames) != 5 || m.Tensors[6].Offset != 0) {
			t.Errorf("the big sample has %d frames and %+v", len(m.Frames), m.Tensors[6])
		}
	}
}

// TestManifest_Encode holds encode and parseManifest to the fields' tags, by
// which tools read and write manifests with encoding/json.
func TestManifest_Encode(t *testing.T) {
	_, file := sample(t, true)
	m, _, err := readAll(file, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	m.Name, m.Provenance.Source = "<\u2028\">", "é\n"
	want, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.encode()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s\n%v, want\n%s", got, err, want)
	}
	again, err := parseManifest(got, Limits{}.withDefaults())
	if err != nil || !reflect.DeepEqual(again, m) {
		t.Errorf("%+v, %v", again, err)
	}
}

// TestWrite_Alone: a frame begins and ends with each tensor that wants that,
// whatever stands around it, and no other frame does.
func TestWrite_Alone(t *testing.T) {
	tensor := func(name string, n int, alone bool) TensorData {
		return TensorData{Name: name, Kind: qtype.U8, Shape: []int{n}, Data: bytes.Repeat([]byte{name[0]}, n), Alone: alone}
	}
	stages := [][]TensorData{
		{tensor("a", 5, false), tensor("b", 7, true), tensor("c", 16, true), tensor("d", 3, false), tensor("e", 4, false)},
		{tensor("f", FrameRawBytes, true), tensor("g", 9, true)},
		{tensor("h", 9, false)},
	}
	var out bytes.Buffer
	if err := Write(&out, Manifest{Model: []byte("{}")}, stages); err != nil {
		t.Fatal(err)
	}
	file := out.Bytes()
	m, _, err := readAll(file, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(m.Frames); n != 7 {
		t.Errorf("%d frames, want 7", n)
	}
	raw, err := readFrames(file, Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(stages...)
	for i := range m.Tensors {
		x := &m.Tensors[i]
		if got := m.Alone(i); got != (want[i].Alone || x.Name == "a" || x.Name == "h") { // these two by chance
			t.Errorf("%s: alone %v, frame %d", x.Name, got, x.Frame)
		}
		if b := raw[x.Frame][x.Offset:]; !bytes.Equal(b[:x.Bytes()], want[i].Data) {
			t.Errorf("%s: other bytes", x.Name)
		}
	}
	if got, want := m.StageEnd(0), m.Frames[4].Offset; got != want {
		t.Errorf("stage 0 ends at %d, want %d", got, want)
	}
	if got := m.StageEnd(2); got != int64(len(file)) {
		t.Errorf("stage 2 ends at %d of %d", got, len(file))
	}
	if err := Write(io.Discard, Manifest{Model: []byte("{}")}, [][]TensorData{{tensor("a", FrameRawBytes+1, true)}}); err == nil {
		t.Error("a tensor larger than a frame has one to itself")
	}
}

// TestManifest_Alone: a tensor that goes on in the next frame is not alone,
// nor is one that begins within a frame.
func TestManifest_Alone(t *testing.T) {
	_, file := sample(t, true)
	m, _, err := readAll(file, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Tensors {
		if m.Alone(i) {
			t.Errorf("%+v is alone in %+v", m.Tensors[i], m.Frames)
		}
	}
}

// TestReader_Decode: frames fetched by other ways are checked as those of the
// stream, which goes on as if nothing had been.
func TestReader_Decode(t *testing.T) {
	_, file := sample(t, true)
	want, err := readFrames(file, Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(bytes.NewReader(file), Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	frame := func(i int) []byte {
		f := &r.Manifest().Frames[i]
		return bytes.Clone(file[f.Offset : f.Offset+int64(f.Size)])
	}
	last := len(want) - 1
	flipped := frame(last)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		packed []byte
		want   error
	}{
		"nothing": {nil, ErrTruncated}, "short": {frame(last)[1:], ErrTruncated}, "long": {append(frame(last), 0), ErrCorrupt},
		"flipped": {flipped, ErrCorrupt}, "another": {frame(0)[:len(flipped)], ErrCorrupt},
	} {
		if _, err := r.Decode(nil, last, c.packed); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for i := range want {
		got, raw, err := r.Next()
		if err != nil || got != i {
			t.Fatal(got, err)
		}
		other, err := r.Decode([]byte("so far"), last-i, frame(last-i))
		if err != nil || string(other[:6]) != "so far" || !bytes.Equal(other[6:], want[last-i]) {
			t.Errorf("frame %d: other bytes (%v)", last-i, err)
		}
		if !bytes.Equal(raw, want[i]) {
			t.Errorf("Decode spoils frame %d of the stream", i)
		}
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Error(err)
	}
	r.Close()
	if _, err := r.Decode(nil, 0, frame(0)); err == nil {
		t.Error("decodes after Close")
	}
}
