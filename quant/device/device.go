// Package device gives kernels memory and command lists over a Host: the
// browser or wazero, running the same kernel bytes.
package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"lqa/quant/kernel"
)

// Errors of Start; hosts wrap them.
var (
	ErrMemory = errors.New("device: memory refused") // the host cannot give that much
	ErrNoSIMD = errors.New("device: no SIMD128")     // the host cannot compile the kernels
	ErrRun    = errors.New("device: kernel trapped")
)

// Host runs one kernel module in one memory of fixed size.
type Host interface {
	// Start instantiates module with a memory of pages × 64 KiB, all zero at
	// first, shared if Threads was over 1 when the host was made. A second call
	// with as many pages may find what the first has left there.
	Start(module []byte, pages int) error
	// Write copies b to offset; Read copies from offset to b.
	Write(offset int, b []byte) error
	Read(offset int, b []byte) error
	// Run executes the command list at offset.
	Run(list int) error
	// Threads is how many threads Run uses. It falls to 1 when one is lost.
	Threads() int
	// Paths are the paths that this host can run. Where there are several, the
	// fastest is found by timing.
	Paths() []kernel.Path
	// Alone is another host of the same kind, not started, with one thread, for
	// trials before Start: it may use this one's memory.
	Alone() Host
	Close() error
}

// Use says what a piece of memory is for.
type Use int

// Uses of memory.
const (
	Weights Use = iota
	Activations
	Frame
	Commands
)

// Memory counts the bytes of a device's memory exactly, by use.
type Memory struct {
	Weights     int // tensors of the model
	Activations int // buffers between commands, scratch
	Frame       int // the picture as it came, and the view
	Commands    int // command lists and tables
	Total       int // the whole memory, rounded up to pages
}

const (
	align     = 16
	slack     = 64 // vectors are read a little beyond the last buffer
	page      = 1 << 16
	maxMemory = 1<<31 - page
)

// Layout hands out memory before there is any: a model is laid out first and
// its memory started with just the size it needs. The kernels' control words
// come first, so offset 0 is never given.
type Layout struct {
	next int
	mem  Memory
}

// Alloc reserves bytes and returns their offset, a multiple of 16. A layout
// that has grown over 2 GiB fails at Start.
func (l *Layout) Alloc(use Use, bytes int) uint32 {
	if bytes < 0 {
		panic("device: negative allocation")
	}
	if l.next == 0 {
		l.next = kernel.ControlBytes
	}
	offset := l.next
	if bytes > maxMemory || offset > maxMemory {
		l.next = maxMemory + 1
		return uint32(align)
	}
	size := (bytes + align - 1) / align * align
	l.next += size
	switch use {
	case Weights:
		l.mem.Weights += size
	case Activations:
		l.mem.Activations += size
	case Frame:
		l.mem.Frame += size
	case Commands:
		l.mem.Commands += size
	}
	return uint32(offset)
}

// Memory is what a device started with l will have.
func (l *Layout) Memory() Memory {
	m := l.mem
	m.Total = pagesFor(max(l.next, kernel.ControlBytes)) * page
	return m
}

// Device is a started host with its memory.
type Device struct {
	host   Host
	mem    Memory
	buf    []byte // staging between float32 and bytes
	path   kernel.Path
	timing []Timing
}

// Options configure Start.
type Options struct {
	// Paths are the candidates, of the host's; nil: all of those.
	Paths []kernel.Path
	// Lists are all the command lists that will run, or lists of the same
	// commands; nil: any may come, and nothing is timed.
	Lists []kernel.List
}

// Start chooses how the kernels are built, assembles them for the layout's size
// and starts the host.
func Start(h Host, l *Layout, o Options) (*Device, error) {
	if l.next > maxMemory {
		return nil, fmt.Errorf("%w: the model needs over 2 GiB", ErrMemory)
	}
	d := &Device{host: h, mem: l.mem}
	paths := o.Paths
	if paths == nil {
		paths = h.Paths()
	}
	spec := kernel.Spec{Pages: pagesFor(max(l.next, kernel.ControlBytes)), Shared: h.Threads() > 1, Lists: o.Lists}
	var err error
	if d.path, d.timing, err = choose(h, paths, &spec); err != nil {
		return nil, err
	}
	spec.Path = d.path
	pages := spec.Pages
	d.mem.Total = pages * page
	module, err := kernel.Module(spec)
	if err != nil {
		return nil, err
	}
	if err := h.Start(module, pages); err != nil {
		return nil, err
	}
	return d, nil
}

func pagesFor(bytes int) int { return (bytes + slack + page - 1) / page }

// Path is how the integer GEMMs run.
func (d *Device) Path() kernel.Path { return d.path }

// Timings are what the choice of the path rests on; none, where there was none.
func (d *Device) Timings() []Timing { return d.timing }

// Threads is how many threads run the commands.
func (d *Device) Threads() int { return d.host.Threads() }

// Memory returns the byte counts.
func (d *Device) Memory() Memory { return d.mem }

// Write copies b to offset.
func (d *Device) Write(offset uint32, b []byte) error { return d.host.Write(int(offset), b) }

// Read copies from offset to b.
func (d *Device) Read(offset uint32, b []byte) error { return d.host.Read(int(offset), b) }

// stageWords bounds the staging buffer: memory that a browser's program has
// taken once stays taken.
const stageWords = 1 << 14

func (d *Device) stage(words int) []byte {
	if n := 4 * words; cap(d.buf) < n {
		d.buf = make([]byte, n)
	}
	return d.buf[:4*words]
}

// WriteF32 copies x to offset.
func (d *Device) WriteF32(offset uint32, x []float32) error {
	return writeWords(d, offset, x, math.Float32bits)
}

// WriteU32 copies x to offset.
func (d *Device) WriteU32(offset uint32, x []uint32) error {
	return writeWords(d, offset, x, func(v uint32) uint32 { return v })
}

func writeWords[T any](d *Device, offset uint32, x []T, word func(T) uint32) error {
	for len(x) > 0 {
		n := min(len(x), stageWords)
		b := d.stage(n)
		for i, v := range x[:n] {
			binary.LittleEndian.PutUint32(b[4*i:], word(v))
		}
		if err := d.host.Write(int(offset), b); err != nil {
			return err
		}
		x, offset = x[n:], offset+uint32(4*n)
	}
	return nil
}

// ReadF32 copies from offset to x.
func (d *Device) ReadF32(offset uint32, x []float32) error {
	for len(x) > 0 {
		n := min(len(x), stageWords)
		b := d.stage(n)
		if err := d.host.Read(int(offset), b); err != nil {
			return err
		}
		for i := range x[:n] {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
		x, offset = x[n:], offset+uint32(4*n)
	}
	return nil
}

// Run executes the command list at offset.
func (d *Device) Run(list uint32) error { return d.host.Run(int(list)) }

// Close frees the host.
func (d *Device) Close() error { return d.host.Close() }
