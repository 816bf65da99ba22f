//go:build !js

package site

import (
	"compress/gzip"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folder is a small site, compressed as Build does it.
func folder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "site")
	for name, body := range map[string]string{
		"index.html":      "<!doctype html>" + strings.Repeat(" ", 500),
		"lqa.wasm":        "\x00asm" + strings.Repeat("wasm", 200),
		"model.shq":       strings.Repeat("SHQ1", 100),
		"sub/index.html":  "below",
		"notes.unheardof": "no type",
		"../secret.html":  "outside",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := compress(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestServer(t *testing.T) {
	s := NewServer(folder(t), nil)
	tests := []struct {
		method, path string
		encoding     string // that the visitor accepts
		status       int
		kind         string
		want         string // start of the body, decoded
	}{
		{"GET", "/", "", 200, "text/html; charset=utf-8", "<!doctype html>"},
		{"GET", "/", "br, gzip", 200, "text/html; charset=utf-8", "<!doctype html>"},
		{"GET", "/lqa.wasm", "gzip", 200, "application/wasm", "\x00asmwasm"},
		{"GET", "/lqa.wasm", "", 200, "application/wasm", "\x00asmwasm"},
		{"GET", "/model.shq?x=1", "gzip", 200, "application/octet-stream", "SHQ1SHQ1"},
		{"HEAD", "/model.shq", "", 200, "application/octet-stream", ""},
		{"GET", "/sub/", "", 200, "text/html; charset=utf-8", "below"},
		{"GET", "/sub", "", 301, "", ""},
		{"GET", "/none.html", "gzip", 404, "", ""},
		{"GET", "/lqa.wasm.gz", "", 404, "", ""},
		{"GET", "/notes.unheardof", "", 404, "", ""},
		{"GET", "/../secret.html", "", 404, "", ""},
		{"GET", "/%2e%2e/secret.html", "", 404, "", ""},
		{"POST", "/", "", 405, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path+" "+tt.encoding, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.path, nil)
			if tt.encoding != "" {
				r.Header.Set("Accept-Encoding", tt.encoding)
			}
			rec := httptest.NewRecorder()
			s.ServeHTTP(rec, r)
			got := rec.Result()
			if got.StatusCode != tt.status {
				t.Fatalf("status %d, want %d", got.StatusCode, tt.status)
			}
			for _, h := range []string{"Content-Security-Policy", "Cross-Origin-Opener-Policy", "Cross-Origin-Embedder-Policy"} {
				if got.Header.Get(h) == "" {
					t.Errorf("no %s", h)
				}
			}
			if tt.status != 200 {
				return
			}
			if kind := got.Header.Get("Content-Type"); kind != tt.kind {
				t.Errorf("type %q, want %q", kind, tt.kind)
			}
			body := io.Reader(got.Body)
			if got.Header.Get("Content-Encoding") == "gzip" {
				if !strings.Contains(tt.encoding, "gzip") {
					t.Error("compressed, unasked")
				}
				zr, err := gzip.NewReader(body)
				if err != nil {
					t.Fatal(err)
				}
				body = zr
			} else if strings.Contains(tt.encoding, "gzip") && tt.kind != "application/octet-stream" {
				t.Error("not compressed")
			}
			b, err := io.ReadAll(body)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(b), tt.want) {
				t.Errorf("body starts %.20q, want %q", b, tt.want)
			}
		})
	}
	log := s.Requests()
	if len(log) != len(tests) {
		t.Fatalf("%d requests logged, want %d", len(log), len(tests))
	}
	if r := log[4]; r.Path != "/model.shq?x=1" || r.Status != 200 || r.Bytes != 400 {
		t.Errorf("logged %+v", r)
	}
}

func TestServer_Replace(t *testing.T) {
	s := NewServer(folder(t), nil)
	get := func() (int, string) {
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/model.shq", nil))
		return rec.Code, rec.Body.String()
	}
	s.Replace("/model.shq", []byte("bad"))
	if _, body := get(); body != "bad" {
		t.Errorf("body %.10q, want the replacement", body)
	}
	s.Replace("/model.shq", nil)
	if _, body := get(); !strings.HasPrefix(body, "SHQ1") {
		t.Errorf("body %.10q, want the file again", body)
	}
}

// TestCertificate: it holds for the addresses, is kept, and is made anew when
// an address is missing.
func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	a, b := net.IPv4(192, 0, 2, 1), net.IPv4(192, 0, 2, 2)
	first, err := Certificate(dir, []net.IP{a})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Certificate(dir, []net.IP{a})
	if err != nil {
		t.Fatal(err)
	}
	if string(first.Certificate[0]) != string(again.Certificate[0]) {
		t.Error("a good certificate was not kept")
	}
	if covers(first, []net.IP{b}) {
		t.Error("covers an address that it was not made for")
	}
	other, err := Certificate(dir, []net.IP{a, b})
	if err != nil {
		t.Fatal(err)
	}
	if !covers(other, []net.IP{a, b}) {
		t.Error("the new certificate does not cover both addresses")
	}
}
