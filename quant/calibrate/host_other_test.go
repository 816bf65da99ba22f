//go:build !js

package calibrate

import (
	"lqa/quant/device"
	"lqa/quant/device/native"
)

func newHost() device.Host { return native.New() }
