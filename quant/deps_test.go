//go:build !js

// Package quant holds the tests that guard the whole house: which package may
// import which, and which functions differ in bits between machines.
package quant

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

type arrow struct {
	pkg string
	may []string
	why string
}

// arrows is every package of ours, with what it may import besides the
// standard library, and why no more. Imports point downwards only. A name that
// ends in "/..." stands for all packages below it. A package without a row
// fails the test: give it one.
var arrows = []arrow{
	{"quant/numeric", []string{"github.com/x448/float16"}, "everybody's ground floor: it knows nobody"},
	{"quant/json", nil, "everybody's, wasm/proto's too: it knows text and nobody's structs"},
	{"quant/qtype", []string{"quant/numeric"}, "storage types know numbers, not files, kernels or models"},
	{"quant/kernel/asm", nil, "an assembler knows nothing of neural nets"},
	{"quant/kernel", []string{"quant/kernel/asm", "quant/numeric", "quant/qtype"}, "kernels run on any host: they may not know one"},
	{"quant/kernel/kerneltest", []string{"quant/kernel", "quant/device", "quant/numeric", "quant/qtype"}, "the suite that every host runs"},
	{"quant/device", []string{"quant/kernel"}, "memory and command lists know no model"},
	{"quant/device/native", []string{"quant/device", "quant/kernel", "quant/kernel/asm", "github.com/tetratelabs/wazero/..."}, "wazero stays in one place, out of the browser's binary"},
	{"quant/device/browser", []string{"quant/device", "quant/kernel", "quant/kernel/asm"}, "syscall/js stays in one place"},
	{"quant/shq", []string{"quant/json", "quant/qtype", "github.com/klauspost/compress/zstd"}, "the container knows bytes and storage types, not what they mean"},
	{"quant/clip", []string{"quant/device", "quant/json", "quant/kernel", "quant/numeric", "quant/qtype"}, "towers know no file format and no adaptation"},
	{"quant/checkpoint", []string{"quant/json", "quant/numeric"}, "other people's files: named tensors out, no tower known"},
	{"quant/checkpoint/checkpointtest", []string{"quant/checkpoint", "quant/numeric"}, "checkpoints for tests, written without a look at what reads them"},
	{"quant/checkpoint/hub", []string{"quant/checkpoint"}, "fetching knows no model"},
	{"quant/checkpoint/hub/hubtest", nil, "the hub for tests, written against nothing of ours"},
	{"quant/calibrate", []string{"quant/clip", "quant/device", "quant/json", "quant/kernel", "quant/numeric", "quant/qtype", "gonum.org/v1/gonum/blas/...", "gonum.org/v1/gonum/lapack/lapack64"}, "handed a host, so that it can run in a page; of gonum the Cholesky alone"},
	{"quant/calibrate/pictures", nil, "files and nothing else"},
	{"quant/convert", []string{"quant/calibrate", "quant/checkpoint", "quant/clip", "quant/device", "quant/numeric", "quant/qtype", "quant/shq"}, "named tensors in, a .shq out: no files, no network, so that it can run in a page"},
	{"quant/convert/random", []string{"quant/clip", "quant/convert", "quant/qtype"}, "models to measure with; tools alone use it"},
	{"quant/engine", []string{"quant/clip", "quant/device", "quant/kernel", "quant/numeric", "quant/qtype", "quant/shq"}, "host-neutral: worker, eval and tests hand it a host; adaptation sits above"},
	{"quant/engine/enginetest", []string{"quant/clip", "quant/numeric", "quant/qtype", "quant/shq"}, "a small model for tests"},
	{"quant/picture", []string{"golang.org/x/image/draw"}, "files of pictures to pixels, for the tools: the browser decodes its own"},
	{"quant/cmd/...", []string{"quant/...", "github.com/urfave/cli/v3", "golang.org/x/image/...", "golang.org/x/term"}, "tools of the engine do not adapt"},
	{"tta/shift", []string{"quant/numeric"}, "corruptions know no model and no method"},
	{"tta/shift/corrupt", []string{"quant/numeric", "tta/shift"}, "published corruptions, for measuring: apart, so that they cost the download nothing"},
	{"tta/shift/order", []string{"tta/shift"}, "orders are functions of labels and seed: they know no frames"},
	{"tta", []string{"quant/numeric", "quant/qtype", "tta/shift"}, "a session is handed an Encoder and knows no device"},
	{"tta/score", []string{"quant/device", "quant/kernel", "tta"}, "the glue between a session and the kernels, which may not know each other"},
	{"tta/ttatest", []string{"quant/numeric"}, "states to measure with, written without a look at what reads them"},
	{"tta/cmd/...", []string{"quant/...", "tta/...", "github.com/urfave/cli/v3", "golang.org/x/image/...", "golang.org/x/term"}, "tools wire everything together, outside the browser"},
	{"wasm/proto", []string{"quant/json"}, "both sides share it, so it may drag in neither"},
	{"wasm/remote", nil, "how a download goes on, natively tested: JavaScript does the fetching"},
	{"wasm/worker", []string{"quant/clip", "quant/device", "quant/device/browser", "quant/engine", "quant/json", "quant/kernel", "quant/shq", "tta", "tta/score", "tta/shift", "wasm/proto", "wasm/remote"}, "the engine role has no DOM"},
	{"wasm/page", []string{"quant/json", "wasm/proto", "honnef.co/go/js/dom/v2"}, "the page computes nothing: it may not reach the engine or the adapters"},
	{"wasm", []string{"wasm/page", "wasm/worker"}, "one binary, two roles"},
	{"web/...", []string{"quant/...", "tta/...", "wasm/proto", "web/...", "golang.org/x/image/...", "github.com/klauspost/compress/..."}, "server, browser tests and benchmarks; nothing of it is shipped"},
}

