//go:build !js

package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// server serves one file, well but for what a test adds.
type server struct {
	*httptest.Server
	file []byte

	mu    sync.Mutex // over what follows; tests change it between requests
	asked []string   // Range of each request
	// before, if not nil, may answer request i in the file's place.
	before func(i int, w http.ResponseWriter, r *http.Request) bool
	// cut is after how many bytes the connection of request i ends; 0: it does not.
	cut func(i int) int
}

const tag = `"one"`

func serve(t *testing.T) *server {
	s := &server{file: make([]byte, 300_000)}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range s.file {
		s.file[i] = byte(rng.Uint32())
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	i, before, cut := len(s.asked), s.before, s.cut
	s.asked = append(s.asked, r.Header.Get("Range"))
	s.mu.Unlock()
	w.Header().Set("ETag", tag)
	if before != nil && before(i, w, r) {
		return
	}
	left := len(s.file) + 1
	if cut != nil && cut(i) > 0 {
		left = cut(i)
	}
	http.ServeContent(&cutter{w, left}, r, "", time.Time{}, bytes.NewReader(s.file))
}

// cutter ends the connection after so many bytes.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b[:min(len(b), c.left)])
	if c.left -= n; c.left == 0 {
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// then changes how the next requests are answered.
func (s *server) then(cut func(i int) int, before func(i int, w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut, s.before = cut, before
}

// requests are the ranges asked for so far.
func (s *server) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// client is net/http's.
func (s *server) client(ctx context.Context, header [][2]string) (*Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if err != nil {
		return nil, err
	}
	for _, h := range header {
		r.Header.Set(h[0], h[1])
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		return nil, err
	}
	if resp.Uncompressed {
		resp.Header.Set("Content-Encoding", "gzip") // a browser leaves it
	}
	return &Response{Status: resp.StatusCode, Header: resp.Header.Get, Body: resp.Body}, nil
}

// naps are the pauses that were made; none takes time.
type naps []time.Duration

func (n *naps) sleep(ctx context.Context, d time.Duration) error {
	*n = append(*n, d)
	return ctx.Err()
}

func (s *server) open(t *testing.T) (*File, *naps) {
	t.Helper()
	n := new(naps)
	f, err := Open(context.Background(), s.client, n.sleep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f, n
}

// TestRead_Cut: a stream that is cut goes on where it was cut, however often if
// it gets ahead.
func TestRead_Cut(t *testing.T) {
	for name, cut := range map[string]func(i int) int{
		"never":                 nil,
		"once":                  func(i int) int { return []int{100_000, 0}[min(i, 1)] },
		"at the first byte":     func(i int) int { return []int{1, 0}[min(i, 1)] },
		"before the last":       func(i int) int { return []int{299_999, 0}[min(i, 1)] },
		"often, a little each":  func(i int) int { return []int{5000, 7, 7, 7, 7, 0}[min(i, 5)] },
		"always, getting ahead": func(int) int { return 70_000 },
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			s.cut = cut
			f, naps := s.open(t)
			if f.Size() != 300_000 || !f.Ranges() {
				t.Errorf("size %d, ranges %v", f.Size(), f.Ranges())
			}
			b, err := io.ReadAll(f)
			if err != nil || !bytes.Equal(b, s.file) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			asked := s.requests()
			if len(*naps) != len(asked)-1 || cut != nil && len(asked) < 2 {
				t.Errorf("%d requests, %d pauses", len(asked), len(*naps))
			}
			at := 0
			for i, r := range asked {
				if want := fmt.Sprintf("bytes=%d-", at); i > 0 && r != want {
					t.Errorf("request %d is for %s, want %s", i, r, want)
				}
				if cut != nil {
					at += cut(i)
				}
			}
		})
	}
}

// TestRead_GivesUp: a server that never gets ahead is given up, after pauses
// that grow.
func TestRead_GivesUp(t *testing.T) {
	s := serve(t)
	s.cut = func(i int) int { return []int{100_000, 10}[min(i, 1)] }
	f, naps := s.open(t)
	b, err := io.ReadAll(f)
	if !errors.Is(err, ErrFetch) || !bytes.Equal(b, s.file[:100_000+10*(Tries-1)]) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	want := []time.Duration{250e6, 500e6, 1e9, 2e9, 4e9}
	if !slices.Equal(*naps, want) {
		t.Errorf("pauses %v, want %v", *naps, want)
	}
	if _, again := f.Read(make([]byte, 1)); again != err {
		t.Errorf("then %v", again)
	}
}

// TestRead_Answers: what a server may answer to the request that goes on.
func TestRead_Answers(t *testing.T) {
	other := func(w http.ResponseWriter, r *http.Request, etag string, file []byte) bool {
		w.Header().Set("ETag", etag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
		return true
	}
	status := func(codes ...int) func(int, http.ResponseWriter, *http.Request) bool {
		return func(i int, w http.ResponseWriter, _ *http.Request) bool {
			if i == 0 || i > len(codes) {
				return false
			}
			w.WriteHeader(codes[i-1])
			return true
		}
	}
	whole := func(s *server, w http.ResponseWriter) bool {
		w.Header().Set("Content-Length", fmt.Sprint(len(s.file)))
		w.Write(s.file)
		return true
	}
	for name, c := range map[string]struct {
		before func(s *server) func(i int, w http.ResponseWriter, r *http.Request) bool
		want   error
		says   string
	}{
		"busy, then well": {func(*server) func(int, http.ResponseWriter, *http.Request) bool { return status(503, 429, 408, 500) }, nil, ""},
		"gone":            {func(*server) func(int, http.ResponseWriter, *http.Request) bool { return status(404) }, ErrFetch, "404"},
		"forbidden":       {func(*server) func(int, http.ResponseWriter, *http.Request) bool { return status(503, 403) }, ErrFetch, "403"},
		"no such range":   {func(*server) func(int, http.ResponseWriter, *http.Request) bool { return status(416) }, ErrChanged, "no byte 100000"},
		"no ranges": {func(s *server) func(int, http.ResponseWriter, *http.Request) bool {
			return func(i int, w http.ResponseWriter, _ *http.Request) bool { return i > 0 && whole(s, w) }
		}, nil, ""},
		"another file": {func(s *server) func(int, http.ResponseWriter, *http.Request) bool {
			return func(i int, w http.ResponseWriter, r *http.Request) bool { return i > 0 && other(w, r, `"two"`, s.file) }
		}, ErrChanged, `"two"`},
		"another file, whole": {func(s *server) func(int, http.ResponseWriter, *http.Request) bool {
			return func(i int, w http.ResponseWriter, r *http.Request) bool {
				r.Header.Del("Range")
				return i > 0 && other(w, r, `"two"`, s.file)
			}
		}, ErrChanged, `"two"`},
		"another size": {func(s *server) func(int, http.ResponseWriter, *http.Request) bool {
			return func(i int, w http.ResponseWriter, r *http.Request) bool {
				return i > 0 && other(w, r, tag, s.file[:200_000])
			}
		}, ErrChanged, "then 200000"},
		"other bytes than asked for": {func(s *server) func(int, http.ResponseWriter, *http.Request) bool {
			return func(i int, w http.ResponseWriter, r *http.Request) bool {
				if i > 0 {
					r.Header.Set("Range", "bytes=5-")
				}
				return false
			}
		}, ErrFetch, `"bytes 5-299999/300000"`},
		"no Content-Range": {func(s *server) func(int, http.ResponseWriter, *http.Request) bool { // hidden, from another origin
			return func(i int, w http.ResponseWriter, r *http.Request) bool {
				if i > 0 {
					w.WriteHeader(206)
					w.Write(s.file[100_000:])
				}
				return i > 0
			}
		}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			s.before = c.before(s)
			s.cut = func(i int) int { return []int{100_000, 0}[min(i, 1)] }
			f, _ := s.open(t)
			b, err := io.ReadAll(f)
			if !errors.Is(err, c.want) || c.want == nil && !bytes.Equal(b, s.file) {
				t.Errorf("%d bytes, %v; want %v", len(b), err, c.want)
			}
			if c.want != nil && (!strings.Contains(err.Error(), c.says) || !bytes.Equal(b, s.file[:100_000])) {
				t.Errorf("%d bytes, %v; want one that says %q", len(b), err, c.says)
			}
			if f.Ranges() == (name == "no ranges") {
				t.Errorf("ranges %v", f.Ranges())
			}
		})
	}
}

// TestRead_Validators: by what another file is known.
func TestRead_Validators(t *testing.T) {
	type tags struct{ etag, modified string }
	const monday, tuesday = "Mon, 02 Jan 2006 15:04:05 GMT", "Tue, 03 Jan 2006 15:04:05 GMT"
	for name, c := range map[string]struct {
		first, then tags
		want        error
	}{
		"strong":        {tags{tag, monday}, tags{tag, monday}, nil},
		"another":       {tags{tag, monday}, tags{`"two"`, monday}, ErrChanged},
		"weak":          {tags{`W/"one"`, ""}, tags{`W/"one"`, ""}, nil},
		"weak, strong":  {tags{`W/"one"`, ""}, tags{tag, ""}, nil}, // compressed on the way, then not
		"another, weak": {tags{`W/"one"`, ""}, tags{`W/"two"`, ""}, ErrChanged},
		"time":          {tags{"", monday}, tags{"", monday}, nil},
		"another time":  {tags{"", monday}, tags{"", tuesday}, ErrChanged},
		"none":          {tags{}, tags{}, nil},
		"none at first": {tags{}, tags{tag, monday}, nil},
	} {
		s := serve(t)
		s.before = func(i int, w http.ResponseWriter, r *http.Request) bool {
			w.Header().Del("ETag")
			now := []tags{c.first, c.then}[min(i, 1)]
			for field, v := range map[string]string{"ETag": now.etag, "Last-Modified": now.modified} {
				if v != "" {
					w.Header().Set(field, v)
				}
			}
			return false
		}
		s.cut = func(i int) int { return []int{9, 0}[min(i, 1)] }
		f, _ := s.open(t)
		if b, err := io.ReadAll(f); !errors.Is(err, c.want) || err == nil && !bytes.Equal(b, s.file) {
			t.Errorf("%s: %d bytes, %v, want %v", name, len(b), err, c.want)
		}
	}
}

// TestRead_Plain: servers that tell nothing of the file serve it all the same.
func TestRead_Plain(t *testing.T) {
	s := serve(t)
	s.before = func(i int, w http.ResponseWriter, r *http.Request) bool { // chunked
		w.Write(s.file[:10])
		w.(http.Flusher).Flush()
		w.Write(s.file[10:])
		return true
	}
	f, _ := s.open(t)
	f.Limit(5) // cannot be had
	if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, s.file) || f.Size() != -1 || f.Ranges() || len(s.requests()) != 1 {
		t.Errorf("%d bytes, %v, size %d, ranges %v, %d requests", len(b), err, f.Size(), f.Ranges(), len(s.requests()))
	}

	// Encoded on the way: where it goes on is another place than in the file.
	s = serve(t)
	s.before = func(i int, w http.ResponseWriter, r *http.Request) bool {
		if w.Header().Set("Accept-Ranges", "bytes"); i == 0 {
			w.Write(s.file[:100_000])
			panic(http.ErrAbortHandler)
		}
		w.Write(s.file)
		return true
	}
	f, err := Open(context.Background(), func(ctx context.Context, header [][2]string) (*Response, error) {
		r, err := s.client(ctx, header)
		if err == nil {
			was := r.Header
			r.Header = func(name string) string {
				if name == "Content-Encoding" {
					return "br"
				}
				return was(name)
			}
		}
		return r, err
	}, new(naps).sleep)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, s.file) || f.Ranges() || !slices.Equal(s.requests(), []string{"", ""}) {
		t.Errorf("%d bytes, %v, ranges %v, asked for %q", len(b), err, f.Ranges(), s.requests())
	}
}

