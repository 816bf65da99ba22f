package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"lqa/quant/checkpoint"
	"lqa/quant/checkpoint/hub"
	"lqa/quant/clip"
	"lqa/quant/cmd/progress"
	"lqa/quant/convert"
)

// source is a model to convert.
type source struct {
	convert.Input
	origin  string // where the weights come from, in words
	licence string
	notes   []string // what was unclear, and how it was decided
	foreign bool     // a checkpoint of somebody's, not a float model directory
	close   func() error
}

// hubPrefix begins the name of a repository.
const hubPrefix = "hf:"

// openSource opens a float model directory, somebody's checkpoint, or a
// repository of the hub, which is fetched.
func openSource(ctx context.Context, name string, o hub.Options, bar *progress.Bar) (*source, error) {
	if id, ok := strings.CutPrefix(name, hubPrefix); ok {
		return openHub(ctx, id, o, bar)
	}
	folder, err := hub.Dir(name)
	if err != nil {
		return nil, err
	}
	if slices.Contains(folder.Names(), "model.json") {
		return openModelDir(folder)
	}
	return openCheckpoint(folder)
}

func openHub(ctx context.Context, id string, o hub.Options, bar *progress.Bar) (*source, error) {
	ref, err := hub.Parse(id)
	if err != nil {
		return nil, usageError{err}
	}
	var total int64
	o.Progress = func(file string, done, of int64) {
		if of != total {
			total = of
			bar.Begin(file, of, progress.Bytes)
		}
		bar.On(file)
		bar.Set(done)
	}
	repo, err := hub.Fetch(ctx, ref, o)
	bar.End()
	if err != nil {
		return nil, err
	}
	s, err := openCheckpoint(repo)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	s.origin, s.licence = hubPrefix+ref.ID+"@"+repo.Commit, repo.Licence
	return s, nil
}

// openModelDir opens what ./build.sh train makes.
func openModelDir(dir checkpoint.Folder) (*source, error) {
	f, err := convert.OpenFolder(dir)
	if err != nil {
		return nil, err
	}
	return &source{Input: f.Input, origin: f.Origin, licence: f.Licence, close: f.Close}, nil
}

func (s *source) Close() error { return s.close() }

// cancelled is a convert.Source that ends with a context.
type cancelled struct {
	convert.Source
	ctx context.Context
}

func (c cancelled) Float32(name string) ([]float32, error) {
	if err := c.ctx.Err(); err != nil {
		return nil, err
	}
	return c.Source.Float32(name)
}

// everyday are the default labels of a checkpoint that comes without any.
var everyday = []string{"person", "cup", "keyboard", "book", "phone", "bottle", "chair", "plant", "cat", "dog", "window", "hand"}

// maxTextFile bounds --labels, --templates and --merges.
const maxTextFile = 16 << 20

// readLines reads a text file's lines, without those that are empty.
func readLines(name string) ([]string, error) {
	b, err := readText(name)
	if err != nil {
		return nil, err
	}
	var lines []string
	for l := range strings.Lines(string(b)) {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// readText reads a file that may be compressed with gzip.
func readText(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	b, err := io.ReadAll(io.LimitReader(r, maxTextFile+1))
	if err == nil && len(b) > maxTextFile {
		err = fmt.Errorf("over %d bytes", maxTextFile)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// readMerges reads CLIP's byte pairs: a merges.txt, or OpenAI's
// bpe_simple_vocab_16e6.txt.gz, which has more of them than the n that CLIP uses.
func readMerges(name string, n int) ([]byte, error) {
	b, err := readText(name)
	if err != nil {
		return nil, err
	}
	if head, rest, ok := bytes.Cut(b, []byte("\n")); ok && (bytes.HasPrefix(head, []byte("#version")) || bytes.HasPrefix(head, []byte(`"bpe_simple_vocab`))) {
		b = rest
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	if len(lines) > n {
		lines = lines[:max(0, n)]
	}
	return bytes.Join(lines, nil), nil
}

// texts are the files that the command line names in place of the source's own.
type texts struct {
	labels, templates, merges string
	original                  bool // no labels are added
}

// apply puts the texts of the command line into s. Whether the labels'
// embeddings must be made anew is returned.
func (t texts) apply(s *source) (embed bool, err error) {
	cfg, err := clip.ParseConfig(s.Config)
	if err != nil {
		return false, err
	}
	if t.merges != "" {
		if cfg.Text.VocabTensor() != "text.merges" {
			return false, usageError{errors.New("--merges: this model's text side has no byte pairs")}
		}
		// Every byte twice and two specials are tokens without a pair.
		if s.Vocab, err = readMerges(t.merges, cfg.Text.Vocab-2*256-2); err != nil {
			return false, err
		}
	}
	if s.Vocab == nil {
		return false, usageError{errors.New("the checkpoint has no vocabulary: give CLIP's merges.txt, or bpe_simple_vocab_16e6.txt.gz, with --merges")}
	}
	switch {
	case t.labels != "":
		if cfg.Text.Defaults, err = readLines(t.labels); err != nil {
			return false, err
		}
		embed = true
	case s.foreign && !t.original && len(cfg.Text.Defaults) == 0:
		cfg.Text.Defaults, embed = everyday, true
	}
	if t.templates != "" {
		if cfg.Text.Templates, err = readLines(t.templates); err != nil {
			return false, err
		}
		if cfg.Text.Ready > 0 {
			return false, usageError{errors.New("--templates: the ready labels of this model were made with its own")}
		}
		embed = true
	}
	if embed {
		s.Config, err = json.Marshal(cfg)
	}
	return embed, err
}

// provenance fills in what the command line leaves open.
func (s *source) provenance(origin, licence string) (string, string) {
	return cmp.Or(origin, s.origin), cmp.Or(licence, s.licence)
}
