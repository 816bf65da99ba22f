// Package engine is a loaded model: a .shq stream in, then pictures to
// embeddings and labels to embeddings. It is host-neutral: the worker, eval
// and the tests all use it.
package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"lqa/quant/clip"
	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
	"lqa/quant/shq"
)

// Options configure Open.
type Options struct {
	Host device.Host
	// Paths are candidates for how the kernels are built, of the host's; nil:
	// all of those. The fastest is found by timing, on the model's own shapes.
	Paths []kernel.Path
	// Limits bound what the file may ask for; the zero value is shq's default.
	Limits shq.Limits
	// Hash computes SHA-256; nil means crypto/sha256. A browser's SubtleCrypto
	// is six times faster.
	Hash func([]byte) [32]byte
	// Manifest is called once the manifest is read and fits, before memory is
	// laid out; an error ends Open. It may be nil.
	Manifest func(m *shq.Manifest, hash [32]byte) error
	// Fetch returns size bytes of the file from offset on. With it the shards of
	// a token table are left out of the stream, and Prepare fetches those that
	// labels need. nil: they are a stage as others are.
	Fetch func(ctx context.Context, offset int64, size int) ([]byte, error)
	// Mute lists classes of the model's posterior that shall never vote: as if
	// their names had not been known when it was trained.
	Mute []int
	// Progress is called after each frame of the file; it may be nil.
	Progress func(Progress)
}

// Progress says how far loading has come.
type Progress struct {
	Stage       int   // stage being read
	LoadedBytes int64 // of the file, verified and in place
	TotalBytes  int64 // of the file, without shards that are fetched
}

// Stages of a .shq file, in order of need.
const (
	StageImage = 0 // the image tower and the default labels: pictures can be answered
	StageText  = 1 // the ready labels and the text tower: any label can be embedded
	// StageTokens is in files whose token table is in shards: labels that do not
	// stand ready need theirs.
	StageTokens = 2
)

// Errors of the engine. Those of reading wrap package shq's, those of the
// device package device's.
var (
	// ErrNotLoaded: the stage that is needed has not been loaded.
	ErrNotLoaded = errors.New("engine: not loaded yet")
	// ErrTextNotReady: a label that is no default needs StageText.
	ErrTextNotReady = errors.New("engine: text side not loaded yet")
	// ErrTokens: a label needs shards of the token table that have not come.
	ErrTokens = errors.New("engine: token rows not loaded yet")
	// ErrModel: the file is sound, but it is no model this engine knows.
	ErrModel = errors.New("engine: model does not fit")
	// ErrMute: Options.Mute has a class that the model's posterior has not.
	ErrMute = errors.New("engine: no such class")
)

// MaxPixels is the largest width × height that SetFrame takes (1920 × 1080).
const MaxPixels = clip.MaxPixels

// Engine is one model on one device. It is not safe for concurrent use.
type Engine struct {
	reader *shq.Reader
	cfg    *clip.Config
	model  *clip.Model
	dev    *device.Device
	opts   Options

	frames int // frames read
	stage  int // stages loaded

	shards []*shq.Tensor // of the token table

	tokens   clip.Tokenizer
	defaults map[string]int
	ready    map[string]int
}

// Open reads header and manifest from r, lays out the kernel memory and starts
// the device. The weights follow with LoadStage.
func Open(r io.Reader, o Options) (*Engine, error) {
	reader, err := shq.NewReader(r, o.Limits, o.Hash)
	if err != nil {
		return nil, err
	}
	man := reader.Manifest()
	cfg, err := clip.ParseConfig(man.Model)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrModel, err)
	}
	e := &Engine{reader: reader, cfg: cfg, opts: o}
	kinds, err := match(man, cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrModel, err)
	}
	for _, class := range o.Mute {
		if class < 0 || class >= cfg.Image.Posterior {
			return nil, fmt.Errorf("%w: %d of %d", ErrMute, class, cfg.Image.Posterior)
		}
	}
	e.findShards()
	if o.Manifest != nil {
		if err := o.Manifest(man, reader.Hash()); err != nil {
			return nil, err
		}
	}
	var layout device.Layout
	e.model = clip.Layout(cfg, kinds, &layout)
	if e.dev, err = device.Start(o.Host, &layout, device.Options{Paths: o.Paths, Lists: e.model.Lists()}); err != nil {
		return nil, err
	}
	if err := e.model.Start(e.dev); err != nil {
		return nil, err
	}
	e.defaults = make(map[string]int, len(cfg.Text.Defaults))
	for i, label := range cfg.Text.Defaults {
		e.defaults[clip.NormalizeLabel(label)] = i
	}
	return e, nil
}

