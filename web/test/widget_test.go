//go:build !js

package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"lqa/wasm/proto"
	"lqa/web/test/browser"
)

// listen counts what a widget tells, in globalThis[name].
func (w *world) listen(name, element string) {
	w.t.Helper()
	w.eval(fmt.Sprintf(`globalThis.%[1]s = {results: 0, last: null, errors: []};
		%[2]s.addEventListener('result', ({detail}) => { %[1]s.results++; %[1]s.last = detail; });
		%[2]s.addEventListener('error', ({detail}) => %[1]s.errors.push(detail.code)); 0`, name, element), nil)
}

const theWidget = `document.querySelector("lqa-camera")`

// TestWidget: a facade that loads nothing before the tap; then answers, other
// labels, a second widget on the same engine; stop turns the camera off.
func TestWidget(t *testing.T) {
	file, s := sampleFilm(t)
	w := start(t, browser.Options{Camera: file})
	w.open("/examples/embed.html")
	w.wait(`customElements.get("lqa-camera") && ` + theWidget + `.state === "idle"`)
	w.listen("first", theWidget)
	engine := func() (paths []string) {
		for _, r := range w.server.Requests() {
			for _, part := range []string{"lqa.wasm", "model.shq", "worker.js", "engine.js", "media.js"} {
				if strings.Contains(r.Path, part) {
					paths = append(paths, r.Path)
				}
			}
		}
		return paths
	}
	if got := engine(); len(got) > 0 {
		t.Errorf("loaded before the tap: %v", got)
	}
	w.shot("widget-idle")

	if err := w.page.ClickOn(theWidget + `.shadowRoot.querySelector("[part=start]")`); err != nil {
		t.Fatal(err)
	}
	w.wait("first.results >= 3")
	w.shot("widget-running")
	var labels []string
	w.eval("first.last.scores.map((s) => s.label)", &labels)
	if !slices.Contains(labels, "keyboard") {
		t.Errorf("the widget answers %v", labels)
	}

	// It can be taught, and forgets what is taken back.
	for n := 1; n <= 2; n++ {
		var examples []proto.Example
		w.eval(theWidget+".teach('keyboard')", &examples)
		if len(examples) != n || examples[n-1].Label != "keyboard" {
			t.Errorf("taught %d times: %v", n, examples)
		}
	}
	var left []proto.Example
	if w.eval(theWidget+".undo()", &left); len(left) != 1 {
		t.Errorf("after undo %v", left)
	}
	var code proto.Code
	if w.eval(theWidget+".teach('castle').catch(({code}) => code)", &code); code != proto.UnknownLabel {
		t.Errorf("teaching a label that is not in use: %q", code)
	}

	w.eval(fmt.Sprintf("%s.labels = %s, 0", theWidget, quote(s.labels)), nil)
	w.wait(fmt.Sprintf("first.last.scores.some((s) => s.label === %q)", s.labels[0]))

	w.eval(`(() => {
		const other = document.createElement('lqa-camera');
		other.id = 'other';
		other.labels = ['castle', 'zebra'];
		document.querySelector('main').append(other);
	})()`, nil)
	w.listen("second", "document.querySelector('#other')")
	w.eval("document.querySelector('#other').start()", nil)
	w.wait("second.results >= 3")
	w.eval("second.last.scores.map((s) => s.label).sort()", &labels)
	if !slices.Equal(labels, []string{"castle", "zebra"}) {
		t.Errorf("the second widget answers %v", labels)
	}
	models := 0
	for _, path := range engine() {
		if strings.Contains(path, "model.shq") {
			models++
		}
	}
	if models != 1 {
		t.Errorf("two widgets fetched the model %d times, want once", models)
	}

	w.eval(`globalThis.track = `+theWidget+`.video.srcObject.getVideoTracks()[0]; `+theWidget+`.stop()`, nil)
	w.wait(`track.readyState === "ended"`)
	var before int
	w.eval("second.results", &before)
	w.wait(fmt.Sprintf("second.results > %d", before+3)) // the other goes on
	w.eval("first.results", &before)
	w.eval(theWidget+".start()", nil)
	w.wait(fmt.Sprintf("first.results > %d", before+2)) // and starts again
	w.eval(`globalThis.track = `+theWidget+`.video.srcObject.getVideoTracks()[0]; `+theWidget+`.remove()`, nil)
	w.wait(`track.readyState === "ended"`)
}

// TestWidgetRefused: without a camera the widget says why and may be tried
// again.
func TestWidgetRefused(t *testing.T) {
	w := start(t, browser.Options{Refuse: true})
	w.open("/examples/embed.html")
	w.wait(`customElements.get("lqa-camera") && ` + theWidget + `.state === "idle"`)
	w.listen("first", theWidget)
	for n := 1; n <= 2; n++ {
		if err := w.page.ClickOn(theWidget + `.shadowRoot.querySelector("[part=start]")`); err != nil {
			t.Fatal(err)
		}
		w.wait(fmt.Sprintf("first.errors.length === %d", n))
	}
	var codes []proto.Code
	w.eval("first.errors", &codes)
	if codes[0] != proto.CameraDenied {
		t.Errorf("error %q, want %q", codes[0], proto.CameraDenied)
	}
	w.shot("widget-refused")
}