// TestLimit: nothing behind a limit is asked for; the first request, which knows
// none, ends when one is set.
func TestLimit(t *testing.T) {
	s := serve(t)
	f, naps := s.open(t)
	var all []byte
	read := func(n int) {
		t.Helper()
		b := make([]byte, n)
		if _, err := io.ReadFull(f, b); err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	read(1000)
	f.Limit(50_000)
	read(49_000)
	if n, err := f.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("at the limit: %d, %v", n, err)
	}
	f.Limit(50_001)
	read(1)
	f.Limit(-1)
	read(249_999)
	if n, err := f.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if want := []string{"", "bytes=1000-49999", "bytes=50000-50000", "bytes=50001-"}; !slices.Equal(s.requests(), want) || !bytes.Equal(all, s.file) {
		t.Errorf("asked for %q, want %q", s.requests(), want)
	}
	if len(*naps) > 0 {
		t.Errorf("paused for nothing: %v", *naps)
	}

	// The same on a server that says it could and does not.
	s = serve(t)
	s.before = func(i int, w http.ResponseWriter, r *http.Request) bool { r.Header.Del("Range"); return false }
	f, _ = s.open(t)
	all = nil
	read(1000)
	f.Limit(50_000)
	read(299_000) // the limit no longer holds
	if !bytes.Equal(all, s.file) || f.Ranges() {
		t.Errorf("%d bytes, ranges %v", len(all), f.Ranges())
	}
}