// match checks that the file has exactly the tensors that the configuration
// demands, in the stages where they are needed, and returns their kinds.
func match(man *shq.Manifest, cfg *clip.Config) (map[string]qtype.Kind, error) {
	stored := make([]clip.Stored, len(man.Tensors))
	kinds := make(map[string]qtype.Kind, len(man.Tensors))
	for i, t := range man.Tensors {
		stored[i] = clip.Stored{Name: t.Name, Kind: t.Kind, Shape: t.Shape, Stage: man.Frames[t.Frame].Stage, Alone: man.Alone(i)}
		kinds[t.Name] = t.Kind
	}
	return kinds, cfg.Match(stored)
}

// StopFetching makes the shards a stage of the stream after all, where
// Options.Fetch turns out not to work; LoadStage reads them.
func (e *Engine) StopFetching() { e.opts.Fetch = nil }

func (e *Engine) findShards() {
	man := e.reader.Manifest()
	byName := map[string]*shq.Tensor{}
	for i := range man.Tensors {
		if t := &man.Tensors[i]; man.Frames[t.Frame].Stage == StageTokens {
			byName[t.Name] = t
		}
	}
	for i := range e.cfg.Text.Shards() {
		e.shards = append(e.shards, byName[clip.ShardName(i)])
	}
}

// streamEnd is the length of what LoadStage reads.
func (e *Engine) streamEnd() int64 {
	if e.opts.Fetch != nil {
		return e.reader.Manifest().StageEnd(StageText)
	}
	return e.reader.Manifest().FileBytes()
}

// LoadStage reads the file up to the end of the next stage and returns that
// stage's number; io.EOF when all stages are loaded, or all but StageTokens
// where shards are fetched. A cancelled context ends it between frames.
func (e *Engine) LoadStage(ctx context.Context) (int, error) {
	man := e.reader.Manifest()
	if e.opts.Fetch != nil && e.stage == StageTokens && len(e.shards) > 0 {
		return 0, io.EOF
	}
	if e.frames == len(man.Frames) {
		// The stream must end where the manifest says it does.
		if _, _, err := e.reader.Next(); err != io.EOF {
			return 0, err
		}
		return 0, io.EOF
	}
	stage := man.Frames[e.frames].Stage
	for e.frames < len(man.Frames) && man.Frames[e.frames].Stage == stage {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		i, err := e.reader.NextTensors(e.put)
		if err != nil {
			return 0, err
		}
		e.frames++
		if e.opts.Progress != nil {
			e.opts.Progress(Progress{Stage: stage, LoadedBytes: man.Frames[i].Offset + int64(man.Frames[i].Size), TotalBytes: e.streamEnd()})
		}
	}
	e.stage = stage + 1
	return stage, nil
}

// put places one whole tensor.
func (e *Engine) put(t *shq.Tensor, b []byte) error {
	switch t.Name {
	case e.cfg.Text.VocabTensor():
		tokens, err := clip.NewTokenizer(&e.cfg.Text, b)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrModel, err)
		}
		e.tokens = tokens
		return nil
	case "label.ready.names":
		names := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		if len(names) != e.cfg.Text.Ready {
			return fmt.Errorf("%w: %d names of %d ready labels", ErrModel, len(names), e.cfg.Text.Ready)
		}
		e.ready = make(map[string]int, len(names))
		for i, n := range names {
			e.ready[clip.NormalizeLabel(n)] = i
		}
		return nil
	case clip.PosteriorBias:
		b = mute(b, e.opts.Mute)
	}
	if err := e.model.Put(t.Name, t.Kind, t.Shape, b); err != nil {
		return fmt.Errorf("%w: %w", ErrModel, err)
	}
	return nil
}

// mute is a bias of halves with the least there is for some classes.
func mute(bias []byte, classes []int) []byte {
	bias = bytes.Clone(bias)
	for _, c := range classes {
		numeric.AppendFloat16(bias[:2*c], -65504)
	}
	return bias
}

// Config returns the model's configuration. It must not be changed.
func (e *Engine) Config() *clip.Config { return e.cfg }

// Manifest returns the file's manifest. It must not be changed.
func (e *Engine) Manifest() *shq.Manifest { return e.reader.Manifest() }

// Hash returns the SHA-256 of the manifest, which names the model.
func (e *Engine) Hash() [32]byte { return e.reader.Hash() }

// FrameMemory is the part of the kernel memory where a picture's RGBA bytes
// go, for hosts that can write there themselves.
func (e *Engine) FrameMemory() (offset, capacity int) {
	o, n := e.model.Frame()
	return int(o), n
}

