package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lqa/web/site"
	"lqa/web/test/client"
)

// blankPath is an empty page that is isolated as the site's are, but without
// their policy: peers evaluate code.
const blankPath = "/peers/blank.html"

// dirs are the folders that pages are served from.
type dirs struct {
	site   string // "/"
	made   string // "/peers/": node_modules and models that build.sh makes
	litert string // "/litert/": LiteRT models, made elsewhere
}

func newDirs(root string) dirs {
	d := dirs{site: filepath.Join(root, "build", "bench-site"), made: filepath.Join(root, "build", "peers"), litert: os.Getenv("LQA_PEERS")}
	if d.litert == "" {
		d.litert = filepath.Join(root, "..", "shared", "peers", "models")
	}
	return d
}

// file is what a URL's path below /peers/ or /litert/ names.
func (d dirs) file(url string) string {
	if rest, ok := strings.CutPrefix(url, "/litert/"); ok {
		return filepath.Join(d.litert, filepath.FromSlash(rest))
	}
	return filepath.Join(d.made, filepath.FromSlash(strings.TrimPrefix(url, "/peers/")))
}

// serve serves the folders on a port of this machine and returns its address.
func (d dirs) serve() (url string, stop func(), err error) {
	pages := site.NewServer(d.site, nil)
	pages.Replace(client.BlankPath, []byte(client.Blank))
	mux := http.NewServeMux()
	mux.Handle("/", pages)
	for prefix, dir := range map[string]string{"/peers/": d.made, "/litert/": d.litert} {
		mux.Handle(prefix, isolated(http.StripPrefix(prefix, http.FileServer(http.Dir(dir)))))
	}
	mux.Handle(blankPath, isolated(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write([]byte(client.Blank))
	})))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(ln)
	return fmt.Sprintf("http://localhost:%d", ln.Addr().(*net.TCPAddr).Port), func() { server.Close() }, nil
}

func isolated(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
		w.Header().Set("Cross-Origin-Embedder-Policy", "require-corp")
		w.Header().Set("Cache-Control", "no-store")
		if strings.HasSuffix(r.URL.Path, ".mjs") {
			w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		}
		h.ServeHTTP(w, r)
	})
}