// TestPieces: a reader who does not know yet how much it needs gets little at a
// time; what has been asked for is used up before a limit is.
func TestPieces(t *testing.T) {
	s := serve(t)
	f, naps := s.open(t)
	f.Pieces(1000)
	b := make([]byte, len(s.file))
	if _, err := io.ReadFull(f, b[:2500]); err != nil {
		t.Fatal(err)
	}
	f.Limit(10_000)
	if _, err := io.ReadFull(f, b[2500:10_000]); err != nil {
		t.Fatal(err)
	}
	f.Pieces(280_000)
	if n, err := f.Read(b); n != 0 || err != io.EOF {
		t.Errorf("at the limit: %d, %v", n, err)
	}
	f.Limit(-1)
	f.Pieces(200_000)
	if _, err := io.ReadFull(f, b[10_000:]); err != nil || !bytes.Equal(b, s.file) {
		t.Errorf("other bytes, %v", err)
	}
	if n, err := f.Read(b); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	want := []string{"", "bytes=0-999", "bytes=1000-1999", "bytes=2000-2999", "bytes=3000-9999", "bytes=10000-209999", "bytes=210000-"}
	if !slices.Equal(s.requests(), want) || len(*naps) > 0 {
		t.Errorf("asked for %q, want %q; pauses %v", s.requests(), want, *naps)
	}
}

