package bits

import (
	"lqa/quant/device"
	"lqa/quant/device/browser"
)

func host() device.Host { return browser.New(browser.Options{}) }
