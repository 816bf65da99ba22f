package checkpointtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLayouts compares names, shapes and order with lists taken from the
// libraries themselves, where those lie beside the house.
func TestLayouts(t *testing.T) {
	data := os.Getenv("LQA_DATA")
	if data == "" {
		data = "../../../../shared/data"
	}
	for file, o := range map[string]Options{
		"hf_clip_vit_b32":     {Arch: ViTB32},
		"hf_clip_vit_b16":     {Arch: ViTB16},
		"hf_clip_vit_l14":     {Arch: ViTL14},
		"hf_tinyclip_8m16_3m": {Arch: TinyCLIP8M16},
		"oc_vit_b_32":         {Arch: ViTB32, Layout: OpenCLIP},
	} {
		path := filepath.Join(data, "../checkpoints/layouts", file+".tsv")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Skipf("no lists of real layouts: %v", err)
		}
		want := strings.Split(strings.TrimSpace(string(text)), "\n")[1:]
		o.fill()
		var got []string
		for _, x := range o.tensors() {
			shape := strings.ReplaceAll(strings.Trim(fmt.Sprint(x.shape), "[]"), " ", "x")
			if shape == "" {
				shape = "scalar"
			}
			got = append(got, x.name+"\tfloat32\t"+shape)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d tensors, want %d", file, len(got), len(want))
			for i := range min(len(got), len(want)) {
				if got[i] != want[i] {
					t.Errorf("line %d: %s, want %s", i+2, got[i], want[i])
					break
				}
			}
		}
	}
}