func TestReadAt(t *testing.T) {
	s := serve(t)
	s.cut = func(i int) int { return []int{0, 0, 10, 10, 0}[min(i, 4)] }
	f, _ := s.open(t)
	for _, c := range []struct{ at, size int }{{299_999, 1}, {1000, 90_000}, {0, 5}} {
		b, err := f.ReadAt(context.Background(), int64(c.at), c.size)
		if err != nil || !bytes.Equal(b, s.file[c.at:c.at+c.size]) {
			t.Errorf("%+v: %d bytes, %v", c, len(b), err)
		}
	}
	want := []string{"", "bytes=299999-299999", "bytes=1000-90999", "bytes=1010-90999", "bytes=1020-90999", "bytes=0-4"}
	if !slices.Equal(s.requests(), want) {
		t.Errorf("asked for %q, want %q", s.requests(), want)
	}
	if _, err := f.ReadAt(context.Background(), 300_000, 1); !errors.Is(err, ErrChanged) {
		t.Errorf("behind the end: %v", err)
	}
	if _, err := f.ReadAt(context.Background(), 299_999, 2); !errors.Is(err, ErrChanged) {
		t.Errorf("over the end: %v", err)
	}
	s.then(func(int) int { return 1 }, nil)
	if b, err := f.ReadAt(context.Background(), 10, 100); !errors.Is(err, ErrFetch) {
		t.Errorf("cut each time: %d bytes, %v", len(b), err)
	}
	s.cut = nil
	s.before = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("ETag", `"two"`)
		return false
	}
	if _, err := f.ReadAt(context.Background(), 10, 100); !errors.Is(err, ErrChanged) {
		t.Errorf("another file: %v", err)
	}
	s.then(nil, func(_ int, _ http.ResponseWriter, r *http.Request) bool { r.Header.Del("Range"); return false })
	if _, err := f.ReadAt(context.Background(), 10, 100); !errors.Is(err, ErrNoRanges) || f.Ranges() {
		t.Errorf("no ranges: %v, %v", err, f.Ranges())
	}
	// The stream knows, and still gets there.
	n := len(s.requests())
	if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, s.file) || len(s.requests()) > n {
		t.Errorf("%d bytes, %v, %d requests", len(b), err, len(s.requests())-n)
	}
}

// TestCancel: a context ends a request, a pause and all that follow.
func TestCancel(t *testing.T) {
	s := serve(t)
	ctx, cancel := context.WithCancel(context.Background())
	f, err := Open(ctx, s.client, func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() })
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Limit(100)
	s.then(func(int) int { return 10 }, nil)
	if b, err := io.ReadAll(f); !errors.Is(err, context.Canceled) || len(b) != 10 {
		t.Errorf("cancelled in a pause: %d bytes, %v", len(b), err)
	}
	n := len(s.requests())
	if _, err := f.ReadAt(ctx, 0, 5); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	s.then(nil, func(int, http.ResponseWriter, *http.Request) bool { cancel(); return false })
	if _, err := f.ReadAt(ctx, 0, 5); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled in a request: %v", err)
	}
	if len(s.requests()) > n+1 {
		t.Errorf("%d requests after the end", len(s.requests())-n)
	}
}

func TestOpen(t *testing.T) {
	s := serve(t)
	for code, want := range map[int]string{404: "404", 500: "500", 204: "204"} {
		s.then(nil, func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true })
		if _, err := Open(context.Background(), s.client, new(naps).sleep); !errors.Is(err, ErrFetch) || !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v", code, err)
		}
	}
	s.Server.Close()
	if _, err := Open(context.Background(), s.client, new(naps).sleep); !errors.Is(err, ErrFetch) {
		t.Errorf("no server: %v", err)
	}
}
