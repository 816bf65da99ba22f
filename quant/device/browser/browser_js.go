// Package browser is the host inside a browser (or Node): the kernels run in
// the JavaScript engine's own WebAssembly.
package browser

import (
	"fmt"
	"syscall/js"
	"time"

	"lqa/quant/device"
	"lqa/quant/kernel"
)

// Host is a device.Host over the WebAssembly object. Its memory never grows,
// so views of it stay valid until the next Start or Close.
type Host struct {
	options Options
	threads int
	bytes   js.Value // Uint8Array over the whole memory
	run     js.Value
	views   map[[2]int]js.Value // subarrays of bytes, by offset and length
	helpers []js.Value          // workers
	memory  *memory
}

// memory is what a host, and those that Alone makes of it, start in: what a
// browser has given it takes back late.
type memory struct {
	js     js.Value
	pages  int
	shared bool
}

// get makes the memory, or gives that which is there.
func (m *memory) get(pages int) js.Value {
	if m.pages != pages {
		m.js = js.Global().Get("WebAssembly").Get("Memory").New(map[string]any{"initial": pages, "maximum": pages, "shared": m.shared})
		m.pages = pages
	}
	return m.js
}

// Options configure New.
type Options struct {
	// Threads is how many run a list, as far as the page is isolated and there
	// is a Helper; 0: as many as the machine has cores, up to AutoThreads.
	Threads int
	// Helper starts a worker that takes one message, {module, memory, tid},
	// instantiates the module in the memory ("env" "memory"), answers with any
	// message and calls its help(tid).
	Helper func() js.Value
}

// AutoThreads bounds the threads that nobody asked for: more gain little on
// models of this size, and the page has other work.
const AutoThreads = 4

// helperPatience is how long helpers may take to start.
const helperPatience = 5 * time.Second

// maxViews bounds the cache of subarrays: a frame uses a handful.
const maxViews = 64

// New returns a host that has not been started.
func New(o Options) *Host {
	h := &Host{options: o, threads: 1, memory: new(memory)}
	global := js.Global()
	if o.Helper == nil || !global.Get("crossOriginIsolated").Truthy() || global.Get("SharedArrayBuffer").IsUndefined() {
		return h
	}
	if h.threads = o.Threads; o.Threads == 0 {
		h.threads = 1
		if n := global.Get("navigator").Get("hardwareConcurrency"); n.Type() == js.TypeNumber {
			h.threads = min(n.Int(), AutoThreads)
		}
	}
	h.threads = max(1, min(h.threads, kernel.MaxThreads))
	h.memory.shared = h.threads > 1
	return h
}

// Supported reports whether this JavaScript engine compiles the kernels.
func Supported() error {
	if !validates(kernel.Path{Form: kernel.Plain, Rows: 1, Panels: 1}) {
		return device.ErrNoSIMD
	}
	return nil
}

// validates reports whether this JavaScript engine compiles a path's kernels:
// it is asked with a module that has just what the paths differ in.
func validates(p kernel.Path) bool {
	wasm := js.Global().Get("WebAssembly")
	module, err := kernel.Module(kernel.Spec{Pages: 1, Path: p, Lists: []kernel.List{kernel.Peak{}.Append(nil).End()}})
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

// Alone implements device.Host.
func (h *Host) Alone() device.Host { return &Host{threads: 1, memory: h.memory} }

// Threads implements device.Host.
func (h *Host) Threads() int { return h.threads }

// Start implements device.Host.
func (h *Host) Start(module []byte, pages int) error {
	h.Close()
	h.views = map[[2]int]js.Value{}
	wasm := js.Global().Get("WebAssembly")
	var mem, compiled js.Value
	if err := attempt(device.ErrMemory, func() { mem = h.memory.get(pages) }); err != nil {
		return err
	}
	err := attempt(device.ErrNoSIMD, func() {
		compiled = wasm.Get("Module").New(toJS(module))
		instance := wasm.Get("Instance").New(compiled, map[string]any{"env": map[string]any{"memory": mem}})
		h.run = instance.Get("exports").Get("run")
		h.bytes = js.Global().Get("Uint8Array").New(mem.Get("buffer"))
	})
	if err == nil && h.threads > 1 {
		h.help(compiled, mem)
	}
	return err
}

// help starts the helpers; with one missing there are none, and one thread
// does it all.
func (h *Host) help(module, memory js.Value) {
	ready := make(chan bool, 2*h.threads)
	tell := func(ok bool) js.Func {
		return js.FuncOf(func(_ js.Value, args []js.Value) any {
			args[0].Call("preventDefault") // an error is dealt with here
			ready <- ok
			return nil
		})
	}
	began, failed := tell(true), tell(false)
	defer began.Release()
	defer failed.Release()
	err := attempt(device.ErrRun, func() {
		for tid := 1; tid < h.threads; tid++ {
			w := h.options.Helper()
			h.helpers = append(h.helpers, w)
			w.Set("onmessage", began)
			w.Set("onerror", failed)
			w.Call("postMessage", map[string]any{"module": module, "memory": memory, "tid": tid})
		}
	})
	late := time.After(helperPatience)
	for n := 0; err == nil && n < len(h.helpers); n++ {
		select {
		case ok := <-ready:
			if !ok {
				err = device.ErrRun
			}
		case <-late:
			err = device.ErrRun
		}
	}
	for _, w := range h.helpers {
		w.Set("onmessage", js.Null())
		w.Set("onerror", js.Null())
	}
	if err != nil {
		h.giveUp()
	}
}

// giveUp goes on with one thread.
func (h *Host) giveUp() {
	for _, w := range h.helpers {
		w.Call("terminate")
	}
	h.helpers, h.threads = nil, 1
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

// Run implements device.Host. Where a helper does not come to a barrier, one
// thread runs the list again, this time and from then on.
func (h *Host) Run(list int) error {
	met, err := h.runAs(list, 0, h.threads)
	if err == nil && !met {
		h.giveUp()
		_, err = h.runAs(list, 0, 1)
	}
	return err
}

// RunAs runs one thread's share of the list, of a host that has one thread.
func (h *Host) RunAs(list, tid, threads int) error {
	_, err := h.runAs(list, tid, threads)
	return err
}

// runAs reports whether all threads met at all barriers.
func (h *Host) runAs(list, tid, threads int) (met bool, err error) {
	if h.run.IsUndefined() {
		return false, fmt.Errorf("%w: not started", device.ErrRun)
	}
	err = attempt(device.ErrRun, func() { met = h.run.Invoke(list, tid, threads).Int() == 0 })
	return met, err
}

// Close implements device.Host.
func (h *Host) Close() error {
	for _, w := range h.helpers {
		w.Call("terminate")
	}
	*h = Host{options: h.options, threads: h.threads, memory: h.memory}
	return nil
}
