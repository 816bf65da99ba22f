package worker

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall/js"
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
	reader js.Value // ReadableStreamDefaultReader
	chunk  js.Value // what has come and is not read yet
	err    error
}

// fetch starts a download.
func fetch(mu *sync.Mutex, url string) (*body, error) {
	resp, err := unlocked(mu, js.Global().Call("fetch", url))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFetch, err)
	}
	if !resp.Get("ok").Bool() {
		return nil, fmt.Errorf("%w: the server answered %d %s", errFetch, resp.Get("status").Int(), resp.Get("statusText").String())
	}
	return &body{mu: mu, reader: resp.Get("body").Call("getReader"), chunk: js.Null()}, nil
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
		r, err := unlocked(b.mu, b.reader.Call("read"))
		if err != nil {
			b.err = fmt.Errorf("%w: %w", errFetch, err)
			return 0, b.err
		}
		if r.Get("done").Bool() {
			b.err = io.EOF
			return 0, b.err
		}
		if v := r.Get("value"); v.Get("length").Int() > 0 {
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
func (b *body) Close() {
	// A stream that failed rejects cancel; allSettled takes that as well.
	js.Global().Get("Promise").Call("allSettled", []any{b.reader.Call("cancel")})
	b.err = io.ErrClosedPipe
}

// subtleHash is SHA-256 by the browser where it offers that (secure contexts
// only), or nil: Go's own then.
func subtleHash(mu *sync.Mutex) func([]byte) [32]byte {
	crypto := js.Global().Get("crypto")
	if crypto.IsUndefined() || crypto.Get("subtle").IsUndefined() {
		return nil
	}
	subtle := crypto.Get("subtle")
	return func(b []byte) (sum [32]byte) {
		a := js.Global().Get("Uint8Array").New(len(b))
		js.CopyBytesToJS(a, b)
		d, err := unlocked(mu, subtle.Call("digest", "SHA-256", a))
		if err != nil {
			return sha256.Sum256(b)
		}
		js.CopyBytesToGo(sum[:], js.Global().Get("Uint8Array").New(d))
		return sum
	}
}
