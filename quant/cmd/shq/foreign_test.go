package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lqa/quant/checkpoint/checkpointtest"
	"lqa/quant/checkpoint/hub/hubtest"
)

func smallCLIP(t *testing.T, o checkpointtest.Options) checkpointtest.Files {
	t.Helper()
	o.Arch = checkpointtest.ViTB32.Small()
	files, err := checkpointtest.Make(o)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func writeFiles(t *testing.T, files checkpointtest.Files) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		write(t, filepath.Join(dir, name), b)
	}
	return dir
}

// model is what inspect --json prints.
type model struct {
	Hash     string
	Manifest struct {
		Name  string
		Model struct {
			Text struct{ Defaults, Templates []string }
		}
		Provenance struct{ Source, Licence string }
	}
}

func inspected(t *testing.T, path string) (m model) {
	t.Helper()
	said, _ := command(t, exitOK, "inspect", "--json", path)
	if err := json.Unmarshal([]byte(said), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestConvert_Foreign: all ways of one checkpoint give the same file.
func TestConvert_Foreign(t *testing.T) {
	out := t.TempDir()
	hash := map[string]string{}
	for name, o := range map[string]checkpointtest.Options{
		"transformers": {Merges: checkpointtest.Merges, WrongEOS: true},
		"open_clip":    {Merges: checkpointtest.Merges, Layout: checkpointtest.OpenCLIP, Format: checkpointtest.Torch},
		"no words":     {Format: checkpointtest.Torch, WrongEOS: true},
	} {
		dir := writeFiles(t, smallCLIP(t, o))
		file := filepath.Join(out, name+".shq")
		args := []string{"convert", dir, "-o", file, "--name", "small", "--no-calibration"}
		if o.Merges == nil {
			if _, talk := command(t, exitUsage, args...); !strings.Contains(talk, "--merges") {
				t.Errorf("without a vocabulary: %s", talk)
			}
			// As OpenAI publishes it: a header, more merges than are used, compressed.
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			z.Write([]byte("\"bpe_simple_vocab_16e6.txt#version: 0.2\n" + strings.Join(checkpointtest.Merges, "\n") + "\nun used\n"))
			z.Close()
			merges := filepath.Join(dir, "bpe.txt.gz")
			write(t, merges, b.Bytes())
			args = append(args, "--merges", merges)
		}
		command(t, exitOK, args...)
		command(t, exitOK, "verify", file)
		m := inspected(t, file)
		hash[name] = m.Hash
		if !slices.Equal(m.Manifest.Model.Text.Defaults, everyday) {
			t.Errorf("%s: default labels %q", name, m.Manifest.Model.Text.Defaults)
		}
	}
	if hash["transformers"] != hash["open_clip"] || hash["transformers"] != hash["no words"] {
		t.Errorf("one model came out in several ways: %v", hash)
	}
}

func TestConvert_Labels(t *testing.T) {
	dir := writeFiles(t, smallCLIP(t, checkpointtest.Options{Merges: checkpointtest.Merges}))
	out := t.TempDir()
	file, labels, templates, none := filepath.Join(out, "a.shq"), filepath.Join(out, "labels"), filepath.Join(out, "templates"), filepath.Join(out, "none")
	write(t, labels, []byte("red thing\n\n the other \n"))
	write(t, templates, []byte("a {}.\nthe {}\n"))
	write(t, none, nil)
	command(t, exitOK, "convert", dir, "-o", file, "--no-calibration", "--labels", labels, "--templates", templates)
	text := inspected(t, file).Manifest.Model.Text
	if !slices.Equal(text.Defaults, []string{"red thing", "the other"}) || !slices.Equal(text.Templates, []string{"a {}.", "the {}"}) {
		t.Errorf("%+v", text)
	}
	command(t, exitOK, "convert", dir, "-o", file, "--no-calibration", "--labels", none)
	if text := inspected(t, file).Manifest.Model.Text; len(text.Defaults) != 0 {
		t.Errorf("%+v", text)
	}

	// A float model directory's own default labels can be replaced, too, and taken away.
	bag := tinyModel(t)
	command(t, exitOK, "convert", bag, "-o", file, "--no-calibration", "--labels", labels)
	command(t, exitOK, "verify", file)
	command(t, exitOK, "convert", bag, "-o", file, "--no-calibration", "--labels", none)
	command(t, exitUsage, "convert", bag, "-o", file, "--templates", templates)
	command(t, exitUsage, "convert", bag, "-o", file, "--merges", none)
	write(t, templates, []byte("no place\n"))
	command(t, exitInput, "convert", dir, "-o", file, "--templates", templates)
	command(t, exitIO, "convert", dir, "-o", file, "--labels", filepath.Join(out, "absent"))
}

// retryAtOnce takes the waits out of retries.
func retryAtOnce(t *testing.T) {
	hubSleep = func(context.Context, time.Duration) error { return nil }
	t.Cleanup(func() { hubSleep = nil })
}

func TestConvert_Hub(t *testing.T) {
	files := smallCLIP(t, checkpointtest.Options{Merges: checkpointtest.Merges})
	var list []hubtest.File
	for _, name := range files.Names() {
		list = append(list, hubtest.File{Path: name, Data: files[name], Large: strings.HasSuffix(name, ".safetensors")})
	}
	s := hubtest.New(t, map[string]*hubtest.Repo{
		"owner/small": {Files: list, Licence: "mit"},
		"owner/gated": {Refuse: hubtest.Status(401, "X-Error-Code", "GatedRepo")},
	})
	s.Storage = []hubtest.Fault{hubtest.Cut(1000), hubtest.Cut(20_000), hubtest.Cut(1)}
	t.Setenv("HF_ENDPOINT", s.URL())
	const token = "hf_verySecretToken"
	t.Setenv("HF_TOKEN", token)
	retryAtOnce(t)
	out, cache := t.TempDir(), t.TempDir()
	local, fetched := filepath.Join(out, "local.shq"), filepath.Join(out, "fetched.shq")
	command(t, exitOK, "convert", writeFiles(t, files), "-o", local, "--no-calibration", "--name", "small", "--source", "hf:owner/small@"+hubtest.Commit, "--licence", "mit")
	said, talk := command(t, exitOK, "convert", "hf:owner/small", "-o", fetched, "--no-calibration", "--name", "small", "--cache", cache, "-v", "--json")
	if !bytes.Equal(read(t, local), read(t, fetched)) {
		t.Error("the fetched model differs from the local one")
	}
	var c conversion
	if err := json.Unmarshal([]byte(said), &c); err != nil || c.Licence != "mit" || c.Hash == "" || c.Bytes == 0 || c.Memory.Total == 0 || len(c.Parts) < 4 {
		t.Errorf("--json: %+v, %v", c, err)
	}
	if !strings.Contains(talk, "GET http://") || strings.Contains(said+talk, token) {
		t.Errorf("told: %s", talk)
	}
	if _, talk := command(t, exitOK, "convert", "hf:owner/small", "-o", fetched, "--no-calibration", "--cache", cache, "-q"); talk != "" {
		t.Errorf("quiet tells %q", talk)
	}

	for name, want := range map[string]int{"hf:owner/gated": exitInput, "hf:owner/absent": exitInput, "hf:owner/small@absent": exitInput, "hf:../x": exitUsage} {
		if _, talk := command(t, want, "convert", name, "--dry-run", "--cache", cache); strings.Contains(talk, token) {
			t.Errorf("%s: %s", name, talk)
		}
	}
	s.Storage = slices.Repeat([]hubtest.Fault{hubtest.Cut(0)}, 9)
	command(t, exitNetwork, "convert", "hf:owner/small", "--dry-run", "--cache", t.TempDir())
	write(t, filepath.Join(out, "file"), nil)
	command(t, exitIO, "convert", "hf:owner/small", "--dry-run", "--cache", filepath.Join(out, "file"))
}

// TestConvert_DryRun: what is predicted comes true, and nothing is written.
func TestConvert_DryRun(t *testing.T) {
	dir, file := tinyModel(t), filepath.Join(t.TempDir(), "a.shq")
	before, _ := os.ReadDir(dir)
	said, _ := command(t, exitOK, "convert", dir, "--dry-run", "--json", "--bits", "5")
	var dry, made conversion
	if err := json.Unmarshal([]byte(said), &dry); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadDir(dir); len(after) != len(before) {
		t.Errorf("a dry run wrote %v", after)
	}
	said, _ = command(t, exitOK, "convert", dir, "-o", file, "--json", "--bits", "5")
	if err := json.Unmarshal([]byte(said), &made); err != nil {
		t.Fatal(err)
	}
	if dry.Raw != made.Raw || dry.Memory != made.Memory || !slices.Equal(dry.Parts, made.Parts) || dry.Bytes != 0 {
		t.Errorf("predicted %+v\nmade %+v", dry, made)
	}
	if !slices.ContainsFunc(made.Parts, func(s share) bool { return s.Tower == "image" && s.Kind == "q5" }) {
		t.Errorf("--bits 5: %+v", made.Parts)
	}
	said, _ = command(t, exitOK, "convert", dir, "--dry-run")
	for _, want := range []string{"part", "image", "q8c", "Memory of an engine's kernels"} {
		if !strings.Contains(said, want) {
			t.Errorf("a dry run does not say %q:\n%s", want, said)
		}
	}
	for _, bad := range [][]string{{"--bits", "9"}, {"--budget", "much"}, {"--max-drift", "2"}, {"--bits", "4", "--budget", "1MB"}, {"--method", "magic"}, {"--pictures", "0"}, {"--float", "--budget", "1MB"}, {"-o", file}} {
		command(t, exitUsage, append([]string{"convert", dir, "--dry-run"}, bad...)...)
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"45MB": 45e6, "1.5 GB": 15e8, "300kB": 3e5, "17": 17, "17B": 17} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "MB", "-1MB", "0", "NaN", "1e99", "1TB", "4 5MB"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q: %d", s, got)
		}
	}
}
