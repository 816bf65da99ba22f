// Package shq is the container: one file, written once, read as a stream,
// checked as it comes. FORMAT.md is its definition.
package shq

import (
	"encoding/json"

	"lqa/quant/qtype"
)

// Manifest describes a file's content.
type Manifest struct {
	Name       string          `json:"name"`
	Model      json.RawMessage `json:"model"` // clip.Config
	Tensors    []Tensor        `json:"tensors"`
	Frames     []Frame         `json:"frames"`
	Provenance Provenance      `json:"provenance"`
}

// Tensor is one named array. Its bytes start at Offset of frame Frame's raw
// bytes and may run on into the frames that follow in the same stage.
type Tensor struct {
	Name   string     `json:"name"`
	Kind   qtype.Kind `json:"kind"`
	Shape  []int      `json:"shape"`
	Frame  int        `json:"frame"`
	Offset int        `json:"offset"` // a multiple of 16
}

// Frame is one independent zstd frame.
type Frame struct {
	Stage  int    `json:"stage"`
	Offset int64  `json:"offset"` // from the start of the file
	Size   int    `json:"size"`   // compressed
	Raw    int    `json:"raw"`    // decompressed
	SHA256 string `json:"sha256"` // of the compressed bytes, hex
}

// Provenance says where a model comes from and under what terms.
type Provenance struct {
	Source  string `json:"source"`
	Licence string `json:"licence"`
	Tool    string `json:"tool"`
}
