package shq

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
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
