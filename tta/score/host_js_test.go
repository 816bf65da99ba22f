package score_test

import (
	"lqa/quant/device"
	"lqa/quant/device/browser"
)

const isNative = false

func newHost() device.Host { return browser.New(browser.Options{}) }
