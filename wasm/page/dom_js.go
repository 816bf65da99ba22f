package page

import (
	"fmt"
	"syscall/js"

	"honnef.co/go/js/dom/v2"

	"lqa/wasm/proto"
)

// element is dom's plain element. The page keeps to concrete types of dom/v2:
// its interfaces (Element, Node, Event) bind every method of every kind of
// element into the binary, 0.14 MB of download.
type element = *dom.BasicHTMLElement

func wrap(v js.Value) element {
	return &dom.BasicHTMLElement{BasicElement: &dom.BasicElement{BasicNode: &dom.BasicNode{Value: v}}}
}

// document finds elements by their id, once each. Ids are fixed by
// web/index.html: a missing one is a fault of the page.
type document struct {
	js.Value
	root  element
	found map[string]element
}

func newDocument() *document {
	d := js.Global().Get("document")
	return &document{d, wrap(d.Get("documentElement")), map[string]element{}}
}

func (d *document) el(id string) element {
	e := d.found[id]
	if e == nil {
		v := d.Call("getElementById", id)
		if v.IsNull() {
			panic("page: no element #" + id)
		}
		e = wrap(v)
		d.found[id] = e
	}
	return e
}

// text sets an element's text where it differs: assistive technology then
// hears of changes only.
func (d *document) text(id, s string) { setText(d.el(id), s) }

func setText(e element, s string) {
	if e.TextContent() != s {
		e.SetTextContent(s)
	}
}

func (d *document) value(id string) string       { return d.el(id).Underlying().Get("value").String() }
func (d *document) setValue(id, s string)        { d.el(id).Underlying().Set("value", s) }
func (d *document) show(id string, visible bool) { d.el(id).Underlying().Set("hidden", !visible) }

// data sets a data-name attribute of the root element.
func (d *document) data(name, value string) { d.root.SetAttribute("data-"+name, value) }

// create makes an element with a class and a text, both may be empty.
func (d *document) create(tag, class, text string) element {
	e := wrap(d.Call("createElement", tag))
	if class != "" {
		e.SetAttribute("class", class)
	}
	if text != "" {
		e.SetTextContent(text)
	}
	return e
}

// add appends children to an element.
func add(e element, children ...element) {
	for _, c := range children {
		e.Call("appendChild", c.Value)
	}
}

// guard keeps a panic, which a JavaScript exception is too, from ending the
// page's program: it is told and the page goes on.
func guard(f func()) {
	defer func() {
		if r := recover(); r != nil {
			js.Global().Get("console").Call("error", fmt.Sprint("lqa: ", r))
		}
	}()
	f()
}

// on listens for as long as the page lives; the callback is never released.
func on(target js.Value, event string, f func(*dom.BasicEvent)) {
	target.Call("addEventListener", event, js.FuncOf(func(_ js.Value, args []js.Value) any {
		guard(func() { f(&dom.BasicEvent{Value: args[0]}) })
		return nil
	}))
}

// then calls ok or fail once a promise settles. Both callbacks are released.
func then(promise js.Value, ok func(js.Value), fail func(proto.Error)) {
	var resolve, reject js.Func
	release := func() { resolve.Release(); reject.Release() }
	resolve = js.FuncOf(func(_ js.Value, args []js.Value) any {
		release()
		guard(func() { ok(args[0]) })
		return nil
	})
	reject = js.FuncOf(func(_ js.Value, args []js.Value) any {
		release()
		guard(func() { fail(failure(args[0])) })
		return nil
	})
	promise.Call("then", resolve, reject)
}

// failure reads {code, message} from what a promise was rejected with.
func failure(v js.Value) proto.Error {
	e := proto.Error{Code: proto.Internal, Message: js.Global().Get("String").Invoke(v).String()}
	if v.Type() == js.TypeObject {
		if c := v.Get("code"); c.Type() == js.TypeString {
			e.Code = proto.Code(c.String())
		}
		if m := v.Get("message"); m.Type() == js.TypeString {
			e.Message = m.String()
		}
	}
	return e
}

// now is in milliseconds, since the page was opened.
func now() float64 { return js.Global().Get("performance").Call("now").Float() }

// after calls f once, later; the returned function calls that off.
func after(ms int, f func()) (cancel func()) {
	var fn js.Func
	done := false
	fn = js.FuncOf(func(js.Value, []js.Value) any {
		if !done {
			done = true
			fn.Release()
			guard(f)
		}
		return nil
	})
	id := js.Global().Call("setTimeout", fn, ms)
	return func() {
		if !done {
			done = true
			js.Global().Call("clearTimeout", id)
			fn.Release()
		}
	}
}
