// Package hub fetches checkpoints from the Hugging Face hub, or a mirror of it,
// into a cache and shows them as folders. Downloads resume where they were cut,
// are pinned to one commit, and are checked against the hashes that the
// repository's list gives. It knows no model beyond which files hold one.
package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Public is the hub that is asked if no other endpoint is named.
const Public = "https://huggingface.co"

// Ref names a repository and a revision of it.
type Ref struct {
	ID       string // owner/name
	Revision string // branch, tag, commit or refs/pr/N; main if none is named
}

func (r Ref) String() string { return r.ID + "@" + r.Revision }

// partName is one part of a repository's name. Two dots in a row are never in one.
var partName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,95}$`)

var revisionName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}$`)

// Parse reads "owner/name[@revision]".
func Parse(s string) (Ref, error) {
	id, revision, named := strings.Cut(s, "@")
	if !named {
		revision = "main"
	}
	owner, name, _ := strings.Cut(id, "/")
	if !partName.MatchString(owner) || !partName.MatchString(name) || strings.Contains(id, "..") {
		return Ref{}, fmt.Errorf("%w: %.100q is no owner/name", ErrName, id)
	}
	if !revisionName.MatchString(revision) || strings.Contains(revision, "..") {
		return Ref{}, fmt.Errorf("%w: %.100q is no revision", ErrName, revision)
	}
	return Ref{id, revision}, nil
}

// Options say how to fetch. The zero value asks the public hub as a stranger.
type Options struct {
	Endpoint string        // HF_ENDPOINT; "" is Public
	Token    string        // HF_TOKEN; goes to the endpoint's host alone and is never shown
	Cache    string        // folder; "" is lqa/hub in the user's cache
	Stall    time.Duration // without a byte before a connection is given up; 0 is 30 s
	Retries  int           // attempts without a new byte before Fetch gives up; 0 is 6

	// Progress is called as bytes arrive or are found in the cache; total counts
	// all files that are needed. It may be nil.
	Progress func(file string, done, total int64)
	// Log is told of every request, without queries and headers. It may be nil.
	Log func(line string)

	// Sleep waits before a retry; nil is a timer. Transport is what requests go
	// through; nil is net/http's.
	Sleep     func(ctx context.Context, d time.Duration) error
	Transport http.RoundTripper

	create func(name string) (part, error) // nil opens a file; tests fail here
}

// FromEnvironment returns Options with HF_ENDPOINT and HF_TOKEN.
func FromEnvironment() Options {
	return Options{Endpoint: os.Getenv("HF_ENDPOINT"), Token: os.Getenv("HF_TOKEN")}
}

// Fetch finds the commit that ref names, chooses the files that make one
// checkpoint, and downloads those that the cache lacks.
func Fetch(ctx context.Context, ref Ref, o Options) (*Repository, error) {
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	r, err := c.fetch(ctx, ref)
	if err == nil {
		return r, nil
	}
	if c.mirror() && !errors.Is(err, context.Canceled) {
		return nil, fmt.Errorf("%s (asked at %s, which HF_ENDPOINT names): %w", ref, c.base.Redacted(), err)
	}
	return nil, fmt.Errorf("%s: %w", ref, err)
}

func (c *client) fetch(ctx context.Context, ref Ref) (*Repository, error) {
	home := filepath.Join(c.cache, "models--"+strings.ReplaceAll(ref.ID, "/", "--"))
	for _, dir := range []string{"blobs", "commits"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o777); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDisk, err)
		}
	}
	l, err := c.list(ctx, ref, filepath.Join(home, "commits"))
	if err != nil {
		return nil, err
	}
	l.id = ref.ID
	r := &Repository{Ref: ref, Commit: l.Commit, Licence: l.Licence, blobs: filepath.Join(home, "blobs")}
	// Configurations first: they say which weights belong to a CLIP.
	small, err := l.texts()
	if err != nil {
		return nil, err
	}
	if err := c.download(ctx, r, small); err != nil {
		return nil, err
	}
	weights, err := l.weights(func(name string) ([]byte, error) {
		e, ok := l.entry(name)
		if !ok {
			return nil, nil
		}
		return os.ReadFile(r.blob(e))
	})
	if err != nil {
		return nil, err
	}
	if err := c.download(ctx, r, weights); err != nil {
		return nil, err
	}
	// Shards are known when their index is there.
	shards, err := l.shards(weights, func(e Entry) ([]byte, error) { return os.ReadFile(r.blob(e)) })
	if err != nil {
		return nil, err
	}
	return r, c.download(ctx, r, shards)
}

// Entry is a file of a repository.
type Entry struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	Git    string `json:"git"`              // SHA-1 of the git blob; of the pointer, if SHA256 is set
	SHA256 string `json:"sha256,omitempty"` // of the content, if it lies outside of git
}

