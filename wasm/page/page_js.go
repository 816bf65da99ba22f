package page

import (
	"fmt"
	"strconv"
	"strings"
	"syscall/js"

	"honnef.co/go/js/dom/v2"

	"lqa/wasm/proto"
)

// session is the page's one session; widgets have their own.
const session = "page"

// page holds what the visitor sees and does.
type page struct {
	doc    *document
	media  js.Value // web/media.js and web/clip.js
	client *client

	model    *proto.ModelInfo // nil until the image tower is there
	text     bool             // any label can be asked for
	open     bool             // the session answers
	asked    int              // label changes sent: an older answer is stale
	labels   []string         // as the session uses them
	loadAt   float64          // when the download began, in milliseconds of now, and
	loadFrom int64            // with how many bytes
	since    float64          // when the session began, in milliseconds of now
	retry    func()
	pending  func() // cancels the label change that waits for typing to end

	source  source
	samples []sample
	thumbs  []element
	current int // sample shown

	zeroShot, adapted *answers
	times             timings
	statsAt           float64
	saidAt            float64
	said              string
}

// Run serves the document; it does not return.
func Run() {
	p := &page{doc: newDocument(), media: js.Global().Get("lqaMedia"), times: newTimings(), current: -1}
	p.zeroShot, p.adapted = newAnswers(p.doc, "zero-shot"), newAnswers(p.doc, "adapted")
	guard(p.start)
	select {}
}

func (p *page) start() {
	p.readFragment()
	p.wire()
	p.load()
	then(p.media.Call("loadSamples"), p.showSamples, func(proto.Error) { p.doc.show("samples-section", false) })
}

// wire connects the controls.
func (p *page) wire() {
	click := func(id string, f func()) { on(p.doc.el(id).Value, "click", func(*dom.BasicEvent) { f() }) }
	click("camera-start", p.toggleCamera)
	click("camera-flip", p.flipCamera)
	click("clip", p.toggleClip)
	click("notice-close", p.clearNotice)
	click("notice-retry", func() {
		f := p.retry
		p.clearNotice()
		if f != nil {
			f()
		}
	})
	click("add-label", p.addLabel)
	click("upload-button", func() { p.doc.el("upload").Call("click") })
	on(p.doc.el("upload").Value, "change", func(e *dom.BasicEvent) {
		files := p.doc.el("upload").Get("files")
		if files.Length() > 0 {
			p.openFile(files.Index(0))
		}
		p.doc.setValue("upload", "") // the same file may be chosen again
	})
	on(p.doc.el("camera-choice").Value, "change", func(*dom.BasicEvent) { p.startCamera(p.doc.value("camera-choice"), "") })
	for _, id := range []string{"labels", "template"} {
		on(p.doc.el(id).Value, "input", func(*dom.BasicEvent) { p.labelsSoon() })
	}
	w := js.Global()
	on(w, "hashchange", func(*dom.BasicEvent) {
		if p.readFragment() {
			p.sendLabels()
		}
	})
	on(p.doc.Value, "lqa-look", func(*dom.BasicEvent) { p.lookAgain() })
	on(p.doc.Value, "lqa-notice", func(e *dom.BasicEvent) { p.notice(failure(e.Get("detail")), nil) })
	on(p.doc.Value, "visibilitychange", func(*dom.BasicEvent) {
		if p.doc.Get("hidden").Bool() {
			p.hide()
		}
	})
	on(w, "pagehide", func(*dom.BasicEvent) { p.source.stop() })
	drag := func(e *dom.BasicEvent, over bool) {
		e.PreventDefault()
		if over {
			p.doc.data("drop", "over")
		} else {
			p.doc.data("drop", "")
		}
	}
	on(w, "dragover", func(e *dom.BasicEvent) { drag(e, true) })
	on(w, "dragleave", func(e *dom.BasicEvent) {
		if e.Get("relatedTarget").IsNull() { // out of the window, not onto a child
			drag(e, false)
		}
	})
	on(w, "drop", func(e *dom.BasicEvent) {
		drag(e, false)
		if files := e.Get("dataTransfer").Get("files"); files.Length() > 0 {
			p.openFile(files.Index(0))
		}
	})
}

