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
	// Start instantiates module with a memory of pages × 64 KiB. A second
	// call replaces the first one's memory.
	Start(module []byte, pages int) error
	// Write copies b to offset; Read copies from offset to b.
	Write(offset int, b []byte) error
	Read(offset int, b []byte) error
	// Run executes the command list at offset.
	Run(list int) error
	// Paths are the paths that this host can run. Where there are several, the
	// fastest is found by timing.
	Paths() []kernel.Path
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
// its memory started with just the size it needs. Offset 0 is never given.
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
		l.next = align
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

// Device is a started host with its memory.
type Device struct {
	host Host
	mem  Memory
	buf  []byte // staging between float32 and bytes
}

// Options configure Start.
type Options struct {
	// Path is how the integer GEMMs are built; nil: the host's first.
	Path *kernel.Path
	// Lists are all the command lists that will run, or lists of the same
	// commands; nil: any may come.
	Lists []kernel.List
}

// Start assembles the kernels for the layout's size and starts the host.
func Start(h Host, l *Layout, o Options) (*Device, error) {
	if l.next > maxMemory {
		return nil, fmt.Errorf("%w: the model needs over 2 GiB", ErrMemory)
	}
	pages := (l.next + slack + page - 1) / page
	path := h.Paths()[0]
	if o.Path != nil {
		path = *o.Path
	}
	module, err := kernel.Module(kernel.Spec{Pages: pages, Path: path, Lists: o.Lists})
	if err != nil {
		return nil, err
	}
	if err := h.Start(module, pages); err != nil {
		return nil, err
	}
	d := &Device{host: h, mem: l.mem}
	d.mem.Total = pages * page
	return d, nil
}

// Memory returns the byte counts.
func (d *Device) Memory() Memory { return d.mem }

// Write copies b to offset.
func (d *Device) Write(offset uint32, b []byte) error { return d.host.Write(int(offset), b) }

// Read copies from offset to b.
func (d *Device) Read(offset uint32, b []byte) error { return d.host.Read(int(offset), b) }

func (d *Device) stage(n int) []byte {
	if cap(d.buf) < n {
		d.buf = make([]byte, n)
	}
	return d.buf[:n]
}

// WriteF32 copies x to offset.
func (d *Device) WriteF32(offset uint32, x []float32) error {
	b := d.stage(4 * len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(v))
	}
	return d.host.Write(int(offset), b)
}

// WriteU32 copies x to offset.
func (d *Device) WriteU32(offset uint32, x []uint32) error {
	b := d.stage(4 * len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint32(b[4*i:], v)
	}
	return d.host.Write(int(offset), b)
}

// ReadF32 copies from offset to x.
func (d *Device) ReadF32(offset uint32, x []float32) error {
	b := d.stage(4 * len(x))
	if err := d.host.Read(int(offset), b); err != nil {
		return err
	}
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return nil
}

// Run executes the command list at offset.
func (d *Device) Run(list uint32) error { return d.host.Run(int(list)) }

// Close frees the host.
func (d *Device) Close() error { return d.host.Close() }
