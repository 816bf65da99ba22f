// Package checkpointtest writes checkpoints of CLIP with random weights, as
// the real ones look: names, shapes, order and format of their files, and the
// traits that break naive readers. The names are written down here once more
// on purpose, apart from those that the reader under test knows.
package checkpointtest

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"lqa/quant/checkpoint"
)

// Arch is the shape of a CLIP. MLPs are four times as wide as their tower.
type Arch struct {
	Size, Patch       int
	Image, Text       Tower
	Vocab, Context, D int
}

// Tower is the shape of a transformer.
type Tower struct{ Width, Layers, Heads int }

// Architectures.
var (
	ViTB32       = Arch{224, 32, Tower{768, 12, 12}, Tower{512, 12, 8}, 49408, 77, 512}
	ViTB16       = Arch{224, 16, Tower{768, 12, 12}, Tower{512, 12, 8}, 49408, 77, 512}
	ViTL14       = Arch{224, 14, Tower{1024, 24, 16}, Tower{768, 12, 12}, 49408, 77, 768}
	TinyCLIP8M16 = Arch{224, 16, Tower{256, 10, 4}, Tower{256, 3, 4}, 49408, 77, 512}
)

// Small is the architecture with two narrow layers a tower, a small picture
// and the 522 ids of Merges, for tests that are to be quick.
func (a Arch) Small() Arch {
	return Arch{2 * a.Patch, a.Patch, Tower{32, 2, 4}, Tower{24, 2, 3}, 514 + len(Merges), a.Context, 20}
}

// Merges are the first of OpenAI's list.
var Merges = []string{"i n", "t h", "a n", "r e", "a r", "e r", "th e</w>", "in g</w>"}

// Layouts.
const (
	Transformers = "transformers"
	OpenCLIP     = "openclip"
)

// Formats.
const (
	Safetensors = "safetensors"
	Torch       = "torch"  // a zip archive
	Legacy      = "legacy" // torch before 1.6
)

// Options say what a checkpoint is like. The same options give the same bytes,
// and the same Seed the same function in every layout and format.
type Options struct {
	Arch   Arch
	Layout string           // Transformers if empty
	Format string           // Safetensors if empty
	DType  checkpoint.DType // F32 if empty; F16, BF16
	Seed   uint64
	Zeros  bool // instead of random weights, where only names and shapes count

	// Scales over 1 gives a few channels before each linear layer of the
	// blocks (but the MLP's second) values up to so many times as large, and
	// the layer the inverse: the function stays.
	Scales float32

	GELU        bool     // erf GELU, else quick_gelu
	WrongEOS    bool     // eos_token_id is 2 (transformers)
	Sparse      bool     // config.json leaves out what equals transformers' defaults
	PositionIDs bool     // int64 position_ids among the tensors (transformers, old files)
	Prefix      string   // before each tensor's name: "module."
	Wrapped     bool     // {"epoch", "state_dict"} (torch)
	Shards      int      // files of weights, with an index, if over 1
	Merges      []string // the vocabulary, as vocab.json and merges.txt; none if empty
}

func (o *Options) fill() {
	for _, d := range []struct {
		to *string
		v  string
	}{{&o.Layout, Transformers}, {&o.Format, Safetensors}} {
		if *d.to == "" {
			*d.to = d.v
		}
	}
	if o.DType == "" {
		o.DType = "F32"
	}
}

// Files is a checkpoint.Folder in memory.
type Files map[string][]byte

// Names lists the files.
func (f Files) Names() []string { return slices.Sorted(maps.Keys(f)) }

// Open opens a file.
func (f Files) Open(name string) (checkpoint.File, error) {
	b, ok := f[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return memory{bytes.NewReader(b)}, nil
}

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// Make makes a checkpoint in memory.
func Make(o Options) (Files, error) {
	f := Files{}
	return f, o.write(func(name string) (io.WriteCloser, error) { return &growing{files: f, name: name}, nil })
}

type growing struct {
	bytes.Buffer
	files Files
	name  string
}

func (g *growing) Close() error {
	g.files[g.name] = g.Bytes()
	return nil
}

// Write writes a checkpoint into a directory, which must be there. A tensor at
// a time is in memory.
func Write(dir string, o Options) error {
	return o.write(func(name string) (io.WriteCloser, error) { return os.Create(filepath.Join(dir, name)) })
}

func (o Options) write(create func(name string) (io.WriteCloser, error)) error {
	o.fill()
	put := func(name string, body func(w io.Writer) error) error {
		w, err := create(name)
		if err != nil {
			return err
		}
		buffered := newBuffered(w)
		if err := body(buffered); err != nil {
			w.Close()
			return err
		}
		if err := buffered.Flush(); err != nil {
			w.Close()
			return err
		}
		return w.Close()
	}
	for name, text := range o.texts() {
		if err := put(name, func(w io.Writer) error { _, err := w.Write(text); return err }); err != nil {
			return err
		}
	}
	list := o.tensors()
	shards := max(o.Shards, 1)
	name := func(i int) string {
		stem, suffix := o.weightsName()
		if shards == 1 {
			return stem + suffix
		}
		return fmt.Sprintf("%s-%05d-of-%05d%s", stem, i+1, shards, suffix)
	}
	where := map[string]string{}
	for i := range shards {
		part := list[i*len(list)/shards : (i+1)*len(list)/shards]
		for _, t := range part {
			where[t.name] = name(i)
		}
		if err := put(name(i), func(w io.Writer) error { return o.writeTensors(w, part) }); err != nil {
			return err
		}
	}
	if shards > 1 {
		stem, suffix := o.weightsName()
		return put(stem+suffix+".index.json", func(w io.Writer) error { return writeIndex(w, where) })
	}
	return nil
}

func (o *Options) weightsName() (stem, suffix string) {
	suffix = ".bin"
	if o.Format == Safetensors {
		suffix = ".safetensors"
	}
	switch {
	case o.Layout == OpenCLIP && o.Format == Safetensors && o.Shards < 2:
		return "open_clip_model", suffix
	case o.Layout == OpenCLIP && o.Shards < 2:
		return "open_clip_pytorch_model", suffix
	case o.Format == Safetensors:
		return "model", suffix
	}
	return "pytorch_model", suffix
}

func (o *Options) writeTensors(w io.Writer, list []tensor) error {
	switch o.Format {
	case Safetensors:
		return writeSafetensors(w, list)
	case Torch:
		return o.writeTorch(w, list)
	case Legacy:
		return o.writeLegacy(w, list)
	}
	return fmt.Errorf("checkpointtest: unknown format %q", o.Format)
}
