// Package engine is a loaded model: a .shq stream in, then pictures to
// embeddings and labels to embeddings. It is host-neutral: the worker, eval
// and the tests all use it.
package engine

import (
	"context"
	"io"

	"lqa/quant/clip"
	"lqa/quant/device"
	"lqa/quant/shq"
)

// Options configure Open.
type Options struct {
	Host device.Host
	// Limits bound what the file may ask for; the zero value is shq's default.
	Limits shq.Limits
	// Hash computes SHA-256; nil means crypto/sha256. A browser's SubtleCrypto
	// is six times faster.
	Hash func([]byte) [32]byte
	// Progress is called after each frame of the file; it may be nil.
	Progress func(Progress)
}

// Progress says how far loading has come.
type Progress struct {
	Stage       int   // stage being read
	LoadedBytes int64 // of the file, verified and in place
	TotalBytes  int64 // of the file
}

// Stages of a .shq file, in order of need.
const (
	StageImage = 0 // the image tower and the default labels: pictures can be answered
	StageText  = 1 // the ready labels and the text tower: any label can be embedded
)

// Engine is one model on one device. It is not safe for concurrent use.
type Engine struct{}

// Open reads header and manifest from r, lays out the kernel memory and starts
// the device. The weights follow with LoadStage.
func Open(r io.Reader, o Options) (*Engine, error) { panic("engine: skeleton") }

// LoadStage reads the file up to the end of the next stage and returns that
// stage's number; io.EOF when all stages are loaded.
func (e *Engine) LoadStage(ctx context.Context) (int, error) { panic("engine: skeleton") }

// Config returns the model's configuration. It must not be changed.
func (e *Engine) Config() *clip.Config { panic("engine: skeleton") }

// Manifest returns the file's manifest. It must not be changed.
func (e *Engine) Manifest() *shq.Manifest { panic("engine: skeleton") }

// MaxPixels is the largest width × height that SetFrame takes (1920 × 1080).
const MaxPixels = 1920 * 1080

// SetFrame copies rgba [h][w][4] into kernel memory and makes the view of it:
// the short side resized to the view's size (Pillow's bicubic, bit-exact), the
// centre cropped. A browser writes the pixels into FrameMemory itself and
// passes nil.
func (e *Engine) SetFrame(rgba []byte, w, h int) error { panic("engine: skeleton") }

// View copies the view's RGBA bytes [size][size][4] to dst.
func (e *Engine) View(dst []byte) error { panic("engine: skeleton") }

// SetView replaces the view's RGBA bytes, for effects.
func (e *Engine) SetView(rgba []byte) error { panic("engine: skeleton") }

// ViewSize is the side of the view in pixels.
func (e *Engine) ViewSize() int { panic("engine: skeleton") }

// Encode runs the image tower on the view and writes its embedding [D], L2
// norm 1, to dst.
func (e *Engine) Encode(dst []float32) error { panic("engine: skeleton") }

// EmbedText returns one embedding [D], L2 norm 1, per label. Labels in the
// ready table are looked up; others go through the templates and the text
// tower. Before StageText is loaded only default labels are known and others
// give ErrTextNotReady.
func (e *Engine) EmbedText(labels []string) ([][]float32, error) { panic("engine: skeleton") }

// Known reports for each label whether it stands in the ready table.
func (e *Engine) Known(labels []string) []bool { panic("engine: skeleton") }

// Memory reports exact byte counts of the kernel memory.
func (e *Engine) Memory() device.Memory { panic("engine: skeleton") }

// Close frees the device.
func (e *Engine) Close() error { panic("engine: skeleton") }
