//go:build js

// Command lqa is the one binary of the page, in two roles: globalThis.lqaRole
// is "engine" in the worker and "page" in the window. The browser compiles it
// once.
package main

import (
	"syscall/js"

	"lqa/wasm/page"
	"lqa/wasm/worker"
)

func main() {
	switch role := js.Global().Get("lqaRole"); role.String() {
	case "engine":
		worker.Run()
	case "page":
		page.Run()
	default:
		js.Global().Get("console").Call("error", "lqa: unknown role", role)
	}
}
