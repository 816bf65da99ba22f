package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// partSuffix ends the name of a file that is not whole yet. What comes before
// is its hash, which is also its ETag: a part is never continued with other
// bytes, by this run or the next.
const partSuffix = ".part"

// part is a file that a download is written to.
type part interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
	Stat() (os.FileInfo, error)
}

// download brings files into the cache and into r.
func (c *client) download(ctx context.Context, r *Repository, files []Entry) error {
	p := &tally{c: c}
	for _, e := range files {
		p.total += e.Size
	}
	for _, e := range files {
		p.file, p.base = e.Path, p.done
		info, err := os.Stat(r.blob(e))
		if err != nil || info.Size() != e.Size {
			if err := c.fetchFile(ctx, r, e, p); err != nil {
				return fmt.Errorf("%s: %w", e.Path, err)
			}
		}
		p.at(e.Size)
		r.files = append(r.files, e)
	}
	return nil
}

// tally counts over several files.
type tally struct {
	c                 *client
	file              string
	base, done, total int64 // before this file, now, in all
}

func (p *tally) at(n int64) {
	p.done = p.base + n
	if p.c.o.Progress != nil {
		p.c.o.Progress(p.file, p.done, p.total)
	}
}

// fetchFile downloads one file, checks it and gives it its name. Bytes with a
// wrong hash are thrown away and fetched once more.
func (c *client) fetchFile(ctx context.Context, r *Repository, e Entry, p *tally) error {
	name := r.blob(e)
	for again := false; ; again = true {
		f, err := c.o.create(name + partSuffix)
		if err != nil {
			return c.diskError(e.Size, err)
		}
		err = c.fill(ctx, f, r, e, p)
		if err == nil {
			err = check(f, e)
		}
		if err == nil {
			if err = f.Sync(); err != nil {
				err = c.diskError(0, err)
			}
		}
		if cerr := f.Close(); err == nil && cerr != nil {
			err = c.diskError(0, cerr)
		}
		switch {
		case err == nil:
			// Another run may have been faster: then it has this name already.
			if err = os.Rename(name+partSuffix, name); err != nil {
				if info, serr := os.Stat(name); serr != nil || info.Size() != e.Size {
					return c.diskError(0, err)
				}
			}
			return nil
		case errors.Is(err, ErrChecksum):
			os.Remove(name + partSuffix)
			if !again {
				c.o.Log(e.Path + ": wrong checksum, fetching it anew")
				continue
			}
		}
		return err
	}
}

// fill writes what f lacks of e.
func (c *client) fill(ctx context.Context, f part, r *Repository, e Entry, p *tally) error {
	info, err := f.Stat()
	if err != nil {
		return c.diskError(0, err)
	}
	have := info.Size()
	if have > e.Size {
		if err := f.Truncate(0); err != nil {
			return c.diskError(0, err)
		}
		have = 0
	}
	if have == e.Size {
		return nil
	}
	u, err := url.Parse(c.base.JoinPath(r.ID, "resolve").String() + "/" + url.PathEscape(r.Commit) + "/" + escapePath(e.Path))
	if err != nil {
		return fmt.Errorf("%w: bad address", ErrAnswer)
	}
	return c.retry(ctx, func() (bool, error) {
		before := have
		var err error
		have, err = c.piece(ctx, f, u, e, have, p)
		if err == nil && have < e.Size {
			err = fmt.Errorf("%w: the connection ended after %d of %d bytes", ErrNetwork, have, e.Size)
		}
		return have > before, err
	})
}

