// Package site makes the folder that a static host serves, and serves it the
// way a good host would: right types, compressed, isolated, with the page's
// policy. It needs the Go toolchain and nothing else.
package site

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Source folders of web/ that no visitor sees: they hold Go.
var notServed = map[string]bool{"cmd": true, "site": true, "test": true}

// Root returns the repository's root: the folder of go.mod.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("site: go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if filepath.Base(mod) != "go.mod" {
		return "", fmt.Errorf("site: not inside the repository")
	}
	return filepath.Dir(mod), nil
}

// lean compiles without inlining what runs seldom, Go's runtime included, since a
// frame allocates next to nothing: 9% less to download. The last pattern that
// fits a package holds, so what loops for every frame stays inlined.
var lean = []string{
	"-gcflags=lqa/...=-l", "-gcflags=runtime=-l", "-gcflags=strings=-l", "-gcflags=fmt=-l", "-gcflags=log=-l", "-gcflags=reflect=-l", "-gcflags=time=-l",
	"-gcflags=lqa/quant/device=", "-gcflags=lqa/quant/numeric=", "-gcflags=lqa/quant/qtype=", "-gcflags=lqa/tta/...=", "-gcflags=lqa/tta/score=-l",
}

// Build makes out from the repository at root: web/, the engine (lqa.wasm),
// wasm_exec.js of the same toolchain, the model and the samples. What was in
// out before is gone. Compiler messages go to log.
func Build(ctx context.Context, root, out string, log io.Writer) error {
	if err := os.RemoveAll(out); err != nil {
		return fmt.Errorf("site: %w", err)
	}
	if err := copyTree(filepath.Join(root, "web"), out, func(rel string) bool { return notServed[rel] }); err != nil {
		return err
	}
	if err := copyTree(filepath.Join(root, "assets", "samples"), filepath.Join(out, "samples"), nil); err != nil {
		return err
	}
	model, err := Model(root)
	if err != nil {
		return err
	}
	if err := copyFile(model, filepath.Join(out, "model.shq")); err != nil {
		return err
	}

	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w"}, lean...)
	build := exec.CommandContext(ctx, "go", append(args, "-o", filepath.Join(out, "lqa.wasm"), "./wasm")...)
	build.Dir = root
	build.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	build.Stdout, build.Stderr = log, log
	if err := build.Run(); err != nil {
		return fmt.Errorf("site: building the engine: %w", err)
	}
	if err := thinFile(filepath.Join(out, "lqa.wasm")); err != nil {
		return err
	}
	support, err := WasmExec(ctx)
	if err != nil {
		return err
	}
	if err := copyFile(support, filepath.Join(out, "wasm_exec.js")); err != nil {
		return err
	}
	return compress(out)
}

// Model is the path of the .shq that a site gets: $LQA_MODEL, or the one in
// assets/.
func Model(root string) (string, error) {
	if m := os.Getenv("LQA_MODEL"); m != "" {
		return m, nil
	}
	models, err := filepath.Glob(filepath.Join(root, "assets", "*.shq"))
	if err != nil {
		return "", fmt.Errorf("site: %w", err)
	}
	if len(models) != 1 {
		return "", fmt.Errorf("site: %d .shq files in assets, want one (or set LQA_MODEL)", len(models))
	}
	return models[0], nil
}

// WasmExec is the path of the toolchain's wasm_exec.js. It belongs to the
// compiler that built the binary, so it is never kept in the repository.
func WasmExec(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "GOROOT")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("site: go env GOROOT: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "lib", "wasm", "wasm_exec.js"), nil
}

// copyTree copies the files below src that are no Go to dst; skip is asked for
// folders by their path from src.
func copyTree(src, dst string, skip func(rel string) bool) error {
	err := filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dst, rel)
		switch {
		case d.IsDir() && skip != nil && skip(rel):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(to, 0o755)
		case !d.Type().IsRegular() || filepath.Ext(path) == ".go" || d.Name() == "tsconfig.json":
			return nil
		}
		return copyFile(path, to)
	})
	if err != nil {
		return fmt.Errorf("site: %w", err)
	}
	return nil
}

func copyFile(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return fmt.Errorf("site: %w", err)
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		return fmt.Errorf("site: %w", err)
	}
	_, err = io.Copy(out, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("site: %w", err)
	}
	return nil
}

// compressed says which files shrink; pictures and the .shq are dense already.
var compressed = map[string]bool{".wasm": true, ".js": true, ".css": true, ".html": true, ".svg": true, ".json": true}

// compress lays a .gz beside each file that shrinks.
func compress(dir string) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !compressed[filepath.Ext(path)] {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		out, err := os.Create(path + ".gz")
		if err != nil {
			return err
		}
		zw, err := gzip.NewWriterLevel(out, gzip.BestCompression)
		if err != nil {
			out.Close()
			return err
		}
		_, err = zw.Write(data)
		if cerr := zw.Close(); err == nil {
			err = cerr
		}
		if cerr := out.Close(); err == nil {
			err = cerr
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("site: %w", err)
	}
	return nil
}
