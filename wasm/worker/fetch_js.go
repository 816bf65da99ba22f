package worker

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"syscall/js"
	"time"
)

// await waits for a promise; other goroutines run meanwhile. A rejection is an
// error with the exception's message.
func await(promise js.Value) (js.Value, error) {
	type outcome struct {
		v   js.Value
		err error
	}
	done := make(chan outcome, 1)
	resolve := js.FuncOf(func(_ js.Value, args []js.Value) any {
		done <- outcome{v: args[0]}
		return nil
	})
	defer resolve.Release()
	reject := js.FuncOf(func(_ js.Value, args []js.Value) any {
		done <- outcome{err: errors.New(js.Global().Get("String").Invoke(args[0]).String())}
		return nil
	})
	defer reject.Release()
	promise.Call("then", resolve, reject)
	o := <-done
	return o.v, o.err
}

// body reads a fetch response as a stream. It gives up the lock while it
// waits, so that frames are answered between two pieces of a download.
type body struct {
	mu     *sync.Mutex
	reader js.Value // of the response's stream
	buffer js.Value // that the reader fills again and again; null where it brings its own
	chunk  js.Value // what has come and is not read yet
	err    error

	loaded, total int64 // total is 0 where the server does not say
	report        func(loaded, total int64)
	reported      time.Time
}

// reportEvery is how often at most a download's progress is told.
const reportEvery = 80 * time.Millisecond

// fetch starts a download. report is told how it goes on.
func fetch(mu *sync.Mutex, url string, report func(loaded, total int64)) (*body, error) {
	resp, err := unlocked(mu, js.Global().Call("fetch", url))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFetch, err)
	}
	if !resp.Get("ok").Bool() {
		return nil, fmt.Errorf("%w: the server answered %d %s", errFetch, resp.Get("status").Int(), resp.Get("statusText").String())
	}
	b := &body{mu: mu, chunk: js.Null(), report: report}
	b.reader, b.buffer = reader(resp.Get("body"))
	header := resp.Get("headers")
	if header.Call("get", "Content-Encoding").IsNull() { // else the length is that of other bytes
		if n := header.Call("get", "Content-Length"); !n.IsNull() {
			b.total, _ = strconv.ParseInt(n.String(), 10, 64)
		}
	}
	return b, nil
}

// bufferBytes is what is asked of a stream at once.
const bufferBytes = 1 << 16

// reader reads a stream into one buffer, where the browser can: of the pieces
// of a large file it would else keep tens of megabytes until it collects them.
func reader(stream js.Value) (reader, buffer js.Value) {
	defer func() {
		if recover() != nil { // no byte stream, or a browser without such readers
			reader, buffer = stream.Call("getReader"), js.Null()
		}
	}()
	reader = stream.Call("getReader", map[string]any{"mode": "byob"})
	return reader, js.Global().Get("Uint8Array").New(bufferBytes)
}

// next reads the next piece.
func (b *body) next() (js.Value, error) {
	if b.buffer.IsNull() {
		return unlocked(b.mu, b.reader.Call("read"))
	}
	r, err := unlocked(b.mu, b.reader.Call("read", b.buffer))
	if err == nil && !r.Get("value").IsUndefined() { // the memory came back in another array
		b.buffer = js.Global().Get("Uint8Array").New(r.Get("value").Get("buffer"))
	}
	return r, err
}

// unlocked awaits a promise with mu released.
func unlocked(mu *sync.Mutex, promise js.Value) (js.Value, error) {
	mu.Unlock()
	defer mu.Lock()
	return await(promise)
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	for b.chunk.IsNull() {
		r, err := b.next()
		if err != nil {
			b.err = fmt.Errorf("%w: %w", errFetch, err)
			return 0, b.err
		}
		if r.Get("done").Bool() {
			b.err = io.EOF
			return 0, b.err
		}
		if v := r.Get("value"); v.Length() > 0 {
			b.chunk = v
			b.loaded += int64(v.Length())
			if time.Since(b.reported) > reportEvery || b.loaded == b.total {
				b.reported = time.Now()
				b.report(b.loaded, b.total)
			}
		}
	}
	n := js.CopyBytesToGo(p, b.chunk)
	if n == b.chunk.Length() {
		b.chunk = js.Null()
	} else {
		b.chunk = b.chunk.Call("subarray", n)
	}
	return n, nil
}

// Close ends the download, where it still runs.
func (b *body) Close() {
	b.err = io.ErrClosedPipe
	cancelled := b.reader.Call("cancel")
	// A stream that has failed rejects this; there is nothing left to do then.
	go await(cancelled)
}

// subtleHash is SHA-256 by the browser where it offers that (secure contexts
// only), or nil: Go's own then.
func subtleHash(mu *sync.Mutex) func([]byte) [32]byte {
	crypto := js.Global().Get("crypto")
	if crypto.IsUndefined() || crypto.Get("subtle").IsUndefined() {
		return nil
	}
	subtle := crypto.Get("subtle")
	buffer := js.Null()
	return func(b []byte) (sum [32]byte) {
		if buffer.IsNull() || buffer.Length() < len(b) {
			buffer = js.Global().Get("Uint8Array").New(len(b))
		}
		a := buffer.Call("subarray", 0, len(b))
		js.CopyBytesToJS(a, b)
		d, err := unlocked(mu, subtle.Call("digest", "SHA-256", a))
		if err != nil {
			return sha256.Sum256(b)
		}
		js.CopyBytesToGo(sum[:], js.Global().Get("Uint8Array").New(d))
		return sum
	}
}
