package checkpoint_test

import (
	"os"
	"path/filepath"
	"testing"

	"lqa/quant/checkpoint"
	"lqa/quant/checkpoint/checkpointtest"
)

// TestOpenCLIP_Full reads checkpoints of the real sizes, 0.1 to 0.6 GB each.
func TestOpenCLIP_Full(t *testing.T) {
	if os.Getenv("LQA_FULL") == "" {
		t.Skip("LQA_FULL=1 writes and reads checkpoints of full size; a minute, 600 MB of disk")
	}
	for _, o := range []checkpointtest.Options{
		{Arch: checkpointtest.ViTB32, WrongEOS: true, Sparse: true, PositionIDs: true},
		{Arch: checkpointtest.ViTB32, Format: checkpointtest.Torch, PositionIDs: true},
		{Arch: checkpointtest.ViTB32, Layout: checkpointtest.OpenCLIP, GELU: true},
		{Arch: checkpointtest.ViTB32, Layout: checkpointtest.OpenCLIP, Format: checkpointtest.Torch},
		{Arch: checkpointtest.ViTB16, DType: "F16"},
		{Arch: checkpointtest.TinyCLIP8M16, GELU: true},
	} {
		o.Scales = 50
		dir := t.TempDir()
		if err := checkpointtest.Write(dir, o); err != nil {
			t.Fatal(err)
		}
		c := openCLIP(t, directory(dir))
		cfg := fits(t, c)
		largest, total := 0, 0
		for _, name := range c.Names() {
			x := tensor(t, c, name)
			largest, total = max(largest, 4*len(x)), total+len(x)
		}
		t.Logf("%s of %d px, %s: %.1f M numbers, largest tensor %.0f MB", c.Weights, cfg.Image.Size, c.Layout, float64(total)/1e6, float64(largest)/1e6)
		c.Close()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// directory is a checkpoint.Folder.
type directory string

func (d directory) Names() (names []string) {
	entries, _ := os.ReadDir(string(d))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (d directory) Open(name string) (checkpoint.File, error) {
	f, err := os.Open(filepath.Join(string(d), name))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return sized{f, info.Size()}, nil
}

type sized struct {
	*os.File
	size int64
}

func (s sized) Size() int64 { return s.size }