func escapePath(p string) string {
	parts := strings.Split(p, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

// piece makes one request for the bytes from have on, writes what comes, and
// returns how many bytes there are then.
func (c *client) piece(ctx context.Context, f part, u *url.URL, e Entry, have int64, p *tally) (int64, error) {
	ctx, watch := watch(ctx, c.o.Stall)
	defer watch.stop()
	header := http.Header{}
	if have > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	a, err := c.get(ctx, u, header)
	if err != nil {
		return have, err
	}
	defer a.Body.Close()
	changed := func(what string, got, want any) error {
		return fmt.Errorf("%w: %s %v, expected %v", ErrChanged, what, got, want)
	}
	switch a.StatusCode {
	case http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
	default:
		return have, c.status(a)
	}
	// Mirrors may tell no ETag, or one of their own: only one that looks like the hub's counts.
	if (hex40.MatchString(a.etag) || hex64.MatchString(a.etag)) && a.etag != e.SHA256 && a.etag != e.Git {
		return have, changed("ETag", a.etag, e.id())
	}
	if a.size >= 0 && a.size != e.Size {
		return have, changed("size", a.size, e.Size)
	}
	switch a.StatusCode {
	case http.StatusOK: // from the start, whatever was asked
		if a.ContentLength >= 0 && a.ContentLength != e.Size {
			return have, changed("size", a.ContentLength, e.Size)
		}
		have = 0
	case http.StatusPartialContent:
		from, total, ok := contentRange(a.Header.Get("Content-Range"))
		if !ok || from != have {
			return have, fmt.Errorf("%w: asked for bytes from %d on, got %.60q", ErrAnswer, have, a.Header.Get("Content-Range"))
		}
		if total >= 0 && total != e.Size {
			return have, changed("size", total, e.Size)
		}
	default: // 416: nothing is left, or the file is another
		_, total, ok := contentRange(a.Header.Get("Content-Range"))
		if ok && total != e.Size {
			return have, changed("size", total, e.Size)
		}
		// It should have served a range within the file: start over.
		if err := f.Truncate(0); err != nil {
			return have, c.diskError(0, err)
		}
		return 0, fmt.Errorf("%w: the range from byte %d was refused", ErrNetwork, have)
	}
	body := watch.reader(a.Body)
	buf := make([]byte, 1<<17)
	for {
		n, err := body.Read(buf)
		if int64(n) > e.Size-have {
			return have, changed("size", "over", e.Size)
		}
		if n > 0 {
			if _, err := f.WriteAt(buf[:n], have); err != nil {
				return have, c.diskError(p.total-p.base-have, err)
			}
			have += int64(n)
			p.at(have)
		}
		if err == io.EOF {
			return have, nil
		}
		if err != nil {
			return have, c.failure(ctx, a.Request.URL, err)
		}
	}
}

// contentRange reads "bytes 5-9/10" and "bytes */10"; total is -1 for "*".
func contentRange(s string) (from, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, all, cut := strings.Cut(s, "/")
	if !ok || !cut {
		return 0, 0, false
	}
	total = -1
	var err error
	if all != "*" {
		if total, err = strconv.ParseInt(all, 10, 64); err != nil || total < 0 {
			return 0, 0, false
		}
	}
	if span == "*" {
		return 0, total, true
	}
	first, _, cut := strings.Cut(span, "-")
	from, err = strconv.ParseInt(first, 10, 64)
	return from, total, cut && err == nil && from >= 0
}

// check compares the content with its hash.
func check(f part, e Entry) error {
	var h hash.Hash
	if e.SHA256 != "" {
		h = sha256.New()
	} else {
		h = sha1.New() // git's name for the content
		fmt.Fprintf(h, "blob %d\x00", e.Size)
	}
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, e.Size)); err != nil {
		return fmt.Errorf("%w: %w", ErrDisk, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != e.id() {
		return fmt.Errorf("%w: %s, expected %s", ErrChecksum, got, e.id())
	}
	return nil
}

// diskError says where, and how much was still to come.
func (c *client) diskError(need int64, err error) error {
	if need > 0 {
		return fmt.Errorf("%w: %s still needs %d bytes: %w", ErrDisk, c.cache, need, err)
	}
	return fmt.Errorf("%w: %w", ErrDisk, err)
}

// Repository is a checkpoint's files in the cache, a checkpoint.Folder.
type Repository struct {
	Ref
	Commit  string // that Revision named when it was fetched
	Licence string // as the model card says it; "" if it does not

	blobs string
	files []Entry
}

func (r *Repository) blob(e Entry) string { return filepath.Join(r.blobs, e.id()) }

// Files lists what was fetched.
func (r *Repository) Files() []Entry { return slices.Clone(r.files) }
