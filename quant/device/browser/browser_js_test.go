package browser_test

import (
	"testing"

	"lqa/quant/device"
	"lqa/quant/device/browser"
	"lqa/quant/kernel/kerneltest"
)

func TestKernels(t *testing.T) {
	if err := browser.Supported(); err != nil {
		t.Fatal(err)
	}
	kerneltest.Run(t, func() device.Host { return browser.New(browser.Options{}) })
}

func BenchmarkKernels(b *testing.B) {
	kerneltest.Bench(b, func() device.Host { return browser.New(browser.Options{}) })
}
