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

func BenchmarkKernels(b *testing.B) {
	kerneltest.Bench(b, func() device.Host { return native.New() })
}
