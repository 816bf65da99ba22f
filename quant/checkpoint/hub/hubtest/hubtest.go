// Package hubtest is a server on localhost that behaves like the Hugging Face
// hub: an API, redirects within the hub for git files and to storage on another
// host for large ones, signed addresses, ranges, and the ways in which they
// fail. It knows one commit.
package hubtest

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Commit is what every revision of every repository names.
const Commit = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"

// File is a file of a repository. A large one lies in storage and has a SHA-256.
type File struct {
	Path  string
	Data  []byte
	Large bool
}

func (f File) git() string {
	data := f.Data
	if f.Large {
		data = fmt.Appendf(nil, "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", f.sha256(), len(f.Data))
	}
	sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(data)), data...))
	return hex.EncodeToString(sum[:])
}

func (f File) sha256() string {
	sum := sha256.Sum256(f.Data)
	return hex.EncodeToString(sum[:])
}

func (f File) etag() string {
	if f.Large {
		return f.sha256()
	}
	return f.git()
}

// Repo is a repository. Refuse, if set, answers every request for it.
type Repo struct {
	Files     []File
	Licence   string
	Base      string   // base_model of the card
	Revisions []string // besides main and Commit
	Refuse    Fault
	Token     string // "" or what a request must bring
}

// Fault spoils an answer. It reports whether it has answered.
type Fault func(w http.ResponseWriter, r *http.Request, f *File) bool

// Status answers with a status and headers, given as key and value in turn.
func Status(status int, headers ...string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ *File) bool {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		http.Error(w, "refused", status)
		return true
	}
}

// Cut sends n bytes of what was asked for and breaks the connection.
func Cut(n int) Fault {
	return func(w http.ResponseWriter, r *http.Request, f *File) bool {
		begin(w, r, f, n)
		panic(http.ErrAbortHandler)
	}
}

// Stall sends n bytes and then no more.
func Stall(n int) Fault {
	return func(w http.ResponseWriter, r *http.Request, f *File) bool {
		begin(w, r, f, n)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
}

// Wrong sends the bytes asked for with the first one changed.
func Wrong(w http.ResponseWriter, r *http.Request, f *File) bool {
	bad := *f
	bad.Data = append([]byte{f.Data[0] ^ 1}, f.Data[1:]...)
	serve(w, r, &bad)
	return true
}

// NoRange sends the whole file, whatever was asked for.
func NoRange(w http.ResponseWriter, r *http.Request, f *File) bool {
	r.Header.Del("Range")
	serve(w, r, f)
	return true
}

// None spoils nothing: it lets one request pass.
func None(http.ResponseWriter, *http.Request, *File) bool { return false }

// begin sends the right headers and n bytes.
func begin(w http.ResponseWriter, r *http.Request, f *File, n int) {
	from, _ := offset(r)
	w.Header().Set("Content-Length", strconv.Itoa(len(f.Data)-from))
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(f.Data)-1, len(f.Data)))
	if r.Header.Get("Range") != "" {
		w.WriteHeader(http.StatusPartialContent)
	}
	w.Write(f.Data[from:min(len(f.Data), from+n)])
	w.(http.Flusher).Flush()
}

func offset(r *http.Request) (int, bool) {
	s, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSuffix(s, "-"))
	return n, err == nil
}

func serve(w http.ResponseWriter, r *http.Request, f *File) {
	from, ranged := offset(r)
	switch {
	case ranged && from >= len(f.Data):
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", len(f.Data)))
		http.Error(w, "", http.StatusRequestedRangeNotSatisfiable)
	case ranged:
		begin(w, r, f, len(f.Data))
	default:
		w.Header().Set("Content-Length", strconv.Itoa(len(f.Data)))
		w.Write(f.Data)
	}
}

// Request is what came.
type Request struct {
	Storage bool // at the storage's host
	Path    string
	Range   string
	Token   string // Authorization
}

// Server is a hub and its storage. Faults are used up one a request.
type Server struct {
	Repos   map[string]*Repo // by owner/name
	PerPage int              // files of a page of the tree; 0: all

	API, Resolve, Storage []Fault

	mu       sync.Mutex
	requests []Request
	signed   int // counts signatures: each address is good once
	valid    map[string]*File

	hub, storage *httptest.Server
}

// New starts a server that ends with the test.
func New(t testing.TB, repos map[string]*Repo) *Server {
	s := &Server{Repos: repos, valid: map[string]*File{}}
	s.hub = httptest.NewServer(http.HandlerFunc(s.serveHub))
	s.storage = httptest.NewServer(http.HandlerFunc(s.serveStorage))
	t.Cleanup(func() {
		s.hub.CloseClientConnections()
		s.storage.CloseClientConnections()
		s.hub.Close()
		s.storage.Close()
	})
	return s
}

// URL is the endpoint's.
func (s *Server) URL() string { return s.hub.URL }

// Requests lists what has come since the last call.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.requests
	s.requests = nil
	return r
}

