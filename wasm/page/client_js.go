package page

import (
	"fmt"
	"syscall/js"

	"lqa/quant/json"
	"lqa/wasm/proto"
)

// client speaks to one engine worker. raw is a reply as it came, for
// listeners of the document.
type client struct {
	worker    js.Value
	receive   js.Func
	nextID    int
	pending   map[int]func(m proto.Reply, raw js.Value)
	unasked   func(proto.Reply) // replies to nothing: the engine's end
	parse     js.Value
	stringify js.Value
}

func newClient(unasked func(proto.Reply)) *client {
	c := &client{pending: map[int]func(proto.Reply, js.Value){}, unasked: unasked,
		parse: js.Global().Get("JSON").Get("parse"), stringify: js.Global().Get("JSON").Get("stringify")}
	c.receive = js.FuncOf(func(_ js.Value, args []js.Value) any {
		guard(func() { c.message(args[0]) })
		return nil
	})
	c.worker = js.Global().Call("lqaWorker", c.receive)
	c.send(proto.Request{Kind: proto.Hello, Version: proto.Version}, js.Undefined(), func(m proto.Reply, _ js.Value) {
		if m.Kind == proto.Failed {
			unasked(m)
		}
	})
	return c
}

func (c *client) message(raw js.Value) {
	var m proto.Reply
	r := new(json.Reader)
	if err := r.Read([]byte(c.stringify.Invoke(raw).String()), func() { m.Read(r) }); err != nil {
		panic(fmt.Sprintf("page: bad reply: %v", err))
	}
	answer := c.pending[m.ID]
	switch {
	case answer != nil:
		if last(m) {
			delete(c.pending, m.ID)
		}
		answer(m, raw)
	case m.ID == 0 && m.Kind == proto.Failed:
		c.unasked(m)
	}
}

// last reports whether no further reply to the same request follows.
func last(m proto.Reply) bool {
	switch m.Kind {
	case proto.Progress:
		return false
	case proto.Loaded:
		return m.ModelInfo != nil && m.Stage == "text"
	}
	return true
}

// send posts a request, with an image that passes over to the engine; answer
// gets each reply to it.
func (c *client) send(r proto.Request, image js.Value, answer func(m proto.Reply, raw js.Value)) {
	c.nextID++
	r.ID = c.nextID
	var w json.Writer
	r.Write(&w)
	c.pending[r.ID] = answer
	m := c.parse.Invoke(string(w.Text))
	if image.IsUndefined() {
		c.worker.Call("postMessage", m)
		return
	}
	m.Set("image", image)
	c.worker.Call("postMessage", m, []any{image})
}

// close ends the worker; what was asked stays unanswered.
func (c *client) close() {
	c.worker.Call("terminate")
	c.receive.Release()
	clear(c.pending)
}
