//go:build !js

package shq

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lqa/quant/qtype"
)

// python is the second reader, which knows FORMAT.md alone.
type python struct{ path, script string }

func newPython(t *testing.T) python {
	p := python{os.Getenv("LQA_PYTHON"), filepath.Join("testdata", "read_shq.py")}
	if p.path == "" {
		p.path = "python3"
	}
	if _, err := os.Stat(p.script); err != nil { // seen by go test's cache too
		t.Fatal(err)
	}
	if out, err := exec.Command(p.path, p.script, "--check").CombinedOutput(); err != nil {
		t.Skipf("%s (LQA_PYTHON) can't read .shq files: %v %s", p.path, err, out)
	}
	return p
}

// read returns what the script prints for each file, but for the file's name.
func (p python) read(t *testing.T, command string, files []string) []string {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(p.path, append([]string{p.script, command}, files...)...)
	cmd.Stderr = &log
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		t.Fatalf("%v\n%s", err, log.Bytes())
	}
	rest := string(out)
	got := make([]string, len(files))
	for i, name := range files {
		var ok bool
		if got[i], rest, ok = strings.Cut(rest, " "+name+"\n"); !ok {
			t.Fatalf("no line for %s\n%s", name, log.Bytes())
		}
	}
	return got
}

// goRead is what the script should print for a file, with --tensors or --shards.
func goRead(t *testing.T, file []byte, shards bool) string {
	t.Helper()
	var out strings.Builder
	show := func(x *Tensor, b []byte) error {
		values, err := x.Kind.Dequantize(b, x.Shape)
		if err != nil {
			t.Fatal(err)
		}
		raw := make([]byte, 0, 4*len(values))
		for _, v := range values {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
		}
		shape := strings.ReplaceAll(strings.Trim(fmt.Sprint(x.Shape), "[]"), " ", "x")
		fmt.Fprintf(&out, "%s %s %s %x\n", x.Name, x.Kind, shape, sha256.Sum256(raw))
		return nil
	}
	r, err := NewReader(bytes.NewReader(file), Limits{}, nil)
	if err == nil {
		defer r.Close()
	}
	if err == nil && shards {
		for i, m := 0, r.Manifest(); i < len(m.Tensors) && err == nil; i++ {
			if x := &m.Tensors[i]; m.Alone(i) {
				f := m.Frames[x.Frame]
				var raw []byte
				if raw, err = r.Decode(nil, x.Frame, file[f.Offset:][:f.Size]); err == nil {
					err = show(x, raw[:x.Bytes()])
				}
			}
		}
	}
	for err == nil && !shards {
		_, err = r.NextTensors(show)
	}
	if err != nil && err != io.EOF {
		return class(err)
	}
	return out.String() + "OK"
}

func class(err error) string {
	for name, e := range map[string]error{
		"Magic": ErrMagic, "Version": ErrVersion, "Truncated": ErrTruncated, "Corrupt": ErrCorrupt, "TooLarge": ErrTooLarge,
	} {
		if errors.Is(err, e) {
			return name
		}
	}
	return err.Error()
}

func TestPython_Attacks(t *testing.T) {
	p := newPython(t)
	want := map[string]string{}
	for _, a := range attacks {
		want[a.name+".shq"] = class(a.want)
	}
	files, err := filepath.Glob(filepath.Join("testdata", "attacks", "*"))
	if err != nil || len(files) != len(attacks) {
		t.Fatalf("%d files for %d attacks (%v)", len(files), len(attacks), err)
	}
	for i, got := range p.read(t, "--check", files) {
		if w := want[filepath.Base(files[i])]; got != w {
			t.Errorf("%s: %s, want %s", files[i], got, w)
		}
	}
}

