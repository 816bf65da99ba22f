// Package device gives kernels memory and command lists over a Host: the
// browser or wazero, running the same kernel bytes.
package device

// Host runs one kernel module in one memory of fixed size.
type Host interface {
	// Start instantiates module with a memory of pages × 64 KiB.
	Start(module []byte, pages int) error
	// Write copies b to offset; Read copies from offset to b.
	Write(offset int, b []byte) error
	Read(offset int, b []byte) error
	// Run executes the command list at offset.
	Run(list int) error
	Close() error
}

// Memory counts the bytes of a device's memory exactly, by use.
type Memory struct {
	Weights     int // tensors of the model
	Activations int // buffers between commands, scratch
	Frame       int // the picture as it came, and the view
	Commands    int // command lists and tables
	Total       int // the whole memory, rounded up to pages
}
