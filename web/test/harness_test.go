//go:build !js

// Package test holds the tests that need the whole thing: a built site, its
// server and a real browser. They wait for events and conditions, never for
// the clock.
package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lqa/web/site"
	"lqa/web/test/browser"
)

// patience ends a test that hangs. It is long because machines are slow.
const patience = 60 * time.Second

var built = sync.OnceValues(func() (string, error) {
	ctx := context.Background()
	root, err := site.Root(ctx)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "build", "test-site")
	return dir, site.Build(ctx, root, dir, os.Stderr)
})

// root is the repository.
func root(t testing.TB) string {
	t.Helper()
	r, err := site.Root(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// artifact is a file under build/test for people to look at.
func artifact(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(root(t), "build", "test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// world is a served site and a browser with one page.
type world struct {
	t       *testing.T
	server  *site.Server
	url     string
	browser *browser.Browser
	page    *browser.Page
	// expected are parts of console lines that a test provokes.
	expected []string
}

// start serves the site and opens a browser with a blank page. When the test
// ends, errors on any console that it did not expect fail it.
func start(t *testing.T, o browser.Options) *world {
	t.Helper()
	if _, err := browser.Find(); err != nil {
		t.Skip(err)
	}
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, server: site.NewServer(dir, nil)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: w.server, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	w.url = fmt.Sprintf("http://localhost:%d", ln.Addr().(*net.TCPAddr).Port)

	if w.browser, err = browser.Start(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.browser.Close)
	if w.page, err = w.browser.NewPage(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.checkConsole)
	return w
}

// in is the same world, reporting to a subtest.
func (w *world) in(t *testing.T) *world {
	sub := *w
	sub.t = t
	return &sub
}

// expect says that console lines with this part are meant to come.
func (w *world) expect(part string) { w.expected = append(w.expected, part) }

func (w *world) checkConsole() {
lines:
	for _, line := range w.browser.Console() {
		for _, part := range append(w.expected, "favicon.ico") {
			if strings.Contains(line, part) {
				continue lines
			}
		}
		w.t.Errorf("console: %s", line)
	}
}

func (w *world) open(path string) {
	w.t.Helper()
	if err := w.page.Open(w.url + path); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) wait(condition string) {
	w.t.Helper()
	if err := w.page.Wait(patience, condition); err != nil {
		w.shot("failed-" + strings.ReplaceAll(w.t.Name(), "/", "-"))
		w.t.Fatal(err)
	}
}

func (w *world) eval(expression string, result any) {
	w.t.Helper()
	if err := w.page.Eval(expression, result); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) click(selector string) {
	w.t.Helper()
	if err := w.page.Click(selector); err != nil {
		w.t.Fatal(err)
	}
}

// shot leaves a picture of the page under build/test.
func (w *world) shot(name string) {
	w.t.Helper()
	png, err := w.page.Screenshot()
	if err != nil {
		w.t.Logf("no screenshot: %v", err)
		return
	}
	file := artifact(w.t, name+".png")
	if err := os.WriteFile(file, png, 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.t.Logf("screenshot %s", file)
}

// quote is a string as JavaScript.
func quote(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// dataDir is a folder of photographs that is not part of the repository; tests
// fall back to the samples without it.
func dataDir(t *testing.T) (string, bool) {
	t.Helper()
	dir := os.Getenv("LQA_DATA")
	if dir == "" {
		dir = filepath.Join(root(t), "..", "shared", "data")
	}
	_, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return "", false
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir, true
}
