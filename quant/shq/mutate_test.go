package shq

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"lqa/quant/qtype"
)

// TestReader_Cut cuts a file at every byte.
func TestReader_Cut(t *testing.T) {
	_, file := sample(t, false)
	for n := range file {
		if _, _, err := readAll(file[:n], Limits{}); !errors.Is(err, ErrTruncated) {
			t.Fatalf("cut at %d of %d: %v", n, len(file), err)
		}
	}
}

// TestReader_Flip flips bits of every byte: header, manifest and frames are
// all covered by a hash, so nothing may pass.
func TestReader_Flip(t *testing.T) {
	_, file := sample(t, false)
	for i := range file {
		for _, mask := range []byte{0x01, 0x80, 0xff} {
			file[i] ^= mask
			if _, _, err := readAll(file, Limits{}); err == nil {
				t.Fatalf("byte %d ^ %#x: accepted", i, mask)
			}
			file[i] ^= mask
		}
	}
}

// TestReader_FlipBig flips a sample of bytes of a file of many frames.
func TestReader_FlipBig(t *testing.T) {
	_, file := sample(t, true)
	rng := rand.New(rand.NewPCG(9, 10))
	for range 12 {
		i, mask := rng.IntN(len(file)), byte(1)<<rng.IntN(8)
		file[i] ^= mask
		if _, _, err := readAll(file, Limits{}); err == nil {
			t.Fatalf("byte %d ^ %#x: accepted", i, mask)
		}
		file[i] ^= mask
	}
}

// TestReader_Manifest flips every byte of the manifest under a hash that
// always fits: what passes must still have all its sizes in bounds.
func TestReader_Manifest(t *testing.T) {
	_, file := sample(t, false)
	unhash(t, file)
	end := HeaderBytes + int(uint32(file[8])|uint32(file[9])<<8)
	for i := HeaderBytes; i < end; i++ {
		for _, mask := range []byte{0x01, 0x02, 0x04, 0x10, 0x20, 0xff} {
			file[i] ^= mask
			drain(t, file)
			file[i] ^= mask
		}
	}
}

func TestReader_Sticky(t *testing.T) {
	_, file := sample(t, false)
	r, err := NewReader(bytes.NewReader(file[:len(file)-1]), Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var first error
	for first == nil {
		_, _, first = r.Next()
	}
	if _, _, err := r.Next(); err != first || !errors.Is(err, ErrTruncated) {
		t.Errorf("after %v: %v", first, err)
	}
}

// TestReader_Fails passes on what the underlying reader gives.
func TestReader_Fails(t *testing.T) {
	_, file := sample(t, false)
	broken := errors.New("the cable is out")
	for _, n := range []int{0, 10, 100, len(file) - 1, len(file)} {
		r := io.MultiReader(bytes.NewReader(file[:n]), iotest.ErrReader(broken))
		rd, err := NewReader(r, Limits{}, nil)
		for err == nil {
			_, _, err = rd.Next()
		}
		if !errors.Is(err, broken) || errors.Is(err, ErrTruncated) {
			t.Errorf("failing at %d: %v", n, err)
		}
	}
	// One byte at a time is as good as all at once.
	rd, err := NewReader(iotest.OneByteReader(bytes.NewReader(file)), Limits{}, nil)
	for err == nil {
		_, _, err = rd.Next()
	}
	if err != io.EOF {
		t.Error(err)
	}
}

func TestReader_Limits(t *testing.T) {
	_, file := sample(t, false)
	for _, l := range []Limits{{ManifestBytes: 100}, {Tensors: 4}, {Frames: 1}, {FrameRawBytes: 100}, {RawBytes: 200}} {
		if _, _, err := readAll(file, l); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

func TestWrite_Refused(t *testing.T) {
	ok := TensorData{Name: "a", Kind: qtype.U8, Shape: []int{1}, Data: []byte{1}}
	short, long, bad := ok, ok, ok
	short.Data, long.Name, bad.Kind = nil, strings.Repeat("a", 129), "q9"
	for name, stages := range map[string][][]TensorData{
		"nothing": nil, "a stage of nothing": {{ok}, {}, {ok}}, "name twice": {{ok, ok}}, "short data": {{short}}, "long name": {{long}}, "kind": {{bad}},
	} {
		var out bytes.Buffer
		if err := Write(&out, Manifest{Model: []byte("{}")}, stages); err == nil || out.Len() > 0 {
			t.Errorf("%s: %v, %d bytes written", name, err, out.Len())
		}
	}
	if err := Write(io.Discard, Manifest{Model: []byte("{")}, [][]TensorData{{ok}}); err == nil {
		t.Error("a model that is no JSON was written")
	}
}

// unhash sets the hashes of a file to those of noHash.
func unhash(t testing.TB, file []byte) {
	r, err := NewReader(bytes.NewReader(file), Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	clear(file[12:HeaderBytes])
	for _, f := range r.Manifest().Frames {
		i := bytes.Index(file, []byte(f.SHA256))
		copy(file[i:], strings.Repeat("0", 64))
	}
	if sum := noHash(nil); hex.EncodeToString(sum[:]) != strings.Repeat("0", 64) {
		t.Fatal("noHash is not zero")
	}
}

// noHash lets mutated bytes through to the checks behind the hashes.
func noHash([]byte) [32]byte { return [32]byte{} }

// drain reads file without hashes, and tests what must hold of whatever is
// accepted.
func drain(t testing.TB, file []byte) {
	l := Limits{RawBytes: 1 << 24}
	r, err := NewReader(bytes.NewReader(file), l, noHash)
	if err != nil {
		return
	}
	defer r.Close()
	m := r.Manifest()
	if m.FileBytes() < 0 || len(m.Tensors) == 0 {
		t.Fatalf("accepted %+v", m)
	}
	raw := make([]int64, m.Stages())
	for i, f := range m.Frames {
		raw[f.Stage] += int64(f.Raw)
		if f.Offset >= int64(len(file)) {
			continue
		}
		b, err := r.Decode(nil, i, file[f.Offset:min(f.Offset+int64(f.Size), int64(len(file)))])
		if err == nil && len(b) != f.Raw || err != nil && !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("frame %d of %d raw bytes: %d, %v", i, f.Raw, len(b), err)
		}
	}
	for i := range m.Tensors {
		stage, at := m.Place(i)
		n := m.Tensors[i].Bytes()
		if n < 1 || at < 0 || at%Align != 0 || at+int64(n) > raw[stage] {
			t.Fatalf("accepted %+v at %d of stage %d", m.Tensors[i], at, stage)
		}
	}
	for want := 0; ; want++ {
		i, b, err := r.Next()
		if err == io.EOF && want == len(m.Frames) {
			return
		}
		if err != nil {
			known := false
			for _, e := range []error{ErrTruncated, ErrCorrupt} {
				known = known || errors.Is(err, e)
			}
			if !known {
				t.Fatal(err)
			}
			return
		}
		if i != want || len(b) != m.Frames[i].Raw {
			t.Fatalf("frame %d of %d bytes, want %d of %d", i, len(b), want, m.Frames[want].Raw)
		}
	}
}

func FuzzReader(f *testing.F) {
	_, file := sample(f, false)
	unhash(f, file)
	f.Add(file)
	for _, a := range attacks {
		forged := base(f)
		a.make(f, forged)
		b := forged.file(f)
		if len(b) > HeaderBytes {
			clear(b[12:HeaderBytes])
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { drain(t, b) })
}
