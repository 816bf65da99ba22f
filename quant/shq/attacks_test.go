package shq

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"lqa/quant/json"
	"lqa/quant/qtype"
)

var update = flag.Bool("update", false, "write testdata/attacks again")

// forge is a file in parts, to be put together with right hashes and offsets
// but for what an attack changes.
type forge struct {
	m      *Manifest
	frames [][]byte // as they stand in the file
	early  func(*Manifest)
	late   func(*Manifest) // after offsets are laid out
	json   func(string) string
	bytes  func([]byte) []byte
}

func pack(t testing.TB, raw []byte) []byte {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	return enc.EncodeAll(raw, nil)
}

// base has two stages, three frames and three tensors; "a" runs over two
// frames, padding stands before "b".
func base(t testing.TB) *forge {
	raws := [][]byte{bytes.Repeat([]byte{1}, 16), append(bytes.Repeat([]byte{1}, 4), append(make([]byte, 12), 2)...), {3, 3}}
	f := &forge{m: &Manifest{Name: "attack", Model: json.Raw("{}"),
		Tensors: []Tensor{
			{Name: "a", Kind: qtype.F16, Shape: []int{10}, Frame: 0, Offset: 0},
			{Name: "b", Kind: qtype.U8, Shape: []int{1}, Frame: 1, Offset: 16},
			{Name: "c", Kind: qtype.U8, Shape: []int{2}, Frame: 2, Offset: 0},
		}}}
	for i, raw := range raws {
		f.m.Frames = append(f.m.Frames, Frame{Stage: i / 2, Raw: len(raw)})
		f.frames = append(f.frames, pack(t, raw))
	}
	return f
}

func (f *forge) file(t testing.TB) []byte {
	for i, b := range f.frames {
		sum := sha256.Sum256(b)
		f.m.Frames[i].Size, f.m.Frames[i].SHA256 = len(b), hex.EncodeToString(sum[:])
	}
	if f.early != nil {
		f.early(f.m)
	}
	manifest, _, err := f.m.layOut()
	if err != nil {
		t.Fatal(err)
	}
	if f.late != nil {
		f.late(f.m)
		if manifest, err = f.m.encode(); err != nil {
			t.Fatal(err)
		}
	}
	if f.json != nil {
		manifest = []byte(f.json(string(manifest)))
	}
	out := binary.LittleEndian.AppendUint32([]byte(Magic), Version)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(manifest)))
	sum := sha256.Sum256(manifest)
	out = append(append(out, sum[:]...), manifest...)
	for _, b := range f.frames {
		out = append(out, b...)
	}
	if f.bytes != nil {
		out = f.bytes(out)
	}
	return out
}

