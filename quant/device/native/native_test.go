package native_test

import (
	"slices"
	"testing"

	"lqa/quant/device"
	"lqa/quant/device/native"
	"lqa/quant/kernel"
	"lqa/quant/kernel/kerneltest"
	"lqa/quant/qtype"
)

func TestKernels(t *testing.T) {
	kerneltest.Run(t, func() device.Host {
		h := native.New()
		t.Cleanup(func() { h.Close() })
		return h
	})
}

// FuzzKernels draws kernels, shapes and values from a seed. Plain go test runs
// the seeds below; go test -fuzz goes on.
func FuzzKernels(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		kerneltest.Fuzz(t, func() device.Host {
			h := native.New()
			t.Cleanup(func() { h.Close() })
			return h
		}, seed, 1)
	})
}

func BenchmarkKernels(b *testing.B) {
	kerneltest.Bench(b, func() device.Host { return native.New() })
}

// liar has a second path, whose results are a bit off.
type liar struct {
	device.Host
	alone *int // hosts started: the reference, then one a path
	wrong bool
}

var twice = kernel.Path{Form: kernel.Plain, Rows: 4, Panels: 1}

func (l liar) Paths() []kernel.Path { return append(l.Host.Paths(), twice) }

func (l liar) Alone() device.Host {
	*l.alone++
	return liar{l.Host.Alone(), l.alone, *l.alone == 3}
}

func (l liar) Read(offset int, b []byte) error {
	err := l.Host.Read(offset, b)
	if l.wrong && len(b) > 0 {
		b[len(b)/2] ^= 1
	}
	return err
}

func TestSound_DropsWrong(t *testing.T) {
	low, _ := qtype.Q4.Low()
	list := kernel.GEMMLow{M: 6, K: 64, N: 16, LDY: 16, Low: low, Lo: -kernel.Inf, Hi: kernel.Inf}.Append(nil).End()
	h := liar{Host: native.New(), alone: new(int)}
	sound, err := device.Sound(h, h.Paths(), []kernel.List{list})
	if err != nil || !slices.Equal(sound, []kernel.Path{kernel.Wazero}) {
		t.Errorf("%v %v, want Wazero's path alone", sound, err)
	}
	// Rightly computed, the same path stays.
	h = liar{Host: native.New(), alone: new(int)}
	*h.alone = 10
	if sound, err = device.Sound(h, h.Paths(), []kernel.List{list}); err != nil || len(sound) != 2 {
		t.Errorf("%v %v, want both paths", sound, err)
	}
}
