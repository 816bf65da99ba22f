package page

import (
	"slices"
	"strconv"
	"strings"
	"syscall/js"

	"honnef.co/go/js/dom/v2"

	"lqa/wasm/proto"
)

// source is what the page looks at. Its kinds: none, sample, picture, video,
// clip, camera.
type source struct {
	kind string
	live bool // frames follow one another
	run  int  // counts starts; what belongs to an earlier one is stale

	ends   []func() // what stop has to end
	next   js.Value // tells web/media.js that a frame was answered
	facing string
}

// sample is one picture of samples.json.
type sample struct{ file, label, author, page, licence, terms string }

// stop ends the stream: the camera's light goes off.
func (s *source) stop() {
	s.run++
	s.idle()
	ends := s.ends
	s.ends = nil
	for _, end := range ends {
		end()
	}
	s.kind, s.live = "none", false
}

// idle lets the stream send its next frame, after an engine has gone.
func (s *source) idle() {
	if s.next.Type() == js.TypeFunction {
		s.next.Invoke()
	}
	s.next = js.Value{}
}

// show says what is looked at, for the style sheet and for tests. truth is
// what is known to be in the picture, or "".
func (p *page) show(kind, truth string) {
	p.source.kind = kind
	stage := p.doc.el("stage")
	stage.SetAttribute("data-source", kind)
	stage.SetAttribute("data-truth", truth)
	stage.RemoveAttribute("data-mirror")
	p.doc.show("credit", false)
	p.doc.show("add-label", false)
	p.doc.show("camera-flip", false)
	p.doc.show("camera-choice", false)
	p.toggle("camera-start", kind == "camera", "Start the camera", "Stop the camera")
	p.toggle("clip", kind == "clip", "Play the clip", "Stop the clip")
	p.markSample()
	p.source.live = kind == "camera" || kind == "clip" || kind == "video"
	p.times = newTimings()
	switch {
	case p.model == nil:
	case p.source.live:
		p.state("running")
	default:
		p.state("ready")
	}
}

func (p *page) toggle(id string, on bool, off, stop string) {
	e := p.doc.el(id)
	e.SetAttribute("aria-pressed", strconv.FormatBool(on))
	if on {
		off = stop
	}
	setText(inner(e), off)
}

// inner is the part of a button that holds its words.
func inner(button element) element { return wrap(button.Call("querySelector", "[data-text]")) }

func (p *page) toggleCamera() {
	if p.source.kind == "camera" {
		p.stopToSample()
		return
	}
	p.startCamera("", "environment")
}

func (p *page) flipCamera() {
	facing := "user"
	if p.source.facing == "user" {
		facing = "environment"
	}
	p.startCamera("", facing)
}

// startCamera asks for a camera: the device named, or one that faces the given
// way where the machine knows such a thing.
func (p *page) startCamera(device, facing string) {
	p.clearNotice()
	p.source.stop()
	run := p.source.run
	button := p.doc.el("camera-start")
	setText(inner(button), "Waiting for permission")
	button.SetAttribute("aria-busy", "true")
	then(p.media.Call("openCamera", map[string]any{"deviceId": device, "facing": facing}), func(stream js.Value) {
		button.RemoveAttribute("aria-busy")
		if run != p.source.run || p.doc.Get("hidden").Bool() {
			p.media.Call("stopStream", stream)
			return
		}
		p.source.ends = append(p.source.ends, func() { p.media.Call("stopStream", stream) })
		p.source.facing = p.media.Call("facing", stream).String()
		p.attach("camera", "", stream)
		p.listCameras(stream)
		p.onEnd(stream)
	}, func(e proto.Error) {
		button.RemoveAttribute("aria-busy")
		if run != p.source.run {
			return
		}
		p.stopToSample()
		p.notice(e, func() { p.startCamera(device, facing) })
	})
}

// onEnd tells when a camera is unplugged or taken away.
func (p *page) onEnd(stream js.Value) {
	run := p.source.run
	ended := js.FuncOf(func(js.Value, []js.Value) any {
		guard(func() {
			if run == p.source.run {
				p.stopToSample()
				p.notice(proto.Error{Code: proto.CameraLost}, func() { p.startCamera("", p.source.facing) })
			}
		})
		return nil
	})
	track := stream.Call("getVideoTracks").Index(0)
	track.Call("addEventListener", "ended", ended)
	p.source.ends = append(p.source.ends, func() {
		track.Call("removeEventListener", "ended", ended)
		ended.Release()
	})
}