// state is one of loading, ready, running and error.
func (p *page) state(s string) { p.doc.data("state", s) }

// load starts an engine and lets it fetch the model. What ran before ends.
func (p *page) load() {
	if p.client != nil {
		p.client.close()
	}
	p.model, p.text, p.open = nil, false, false
	p.source.idle()
	p.state("loading")
	p.doc.text("load-phase", "Starting the engine")
	p.doc.text("load-bytes", "")
	p.doc.text("load-rate", "")
	p.doc.el("load-bar").RemoveAttribute("value")
	p.loadAt = 0
	p.client = newClient(p.loadFailed)
	url := js.Global().Get("URL").New("model.shq", p.doc.Get("baseURI")).Get("href").String()
	p.client.send(proto.Request{Kind: proto.Load, URL: url}, js.Undefined(), p.loading)
}

func (p *page) loading(m proto.Reply, _ js.Value) {
	switch m.Kind {
	case proto.Progress:
		p.progress(m.ProgressInfo)
	case proto.Loaded:
		p.loaded(m)
	case proto.Failed:
		p.loadFailed(m)
	}
}

// phases are what a visitor reads for the engine's phases.
var phases = map[string]string{"fetch": "Loading the model", "warm-up": "Warming up"}

func (p *page) progress(i *proto.ProgressInfo) {
	bar := p.doc.el("load-bar")
	if phase, ok := phases[i.Phase]; ok {
		p.doc.text("load-phase", phase)
	}
	if i.Phase != "fetch" || i.LoadedBytes == 0 {
		return
	}
	size := Bytes(i.LoadedBytes)
	if i.TotalBytes > 0 {
		size = BytesOf(i.LoadedBytes, i.TotalBytes)
		bar.SetAttribute("max", strconv.FormatInt(i.TotalBytes, 10))
		bar.SetAttribute("value", strconv.FormatInt(i.LoadedBytes, 10))
	}
	p.doc.text("load-bytes", size)
	if p.loadAt == 0 {
		p.loadAt, p.loadFrom = now(), i.LoadedBytes
	} else if s := (now() - p.loadAt) / 1000; s > 0.2 {
		p.doc.text("load-rate", Bytes(int64(float64(i.LoadedBytes-p.loadFrom)/s))+"/s")
	}
}

func (p *page) loaded(m proto.Reply) {
	p.model = m.ModelInfo
	p.doc.data("model", m.Hash)
	if m.Memory != nil {
		p.showModel(m.ModelInfo, m.Memory)
	}
	if m.Stage == "text" {
		p.text = true
		p.doc.text("text-side", "")
		p.sendLabels()
		return
	}
	p.doc.text("text-side", "The words are still loading")
	p.state("ready")
	if p.source.live {
		p.state("running")
	}
	p.doc.text("status", "Ready. "+m.Model+" is loaded.")
	// Until the text side has come only the model's own labels can be asked.
	if labels := SplitLabels(p.doc.value("labels")); p.doc.value("template") != "" || !Subset(labels, m.Defaults) {
		if len(m.Defaults) > 0 {
			p.ask(m.Defaults, "")
		}
		return
	}
	p.sendLabels()
}

func (p *page) loadFailed(m proto.Reply) {
	if m.Error == nil {
		return
	}
	p.open = false
	p.model = nil
	p.client.close()
	p.state("error")
	p.doc.text("load-phase", "Not loaded")
	p.notice(*m.Error, p.load)
}

func (p *page) showModel(i *proto.ModelInfo, m *proto.Memory) {
	p.doc.text("model-name", i.Model)
	p.doc.text("model-detail", fmt.Sprintf("%s · %s · %s of weights in %s s", i.Kernels, counted(i.Threads, "thread"), Bytes(int64(m.Weights)),
		strconv.FormatFloat(i.LoadMS/1000, 'f', 1, 64)))
}

