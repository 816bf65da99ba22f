package tta

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestSameBits: nothing on a frame's way uses a function of package math whose
// bits differ between platforms, or random numbers without a seed.
func TestSameBits(t *testing.T) {
	exact := map[string]bool{ // exact or correctly rounded everywhere, or no arithmetic at all
		"Abs": true, "Sqrt": true, "RoundToEven": true, "Floor": true, "Float32bits": true, "Float32frombits": true,
		"IsNaN": true, "IsInf": true, "Signbit": true, "MaxInt32": true,
	}
	for _, pattern := range []string{"*.go", "shift/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					if x, ok := s.X.(*ast.Ident); ok && x.Name == "math" && !exact[s.Sel.Name] {
						t.Errorf("%s uses math.%s: take quant/numeric", name, s.Sel.Name)
					}
				}
				return true
			})
			for _, i := range f.Imports {
				if strings.HasPrefix(i.Path.Value, `"math/`) && i.Path.Value != `"math/bits"` {
					t.Errorf("%s imports %s", name, i.Path.Value)
				}
			}
		}
	}
}
