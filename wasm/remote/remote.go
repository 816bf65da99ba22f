// Package remote reads a file that lies on a server: as a stream that survives
// cut connections, and by pieces. It sends no request itself: in the worker
// JavaScript's fetch does, in tests net/http.
//
// What comes is not trusted: whoever reads a .shq checks every byte by its
// hash. So a server's validators only tell a changed file from a damaged one.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Response is a server's answer.
type Response struct {
	Status int
	// Header returns a field's value, "" if it is absent or hidden from us, as
	// other origins' are.
	Header func(name string) string
	Body   io.ReadCloser
}

// Client asks for the file with GET and header fields, name and value each. Its
// errors are of the connection.
type Client func(ctx context.Context, header [][2]string) (*Response, error)

// Errors of this package; those of a context are passed on.
var (
	// ErrFetch: the server did not answer, refused, or was cut off once too often.
	ErrFetch = errors.New("remote: fetch")
	// ErrChanged: the file is not the one that the beginning was of.
	ErrChanged = errors.New("remote: the file changed on the server while it was read")
	// ErrNoRanges: the server sends the whole file where a piece was asked for.
	ErrNoRanges = errors.New("remote: the server gives no pieces")
)

// Tries is how often in a row a request may fail before it is given up. Pauses
// between them grow from firstPause on, each twice the one before.
const (
	Tries      = 6
	firstPause = 250 * time.Millisecond
	// someBytes must have come for a failure to count as the first again.
	someBytes = 1 << 16
)

// File is a file on a server. It is not safe for concurrent use, but ReadAt may
// run beside Read.
type File struct {
	ctx   context.Context
	ask   Client
	sleep func(context.Context, time.Duration) error

	size     int64 // -1 where the server does not say
	tag      string
	ranges   bool
	encoded  bool // positions are not those of the file on the server
	body     io.ReadCloser
	pos      int64 // of the stream
	to       int64 // where body ends; -1: at the file's end
	limit    int64 // where the stream pauses; -1: at the file's end
	step     int64 // how much is asked for at once; 0: all there is to read
	failures failures
	err      error // sticky
}

// Open asks for the file; ctx holds for all that is read of it. sleep waits,
// unless the context ends first.
func Open(ctx context.Context, ask Client, sleep func(context.Context, time.Duration) error) (*File, error) {
	f := &File{ctx: ctx, ask: ask, sleep: sleep, size: -1, to: -1, limit: -1}
	r, err := ask(ctx, nil)
	if err != nil {
		return nil, f.failed(ctx, err)
	}
	if r.Status != 200 {
		r.Body.Close()
		return nil, refused(r)
	}
	f.body, f.tag = r.Body, validator(r)
	f.encoded = r.Header("Content-Encoding") != ""
	if n, err := strconv.ParseInt(r.Header("Content-Length"), 10, 64); err == nil && n >= 0 && !f.encoded {
		f.size = n
	}
	f.ranges = !f.encoded && r.Header("Accept-Ranges") == "bytes"
	return f, nil
}

// validator names a version of the file: its ETag, else its time.
func validator(r *Response) string {
	if tag := r.Header("ETag"); tag != "" {
		return tag
	}
	return r.Header("Last-Modified")
}

// Size is the file's length, or -1.
func (f *File) Size() int64 { return f.size }

// Ranges reports whether the server gives pieces of the file, as far as it is
// known.
func (f *File) Ranges() bool { return f.ranges }

// Limit makes the stream pause at an offset: nothing behind it is asked for
// before the next Limit. -1 is the file's end. Without Ranges it has no effect.
func (f *File) Limit(end int64) {
	f.limit, f.step = end, 0
	if f.ranges && end >= 0 && (f.to < 0 || f.to > end) {
		f.drop()
	}
}

// Pieces makes the stream ask for so many bytes at a time until the next Limit,
// for a reader who will know soon how much it needs. Without Ranges it has no
// effect.
func (f *File) Pieces(bytes int64) {
	if f.ranges {
		f.step = bytes
		f.drop()
	}
}

// Close ends the stream.
func (f *File) Close() {
	f.drop()
	if f.err == nil {
		f.err = io.ErrClosedPipe
	}
}

func (f *File) drop() {
	if f.body != nil {
		f.body.Close()
		f.body = nil
	}
}

// end is where the stream ends for now, or -1.
func (f *File) end() int64 {
	if f.ranges && f.limit >= 0 {
		return f.limit
	}
	return f.size
}

// next is up to where Read asks next, or -1.
func (f *File) next() int64 {
	switch {
	case !f.ranges:
		return -1
	case f.step > 0 && f.pos+f.step < f.end():
		return f.pos + f.step
	}
	return f.limit
}