// kinds is a file of every kind, in shapes that fit their panels and groups
// and in some that do not, a tensor over several frames, and shards.
func kinds(t *testing.T) []byte {
	rng := rand.New(rand.NewPCG(3, 4))
	data := func(name string, k qtype.Kind, shape ...int) TensorData {
		size, err := k.Size(shape)
		if err != nil {
			t.Fatal(err)
		}
		halves := k.ScaleBytes(shape[0])
		if low, ok := k.Low(); ok {
			halves = low.ScaleBytes(shape[0], shape[1])
		} else if k == qtype.F16 {
			halves = size
		}
		b := make([]byte, size)
		for i := range b {
			if b[i] = byte(rng.Uint32()); i >= 4096 {
				b[i] = b[i-4096]
			}
			if i < halves && i%2 == 1 && k != qtype.U8 {
				b[i] &^= 4 // finite
			}
		}
		return TensorData{Name: name, Kind: k, Shape: shape, Data: b}
	}
	every := []byte{}
	for h := range 1 << 16 {
		if h&0x7c00 != 0x7c00 {
			every = binary.LittleEndian.AppendUint16(every, uint16(h))
		}
	}
	stages := [][]TensorData{
		{data("bytes", qtype.U8, 1), data("rank4", qtype.U8, 2, 3, 5, 7), data("half", qtype.F16, 3), data("cube", qtype.F16, 3, 1, 5)},
		{{Name: "every", Kind: qtype.F16, Shape: []int{len(every) / 2}, Data: every}, data("long", qtype.Q8C, 1111, 2001), data("last", qtype.U8, 3)},
		{},
	}
	all := []qtype.Kind{qtype.Q8R, qtype.Q8C}
	for bits := range 4 {
		for _, group := range []string{"", "g32", "g64", "g128"} {
			all = append(all, qtype.Kind(fmt.Sprintf("q%d%s", bits+4, group)))
		}
	}
	for _, k := range all {
		for _, s := range [][2]int{{1, 1}, {3, 2}, {8, 64}, {9, 5}, {9, 27}, {6, 144}, {21, 70}, {9, 150}, {15, 130}, {17, 83}, {12, 76}} {
			stages[0] = append(stages[0], data(fmt.Sprintf("%s.%dx%d", k, s[0], s[1]), k, s[0], s[1]))
		}
	}
	for i, rows := range []int{16, 16, 7} {
		shard := data(fmt.Sprint("shard.", i), qtype.Q8R, rows, 33)
		shard.Alone = true
		stages[2] = append(stages[2], shard)
	}
	stages[2] = append(stages[2], data("behind", qtype.U8, 5), data("company", qtype.U8, 6))
	var out bytes.Buffer
	if err := Write(&out, Manifest{Model: []byte("{}")}, stages); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestPython_Values compares what all kinds' values are, bit for bit.
func TestPython_Values(t *testing.T) {
	p := newPython(t)
	made := filepath.Join(t.TempDir(), "kinds.shq")
	if err := os.WriteFile(made, kinds(t), 0o644); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join("..", "..", "assets", "*.shq"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no model in assets (%v)", err)
	}
	files = append(files, made)
	for command, shards := range map[string]bool{"--tensors": false, "--shards": true} {
		for i, got := range p.read(t, command, files) {
			file, err := os.ReadFile(files[i])
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Split(goRead(t, file, shards), "\n")
			lines := strings.Split(got, "\n")
			for j := range max(len(want), len(lines)) {
				if j >= min(len(want), len(lines)) || lines[j] != want[j] {
					t.Errorf("%s: %d lines, want %d; the first that differs:\n%.200q, want\n%.200q", files[i], len(lines), len(want), lines[j:min(j+1, len(lines))], want[j:min(j+1, len(want))])
					break
				}
			}
		}
	}
}

// TestPython_Flip flips bytes, most of them under hashes that are made to fit:
// both readers take the same files, read the same in them, and refuse the rest
// with the same class.
func TestPython_Flip(t *testing.T) {
	p := newPython(t)
	// Compressed, but too short for four Huffman streams: zstd itself takes some
	// of these that end a few bits off.
	text := []byte("A reader checks every limit before it allocates, so a file costs memory only in proportion to what it really holds. " +
		"A frame states its size twice, and the two must agree before the frame is read.")
	f := base(t)
	f.frames = append(f.frames, pack(t, text))
	f.m.Frames = append(f.m.Frames, Frame{Stage: 2, Raw: len(text)})
	f.m.Tensors = append(f.m.Tensors, Tensor{Name: "text", Kind: qtype.U8, Shape: []int{len(text)}, Frame: 3})

	dir := t.TempDir()
	var files, want []string
	add := func(what string, b []byte) {
		name := filepath.Join(dir, what)
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
		files, want = append(files, name), append(want, goRead(t, b, false))
	}
	masks := []byte{1, 2, 4, 0x10, 0x20, 0x80, 0xff}
	whole := f.file(t)
	for i := 0; i < len(whole); i += 41 {
		b := bytes.Clone(whole)
		b[i] ^= masks[i%len(masks)]
		add(fmt.Sprint("file", i), b)
	}
	for i := 0; i < int(binary.LittleEndian.Uint32(whole[8:])); i += 2 {
		f.json = func(s string) string {
			b := []byte(s)
			b[i] ^= masks[i%len(masks)]
			return string(b)
		}
		add(fmt.Sprint("manifest", i), f.file(t))
	}
	f.json = nil
	for k, frame := range f.frames {
		for i := range frame {
			frame[i] ^= masks[i%len(masks)]
			add(fmt.Sprintf("frame%d.%d", k, i), f.file(t))
			frame[i] ^= masks[i%len(masks)]
		}
	}

	taken := 0
	for i, got := range p.read(t, "--tensors", files) {
		if !strings.HasSuffix(got, "OK") {
			got = got[strings.LastIndex(got, "\n")+1:] // what came before is right
		} else {
			taken++
		}
		if got != want[i] {
			t.Errorf("%s: %s, want %s", filepath.Base(files[i]), got, want[i])
		}
	}
	if taken < len(files)/20 || taken > len(files)/2 {
		t.Errorf("%d of %d files taken: a poor sample", taken, len(files))
	}
}