// attacks: each breaks one rule of FORMAT.md.
var attacks = []struct {
	name string
	want error
	says string // part of the message: the right rule refused it
	make func(t testing.TB, f *forge)
}{
	{"magic", ErrMagic, "magic", func(_ testing.TB, f *forge) { f.bytes = func(b []byte) []byte { b[3] = '2'; return b } }},
	{"version", ErrVersion, "version 2", func(_ testing.TB, f *forge) { f.bytes = func(b []byte) []byte { b[4] = 2; return b } }},
	{"manifest-huge", ErrTooLarge, "manifest of 4294967295", func(_ testing.TB, f *forge) {
		f.bytes = func(b []byte) []byte { copy(b[8:], "\xff\xff\xff\xff"); return b }
	}},
	{"manifest-hash", ErrCorrupt, "SHA-256 of the manifest", func(_ testing.TB, f *forge) { f.bytes = func(b []byte) []byte { b[12] ^= 1; return b } }},
	{"manifest-json", ErrCorrupt, "manifest:", func(_ testing.TB, f *forge) { f.json = func(s string) string { return s + "{}" } }},
	{"manifest-model", ErrCorrupt, "no model", func(_ testing.TB, f *forge) {
		f.json = func(s string) string { return strings.Replace(s, `"model":{}`, `"model":[]`, 1) }
	}},
	{"manifest-key-twice", ErrCorrupt, "a key is used twice", func(_ testing.TB, f *forge) {
		f.json = func(s string) string { return strings.Replace(s, `"frame":0`, `"frame":0,"fram\u0065":0`, 1) }
	}},
	{"manifest-utf8", ErrCorrupt, "not UTF-8", func(_ testing.TB, f *forge) {
		f.json = func(s string) string { return strings.Replace(s, `"attack"`, "\"\xff\"", 1) }
	}},
	{"manifest-deep", ErrCorrupt, "nested too deep", func(_ testing.TB, f *forge) {
		f.json = func(s string) string {
			return strings.Replace(s, `"model":{}`, `"model":{"a":`+strings.Repeat("[", 1<<10)+strings.Repeat("]", 1<<10)+"}", 1)
		}
	}},
	{"no-tensors", ErrCorrupt, "needs a tensor", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Tensors = []Tensor{} } }},
	{"no-frames", ErrCorrupt, "no list of frames", func(_ testing.TB, f *forge) {
		f.json = func(s string) string { return strings.Replace(s, `"frames"`, `"f"`, 1) }
	}},
	{"tensors-many", ErrTooLarge, "over 4096 tensors", func(_ testing.TB, f *forge) {
		f.json = func(s string) string {
			return strings.Replace(s, `"tensors":[`, `"tensors":[`+strings.Repeat("{},", 4096), 1)
		}
	}},
	{"frame-overlap", ErrCorrupt, "overlap or hole", func(_ testing.TB, f *forge) { f.late = func(m *Manifest) { m.Frames[1].Offset-- } }},
	{"frame-hole", ErrCorrupt, "overlap or hole", func(_ testing.TB, f *forge) { f.late = func(m *Manifest) { m.Frames[2].Offset++ } }},
	{"trailing", ErrCorrupt, "bytes after the last frame", func(_ testing.TB, f *forge) { f.bytes = func(b []byte) []byte { return append(b, 0) } }},
	{"frame-raw-huge", ErrTooLarge, "limit 2097152", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Frames[2].Raw = 2<<20 + 1 } }},
	{"frame-size-huge", ErrCorrupt, "bytes for 2 raw ones", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Frames[2].Size = 2 << 20 } }},
	{"frame-empty", ErrCorrupt, "size below 1", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Frames[2].Raw = 0 } }},
	{"raw-sum", ErrTooLarge, "add up to over", func(_ testing.TB, f *forge) {
		f.early = func(m *Manifest) {
			m.Frames[2].Raw = 2 << 20
			frame := m.Frames[2]
			for range 512 {
				m.Frames = append(m.Frames, frame)
			}
		}
	}},
	{"stage-first", ErrCorrupt, "stage 1 after -1", func(_ testing.TB, f *forge) {
		f.early = func(m *Manifest) { m.Frames[0].Stage, m.Frames[1].Stage = 1, 1 }
	}},
	{"stage-skips", ErrCorrupt, "stage 2 after 0", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Frames[2].Stage = 2 } }},
	{"stage-back", ErrCorrupt, "stage 0 after 1", func(_ testing.TB, f *forge) {
		f.early = func(m *Manifest) { m.Frames[1].Stage, m.Frames[2].Stage = 1, 0 }
	}},
	{"frame-unaligned", ErrCorrupt, "no multiple of 16", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Frames[0].Raw = 15 } }},
	{"frame-hex", ErrCorrupt, "hex digits", func(_ testing.TB, f *forge) {
		f.early = func(m *Manifest) { m.Frames[0].SHA256 = strings.ToUpper(m.Frames[0].SHA256) }
	}},
	{"frame-hash", ErrCorrupt, "frame 2 at byte", func(_ testing.TB, f *forge) {
		f.bytes = func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	}},
	{"zstd-size", ErrCorrupt, "does not state 2 bytes", func(t testing.TB, f *forge) { f.frames[2] = pack(t, make([]byte, 1<<16)) }},
	{"zstd-two", ErrCorrupt, "zstd frame of", func(t testing.TB, f *forge) {
		f.frames[2] = append(f.frames[2], 0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0) // and an empty one
	}},
	{"zstd-skippable", ErrCorrupt, "skippable", func(t testing.TB, f *forge) {
		f.frames[2] = append([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9}, f.frames[2]...)
	}},
	{"zstd-junk", ErrCorrupt, "zstd header", func(t testing.TB, f *forge) { f.frames[2] = []byte("not zstd") }},
	{"zstd-broken", ErrCorrupt, "zstd: ", func(t testing.TB, f *forge) {
		f.frames[2] = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 2, 0x1d, 0, 0, 1, 2, 3} // a compressed block of nonsense
	}},
	{"name-path", ErrCorrupt, "bad name", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Tensors[0].Name = "../a" } }},
	{"name-twice", ErrCorrupt, "name used twice", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Tensors[1].Name = "a" } }},
	{"kind", ErrCorrupt, "unknown kind", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Tensors[1].Kind = "q9" } }},
	{"shape-empty", ErrCorrupt, "rank 0", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Tensors[1].Shape = []int{} } }},
	{"shape-zero", ErrCorrupt, "bad shape", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Tensors[1].Shape = []int{0, 1 << 40} } }},
	{"shape-rank", ErrCorrupt, "rank 5", func(_ testing.TB, f *forge) {
		f.early = func(m *Manifest) { m.Tensors[1].Shape = []int{1, 1, 1, 1, 1} }
	}},
	{"shape-huge", ErrTooLarge, "elements", func(_ testing.TB, f *forge) {
		f.early = func(m *Manifest) { m.Tensors[1].Shape = []int{1 << 32} } // asks for 4 GB
	}},
	{"tensor-overlap", ErrCorrupt, "overlap or hole", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Tensors[1].Offset = 0 } }},
	{"tensor-hole", ErrCorrupt, "overlap or hole", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Tensors[0].Shape[0] = 1 } }},
	{"tensor-outside", ErrCorrupt, "outside of its frame", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Tensors[1].Offset = 32 } }},
	{"tensor-over-end", ErrCorrupt, "over the end of stage 0", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Tensors[1].Shape[0] = 2 } }},
	{"stage-rest", ErrCorrupt, "after the last tensor of stage 1", func(_ testing.TB, f *forge) { f.early = func(m *Manifest) { m.Tensors[2].Shape[0] = 1 } }},
	{"tensor-order", ErrCorrupt, "in stage 1, with 0 of", func(_ testing.TB, f *forge) {
		f.early = func(m *Manifest) { m.Tensors[0], m.Tensors[2] = m.Tensors[2], m.Tensors[0] }
	}},
	{"padding", ErrCorrupt, "is not zero", func(t testing.TB, f *forge) {
		f.frames[1] = pack(t, append(bytes.Repeat([]byte{1}, 4), append(make([]byte, 11), 9, 2)...))
	}},
	{"cut", ErrTruncated, "frame 2", func(_ testing.TB, f *forge) { f.bytes = func(b []byte) []byte { return b[:len(b)-1] } }},
}

