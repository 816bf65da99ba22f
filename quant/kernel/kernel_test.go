package kernel

import (
	"os"
	"strings"
	"testing"
)

// TestKernels_Documented: KERNELS.md lists every kernel.
func TestKernels_Documented(t *testing.T) {
	doc, err := os.ReadFile("KERNELS.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range Kernels {
		if !strings.Contains(string(doc), "`"+k.Name+"`") {
			t.Errorf("%s is not in KERNELS.md", k.Name)
		}
		if int(k.op) != i+1 {
			t.Errorf("%s has code %d at place %d: run's switch would call another", k.Name, k.op, i+1)
		}
	}
}

// TestModule_Assembles: no emitter made a mistake.
func TestModule_Assembles(t *testing.T) {
	for _, p := range append(Paths(true), Wazero) {
		b, err := Module(Spec{Pages: 1, Path: p})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v: %d bytes", p, len(b))
	}
}

// TestBicubic: coefficients of every output sum to one, within rounding, and
// stay inside the picture.
func TestBicubic(t *testing.T) {
	for _, c := range []struct{ in, out int }{{1, 224}, {2, 224}, {224, 224}, {225, 224}, {480, 224}, {1440, 224}, {1440, 64}} {
		r, err := Bicubic(c.in, c.out, 0, c.out)
		if err != nil {
			t.Fatal(err)
		}
		for i := range c.out {
			var sum int64
			for _, k := range r.Coefs[i*r.Taps : (i+1)*r.Taps] {
				sum += int64(k)
			}
			if d := sum - 1<<resizeBits; d < -int64(r.Taps) || d > int64(r.Taps) {
				t.Errorf("%d → %d: output %d sums to %d", c.in, c.out, i, sum)
			}
			if r.Starts[i] < 0 || int(r.Starts[i]+r.Counts[i]) > c.in || r.Counts[i] < 1 || int(r.Counts[i]) > r.Taps {
				t.Errorf("%d → %d: output %d reads %d from %d", c.in, c.out, i, r.Counts[i], r.Starts[i])
			}
		}
	}
	if _, err := Bicubic(1_000_000, 224, 0, 224); err == nil {
		t.Error("a picture far too large was accepted")
	}
}
