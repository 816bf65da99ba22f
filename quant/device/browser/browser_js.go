// Package browser is the host inside a browser (or Node): the kernels run in
// the JavaScript engine's own WebAssembly.
package browser

import (
	"fmt"
	"syscall/js"

	"lqa/quant/device"
	"lqa/quant/kernel"
)

// Host is a device.Host over the WebAssembly object. Its memory never grows,
// so views of it stay valid until the next Start or Close.
type Host struct {
	bytes js.Value // Uint8Array over the whole memory
	run   js.Value
	views map[[2]int]js.Value // subarrays of bytes, by offset and length
}

// maxViews bounds the cache of subarrays: a frame uses a handful.
const maxViews = 64

// New returns a host that has not been started.
func New() *Host { return new(Host) }

// Supported reports whether this JavaScript engine compiles the kernels.
func Supported() error {
	if !validates(kernel.Path{Form: kernel.Plain, Rows: 1, Panels: 1}) {
		return device.ErrNoSIMD
	}
	return nil
}

// validates reports whether this JavaScript engine compiles a path's kernels.
func validates(p kernel.Path) bool {
	wasm := js.Global().Get("WebAssembly")
	module, err := kernel.Module(kernel.Spec{Pages: 1, Path: p})
	return err == nil && wasm.Type() == js.TypeObject && wasm.Call("validate", toJS(module)).Bool()
}

// Paths implements device.Host.
func (h *Host) Paths() []kernel.Path {
	return kernel.Paths(validates(kernel.Path{Form: kernel.Dot16, Rows: 1, Panels: 1}))
}

func toJS(b []byte) js.Value {
	a := js.Global().Get("Uint8Array").New(len(b))
	js.CopyBytesToJS(a, b)
	return a
}

// attempt turns a JavaScript exception, which reaches Go as a panic, into an
// error that wraps kind.
func attempt(kind error, f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(js.Error)
			if !ok {
				panic(r)
			}
			err = fmt.Errorf("%w: %s", kind, e.Error())
		}
	}()
	f()
	return nil
}

// Start implements device.Host.
func (h *Host) Start(module []byte, pages int) error {
	*h = Host{views: map[[2]int]js.Value{}}
	wasm := js.Global().Get("WebAssembly")
	var memory js.Value
	err := attempt(device.ErrMemory, func() {
		memory = wasm.Get("Memory").New(map[string]any{"initial": pages, "maximum": pages})
	})
	if err != nil {
		return err
	}
	return attempt(device.ErrNoSIMD, func() {
		compiled := wasm.Get("Module").New(toJS(module))
		instance := wasm.Get("Instance").New(compiled, map[string]any{"env": map[string]any{"memory": memory}})
		h.run = instance.Get("exports").Get("run")
		h.bytes = js.Global().Get("Uint8Array").New(memory.Get("buffer"))
	})
}

// view is the part of the memory at offset, n bytes long.
func (h *Host) view(offset, n int) (js.Value, error) {
	if h.bytes.IsUndefined() || offset < 0 || n < 0 || offset > h.bytes.Length()-n {
		return js.Value{}, fmt.Errorf("%w: %d bytes at %d", device.ErrRun, n, offset)
	}
	key := [2]int{offset, n}
	v, ok := h.views[key]
	if !ok {
		v = h.bytes.Call("subarray", offset, offset+n)
		if len(h.views) < maxViews {
			h.views[key] = v
		}
	}
	return v, nil
}

// Pixels is the memory at offset as a Uint8ClampedArray of n bytes, for
// JavaScript that writes pictures straight into it.
func (h *Host) Pixels(offset, n int) js.Value {
	return js.Global().Get("Uint8ClampedArray").New(h.bytes.Get("buffer"), offset, n)
}

// Write implements device.Host.
func (h *Host) Write(offset int, b []byte) error {
	v, err := h.view(offset, len(b))
	if err == nil {
		js.CopyBytesToJS(v, b)
	}
	return err
}

// Read implements device.Host.
func (h *Host) Read(offset int, b []byte) error {
	v, err := h.view(offset, len(b))
	if err == nil {
		js.CopyBytesToGo(b, v)
	}
	return err
}

// Run implements device.Host.
func (h *Host) Run(list int) error { return h.RunAs(list, 0, 1) }

// RunAs runs one thread's share of the list.
func (h *Host) RunAs(list, tid, threads int) error {
	if h.run.IsUndefined() {
		return fmt.Errorf("%w: not started", device.ErrRun)
	}
	return attempt(device.ErrRun, func() { h.run.Invoke(list, tid, threads) })
}

// Close implements device.Host.
func (h *Host) Close() error {
	*h = Host{}
	return nil
}
