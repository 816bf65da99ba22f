package calibrate

import (
	"lqa/quant/device"
	"lqa/quant/device/browser"
)

func newHost() device.Host { return browser.New(browser.Options{}) }