// listCameras offers the cameras there are; names come only with permission.
func (p *page) listCameras(stream js.Value) {
	run := p.source.run
	then(p.media.Call("cameras", stream), func(list js.Value) {
		if run != p.source.run {
			return
		}
		choice := p.doc.el("camera-choice")
		choice.SetTextContent("")
		for i := range list.Length() {
			c := list.Index(i)
			o := p.doc.create("option", "", c.Get("label").String())
			o.SetAttribute("value", c.Get("id").String())
			o.Set("selected", c.Get("current"))
			add(choice, o)
		}
		p.doc.show("camera-choice", list.Length() > 1)
		p.doc.show("camera-flip", list.Length() > 1 && p.media.Call("facesKnown", stream).Bool())
	}, func(proto.Error) {})
}

// attach plays a stream or a file in the video element and sends its frames.
func (p *page) attach(kind, truth string, stream js.Value) {
	run := p.source.run
	video := p.doc.el("video").Value
	then(p.media.Call("play", video, stream), func(js.Value) {
		if run != p.source.run {
			return
		}
		p.show(kind, truth)
		if kind == "camera" && p.source.facing == "user" {
			p.doc.el("stage").SetAttribute("data-mirror", "")
		}
		send := js.FuncOf(func(_ js.Value, args []js.Value) any {
			guard(func() { p.frame(args[0], args[1]) })
			return nil
		})
		stop := p.media.Call("watch", video, send)
		p.source.ends = append(p.source.ends, func() {
			stop.Invoke()
			send.Release()
			p.media.Call("clear", video)
		})
	}, func(e proto.Error) {
		if run == p.source.run {
			p.stopToSample()
			p.notice(e, nil)
		}
	})
}

// frame sends one picture of the stream; done is called when it is answered.
func (p *page) frame(image, done js.Value) {
	if !p.open {
		image.Call("close")
		after(100, func() { done.Invoke() })
		return
	}
	run := p.source.run
	p.source.next = done
	p.client.send(proto.Request{Kind: proto.Frame, Session: session, Time: now() - p.since}, image,
		func(m proto.Reply, raw js.Value) {
			if run != p.source.run {
				return
			}
			p.source.idle()
			p.answered(m, raw)
		})
}

// hide turns the camera off while nobody looks.
func (p *page) hide() {
	if p.source.kind != "camera" {
		return
	}
	facing := p.source.facing
	p.stopToSample()
	p.retry = func() { p.startCamera("", facing) }
	p.doc.el("notice").SetAttribute("data-code", "camera.paused")
	p.doc.text("notice-title", "The camera is off")
	p.doc.text("notice-text", "It was turned off while this tab was hidden.")
	p.doc.text("notice-detail", "")
	p.doc.text("notice-retry", "Turn it on again")
	p.doc.show("notice-retry", true)
	p.doc.show("notice", true)
}

// toggleClip plays sample pictures under a slow pan: a stream for those
// without a camera.
func (p *page) toggleClip() {
	if p.source.kind == "clip" {
		p.stopToSample()
		return
	}
	p.clearNotice()
	p.source.stop()
	run := p.source.run
	var files, labels []any
	for _, s := range p.clipSamples() {
		files = append(files, "samples/"+s.file)
		labels = append(labels, s.label)
	}
	showing := js.FuncOf(func(_ js.Value, args []js.Value) any {
		guard(func() { p.doc.el("stage").SetAttribute("data-truth", labels[args[0].Int()].(string)) })
		return nil
	})
	then(p.media.Call("startClip", files, showing), func(clip js.Value) {
		end := func() { clip.Call("stop"); showing.Release() }
		if run != p.source.run {
			end()
			return
		}
		p.source.ends = append(p.source.ends, end)
		p.attach("clip", labels[0].(string), clip.Get("stream"))
	}, func(e proto.Error) {
		showing.Release()
		if run == p.source.run {
			p.stopToSample()
			p.notice(e, nil)
		}
	})
}

// clipSamples are the samples whose labels are asked for, or all where few are.
func (p *page) clipSamples() []sample {
	var out []sample
	for _, s := range p.samples {
		if p.has(s.label) {
			out = append(out, s)
		}
	}
	if len(out) < 3 {
		return p.samples
	}
	return out
}

func (p *page) has(label string) bool {
	return slices.ContainsFunc(p.labels, func(l string) bool { return strings.EqualFold(l, label) })
}

