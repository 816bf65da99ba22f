package browser

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// ErrClosed: the browser has gone.
var ErrClosed = errors.New("browser: closed")

// callLimit ends a call that hangs; a promise that Eval awaits is one.
const callLimit = 2 * time.Minute

// event is a message of the protocol that answers no call.
type event struct {
	Session string
	Method  string
	Params  json.RawMessage
}

type message struct {
	ID        int             `json:"id,omitempty"`
	SessionID string          `json:"sessionId,omitempty"`
	Method    string          `json:"method,omitempty"`
	Params    json.RawMessage `json:"params,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	Error     *struct {
		Message string `json:"message"`
		Data    string `json:"data"`
	} `json:"error,omitempty"`
}

// conn speaks the DevTools protocol over Chromium's pipe: JSON messages, each
// ended by a zero byte. One connection carries all targets (flat sessions).
type conn struct {
	w       io.Writer
	onEvent func(event) // called in order, must not block

	mu      sync.Mutex
	next    int
	pending map[int]chan message
	closed  bool
	done    chan struct{}
}

func newConn(r io.Reader, w io.Writer, onEvent func(event)) *conn {
	c := &conn{w: w, onEvent: onEvent, pending: map[int]chan message{}, done: make(chan struct{})}
	go c.read(bufio.NewReaderSize(r, 1<<16))
	return c
}

func (c *conn) read(r *bufio.Reader) {
	for {
		b, err := r.ReadBytes(0)
		if err != nil {
			break
		}
		var m message
		if err := json.Unmarshal(bytes.TrimSuffix(b, []byte{0}), &m); err != nil {
			break
		}
		if m.ID == 0 {
			c.onEvent(event{m.SessionID, m.Method, m.Params})
			continue
		}
		c.mu.Lock()
		ch := c.pending[m.ID]
		delete(c.pending, m.ID)
		c.mu.Unlock()
		if ch != nil {
			ch <- m
		}
	}
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	close(c.done)
}

// send posts a command and returns where its answer will come.
func (c *conn) send(session, method string, params any) (<-chan message, error) {
	raw, err := json.Marshal(params)
	if err != nil {
		return nil, fmt.Errorf("browser: %s: %w", method, err)
	}
	if params == nil {
		raw = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	c.next++
	b, err := json.Marshal(message{ID: c.next, SessionID: session, Method: method, Params: raw})
	if err != nil {
		return nil, fmt.Errorf("browser: %s: %w", method, err)
	}
	ch := make(chan message, 1)
	c.pending[c.next] = ch
	if _, err := c.w.Write(append(b, 0)); err != nil {
		return nil, fmt.Errorf("browser: %s: %w", method, err)
	}
	return ch, nil
}

// call sends a command and waits for its result; result may be nil.
func (c *conn) call(session, method string, params, result any) error {
	ch, err := c.send(session, method, params)
	if err != nil {
		return err
	}
	select {
	case m := <-ch:
		if m.Error != nil {
			return fmt.Errorf("browser: %s: %s %s", method, m.Error.Message, m.Error.Data)
		}
		if result == nil {
			return nil
		}
		if err := json.Unmarshal(m.Result, result); err != nil {
			return fmt.Errorf("browser: %s: %w", method, err)
		}
		return nil
	case <-c.done:
		return fmt.Errorf("%w during %s", ErrClosed, method)
	case <-time.After(callLimit):
		return fmt.Errorf("browser: %s: no answer in %v", method, callLimit)
	}
}