// SetFrame copies rgba [h][w][4] into kernel memory and makes the view of it:
// the short side resized to the view's size (Pillow's bicubic, bit-exact), the
// centre cropped. Where the pixels are in FrameMemory already, rgba is nil.
func (e *Engine) SetFrame(rgba []byte, w, h int) error {
	if w < 1 || h < 1 || w > MaxPixels || h > MaxPixels/w {
		return fmt.Errorf("%w: %d × %d pixels, at most %d in all", clip.ErrPicture, w, h, MaxPixels)
	}
	if rgba != nil {
		if len(rgba) != w*h*4 {
			return fmt.Errorf("%w: %d bytes for %d × %d pixels", clip.ErrPicture, len(rgba), w, h)
		}
		o, _ := e.model.Frame()
		if err := e.dev.Write(o, rgba); err != nil {
			return err
		}
	}
	return e.model.Look(w, h)
}

// Closer makes the view of the middle of the w × h picture in the frame memory, 4/7
// of its short side.
func (e *Engine) Closer(w, h int) error { return e.model.Closer(w, h) }

// ViewSize is the side of the view in pixels.
func (e *Engine) ViewSize() int { return e.cfg.Image.Size }

// ViewMemory is the part of the kernel memory where the view lies, for hosts
// that can read there themselves.
func (e *Engine) ViewMemory() (offset, bytes int) {
	o, n := e.model.ViewPixels()
	return int(o), n
}

// View copies the view's RGBA bytes [size][size][4] to dst.
func (e *Engine) View(dst []byte) error {
	o, n := e.model.ViewPixels()
	if len(dst) != n {
		return fmt.Errorf("%w: %d bytes for a view of %d", clip.ErrPicture, len(dst), n)
	}
	return e.dev.Read(o, dst)
}

// SetView replaces the view's RGBA bytes, for effects.
func (e *Engine) SetView(rgba []byte) error {
	o, n := e.model.ViewPixels()
	if len(rgba) != n {
		return fmt.Errorf("%w: %d bytes for a view of %d", clip.ErrPicture, len(rgba), n)
	}
	return e.dev.Write(o, rgba)
}

// Encode runs the image tower on the view and writes its embedding [D], L2
// norm 1, to dst.
func (e *Engine) Encode(dst []float32) error {
	if e.stage <= StageImage {
		return ErrNotLoaded
	}
	if len(dst) != e.cfg.Embed {
		return fmt.Errorf("%w: embedding of %d, not %d", ErrModel, len(dst), e.cfg.Embed)
	}
	return e.model.Encode(dst)
}

// ImageMean is clip.Model's: the mean embedding of ordinary pictures, or nil.
func (e *Engine) ImageMean() ([]float32, error) {
	if e.stage <= StageImage {
		return nil, ErrNotLoaded
	}
	return e.model.ImageMean()
}

// Projection is clip.Model's: the weight [D, F] of the image tower's last layer.
func (e *Engine) Projection() ([]float32, error) {
	if e.stage <= StageImage {
		return nil, ErrNotLoaded
	}
	return e.model.Projection()
}

// Profile is clip.Model's: where the image tower spends its time.
func (e *Engine) Profile(n int) (map[string]time.Duration, error) { return e.model.Profile(n) }

// Known reports for each label whether its embedding stands ready in the file:
// among the defaults or in the ready table.
func (e *Engine) Known(labels []string) []bool {
	known := make([]bool, len(labels))
	for i, l := range labels {
		name := clip.NormalizeLabel(l)
		_, def := e.defaults[name]
		_, ready := e.ready[name]
		known[i] = def || ready
	}
	return known
}

// EmbedText returns one embedding [D], L2 norm 1, per label. Labels that stand
// ready are looked up; others go through the model's templates and the text
// tower. Before StageText is loaded only default labels are known and others
// give ErrTextNotReady; those whose token rows are missing give ErrTokens.
func (e *Engine) EmbedText(labels []string) ([][]float32, error) {
	return e.EmbedPrompts(labels, nil)
}

// EmbedPrompts is EmbedText with other templates than the model's; with any
// given, no label is looked up.
func (e *Engine) EmbedPrompts(labels, templates []string) ([][]float32, error) {
	if e.stage <= StageImage {
		return nil, ErrNotLoaded
	}
	// Nothing is embedded before all can be.
	switch missing, err := e.missing(labels, templates); {
	case err != nil:
		return nil, err
	case len(missing) > 0:
		return nil, fmt.Errorf("%w: %d shards of %d", ErrTokens, len(missing), len(e.shards))
	}
	out := make([][]float32, len(labels))
	for i, l := range labels {
		x, err := e.embed(l, templates)
		if err != nil {
			return nil, fmt.Errorf("label %q: %w", l, err)
		}
		out[i] = x
	}
	return out, nil
}

