//go:build !js

package engine_test

import (
	"lqa/quant/device"
	"lqa/quant/device/native"
)

const isNative = true

func newHost() device.Host { return native.New() }
