package native_test

import (
	"testing"

	"lqa/quant/device"
	"lqa/quant/device/native"
	"lqa/quant/kernel/kerneltest"
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