// keptIn is where packages of the standard library that weigh or bind may be
// imported.
var keptIn = []struct {
	std string
	in  []string
	why string
}{
	{"syscall/js", []string{"quant/device/browser", "wasm/worker", "wasm/page", "wasm"}, "everything else tests natively in a second"},
	{"net/http", []string{"quant/checkpoint/hub/...", "web/..."}, "it is 2 MB of download: in the browser JavaScript fetches and hands over bytes"},
	{"net", []string{"quant/checkpoint/hub/...", "web/..."}, "the engine has no network"},
	{"os", []string{"quant/cmd/...", "tta/cmd/...", "quant/checkpoint/hub", "quant/checkpoint/checkpointtest", "web/..."}, "the engine takes readers, so that it runs in a page"},
	{"unsafe", nil, "kernels have their own memory; Go code needs no tricks"},
	{"math/rand", []string{"web/...", "quant/kernel/kerneltest", "quant/convert/random", "quant/engine/enginetest", "quant/checkpoint/checkpointtest"}, "its streams are not ours to keep the same"},
	{"math/rand/v2", []string{"web/...", "quant/kernel/kerneltest", "quant/convert/random", "quant/engine/enginetest", "quant/checkpoint/checkpointtest"}, "its streams are not ours to keep the same"},
}

const module = "lqa/"

// match reports whether an import path is the pattern or below it.
func match(pattern, path string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == base || strings.HasPrefix(path, base+"/")
	}
	return path == pattern
}

func matchAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, path) })
}

type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
	GoFiles    []string
	Dir        string
	Export     string // file of export data
}

