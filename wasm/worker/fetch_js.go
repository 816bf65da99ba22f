package worker

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync"
	"syscall/js"
	"time"

	"lqa/wasm/remote"
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

// unlocked awaits a promise with mu released.
func unlocked(mu *sync.Mutex, promise js.Value) (js.Value, error) {
	mu.Unlock()
	defer mu.Lock()
	return await(promise)
}

// pause waits with mu released.
func pause(mu *sync.Mutex) func(context.Context, time.Duration) error {
	return func(ctx context.Context, d time.Duration) error {
		mu.Unlock()
		defer mu.Lock()
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fetch asks for url. It gives up the lock while it waits, so that frames are
// answered meanwhile.
func fetch(mu *sync.Mutex, url string) remote.Client {
	return func(ctx context.Context, header [][2]string) (*remote.Response, error) {
		fields := map[string]any{}
		for _, h := range header {
			fields[h[0]] = h[1]
		}
		abort := js.Global().Get("AbortController").New()
		stop := context.AfterFunc(ctx, func() { abort.Call("abort") })
		resp, err := unlocked(mu, js.Global().Call("fetch", url, map[string]any{"headers": fields, "signal": abort.Get("signal")}))
		if err != nil {
			stop()
			return nil, err
		}
		b := &body{mu: mu, stop: stop, chunk: js.Null()}
		b.reader, b.buffer = reader(resp.Get("body"))
		headers := resp.Get("headers")
		return &remote.Response{Status: resp.Get("status").Int(), Body: b, Header: func(name string) string {
			if v := headers.Call("get", name); !v.IsNull() {
				return v.String()
			}
			return ""
		}}, nil
	}
}

// body reads a fetch response as a stream, without the lock while it waits.
type body struct {
	mu     *sync.Mutex
	stop   func() bool // watching the context
	reader js.Value    // of the response's stream
	buffer js.Value    // that the reader fills again and again; null where it brings its own
	chunk  js.Value    // what has come and is not read yet
	err    error
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

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	for b.chunk.IsNull() {
		r, err := b.next()
		if err == nil && r.Get("done").Bool() {
			err = io.EOF
		}
		if b.err = err; err != nil {
			return 0, err
		}
		if v := r.Get("value"); v.Length() > 0 {
			b.chunk = v
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
func (b *body) Close() error {
	b.err = io.ErrClosedPipe
	b.stop()
	cancelled := b.reader.Call("cancel")
	// A stream that has failed rejects this; there is nothing left to do then.
	go await(cancelled)
	return nil
}

// progress is a stream that tells how far it has come.
type progress struct {
	io.Reader
	loaded, total int64 // total is 0 where nobody knows
	report        func(loaded, total int64)
	reported      time.Time
}

// reportEvery is how often at most progress is told.
const reportEvery = 80 * time.Millisecond

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	p.loaded += int64(n)
	if n > 0 && (time.Since(p.reported) > reportEvery || p.loaded == p.total) {
		p.reported = time.Now()
		p.report(p.loaded, p.total)
	}
	return n, err
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