func TestAttacks(t *testing.T) {
	if _, _, err := readAll(base(t).file(t), Limits{}); err != nil {
		t.Fatalf("without an attack: %v", err)
	}
	for _, a := range attacks {
		path := filepath.Join("testdata", "attacks", a.name+".shq")
		if *update {
			f := base(t)
			a.make(t, f)
			if err := os.WriteFile(path, f.file(t), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err = readAll(file, Limits{})
		runtime.ReadMemStats(&after)
		if !errors.Is(err, a.want) || !strings.Contains(err.Error(), a.says) {
			t.Errorf("%s: %v, want %v with %q", a.name, err, a.want, a.says)
		}
		if _, err := readFrames(file, Limits{}, nil); a.name != "trailing" && (!errors.Is(err, a.want) || !strings.Contains(err.Error(), a.says)) {
			t.Errorf("%s, by frames: %v, want %v with %q", a.name, err, a.want, a.says)
		}
		// Far below what huge files claim, above a decoder and the largest manifest.
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
			t.Errorf("%s: %d bytes allocated for a file of %d", a.name, n, len(file))
		}
	}
}

// TestFormat holds FORMAT.md to the code: each rule's files are attacks that
// end in an error of its row, each attack stands in a row, and the hex dump is
// what Write writes.
func TestFormat(t *testing.T) {
	doc, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	sentinels := map[string]error{"ErrMagic": ErrMagic, "ErrVersion": ErrVersion, "ErrTruncated": ErrTruncated, "ErrCorrupt": ErrCorrupt, "ErrTooLarge": ErrTooLarge}
	listed := map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| M\d+ \|.*$`).FindAllString(string(doc), -1) {
		for _, name := range regexp.MustCompile(`([a-z0-9-]+)\.shq`).FindAllStringSubmatch(row, -1) {
			listed[name[1]] = row
		}
	}
	for _, a := range attacks {
		row, ok := listed[a.name]
		if !ok {
			t.Errorf("%s.shq stands in no row", a.name)
			continue
		}
		delete(listed, a.name)
		named := false
		for word, err := range sentinels {
			named = named || err == a.want && strings.Contains(row, word)
		}
		if !named {
			t.Errorf("%s: the row does not name %v:\n%s", a.name, a.want, row)
		}
	}
	for name := range listed {
		t.Errorf("%s.shq is named but there is no such attack", name)
	}

	var dump []byte
	for _, line := range regexp.MustCompile(`(?m)^[0-9a-f]{8}: ((?:[0-9a-f]{2,4} )+)`).FindAllStringSubmatch(string(doc), -1) {
		b, err := hex.DecodeString(strings.ReplaceAll(line[1], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		dump = append(dump, b...)
	}
	var smallest bytes.Buffer
	err = Write(&smallest, Manifest{Model: []byte("{}")}, [][]TensorData{{{Name: "a", Kind: qtype.U8, Shape: []int{1}, Data: []byte{7}}}})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dump, smallest.Bytes()) {
		t.Errorf("the hex dump differs from what Write gives:\n%s", hex.Dump(smallest.Bytes()))
	}
	if _, _, err := readAll(dump, Limits{}); err != nil {
		t.Error(err)
	}
}

// TestFormat_Kinds holds the table of kinds in FORMAT.md to package qtype.
func TestFormat_Kinds(t *testing.T) {
	doc, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	last := func(kind qtype.Kind, n, k, code int) []byte {
		codes := make([]byte, n*k)
		codes[n*k-1] = byte(code)
		if low, ok := kind.Low(); ok {
			return low.AppendCodes(nil, make([]float32, n*low.Groups(k)), codes, n, k)
		}
		w := make([]float32, n*k)
		w[n*k-1] = float32(code)
		if kind == qtype.Q8R {
			return qtype.AppendQ8R(nil, w, n, k)
		}
		return qtype.AppendQ8C(nil, w, n, k)
	}
	for _, c := range []struct {
		kind qtype.Kind
		n, k int
	}{
		{qtype.Q8R, 9, 5}, {qtype.Q8C, 9, 5}, {qtype.Q4, 8, 64}, {qtype.Q4, 9, 3}, {qtype.Q4, 9, 150}, {"q4g32", 21, 70}, {qtype.Q5, 9, 27},
		{"q5g128", 15, 130}, {qtype.Q6, 6, 144}, {"q6g64", 9, 83}, {qtype.Q7, 12, 74}, {"q7g32", 3, 1},
	} {
		most, group := 127, "-"
		if low, ok := c.kind.Low(); ok {
			most, group = 2*low.Zero()-1, strconv.Itoa(low.Group(c.k))
		}
		zero, full := last(c.kind, c.n, c.k, 0), last(c.kind, c.n, c.k, most)
		var where []string
		head := c.kind.ScaleBytes(c.n) // of q8r and q8c; those of the others do not differ
		for i := head; i < len(zero); i++ {
			if d := zero[i] ^ full[i]; d != 0 {
				where = append(where, fmt.Sprintf("%d: %02x", i, d))
			}
		}
		row := fmt.Sprintf("| %s | [%d,%d] | %s | %d | %s |\n", c.kind, c.n, c.k, group, len(zero), strings.Join(where, ", "))
		if !strings.Contains(string(doc), row) {
			t.Errorf("FORMAT.md lacks the row\n%s", row)
		}
	}
}