// labelsSoon applies what is in the fields once typing pauses.
func (p *page) labelsSoon() {
	if p.pending != nil {
		p.pending()
	}
	p.pending = after(300, func() { p.pending = nil; p.sendLabels() })
}

// sendLabels applies what is in the fields now.
func (p *page) sendLabels() {
	labels := SplitLabels(p.doc.value("labels"))
	field := p.doc.el("labels")
	if len(labels) == 0 {
		p.labelsMessage("Give at least one thing to look for. The labels before stay in use.")
		field.SetAttribute("aria-invalid", "true")
		return
	}
	template := strings.TrimSpace(p.doc.value("template"))
	if template != "" && !strings.Contains(template, "{}") {
		p.labelsMessage("The prompt needs {} where the label goes.")
		p.doc.el("template").SetAttribute("aria-invalid", "true")
		return
	}
	p.labelsMessage("")
	field.RemoveAttribute("aria-invalid")
	p.doc.el("template").RemoveAttribute("aria-invalid")
	p.writeFragment(labels, template)
	if p.model != nil {
		p.ask(labels, template)
	}
}

func (p *page) labelsMessage(s string) { p.doc.text("labels-message", s) }

// ask opens the session with labels, or gives it others.
func (p *page) ask(labels []string, template string) {
	p.asked++
	asked := p.asked
	p.client.send(proto.Request{Kind: proto.Open, Session: session, Labels: labels, Template: template, Adapter: p.doc.root.GetAttribute("data-adapter")}, js.Undefined(),
		func(m proto.Reply, _ js.Value) {
			if asked != p.asked {
				return
			}
			if m.Kind == proto.Failed {
				p.labelsMessage(adviceFor(*m.Error).title + ". " + adviceFor(*m.Error).text)
				p.doc.el("labels").SetAttribute("aria-invalid", "true")
				return
			}
			p.open = true
			p.labels = m.Labels
			p.since = now()
			p.doc.text("labels-count", fmt.Sprintf("%s, embedded in %s ms", counted(len(m.Labels), "label"), Milliseconds(m.EmbedMS)))
			p.offerLabel()
			p.lookAgain()
		})
}

// readFragment takes labels and prompt from the address, where they are; it
// reports whether there were any.
func (p *page) readFragment() bool {
	hash := strings.TrimPrefix(js.Global().Get("location").Get("hash").String(), "#")
	q := js.Global().Get("URLSearchParams").New(hash)
	labels := q.Call("get", "labels")
	if labels.IsNull() {
		return false
	}
	p.doc.setValue("labels", labels.String())
	if t := q.Call("get", "template"); !t.IsNull() {
		p.doc.setValue("template", t.String())
	}
	return true
}

// writeFragment keeps labels and prompt in the address, so that it can be
// shared. Pictures never go there.
func (p *page) writeFragment(labels []string, template string) {
	location := js.Global().Get("location")
	if p.doc.value("labels") == p.doc.el("labels").Get("defaultValue").String() && template == "" && location.Get("hash").String() == "" {
		return // as the page comes
	}
	q := js.Global().Get("URLSearchParams").New()
	q.Call("set", "labels", strings.Join(labels, ","))
	if template != "" {
		q.Call("set", "template", template)
	}
	js.Global().Get("history").Call("replaceState", js.Null(), "", "#"+strings.ReplaceAll(q.Call("toString").String(), "%2C", ","))
}

// notice shows an error. It stays until closed or tried again.
func (p *page) notice(e proto.Error, retry func()) {
	a := adviceFor(e)
	p.retry = retry
	p.doc.el("notice").SetAttribute("data-code", string(e.Code))
	p.doc.text("notice-title", a.title)
	p.doc.text("notice-text", a.text)
	p.doc.text("notice-detail", e.Message)
	p.doc.text("notice-retry", a.retry)
	p.doc.show("notice-retry", a.retry != "")
	p.doc.show("notice", true)
}

func (p *page) clearNotice() {
	p.doc.show("notice", false)
	p.doc.el("notice").SetAttribute("data-code", "")
	p.retry = nil
}