// id is the hash that checks the content; it is the ETag, too.
func (e Entry) id() string {
	if e.SHA256 != "" {
		return e.SHA256
	}
	return e.Git
}

// listing is what a commit holds.
type listing struct {
	Commit  string   `json:"commit"`
	Licence string   `json:"licence"`
	Base    []string `json:"base"` // models that this one was made from
	Entries []Entry  `json:"entries"`

	id string // of the repository
}

func (l *listing) entry(path string) (Entry, bool) {
	for _, e := range l.Entries {
		if e.Path == path {
			return e, true
		}
	}
	return Entry{}, false
}

// Limits of a repository's list.
const (
	maxEntries = 20000
	maxPages   = 200
	maxAnswer  = 8 << 20  // bytes of an API's answer
	maxText    = 64 << 20 // bytes of a configuration, vocabulary or index
)

var (
	hex40 = regexp.MustCompile(`^[0-9a-f]{40}$`)
	hex64 = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// list returns what the revision holds. A commit's list never changes: it is
// kept, and a pinned commit needs no network once all is there.
func (c *client) list(ctx context.Context, ref Ref, kept string) (*listing, error) {
	if hex40.MatchString(ref.Revision) {
		if l := readListing(filepath.Join(kept, ref.Revision+".json"), ref.Revision); l != nil {
			return l, nil
		}
	}
	var info struct {
		SHA  string   `json:"sha"`
		Tags []string `json:"tags"`
		Card struct {
			Licence any `json:"license"`
			Base    any `json:"base_model"`
		} `json:"cardData"`
	}
	if _, err := c.api(ctx, c.base.JoinPath("api", "models", ref.ID, "revision").String()+"/"+url.PathEscape(ref.Revision), &info); err != nil {
		return nil, err
	}
	if !hex40.MatchString(info.SHA) {
		return nil, fmt.Errorf("%w: the revision has no commit", ErrAnswer)
	}
	l := &listing{Commit: info.SHA, Base: stringsOf(info.Card.Base)}
	if s := stringsOf(info.Card.Licence); len(s) > 0 {
		l.Licence = s[0]
	}
	for _, t := range info.Tags {
		if s, ok := strings.CutPrefix(t, "license:"); ok && l.Licence == "" {
			l.Licence = s
		}
	}
	next := c.base.JoinPath("api", "models", ref.ID, "tree").String() + "/" + info.SHA + "?recursive=1"
	for page := 0; next != ""; page++ {
		if page == maxPages {
			return nil, fmt.Errorf("%w: over %d pages of files", ErrAnswer, maxPages)
		}
		var rows []struct {
			Type string `json:"type"`
			Path string `json:"path"`
			Size int64  `json:"size"`
			OID  string `json:"oid"`
			LFS  *struct {
				OID  string `json:"oid"`
				Size int64  `json:"size"`
			} `json:"lfs"`
		}
		var err error
		if next, err = c.api(ctx, next, &rows); err != nil {
			return nil, err
		}
		for _, r := range rows {
			if r.Type != "file" {
				continue
			}
			e := Entry{Path: r.Path, Size: r.Size, Git: r.OID}
			if r.LFS != nil {
				e.SHA256, e.Size = strings.TrimPrefix(r.LFS.OID, "sha256:"), r.LFS.Size
			}
			// Hashes become file names: nothing else may pass.
			if !hex40.MatchString(e.Git) || e.SHA256 != "" && !hex64.MatchString(e.SHA256) || e.Size < 0 {
				return nil, fmt.Errorf("%w: %.100q has no hash or size", ErrAnswer, r.Path)
			}
			if l.Entries = append(l.Entries, e); len(l.Entries) > maxEntries {
				return nil, fmt.Errorf("%w: over %d files", ErrAnswer, maxEntries)
			}
		}
	}
	// Only saves a request next time: an error shows where it matters.
	if b, err := json.Marshal(l); err == nil {
		name := filepath.Join(kept, l.Commit+".json")
		if os.WriteFile(name+partSuffix, b, 0o666) == nil {
			os.Rename(name+partSuffix, name)
		}
	}
	return l, nil
}

// readListing returns nil if the file is not there or not right.
func readListing(path, commit string) *listing {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	l := new(listing)
	if json.Unmarshal(b, l) != nil || l.Commit != commit {
		return nil
	}
	for _, e := range l.Entries {
		if !hex40.MatchString(e.Git) || e.SHA256 != "" && !hex64.MatchString(e.SHA256) || e.Size < 0 {
			return nil
		}
	}
	return l
}

// stringsOf reads a string or a list of strings, as model cards have either.
func stringsOf(v any) (out []string) {
	switch v := v.(type) {
	case string:
		out = append(out, v)
	case []any:
		for _, x := range v {
			if s, ok := x.(string); ok {
				out = append(out, s)
			}
		}
	}
	return out
}
