// Package native is the host outside the browser: wazero, pure Go, plain
// SIMD128.
package native

import (
	"context"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/kernel/asm"
)

// Host is a device.Host over wazero. It is not safe for concurrent use.
type Host struct {
	runtime wazero.Runtime
	memory  api.Memory
	run     api.Function
	stack   [3]uint64
}

// New returns a host that has not been started.
func New() *Host { return new(Host) }

// Start implements device.Host.
func (h *Host) Start(module []byte, pages int) error {
	if err := h.Close(); err != nil {
		return err
	}
	ctx := context.Background()
	m := asm.NewModule()
	m.ExportMemory("memory", uint32(pages))
	env, err := m.Bytes()
	if err != nil {
		return err
	}
	h.runtime = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithMemoryCapacityFromMax(true))
	mem, err := h.runtime.InstantiateWithConfig(ctx, env, wazero.NewModuleConfig().WithName("env"))
	if err != nil {
		return fmt.Errorf("%w: %w", device.ErrMemory, err)
	}
	kernels, err := h.runtime.Instantiate(ctx, module)
	if err != nil {
		return fmt.Errorf("%w: %w", device.ErrNoSIMD, err)
	}
	h.memory, h.run = mem.Memory(), kernels.ExportedFunction("run")
	return nil
}

// Paths implements device.Host.
func (h *Host) Paths() []kernel.Path { return []kernel.Path{kernel.Wazero} }

// Threads implements device.Host.
func (h *Host) Threads() int { return 1 }

// Alone implements device.Host.
func (h *Host) Alone() device.Host { return New() }

// Write implements device.Host.
func (h *Host) Write(offset int, b []byte) error {
	if h.memory == nil || !h.memory.Write(uint32(offset), b) {
		return fmt.Errorf("%w: write of %d bytes at %d", device.ErrRun, len(b), offset)
	}
	return nil
}

// Read implements device.Host.
func (h *Host) Read(offset int, b []byte) error {
	if h.memory != nil {
		if v, ok := h.memory.Read(uint32(offset), uint32(len(b))); ok {
			copy(b, v)
			return nil
		}
	}
	return fmt.Errorf("%w: read of %d bytes at %d", device.ErrRun, len(b), offset)
}

// Run implements device.Host.
func (h *Host) Run(list int) error { return h.RunAs(list, 0, 1) }

// RunAs runs one thread's share of the list.
func (h *Host) RunAs(list, tid, threads int) error {
	if h.run == nil {
		return fmt.Errorf("%w: not started", device.ErrRun)
	}
	h.stack = [3]uint64{uint64(list), uint64(tid), uint64(threads)}
	if err := h.run.CallWithStack(context.Background(), h.stack[:]); err != nil {
		return fmt.Errorf("%w: %w", device.ErrRun, err)
	}
	return nil
}

// Close implements device.Host.
func (h *Host) Close() error {
	if h.runtime == nil {
		return nil
	}
	r := h.runtime
	*h = Host{}
	return r.Close(context.Background())
}
