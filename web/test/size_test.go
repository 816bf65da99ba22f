//go:build !js

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestSizes holds what a visitor downloads to its budget.
func TestSizes(t *testing.T) {
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	engine := []string{"lqa.wasm", "wasm_exec.js", "worker.js", "pixels.js", "start.js", "helper.js"}
	page := []string{"index.html", "page.css", "icon.svg", "boot.js", "media.js", "clip.js", "learn.js", "chart.js", "keep.js"}
	tests := []struct {
		what   string
		files  []string
		method string
		budget int
	}{
		{"engine", engine, "brotli", 1_100_000},
		{"engine", engine, "gzip", 1_500_000},
		{"page without engine", page, "plain", 150_000},
		{"embed.js", []string{"embed.js"}, "plain", 10_240},
	}
	for _, tt := range tests {
		t.Run(tt.what+", "+tt.method, func(t *testing.T) {
			total := 0
			for _, f := range tt.files {
				total += size(t, filepath.Join(dir, f), tt.method)
			}
			t.Logf("%d bytes of %d", total, tt.budget)
			if total > tt.budget {
				t.Errorf("%d bytes, budget %d", total, tt.budget)
			}
		})
	}
}

func size(t *testing.T, file, method string) int {
	t.Helper()
	switch method {
	case "gzip":
		file += ".gz"
	case "brotli":
		out, err := exec.Command("node", "-p", `require("zlib").brotliCompressSync(require("fs").readFileSync(process.argv[1]),
			{params: {[require("zlib").constants.BROTLI_PARAM_QUALITY]: 11}}).length`, file).Output()
		if err != nil {
			t.Skipf("brotli is measured with Node.js: %v", err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(out)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Size())
}