// Read reads on. A connection that is cut is made anew where it was cut.
func (f *File) Read(p []byte) (int, error) {
	for f.err == nil && (f.end() < 0 || f.pos < f.end()) {
		if f.pos == f.to {
			f.drop()
		}
		if f.body == nil {
			body, err := f.open(f.ctx, f.pos, f.next(), true)
			if err != nil {
				f.err = f.failures.count(f, f.ctx, f.pos, err)
				continue
			}
			f.body, f.to = body, f.next()
		}
		if f.to >= 0 {
			p = p[:min(int64(len(p)), f.to-f.pos)]
		}
		n, err := f.body.Read(p)
		f.pos += int64(n)
		if err == io.EOF && f.to < 0 && f.size < 0 {
			f.err = io.EOF // a server that does not say how much there is
		} else if err != nil && f.pos != f.to && f.pos != f.size {
			f.drop()
			f.err = f.failures.count(f, f.ctx, f.pos, f.failed(f.ctx, err))
		}
		if n > 0 {
			return n, nil
		}
	}
	if f.err == nil {
		return 0, io.EOF
	}
	return 0, f.err
}

// ReadAt returns size bytes from offset on. Where the server sends all of the
// file it returns ErrNoRanges, and Ranges is false from then on.
func (f *File) ReadAt(ctx context.Context, offset int64, size int) ([]byte, error) {
	b := make([]byte, 0, size)
	var fails failures
	for {
		body, err := f.open(ctx, offset+int64(len(b)), offset+int64(size), false)
		for err == nil && len(b) < size {
			var n int
			n, err = body.Read(b[len(b):size])
			b = b[:len(b)+n]
			if err != nil && len(b) < size {
				err = f.failed(ctx, err)
			}
		}
		if body != nil {
			body.Close()
		}
		if len(b) == size {
			return b, nil
		}
		if err = fails.count(f, ctx, int64(len(b)), err); err != nil {
			return nil, err
		}
	}
}

// open asks for the bytes from one offset to another, -1 for all that follow.
// With skip a server that sends the whole file is as good: what comes before is
// read and dropped.
func (f *File) open(ctx context.Context, from, to int64, skip bool) (io.ReadCloser, error) {
	var header [][2]string
	if !f.encoded {
		last := ""
		if to >= 0 {
			last = strconv.FormatInt(to-1, 10)
		}
		// No If-Range: browsers ask other origins for leave to send it, and pass by
		// their cache with it. fits compares what is answered.
		header = append(header, [2]string{"Range", "bytes=" + strconv.FormatInt(from, 10) + "-" + last})
	}
	r, err := f.ask(ctx, header)
	if err != nil {
		return nil, f.failed(ctx, err)
	}
	if err = f.fits(r, from); err == nil && r.Status == 200 {
		f.ranges = false
		err = ErrNoRanges
		if skip {
			_, err = io.CopyN(io.Discard, r.Body, from)
			if err != nil {
				err = f.failed(ctx, err)
			}
		}
	}
	if err != nil {
		r.Body.Close()
		return nil, err
	}
	return r.Body, nil
}

// fits checks that r is an answer of the same file: all of it, or from an
// offset on.
func (f *File) fits(r *Response, from int64) error {
	size := int64(-1)
	switch r.Status {
	case 200:
		if n, err := strconv.ParseInt(r.Header("Content-Length"), 10, 64); err == nil && !f.encoded {
			size = n
		}
	case 206:
		if s := r.Header("Content-Range"); s != "" {
			rest, ok := strings.CutPrefix(s, "bytes "+strconv.FormatInt(from, 10)+"-")
			_, all, whole := strings.Cut(rest, "/")
			if !ok || !whole {
				return fmt.Errorf("%w: bytes from %d on asked for, %q sent", ErrFetch, from, s)
			}
			if n, err := strconv.ParseInt(all, 10, 64); err == nil {
				size = n
			}
		}
	case 416:
		return fmt.Errorf("%w: it has no byte %d", ErrChanged, from)
	default:
		return refused(r)
	}
	if tag := validator(r); tag != "" && f.tag != "" && strings.TrimPrefix(tag, "W/") != strings.TrimPrefix(f.tag, "W/") {
		return fmt.Errorf("%w: %s, then %s", ErrChanged, f.tag, tag)
	}
	if size >= 0 && f.size >= 0 && size != f.size {
		return fmt.Errorf("%w: %d bytes, then %d", ErrChanged, f.size, size)
	}
	return nil
}

// lost is a failure that another try may mend. It is known by Is: errors.As is
// 30 kB of reflection to download.
type lost struct{ error }

var errLost = errors.New("remote: lost")

func (l lost) Unwrap() error        { return l.error }
func (l lost) Is(target error) bool { return target == errLost }

// failed is the error of a connection.
func (f *File) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return lost{fmt.Errorf("%w: %w", ErrFetch, err)}
}

// refused is the error of an answer.
func refused(r *Response) error {
	err := fmt.Errorf("%w: the server answered %d", ErrFetch, r.Status)
	if r.Status == 408 || r.Status == 429 || r.Status >= 500 {
		return lost{err}
	}
	return err
}

// failures counts those in a row.
type failures struct {
	n  int
	at int64 // where the last one was
}

// count waits before another try after err, which came at a position of the
// stream. It returns the error that ends it all.
func (c *failures) count(f *File, ctx context.Context, pos int64, err error) error {
	if !errors.Is(err, errLost) {
		return err
	}
	if pos-c.at >= someBytes {
		c.n = 0
	}
	if c.n++; c.n == Tries {
		return fmt.Errorf("%w, after %d tries", err, Tries)
	}
	c.at = pos
	return f.sleep(ctx, firstPause<<(c.n-1))
}
