package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lqa/quant/clip"
	"lqa/quant/qtype"
)

const tinyJSON = `{"embed":6,"logit_scale":20,"temperature":1,
 "image":{"kind":"efficientnet-lite","size":32,"mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5],"stem":8,"features":20,
  "blocks":[{"k":3,"s":1,"e":1,"in":8,"out":6},{"k":5,"s":2,"e":6,"in":6,"out":7}]},
 "text":{"kind":"bag","vocab":4,"width":5,"hidden":11,"context":8,"templates":["a photo of a {}."],"defaults":["mug"],"ready":2}}`

// tinyModel writes a float model directory of random weights.
func tinyModel(t *testing.T) string {
	t.Helper()
	cfg, err := clip.ParseConfig([]byte(tinyJSON))
	if err != nil {
		t.Fatal(err)
	}
	type entry struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	header := map[string]any{"__metadata__": map[string]string{"source": "random numbers", "licence": "CC0-1.0"}}
	rng := rand.New(rand.NewPCG(7, 8))
	var data []byte
	for _, s := range cfg.Tensors() {
		if s.Default == qtype.U8 {
			continue
		}
		n, start := 1, len(data)
		for _, d := range s.Shape {
			n *= d
		}
		for range n {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(rng.NormFloat64())))
		}
		header[s.Name] = entry{"F32", s.Shape, [2]int{start, len(data)}}
	}
	head, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head...)
	dir := t.TempDir()
	for name, content := range map[string]string{
		"model.json": tinyJSON, "model.safetensors": string(append(file, data...)),
		"vocab.txt": "[UNK]\na\n##b\nmug\n", "ready_names.txt": "mug\nred car\n",
	} {
		write(t, filepath.Join(dir, name), []byte(content))
	}
	return dir
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// command runs shq and fails the test unless it exits with want.
func command(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, talk bytes.Buffer
	if got := run(context.Background(), append([]string{"shq"}, args...), &out, &talk); got != want {
		t.Errorf("shq %v: exit code %d, want %d\n%s%s", args, got, want, out.String(), talk.String())
	}
	return out.String(), talk.String()
}

func TestRun(t *testing.T) {
	dir, out := tinyModel(t), t.TempDir()
	file := filepath.Join(out, "tiny.shq")

	said, _ := command(t, exitOK, "convert", dir, "-o", file)
	hash, _, _ := strings.Cut(said, " ")
	if len(hash) != 64 {
		t.Errorf("convert says %q", said)
	}
	if left, _ := filepath.Glob(filepath.Join(out, ".*")); len(left) > 0 {
		t.Errorf("convert leaves %v", left)
	}
	first := read(t, file)
	command(t, exitOK, "convert", "--verbose", "-o", file, dir)
	if !bytes.Equal(first, read(t, file)) {
		t.Error("the same directory and flags gave other bytes")
	}

	if said, _ = command(t, exitOK, "verify", file); !strings.HasPrefix(said, hash) {
		t.Errorf("verify says %q, convert %s", said, hash)
	}
	said, _ = command(t, exitOK, "inspect", file)
	for _, s := range []string{hash, `"tiny"`, `"CC0-1.0"`, `"shq convert 2"`, "image.block.01.expand", "q8c", "stage 1"} {
		if !strings.Contains(said, s) {
			t.Errorf("inspect does not say %s:\n%s", s, said)
		}
	}
	said, _ = command(t, exitOK, "inspect", "--json", file)
	var j struct {
		Hash     string
		Bytes    int
		Manifest struct{ Tensors []any }
	}
	if err := json.Unmarshal([]byte(said), &j); err != nil || j.Hash != hash || j.Bytes != len(first) || len(j.Manifest.Tensors) == 0 {
		t.Errorf("inspect --json: %+v, %v", j, err)
	}

	float := filepath.Join(out, "float.shq")
	command(t, exitOK, "convert", dir, "-o", float, "--float", "--name", "tiny float", "--source", "s", "--licence", "l")
	if said, _ = command(t, exitOK, "inspect", float); strings.Contains(said, "q8c  ") || !strings.Contains(said, `"tiny float"`) {
		t.Errorf("inspect of the float model:\n%s", said)
	}

	bad := filepath.Join(out, "bad.shq")
	write(t, bad, first[:len(first)-1])
	if _, talk := command(t, exitFailed, "verify", bad); !strings.Contains(talk, "truncated") {
		t.Errorf("verify of a cut file says %q", talk)
	}
	flipped := bytes.Clone(first)
	flipped[len(flipped)-5] ^= 1
	write(t, bad, flipped)
	if _, talk := command(t, exitFailed, "verify", bad); !strings.Contains(talk, "SHA-256 differs") {
		t.Errorf("verify of a flipped bit says %q", talk)
	}
	write(t, bad, []byte("<!DOCTYPE html>"))
	command(t, exitInput, "inspect", bad)
}

// TestRun_CLIP: a transformer's directory has merges.txt in place of vocab.txt.
func TestRun_CLIP(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clip.shq")
	_, talk := command(t, exitOK, "convert", "-v", "--kind", "text.layer.*=f16", "../../engine/testdata/clip-quick", "-o", file)
	for _, want := range []string{"text.layer.01.mlp.in.weight          f16", "image.layer.01.mlp.in.weight         q4 "} {
		if !strings.Contains(talk, want) {
			t.Errorf("%q is not in what convert tells:\n%s", want, talk)
		}
	}
	command(t, exitOK, "verify", file)
}

func TestRun_Mistakes(t *testing.T) {
	dir, out := tinyModel(t), filepath.Join(t.TempDir(), "a.shq")
	command(t, exitUsage)
	command(t, exitUsage, "frobnicate")
	if _, talk := command(t, exitUsage, "convrt"); !strings.Contains(talk, "convert") {
		t.Errorf("of convrt is said %q", talk)
	}
	command(t, exitUsage, "convert", dir)
	command(t, exitUsage, "convert", "-o", out)
	command(t, exitUsage, "convert", "-o", out, dir, dir)
	command(t, exitUsage, "convert", "--kind", "q8c", "-o", out, dir)
	command(t, exitInput, "convert", "--kind", "image.*=q9", "-o", out, dir)
	command(t, exitUsage, "inspect", "--frobnicate", out)
	command(t, exitUsage, "verify")
	command(t, exitIO, "verify", out)
	command(t, exitIO, "verify", dir)
	command(t, exitIO, "inspect", out)
	command(t, exitInput, "convert", t.TempDir(), "-o", out)
	command(t, exitIO, "convert", filepath.Join(dir, "absent"), "-o", out)
	command(t, exitIO, "convert", dir, "-o", filepath.Join(dir, "absent", "a.shq"))
	for _, args := range [][]string{{"--help"}, {"convert", "--help"}, {"inspect", "--help"}, {"verify", "--help"}} {
		if said, _ := command(t, exitOK, args...); !strings.HasPrefix(said, "Examples:") || !strings.Contains(said, "130 interrupted") {
			t.Errorf("%v begins with %.40q, or has no exit codes", args, said)
		}
	}

	write(t, filepath.Join(dir, "vocab.txt"), []byte("[UNK]\n"))
	if _, talk := command(t, exitInput, "convert", dir, "-o", out); !strings.Contains(talk, "1 pieces, the configuration says 4") {
		t.Errorf("convert says %q", talk)
	}
	write(t, filepath.Join(dir, "model.safetensors"), read(t, filepath.Join(dir, "model.safetensors"))[:99])
	command(t, exitInput, "convert", dir, "-o", out)
	if _, err := os.Stat(out); err == nil {
		t.Error("a failed convert left a file")
	}
}
