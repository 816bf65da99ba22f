// Package pictures is two dozen photographs for calibrating a model where the
// user has none at hand. README.md says whose they are.
package pictures

import "embed"

// FS holds the photographs, JPEGs of 224 pixels on the shorter side.
//
//go:embed *.jpg
var FS embed.FS
