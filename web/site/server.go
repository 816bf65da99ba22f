package site

import (
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Policy is the Content-Security-Policy of every answer. A worker takes its
// policy from its own response, so it goes out with scripts too. Nothing may
// be sent anywhere but here: that is the promise about frames, enforced.
const Policy = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; " +
	"style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; manifest-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'self'"

// types are the media types of what a site holds. The host's own table is not
// asked: WebAssembly is compiled while it streams only as application/wasm.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".ts":   "text/plain; charset=utf-8",
	".json": "application/json",
	".wasm": "application/wasm",
	".shq":  "application/octet-stream",
	".svg":  "image/svg+xml",
	".png":  "image/png",
	".jpg":  "image/jpeg",
	".webp": "image/webp",
	".ico":  "image/x-icon",
	".webm": "video/webm",
	".mp4":  "video/mp4",
	".md":   "text/plain; charset=utf-8",
	".tsv":  "text/plain; charset=utf-8",
	".txt":  "text/plain; charset=utf-8",
}

// Request is a line of the server's log.
type Request struct {
	Time   time.Time
	Method string
	Path   string // with the query
	Status int
	Bytes  int64
}

// String is how the log prints a request.
func (r Request) String() string {
	return fmt.Sprintf("%s %s %s %d %d", r.Time.Format("15:04:05.000"), r.Method, r.Path, r.Status, r.Bytes)
}

// Server serves a built site and remembers every request.
type Server struct {
	dir string
	log func(Request)

	mu       sync.Mutex
	requests []Request
	replaced map[string]http.Handler
}

// NewServer serves dir; log is called after each request and may be nil.
func NewServer(dir string, log func(Request)) *Server { return &Server{dir: dir, log: log} }

// Requests returns all requests so far, in the order of their ends.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Replace serves body in place of the file at urlPath ("/model.shq"), whole
// whatever is asked for; nil brings the file back. Tests hand out damaged files
// with it.
func (s *Server) Replace(urlPath string, body []byte) {
	if body == nil {
		s.Handle(urlPath, nil)
		return
	}
	s.Handle(urlPath, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		if r.Method == http.MethodGet {
			w.Write(body)
		}
	}))
}

// Handle is Replace for a file that is served in another way, with the same
// policy and media type.
func (s *Server) Handle(urlPath string, h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.replaced == nil {
		s.replaced = map[string]http.Handler{}
	}
	if h == nil {
		delete(s.replaced, urlPath)
		return
	}
	s.replaced[urlPath] = h
}

// ServeHTTP answers GET and HEAD for files of the site.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w, status: http.StatusOK}
	s.serve(rec, r)
	req := Request{Time: time.Now(), Method: r.Method, Path: r.URL.RequestURI(), Status: rec.status, Bytes: rec.bytes}
	s.mu.Lock()
	s.requests = append(s.requests, req)
	s.mu.Unlock()
	if s.log != nil {
		s.log(req)
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", Policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Embedder-Policy", "require-corp")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(self), microphone=(), geolocation=()")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache") // ask each time; an unchanged file costs a 304

	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "GET or HEAD only", http.StatusMethodNotAllowed)
		return
	}
	url := path.Clean("/" + r.URL.Path)
	name := filepath.Join(s.dir, filepath.FromSlash(url))
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		if !strings.HasSuffix(r.URL.Path, "/") {
			http.Redirect(w, r, url+"/", http.StatusMovedPermanently)
			return
		}
		name = filepath.Join(name, "index.html")
	}
	kind, ok := types[filepath.Ext(name)]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h.Set("Content-Type", kind)

	s.mu.Lock()
	other := s.replaced[url]
	s.mu.Unlock()
	if other != nil {
		other.ServeHTTP(w, r)
		return
	}

	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") && r.Header.Get("Range") == "" {
		if f, err := os.Open(name + ".gz"); err == nil {
			defer f.Close()
			h.Set("Content-Encoding", "gzip")
			if info, err := f.Stat(); err == nil { // ServeContent leaves it out of encoded answers
				h.Set("Content-Length", fmt.Sprint(info.Size()))
				http.ServeContent(w, r, name, info.ModTime(), f)
			}
			return
		}
	}
	f, err := os.Open(name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, name, info.ModTime(), f)
}

// recorder notes what an answer came to.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) Write(b []byte) (int, error) {
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}
