package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed peers/peer.js
var peerScript string

// peer is a model file of another engine.
type peer struct {
	engine, weights, simd string
	file                  string             // {} stands for the model
	last                  bool               // channels last
	parts                 func(int) []string // what the page downloads of it, below node_modules, for so many threads
}

func ortParts(int) []string {
	const dist = "onnxruntime-web/dist/"
	return []string{dist + "ort.wasm.min.mjs", dist + "ort-wasm-simd-threaded.mjs", dist + "ort-wasm-simd-threaded.wasm"}
}

func litertParts(threads int) []string {
	wasm := "@litertjs/core/wasm/litert_wasm_internal"
	if threads > 1 {
		wasm = "@litertjs/core/wasm/litert_wasm_threaded_internal"
	}
	return []string{"@litertjs/core/dist/index.js", "@litertjs/wasm-utils/dist/index.js", wasm + ".js", wasm + ".wasm"}
}

func ort(model, weights string) peer {
	return peer{engine: "onnxruntime-web", weights: weights, simd: "simd128", file: "/peers/models/" + model + "." + weights + ".onnx", parts: ortParts}
}

func litert(file, weights string, last bool) peer {
	return peer{engine: "litert", weights: weights, simd: "relaxed", file: "/litert/" + file, last: last, parts: litertParts}
}

// peersOf are the fastest that others offer for each model, and their 4-bit
// forms.
var peersOf = map[string][]peer{
	"vit-b-32":    {ort("vit-b-32", "uint8"), ort("vit-b-32", "uint4")},
	"vit-tiny-16": {ort("vit-tiny-16", "uint8"), ort("vit-tiny-16", "uint4"), litert("vit_ti16_224.int8dr.tflite", "int8", false), litert("vit_ti16_224.int4dr.tflite", "int4", false)},
	"lite2":       {ort("lite2", "int8"), litert("lite2_224.int8static.tflite", "int8", true)},
}

// peers are the peer contenders of a model; what is not there is told of.
func (d dirs) peers(model string, threads []int) []*contender {
	var out []*contender
	for _, p := range peersOf[model] {
		for _, need := range []string{p.file, "/peers/models/" + model + ".embedding.f32", "/peers/node_modules/" + p.parts(1)[0]} {
			if _, err := os.Stat(d.file(need)); err != nil {
				fmt.Fprintf(os.Stderr, "bench: %s without %s %s: %v\n", model, p.engine, p.weights, err)
				p.engine = ""
				break
			}
		}
		if p.engine == "" {
			continue
		}
		for _, t := range threads {
			c := &contender{macs: macs[model], script: peerScript, config: map[string]any{
				"engine": p.engine, "modules": "/peers/node_modules", "model": p.file, "threads": t, "side": 224, "last": p.last,
				"input": "/peers/models/" + model + ".input.f32", "embedding": "/peers/models/" + model + ".embedding.f32",
			}}
			c.row = row{Bench: "image-encode", Engine: p.engine, Host: "chromium", Model: model, Weights: p.weights, SIMD: p.simd, Threads: t}
			c.row.EngineDownloadBytes = download(filepath.Join(d.made, "node_modules"), p.parts(t))
			out = append(out, c)
		}
	}
	return out
}

// brotliScript prints the size of the file that is named, as a static host
// would keep it compressed.
const brotliScript = `const zlib = require("zlib"), b = require("fs").readFileSync(process.argv[1]);
zlib.brotliCompressSync(b, {params: {[zlib.constants.BROTLI_PARAM_QUALITY]: 11, [zlib.constants.BROTLI_PARAM_SIZE_HINT]: b.length}}).length`

// download is the size of files below dir, each compressed with brotli; nil
// where that can't be found out. It takes a minute for the largest: what was
// found is kept beside them.
func download(dir string, files []string) *int64 {
	var total int64
	for _, f := range files {
		n, err := brotli(filepath.Join(dir, filepath.FromSlash(f)))
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench: download size:", err)
			return nil
		}
		total += n
	}
	return &total
}

func brotli(file string) (int64, error) {
	info, err := os.Stat(file)
	if err != nil {
		return 0, err
	}
	note := file + ".brotli-size"
	if known, err := os.Stat(note); err == nil && known.ModTime().After(info.ModTime()) {
		if b, err := os.ReadFile(note); err == nil {
			return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		}
	}
	b, err := exec.Command("node", "-p", brotliScript, file).Output()
	if err != nil {
		return 0, fmt.Errorf("node: %w", err)
	}
	if err := os.WriteFile(note, b, 0o644); err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}
