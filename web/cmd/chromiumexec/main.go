// Command chromiumexec runs a js/wasm Go program inside a real Chromium:
//
//	GOOS=js GOARCH=wasm go test -exec "go run ./web/cmd/chromiumexec" ./quant/kernel/...
//
// The program runs in a worker, as the engine does. It reads this machine's
// files but writes none, prints here,
// and its exit status is this command's. Where there is no Chromium the status
// is 3 and the reason is printed.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"lqa/web/site"
	"lqa/web/test/browser"
)

//go:embed worker.js
var workerJS []byte

const page = `<!doctype html><title>go test</title><script src="/page.js"></script>`
const pageJS = `const w = new Worker("/worker.js"); w.onerror = (e) => fetch("/exit?code=2", {method: "POST", body: e.message || "worker failed"});`

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "chromiumexec:", err)
		code = 2
		if errors.Is(err, browser.ErrNotFound) {
			code = 3
		}
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	if len(args) == 0 {
		return 0, errors.New("usage: chromiumexec program.wasm [arguments]")
	}
	support, err := site.WasmExec(context.Background())
	if err != nil {
		return 0, err
	}
	start, err := settings(args)
	if err != nil {
		return 0, err
	}
	root, err := site.Root(context.Background())
	if err != nil {
		return 0, err
	}
	helper, err := os.ReadFile(filepath.Join(root, "web", "helper.js"))
	if err != nil {
		return 0, err
	}
	exit := make(chan int, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	server := &http.Server{Handler: handler(args[0], support, start, helper, exit), ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(ln)
	defer server.Close()

	b, err := browser.Start(browser.Options{})
	if err != nil {
		return 0, err
	}
	defer b.Close()
	p, err := b.NewPage()
	if err != nil {
		return 0, err
	}
	if err := p.Open("http://" + ln.Addr().String() + "/"); err != nil {
		return 0, err
	}
	select {
	case code := <-exit:
		return code, nil
	case <-b.Done():
		return 0, errors.New("the browser ended before the program did")
	}
}

// settings is what the worker needs to know, as JSON.
func settings(args []string) ([]byte, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	env := map[string]string{}
	for _, kv := range os.Environ() {
		// The rest of the environment is long and of no use there: wasm_exec.js
		// has 8 KiB for it.
		k, v, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(k, "LQA_") || strings.HasPrefix(k, "GO") || k == "CI" || k == "TZ" {
			env[k] = v
		}
	}
	env["LQA_HOST"] = "chromium"
	return json.Marshal(map[string]any{"argv": args, "env": env, "cwd": cwd})
}

func handler(program, support string, start, helper []byte, exit chan<- int) http.Handler {
	mux := http.NewServeMux()
	give := func(path, kind string, body []byte) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
			w.Header().Set("Cross-Origin-Embedder-Policy", "require-corp")
			w.Write(body)
		})
	}
	give("/{$}", "text/html", []byte(page))
	give("/page.js", "text/javascript", []byte(pageJS))
	give("/worker.js", "text/javascript", workerJS)
	give("/start.json", "application/json", start)
	give("/helper.js", "text/javascript", helper)
	mux.HandleFunc("GET /wasm_exec.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, support) })
	mux.HandleFunc("GET /program.wasm", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/wasm")
		http.ServeFile(w, r, program)
	})
	mux.HandleFunc("GET /fs/stat", stat)
	mux.HandleFunc("GET /fs/read", read)
	mux.HandleFunc("POST /write", func(w http.ResponseWriter, r *http.Request) {
		out := io.Writer(os.Stdout)
		if r.URL.Query().Get("fd") == "2" {
			out = os.Stderr
		}
		io.Copy(out, r.Body)
	})
	mux.HandleFunc("POST /exit", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(os.Stderr, r.Body)
		code, err := strconv.Atoi(r.URL.Query().Get("code"))
		if err != nil {
			code = 2
		}
		select {
		case exit <- code:
		default:
		}
	})
	return mux
}

// stat answers {size, dir, mtime, names} of a file or folder, 404 where there
// is none.
func stat(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("path")
	info, err := os.Stat(name)
	if err != nil {
		http.Error(w, "ENOENT", http.StatusNotFound)
		return
	}
	names := []string{}
	if info.IsDir() {
		entries, err := os.ReadDir(name)
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			http.Error(w, "EIO", http.StatusInternalServerError)
			return
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"size": info.Size(), "dir": info.IsDir(), "mtime": info.ModTime().UnixMilli(), "names": names,
	})
}

// read answers a file's bytes.
func read(w http.ResponseWriter, r *http.Request) {
	f, err := os.Open(filepath.Clean(r.URL.Query().Get("path")))
	if err != nil {
		http.Error(w, "ENOENT", http.StatusNotFound)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	io.Copy(w, f)
}
