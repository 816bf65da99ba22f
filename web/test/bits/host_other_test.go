//go:build !js

package bits

import (
	"lqa/quant/device"
	"lqa/quant/device/native"
)

func host() device.Host { return native.New() }