// list runs go list -deps over the house for one target.
func list(t *testing.T, goos, goarch string, more ...string) []listed {
	t.Helper()
	args := append([]string{"list", "-e", "-deps"}, more...)
	cmd := exec.Command("go", append(args, "-json=ImportPath,Standard,Imports,GoFiles,Dir,Export", "./...")...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestArrows(t *testing.T) {
	for _, target := range [][2]string{{"linux", "amd64"}, {"js", "wasm"}} {
		t.Run(target[0], func(t *testing.T) {
			all := list(t, target[0], target[1])
			std := map[string]bool{"C": true}
			for _, p := range all {
				std[p.ImportPath] = std[p.ImportPath] || p.Standard
			}
			for _, p := range all {
				pkg, ours := strings.CutPrefix(p.ImportPath, module)
				if !ours || len(p.GoFiles) == 0 {
					continue
				}
				row := slices.IndexFunc(arrows, func(a arrow) bool { return match(a.pkg, pkg) })
				if row < 0 {
					t.Errorf("%s has no row in arrows: say what it may import, and why no more", pkg)
					continue
				}
				for _, imp := range p.Imports {
					name := strings.TrimPrefix(imp, module)
					if !std[imp] && !matchAny(arrows[row].may, name) {
						t.Errorf("%s imports %s: %s", pkg, name, arrows[row].why)
					}
					for _, k := range keptIn {
						if imp == k.std && !matchAny(k.in, pkg) {
							t.Errorf("%s imports %s: %s", pkg, imp, k.why)
						}
					}
				}
			}
		})
	}
}

// TestLean guards what a visitor downloads: nothing heavy may creep in, by
// whatever way.
func TestLean(t *testing.T) {
	cmd := exec.Command("go", "list", "-e", "-deps", "./wasm")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	for _, heavy := range []string{"net/http", "crypto/tls", "net", "encoding/json", "regexp", "text/template", "html/template", "go/ast", "testing", "github.com/tetratelabs/wazero", "gonum.org/v1/gonum/blas/blas64"} {
		if slices.Contains(deps, heavy) {
			t.Errorf("the browser's binary has %s in it", heavy)
		}
	}
}

// unsteady are functions of package math whose last bits differ between
// amd64, arm64 and wasm. Sqrt, Floor and the like are exact everywhere.
var unsteady = []string{
	"Acos", "Acosh", "Asin", "Asinh", "Atan", "Atan2", "Atanh", "Cbrt", "Cos", "Cosh", "Erf", "Erfc", "Erfcinv", "Erfinv",
	"Exp", "Exp2", "Expm1", "Gamma", "Hypot", "J0", "J1", "Jn", "Lgamma", "Log", "Log10", "Log1p", "Log2", "Pow", "Pow10",
	"Sin", "Sincos", "Sinh", "Tan", "Tanh", "Y0", "Y1", "Yn",
}

// TestSteadyFunctions: where bits are promised, functions come from
// quant/numeric. It is also so in quant/numeric itself.
func TestSteadyFunctions(t *testing.T) {
	for _, floor := range []string{".", "../tta"} {
		err := filepath.WalkDir(floor, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && (d.Name() == "cmd" || d.Name() == "testdata") {
				return fs.SkipDir // tools print figures; they make no state
			}
			if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			name := ""
			for _, imp := range file.Imports {
				if p, _ := strconv.Unquote(imp.Path.Value); p == "math" {
					name = "math"
					if imp.Name != nil {
						name = imp.Name.Name
					}
				}
			}
			if name == "" {
				return nil
			}
			ast.Inspect(file, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == name && slices.Contains(unsteady, sel.Sel.Name) {
					t.Errorf("%s: math.%s has other bits on other machines; use quant/numeric", fset.Position(sel.Pos()), sel.Sel.Name)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoFusing: a compiler may fuse x*y + z into one rounding (arm64 does)
// unless the product is converted: float32(x*y) + z. Where bits are promised
// it must be.
func TestNoFusing(t *testing.T) {
	all := list(t, runtime.GOOS, runtime.GOARCH, "-export")
	exports := map[string]string{}
	for _, p := range all {
		exports[p.ImportPath] = p.Export
	}
	fset := token.NewFileSet()
	imp := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	for _, p := range all {
		pkg, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours || !matchAny([]string{"quant/...", "tta/..."}, pkg) || matchAny([]string{"quant/cmd/...", "tta/cmd/..."}, pkg) {
			continue
		}
		var files []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
		if _, err := (&types.Config{Importer: imp}).Check(p.ImportPath, fset, files, info); err != nil {
			t.Errorf("%s: %v", pkg, err)
			continue
		}
		check := func(e ast.Expr) {
			if isProduct(info, e) {
				t.Errorf("%s: this product may be fused with the sum on some machines: convert it, float32(x*y) or float64(x*y)",
					fset.Position(e.Pos()))
			}
		}
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BinaryExpr:
					if n.Op == token.ADD || n.Op == token.SUB {
						check(n.X)
						check(n.Y)
					}
				case *ast.AssignStmt:
					if n.Tok == token.ADD_ASSIGN || n.Tok == token.SUB_ASSIGN {
						check(n.Rhs[0])
					}
				}
				return true
			})
		}
	}
}

// isProduct reports whether e is a bare product of floats that is worked out
// at run time and rounded: one by a power of two is exact.
func isProduct(info *types.Info, e ast.Expr) bool {
	for {
		switch x := e.(type) {
		case *ast.ParenExpr:
			e = x.X
			continue
		case *ast.UnaryExpr:
			e = x.X
			continue
		case *ast.BinaryExpr:
			tv := info.Types[x]
			basic, ok := tv.Type.Underlying().(*types.Basic)
			return ok && x.Op == token.MUL && tv.Value == nil && basic.Info()&types.IsFloat != 0 &&
				!isPowerOfTwo(info.Types[x.X].Value) && !isPowerOfTwo(info.Types[x.Y].Value)
		}
		return false
	}
}

func isPowerOfTwo(v constant.Value) bool {
	if v == nil {
		return false
	}
	f, _ := constant.Float64Val(v)
	frac, _ := math.Frexp(f)
	return math.Abs(frac) == 0.5
}
