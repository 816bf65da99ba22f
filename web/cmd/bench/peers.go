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
	file                  string // its URL's path
	last                  bool   // channels last
}

func ort(model, weights string) peer {
	return peer{engine: "onnxruntime-web", weights: weights, simd: "simd128", file: "/peers/models/" + model + "." + weights + ".onnx"}
}

func litert(file, weights, simd string) peer {
	return peer{engine: "litert", weights: weights, simd: simd, file: "/litert/" + file, last: strings.HasPrefix(file, "lite2")}
}

// peersOf are the fastest that others offer for each model, and their 4-bit
// forms.
var peersOf = map[string][]peer{
	"vit-b-32": {ort("vit-b-32", "uint8"), ort("vit-b-32", "uint4")},
	"vit-tiny-16": {
		ort("vit-tiny-16", "uint8"), ort("vit-tiny-16", "uint4"),
		litert("vit_ti16_224.int8dr.tflite", "int8", "relaxed"), litert("vit_ti16_224.int8dr.tflite", "int8", "simd128"),
		litert("vit_ti16_224.int4dr.tflite", "int4", "relaxed"),
	},
	"lite2": {
		ort("lite2", "int8"),
		litert("lite2_224.int8static.tflite", "int8", "relaxed"), litert("lite2_224.int8static.tflite", "int8", "simd128"),
	},
}

// litertWasm is the file that LiteRT.js would choose itself, or the one
// without relaxed SIMD, which has no threads.
func (p peer) litertWasm(threads int) string {
	switch {
	case p.simd == "simd128":
		return "@litertjs/core/wasm/litert_wasm_compat_internal"
	case threads > 1:
		return "@litertjs/core/wasm/litert_wasm_threaded_internal"
	}
	return "@litertjs/core/wasm/litert_wasm_internal"
}

// parts are what a page downloads of the engine, below node_modules.
func (p peer) parts(threads int) []string {
	if p.engine == "litert" {
		wasm := p.litertWasm(threads)
		return []string{"@litertjs/core/dist/index.js", "@litertjs/wasm-utils/dist/index.js", wasm + ".js", wasm + ".wasm"}
	}
	const dist = "onnxruntime-web/dist/"
	return []string{dist + "ort.wasm.min.mjs", dist + "ort-wasm-simd-threaded.mjs", dist + "ort-wasm-simd-threaded.wasm"}
}

// peers are the peer contenders of a model; what is not there is told of.
func (d dirs) peers(model string, threads []int, macs int64) []*contender {
	const modules = "/peers/node_modules/"
	input, embedding := "/peers/models/"+model+".input.f32", "/peers/models/"+model+".embedding.f32"
	var out []*contender
	for _, p := range peersOf[model] {
		if err := d.have(p.file, input, embedding, modules+p.parts(1)[0]); err != nil {
			fmt.Fprintf(os.Stderr, "bench: left out: %s, %s %s: %v\n", model, p.engine, p.weights, err)
			continue
		}
		for _, t := range threads {
			if p.engine == "litert" && p.simd == "simd128" && t > 1 {
				continue
			}
			config := map[string]any{"engine": p.engine, "modules": modules, "model": p.file, "threads": t, "side": 224, "input": input, "embedding": embedding}
			if p.engine == "litert" {
				config["last"], config["wasm"] = p.last, p.litertWasm(t)+".js"
			}
			out = append(out, &contender{
				row: row{Bench: "image-encode", Engine: p.engine, Host: "chromium", Model: model, Weights: p.weights, SIMD: p.simd, Threads: t,
					EngineDownloadBytes: download(filepath.Join(d.made, "node_modules"), p.parts(t))},
				macs: macs, script: peerScript, config: config,
			})
		}
	}
	return out
}

// have reports the first file that is not there.
func (d dirs) have(urls ...string) error {
	for _, u := range urls {
		if _, err := os.Stat(d.file(u)); err != nil {
			return err
		}
	}
	return nil
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
