package page

import (
	"strconv"
	"syscall/js"

	"lqa/wasm/proto"
)

// answered shows the reply to a frame and hands it to listeners of the
// document's lqa-result event.
func (p *page) answered(m proto.Reply, raw js.Value) {
	switch m.Kind {
	case proto.Failed:
		// A label change or a new engine may overtake a frame.
		if m.Code != proto.UnknownSession && m.Code != proto.NotLoaded {
			p.notice(*m.Error, p.load)
		}
		return
	case proto.Result:
	default:
		return
	}
	p.zeroShot.set(m.ZeroShot)
	p.adapted.set(m.Adapted)
	p.caption(m)
	if p.source.live {
		p.times.add(now(), m.ViewMS, m.EncodeMS, m.AdaptMS)
		p.doc.text("report", m.Report.Text)
	} else {
		p.doc.text("report", "A single picture gives nothing to adapt to. Start the camera or play the clip.")
	}
	p.stats(m)
	js.Global().Get("document").Call("dispatchEvent",
		js.Global().Get("CustomEvent").New("lqa-result", map[string]any{"detail": raw}))
}

// caption names what is seen, over the picture; the live region says it when
// it changes, at most every three seconds.
func (p *page) caption(m proto.Reply) {
	label, score := top(m.Adapted)
	other, _ := top(m.ZeroShot)
	p.doc.show("answer", true)
	p.doc.text("answer-label", named(label))
	p.doc.text("answer-score", Percent(score))
	if other != label {
		p.doc.text("answer-other", "zero-shot alone: "+named(other))
	} else {
		p.doc.text("answer-other", "")
	}
	if t := now(); label != p.said && t-p.saidAt > 3000 {
		p.said, p.saidAt = label, t
		p.doc.text("status", named(label)+", "+Percent(score))
	}
}

// stats shows speed and memory, four times a second.
func (p *page) stats(m proto.Reply) {
	t := now()
	if p.source.live && t-p.statsAt < 250 {
		return
	}
	p.statsAt = t
	view, encode, adapt := m.ViewMS, m.EncodeMS, m.AdaptMS
	if p.source.live {
		view, encode, adapt = p.times.view.percentile(0.5), p.times.encode.percentile(0.5), p.times.adapt.percentile(0.5)
		p.doc.text("fps", strconv.FormatFloat(p.times.frames.perSecond(t), 'f', 1, 64))
		p.doc.text("p50", Milliseconds(p.times.total.percentile(0.5)))
		p.doc.text("p95", Milliseconds(p.times.total.percentile(0.95)))
	} else {
		p.doc.text("fps", "–")
		p.doc.text("p50", Milliseconds(view+encode+adapt))
		p.doc.text("p95", "–")
	}
	for _, part := range []struct {
		id string
		ms float64
	}{{"view", view}, {"encode", encode}, {"adapt", adapt}} {
		p.doc.text(part.id+"-ms", Milliseconds(part.ms)+" ms")
		p.doc.el("split-"+part.id).Style().SetProperty("--share", strconv.FormatFloat(part.ms, 'f', 3, 64), "")
	}
	if m.Memory != nil {
		p.doc.text("memory", Bytes(int64(m.Memory.Kernel+m.Memory.GoHeap)))
		p.doc.text("memory-detail", Bytes(int64(m.Memory.Kernel))+" kernels, "+Bytes(int64(m.Memory.GoHeap))+" Go, "+Bytes(int64(m.Memory.State))+" learned")
	}
}
