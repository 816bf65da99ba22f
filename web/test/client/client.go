// Package client is a page that does nothing but speak the protocol: tests and
// benchmarks drive the engine through it.
package client

import _ "embed"

// Script puts lqa on the global object: {worker, ask, askCopy, plain}.
//
//go:embed client.js
var Script string

// Blank is an empty page, served at BlankPath.
const (
	Blank     = "<!doctype html><title>blank</title><link rel=icon href=data:,>"
	BlankPath = "/blank.html"
)
