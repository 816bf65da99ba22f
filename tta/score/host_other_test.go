//go:build !js

package score_test

import (
	"lqa/quant/device"
	"lqa/quant/device/native"
)

const isNative = true

func newHost() device.Host { return native.New() }