// openFile takes a picture or a video from the visitor. It stays in the
// browser.
func (p *page) openFile(file js.Value) {
	p.clearNotice()
	name := file.Get("name").String()
	p.source.stop()
	run := p.source.run
	url := js.Global().Get("URL").Call("createObjectURL", file)
	p.source.ends = append(p.source.ends, func() { js.Global().Get("URL").Call("revokeObjectURL", url) })
	if strings.HasPrefix(file.Get("type").String(), "video/") {
		p.attach("video", "", url)
		return
	}
	image := p.doc.el("still").Value
	then(p.media.Call("showPicture", image, url), func(js.Value) {
		if run != p.source.run {
			return
		}
		p.current = -1
		p.doc.el("still").SetAttribute("alt", "Your picture "+name)
		p.show("picture", "")
		p.lookAgain()
	}, func(e proto.Error) {
		if run == p.source.run {
			e.Message = name
			p.stopToSample()
			p.notice(e, nil)
		}
	})
}

// showSamples lays out the strip of samples and their credits, and opens the
// first one.
func (p *page) showSamples(list js.Value) {
	strip, credits := p.doc.el("samples"), p.doc.el("credits-list")
	for i := range list.Length() {
		v := list.Index(i)
		s := sample{v.Get("file").String(), v.Get("label").String(), v.Get("author").String(), v.Get("page").String(), v.Get("licence").String(), v.Get("terms").String()}
		p.samples = append(p.samples, s)
		item := p.doc.create("li", "", "")
		button := p.doc.create("button", "thumb", "")
		button.SetAttribute("type", "button")
		button.SetAttribute("data-label", s.label)
		image := p.doc.create("img", "", "")
		for k, v := range map[string]string{"src": "samples/" + s.file, "alt": s.label, "width": "72", "height": "72", "decoding": "async"} {
			image.SetAttribute(k, v)
		}
		add(button, image)
		add(item, button)
		add(strip, item)
		p.thumbs = append(p.thumbs, button)
		on(button.Value, "click", func(*dom.BasicEvent) { p.clearNotice(); p.source.stop(); p.showSample(i) })

		credit := p.doc.create("li", "", s.label+": ")
		add(credit, p.link(s.author, s.page))
		credit.Call("append", ", ")
		add(credit, p.link(s.licence, s.terms))
		add(credits, credit)
	}
	if p.source.kind == "" && len(p.samples) > 0 {
		p.showSample(0)
	}
}

func (p *page) link(text, url string) element {
	a := p.doc.create("a", "", text)
	a.SetAttribute("href", url)
	a.SetAttribute("rel", "noopener noreferrer")
	return a
}

func (p *page) showSample(i int) {
	s := p.samples[i]
	run := p.source.run
	image := p.doc.el("still").Value
	then(p.media.Call("showPicture", image, "samples/"+s.file), func(js.Value) {
		if run != p.source.run {
			return
		}
		p.current = i
		p.doc.el("still").SetAttribute("alt", "Sample photograph: "+s.label)
		p.show("sample", s.label)
		p.doc.text("credit", "Photograph: "+s.author+", "+s.licence)
		p.doc.show("credit", true)
		p.offerLabel()
		p.lookAgain()
	}, func(e proto.Error) {
		if run == p.source.run {
			p.notice(e, nil)
		}
	})
}

func (p *page) markSample() {
	for i, b := range p.thumbs {
		b.SetAttribute("aria-pressed", strconv.FormatBool(i == p.current && p.source.kind == "sample"))
	}
}

// offerLabel offers to add a sample's own label where it is not asked for.
func (p *page) offerLabel() {
	offer := p.source.kind == "sample" && p.open && !p.has(p.samples[p.current].label)
	p.doc.show("add-label", offer)
	if offer {
		p.doc.text("add-label", "Add “"+p.samples[p.current].label+"” to the labels")
	}
}

func (p *page) addLabel() {
	if p.current < 0 {
		return
	}
	labels := append(SplitLabels(p.doc.value("labels")), p.samples[p.current].label)
	p.doc.setValue("labels", strings.Join(labels, ", "))
	p.sendLabels()
}

// stopToSample goes back to the sample that was shown before.
func (p *page) stopToSample() {
	p.source.stop()
	if len(p.samples) > 0 {
		p.showSample(max(0, p.current))
		return
	}
	p.show("none", "")
}

// lookAgain asks about the still picture once more; streams do so by
// themselves.
func (p *page) lookAgain() {
	if !p.open || p.source.live || (p.source.kind != "sample" && p.source.kind != "picture") {
		return
	}
	run, asked := p.source.run, p.asked
	then(p.media.Call("grabPicture", p.doc.el("still").Value), func(image js.Value) {
		if run != p.source.run || asked != p.asked {
			image.Call("close")
			return
		}
		p.client.send(proto.Request{Kind: proto.Frame, Session: session, Still: true}, image, func(m proto.Reply, raw js.Value) {
			if run == p.source.run {
				p.answered(m, raw)
			}
		})
	}, func(e proto.Error) { p.notice(e, nil) })
}
