package main

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"lqa/quant/checkpoint/checkpointtest"
)

// TestFull converts checkpoints of real size, with random weights and outliers
// in their activations, and compares them with their originals on photographs.
// LQA_FULL=1 asks for it: it takes minutes a checkpoint and gigabytes of disk.
// -run Full/NAME chooses.
func TestFull(t *testing.T) {
	if os.Getenv("LQA_FULL") == "" {
		t.Skip("LQA_FULL is not set")
	}
	data := os.Getenv("LQA_DATA")
	if data == "" {
		data = "../../../../shared/data"
	}
	photographs := filepath.Join(data, "sharp", "clothing", "test.tar")
	if _, err := os.Stat(photographs); err != nil {
		t.Skipf("no photographs: %v", err)
	}
	merges := allMerges(t)
	for _, c := range []struct {
		name string
		o    checkpointtest.Options
		more bool // 8 bits, and without the outlier step
	}{
		{"b32-transformers", checkpointtest.Options{Arch: checkpointtest.ViTB32, DType: "F16", WrongEOS: true, Sparse: true, PositionIDs: true}, true},
		{"b32-transformers-torch", checkpointtest.Options{Arch: checkpointtest.ViTB32, Format: checkpointtest.Torch, PositionIDs: true}, false},
		{"b32-openclip", checkpointtest.Options{Arch: checkpointtest.ViTB32, Layout: checkpointtest.OpenCLIP, GELU: true}, false},
		{"b32-openclip-torch", checkpointtest.Options{Arch: checkpointtest.ViTB32, Layout: checkpointtest.OpenCLIP, Format: checkpointtest.Torch, DType: "F16"}, false},
		{"b16", checkpointtest.Options{Arch: checkpointtest.ViTB16, DType: "F16", WrongEOS: true}, false},
		{"tinyclip-8m", checkpointtest.Options{Arch: checkpointtest.TinyCLIP8M16, DType: "F16"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, out := t.TempDir(), t.TempDir()
			c.o.Scales, c.o.Merges, c.o.Seed = 50, merges, 5
			if err := checkpointtest.Write(dir, c.o); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(out, "a.shq")
			measure := func(what string, least float64, args ...string) {
				t.Helper()
				begin := time.Now()
				said, _ := command(t, exitOK, append([]string{"convert", dir, "-o", file, "--json"}, args...)...)
				took := time.Since(begin)
				var made struct {
					Bytes int64 `json:"bytes"`
				}
				if err := json.Unmarshal([]byte(said), &made); err != nil {
					t.Fatal(err)
				}
				debug.FreeOSMemory()
				command(t, exitOK, "verify", file)
				said, _ = command(t, exitOK, "verify", file, "--against", dir, "--pictures", photographs, "--count", "64", "--json",
					"--min-cosine", "-1", "--min-worst", "-1", "--min-agreement", "0")
				var v struct {
					Against struct {
						Pictures  int
						Mean      float64 `json:"cosine_mean"`
						Least     float64 `json:"cosine_min"`
						LabelMean float64 `json:"label_mean"`
					}
				}
				if err := json.Unmarshal([]byte(said), &v); err != nil {
					t.Fatal(err)
				}
				t.Logf("%s: %d bytes in %.0f s; %d photographs: cosine %.4f mean, %.4f least; labels %.4f", what, made.Bytes, took.Seconds(),
					v.Against.Pictures, v.Against.Mean, v.Against.Least, v.Against.LabelMean)
				if v.Against.Mean < least {
					t.Errorf("%s: mean cosine %.4f, under %.2f", what, v.Against.Mean, least)
				}
				debug.FreeOSMemory()
			}
			measure("default", 0.97)
			if c.more {
				measure("8 bits to nearest", 0.99, "--bits", "8", "--method", "nearest")
				measure("8 bits to nearest, outliers as they are", -1, "--bits", "8", "--method", "nearest", "--keep-outliers")
				measure("4 bits to nearest, outliers as they are", -1, "--no-calibration")
			}
		})
	}
}

// allMerges are OpenAI's byte pairs.
func allMerges(t *testing.T) []string {
	t.Helper()
	f, err := os.Open("../../clip/testdata/merges.txt.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	_, lines, _ := strings.Cut(string(b), "\n") // the first is the version
	return strings.Split(strings.TrimSuffix(lines, "\n"), "\n")
}