// lookup returns how to read a label's embedding if it stands ready, else nil.
func (e *Engine) lookup(label string, templates []string) func() ([]float32, error) {
	if len(templates) > 0 {
		return nil
	}
	name := clip.NormalizeLabel(label)
	if i, ok := e.ready[name]; ok && e.stage > StageText {
		return func() ([]float32, error) { return e.model.ReadyLabel(i) }
	}
	if i, ok := e.defaults[name]; ok {
		return func() ([]float32, error) { return e.model.DefaultLabel(i) }
	}
	return nil
}

// encode calls f with the token ids of each of a label's texts.
func (e *Engine) encode(label string, templates []string, f func(ids []int32) error) error {
	if len(templates) == 0 {
		templates = e.cfg.Text.Templates
	}
	if e.stage <= StageText {
		return ErrTextNotReady
	}
	var ids []int32
	for _, t := range templates {
		ids = e.tokens.Encode(ids[:0], clip.Expand(t, label), e.cfg.Text.Context)
		if err := f(ids); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) embed(label string, templates []string) ([]float32, error) {
	if read := e.lookup(label, templates); read != nil {
		return read()
	}
	sum := make([]float32, e.cfg.Embed)
	one := make([]float32, e.cfg.Embed)
	err := e.encode(label, templates, func(ids []int32) error {
		if err := e.model.EncodeText(one, ids); err != nil {
			return err
		}
		for i, v := range one {
			sum[i] += v
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if numeric.Normalize(sum) == 0 {
		return nil, fmt.Errorf("%w: templates cancel out", ErrModel)
	}
	return sum, nil
}

// missing lists the shards that labels need and that have not come.
func (e *Engine) missing(labels, templates []string) (list []int, err error) {
	if len(e.shards) == 0 {
		return nil, nil
	}
	for _, l := range labels {
		if e.lookup(l, templates) != nil {
			continue
		}
		err := e.encode(l, templates, func(ids []int32) error {
			list = e.model.MissingShards(list, ids)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("label %q: %w", l, err)
		}
	}
	return list, nil
}

// maxFetch bounds what is fetched at once: neighbouring shards come together.
const maxFetch = 1 << 20

// Prepare fetches the token rows that EmbedPrompts needs for labels. What has
// come stays: never more than the table, which would else be in memory whole, and a
// call after a failure goes on where that one stopped.
//
// While Options.Fetch or Hash waits the engine may be used for all else; a
// second Prepare then fetches once more what is on its way.
func (e *Engine) Prepare(ctx context.Context, labels, templates []string) error {
	for {
		// Anew each time: others may have fetched something meanwhile.
		missing, err := e.missing(labels, templates)
		if err != nil || len(missing) == 0 {
			return err
		}
		if e.opts.Fetch == nil {
			return ErrTokens
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := e.fetch(ctx, missing); err != nil {
			return fmt.Errorf("engine: token rows: %w", err)
		}
	}
}

// fetch brings the first of the missing shards, and those among them that
// follow it in the file.
func (e *Engine) fetch(ctx context.Context, missing []int) error {
	frames := e.reader.Manifest().Frames
	first, n, size := e.shards[missing[0]].Frame, 0, 0
	for _, shard := range missing {
		f := first + n
		if e.shards[shard].Frame != f || n > 0 && size+frames[f].Size > maxFetch {
			break
		}
		size += frames[f].Size
		n++
	}
	b, err := e.opts.Fetch(ctx, frames[first].Offset, size)
	if err != nil {
		return err
	}
	var raw []byte // not the engine's: the hash may wait, and another call come
	for _, shard := range missing[:n] {
		t := e.shards[shard]
		packed := b[:min(len(b), frames[t.Frame].Size)]
		b = b[len(packed):]
		if raw, err = e.reader.Decode(raw[:0], t.Frame, packed); err != nil {
			return err
		}
		if err := e.put(t, raw[:t.Bytes()]); err != nil {
			return err
		}
	}
	return nil
}

// Device is what the engine runs on: how its kernels are built, how many
// threads run them.
func (e *Engine) Device() *device.Device { return e.dev }

// Memory reports exact byte counts of the kernel memory.
func (e *Engine) Memory() device.Memory { return e.dev.Memory() }

// Close frees the device.
func (e *Engine) Close() error {
	e.reader.Close()
	return e.dev.Close()
}
