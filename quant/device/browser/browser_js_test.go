package browser_test

import (
	"fmt"
	"slices"
	"syscall/js"
	"testing"

	"lqa/quant/device"
	"lqa/quant/device/browser"
	"lqa/quant/kernel"
	"lqa/quant/kernel/kerneltest"
	"lqa/quant/qtype"
)

func TestKernels(t *testing.T) {
	if err := browser.Supported(); err != nil {
		t.Fatal(err)
	}
	kerneltest.Run(t, func() device.Host { return browser.New(browser.Options{}) })
}

// helper starts a thread by a script of the server's.
func helper(path string) func() js.Value {
	return func() js.Value { return js.Global().Get("Worker").New(path, map[string]any{"type": "module"}) }
}

func needThreads(t *testing.T) {
	if !js.Global().Get("crossOriginIsolated").Truthy() {
		t.Skip("threads need a page that is isolated, and workers of the browser's kind")
	}
}

// TestFuzz: random shapes, all forms that this engine compiles.
func TestFuzz(t *testing.T) {
	kerneltest.Fuzz(t, func() device.Host { return browser.New(browser.Options{}) }, 17, 150)
}

// TestThreads: random shapes on real threads, which meet at real barriers.
func TestThreads(t *testing.T) {
	needThreads(t)
	for _, n := range []int{2, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			kerneltest.Fuzz(t, func() device.Host {
				return browser.New(browser.Options{Threads: n, Helper: helper("/helper.js")})
			}, uint64(n), 25)
		})
	}
}

// TestThreads_Lost: with helpers that never start, that fail, or that start
// and do no work, one thread does it all.
func TestThreads_Lost(t *testing.T) {
	needThreads(t)
	blob := func(script string) func() js.Value {
		global := js.Global()
		b := global.Get("Blob").New([]any{script}, map[string]any{"type": "text/javascript"})
		return helper(global.Get("URL").Call("createObjectURL", b).String())
	}
	for name, h := range map[string]func() js.Value{
		"missing": helper("/nowhere.js"),
		"broken":  blob("throw new Error('broken')"),
		"idle":    blob("onmessage = () => postMessage(0)"),
	} {
		t.Run(name, func(t *testing.T) {
			host := browser.New(browser.Options{Threads: 2, Helper: h})
			defer host.Close()
			var l device.Layout
			y, x := l.Alloc(device.Activations, 16), l.Alloc(device.Activations, 16)
			list := kernel.Add{Y: y, X: x, N: 4}.Append(nil).End()
			at := l.Alloc(device.Commands, 4*len(list))
			d, err := device.Start(host, &l, device.Options{Lists: []kernel.List{list}})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				for _, err := range []error{d.WriteF32(y, []float32{1, 1, 1, 1}), d.WriteF32(x, []float32{1, 2, 3, 4}), d.WriteU32(at, list), d.Run(at)} {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			if d.Threads() != 1 {
				t.Errorf("%d threads", d.Threads())
			}
			got := make([]float32, 4)
			if err := d.ReadF32(y, got); err != nil || !slices.Equal(got, []float32{2, 3, 4, 5}) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func BenchmarkKernels(b *testing.B) {
	kerneltest.Bench(b, func() device.Host { return browser.New(browser.Options{}) })
}

// What a host gets wrong it is found to get wrong each time: V8 may have machine
// code of a trial that ran before, made by its other compiler. Node.js 20 gets
// one form wrong.
func TestSound_Again(t *testing.T) {
	h := browser.New(browser.Options{})
	low, _ := qtype.Q4.Low()
	// One row alone, which is multiplied right, has the code made anew.
	var first []kernel.Path
	for i, m := range []int{6, 1, 6, 1, 6} {
		list := kernel.GEMMLow{M: m, K: 128, N: 32, LDY: 32, Low: low, Lo: -kernel.Inf, Hi: kernel.Inf}.Append(nil).End()
		sound, err := device.Sound(h, h.Paths(), []kernel.List{list})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = sound
			t.Logf("sound, of %d: %v", len(h.Paths()), sound)
		} else if m == 6 && !slices.Equal(sound, first) {
			t.Fatalf("at first %v, then %v", first, sound)
		}
	}
}