func (s *Server) note(r *http.Request, storage bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, Request{storage, r.URL.EscapedPath(), r.Header.Get("Range"), r.Header.Get("Authorization")})
}

// take is the next of a list of faults.
func (s *Server) take(list *[]Fault) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(*list) == 0 {
		return None
	}
	f := (*list)[0]
	*list = (*list)[1:]
	return f
}

func (s *Server) serveHub(w http.ResponseWriter, r *http.Request) {
	s.note(r, false)
	path, api := strings.CutPrefix(r.URL.EscapedPath(), "/api/models/")
	if cached, ok := strings.CutPrefix(r.URL.EscapedPath(), "/api/resolve-cache/models/"); ok {
		path, api = cached, false
	}
	part := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(part) < 4 {
		http.Error(w, "", http.StatusNotFound)
		return
	}
	repo := s.Repos[part[0]+"/"+part[1]]
	switch {
	case repo == nil || repo.Token != "" && r.Header.Get("Authorization") != "Bearer "+repo.Token:
		http.Error(w, "Invalid username or password.", http.StatusUnauthorized)
		return
	case repo.Refuse != nil && repo.Refuse(w, r, nil):
		return
	case part[3] != "main" && part[3] != Commit && !contains(repo.Revisions, part[3]):
		Status(http.StatusNotFound, "X-Error-Code", "RevisionNotFound")(w, r, nil)
		return
	}
	if api {
		if !s.take(&s.API)(w, r, nil) {
			s.serveAPI(w, r, repo, part[2])
		}
		return
	}
	name := strings.Join(part[4:], "/")
	var file *File
	for i := range repo.Files {
		if repo.Files[i].Path == name {
			file = &repo.Files[i]
		}
	}
	if file == nil {
		Status(http.StatusNotFound, "X-Error-Code", "EntryNotFound")(w, r, nil)
		return
	}
	if s.take(&s.Resolve)(w, r, file) {
		return
	}
	w.Header().Set("X-Repo-Commit", Commit)
	switch {
	case file.Large:
		w.Header().Set("X-Linked-ETag", `"`+file.etag()+`"`)
		w.Header().Set("X-Linked-Size", strconv.Itoa(len(file.Data)))
		http.Redirect(w, r, s.sign(file), http.StatusFound)
	case part[2] == "resolve":
		w.Header().Set("X-Linked-ETag", `W/"`+file.etag()+`"`)
		http.Redirect(w, r, "/api/resolve-cache/models/"+strings.Join([]string{part[0], part[1], "cached", Commit, name}, "/"), http.StatusTemporaryRedirect)
	default:
		w.Header().Set("ETag", `"`+file.etag()+`"`)
		serve(w, r, file)
	}
}

func contains(list []string, escaped string) bool {
	for _, s := range list {
		if strings.ReplaceAll(s, "/", "%2F") == escaped {
			return true
		}
	}
	return false
}

func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request, repo *Repo, what string) {
	if what == "revision" {
		json.NewEncoder(w).Encode(map[string]any{"sha": Commit, "cardData": map[string]any{"license": repo.Licence, "base_model": repo.Base}})
		return
	}
	type lfs struct {
		OID  string `json:"oid"`
		Size int    `json:"size"`
	}
	type row struct {
		Type string `json:"type"`
		Path string `json:"path"`
		Size int    `json:"size"`
		OID  string `json:"oid"`
		LFS  *lfs   `json:"lfs,omitempty"`
	}
	rows := []row{{Type: "directory", Path: "onnx", OID: strings.Repeat("0", 40)}}
	for _, f := range repo.Files {
		e := row{Type: "file", Path: f.Path, Size: len(f.Data), OID: f.git()}
		if f.Large {
			e.LFS = &lfs{f.sha256(), len(f.Data)}
		}
		rows = append(rows, e)
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	to := len(rows)
	if s.PerPage > 0 && from+s.PerPage < len(rows) {
		to = from + s.PerPage
		// As a mirror passes it on: the host is the hub's.
		w.Header().Set("Link", fmt.Sprintf(`<https://huggingface.co%s?recursive=1&cursor=%d>; rel="next"`, r.URL.EscapedPath(), to))
	}
	json.NewEncoder(w).Encode(rows[from:to])
}

// sign makes an address in storage that is good once.
func (s *Server) sign(f *File) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signed++
	key := fmt.Sprintf("secret-signature-%d", s.signed)
	s.valid[key] = f
	return s.storage.URL + "/xet-bridge/" + f.sha256() + "?Signature=" + key
}

func (s *Server) serveStorage(w http.ResponseWriter, r *http.Request) {
	s.note(r, true)
	s.mu.Lock()
	key := r.URL.Query().Get("Signature")
	f := s.valid[key]
	delete(s.valid, key)
	s.mu.Unlock()
	if f == nil {
		http.Error(w, "expired", http.StatusForbidden)
		return
	}
	if s.take(&s.Storage)(w, r, f) {
		return
	}
	w.Header().Set("ETag", `"the storage's own"`)
	serve(w, r, f)
}
