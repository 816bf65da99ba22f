//go:build !js

package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lqa/quant/shq"
	"lqa/wasm/proto"
	"lqa/web/site"
	"lqa/web/test/browser"
)

// results counts what the page answers and keeps the newest.
const results = `
globalThis.results = {count: 0, last: null, at: 0};
document.addEventListener('lqa-result', ({detail}) => { results.count++; results.last = detail; results.at = performance.now(); });
0`

// ready opens the page and waits until any label can be asked for.
func (w *world) ready(fragment string) {
	w.t.Helper()
	w.open("/" + fragment)
	w.eval(results, nil)
	w.wait(`document.documentElement.dataset.state === "ready" && document.querySelector("#chips > li") && !document.querySelector("#text-side").textContent`)
}

// more waits for n more results.
func (w *world) more(n int) {
	w.t.Helper()
	var count int
	w.eval("results.count", &count)
	w.wait(fmt.Sprintf("results.count >= %d", count+n))
}

// works shows that the page is usable: a sample is classified.
func (w *world) works() {
	w.t.Helper()
	w.eval("results.last = null, 0", nil)
	w.click("#samples button[data-label=banana]")
	w.wait(`document.querySelector("#stage").dataset.truth === "banana" && results.last`)
}

// notice waits for the page's message with the code, and returns it.
func (w *world) notice(code proto.Code) string {
	w.t.Helper()
	w.wait(fmt.Sprintf(`document.querySelector("#notice").checkVisibility() && document.querySelector("#notice").dataset.code === %q`, code))
	var text string
	w.eval(`document.querySelector("#notice-title").textContent + ": " + document.querySelector("#notice-text").textContent`, &text)
	return text
}

// fill types into a field.
func (w *world) fill(selector, value string) {
	w.t.Helper()
	w.eval(fmt.Sprintf(`(() => { const e = document.querySelector(%q); e.value = %s; e.dispatchEvent(new Event("input", {bubbles: true})); })()`,
		selector, quote(value)), nil)
}

func sampleFilm(t *testing.T) (string, stream) {
	s := sampleStreams(t)[0]
	return film(t, s, nil), s
}

// TestFirstSight: a sample is classified before any permission is asked.
func TestFirstSight(t *testing.T) {
	w := start(t, browser.Options{})
	w.open("/")
	w.eval(results, nil)
	w.wait(`document.querySelector("#zero-shot > li") && document.querySelector("#adapted > li")`)
	var source string
	w.eval(`document.querySelector("#stage").dataset.source`, &source)
	if source != "sample" {
		t.Errorf("the page looks at %q first, want a sample", source)
	}
	var asked string
	w.eval(`navigator.permissions.query({name: "camera"}).then((p) => p.state)`, &asked)
	if asked != "prompt" {
		t.Errorf("camera permission is %q before anything was pressed", asked)
	}
	w.shot("first-sight")
}

// network is a request that leaves the machine: not a blob or data URL.
func network(r browser.Request) bool {
	return !strings.HasPrefix(r.URL, "blob:") && !strings.HasPrefix(r.URL, "data:")
}

// TestNoRequests: while the camera runs, nothing is asked of the network, by
// page, worker or service worker: neither the server nor the browser has seen
// a request.
func TestNoRequests(t *testing.T) {
	file, s := sampleFilm(t)
	w := start(t, browser.Options{Camera: file})
	w.ready("")
	w.click("#camera-start")
	w.wait(`document.querySelector("#stage").dataset.source === "camera"`)
	w.more(5)

	count := func() (server int, seen []browser.Request) {
		for _, r := range w.browser.Requests() {
			if network(r) {
				seen = append(seen, r)
			}
		}
		return len(w.server.Requests()), seen
	}
	served, seen := count()
	// The counter counts: loading was seen, on the page and in the worker.
	for _, target := range []string{"page", "worker"} {
		if !slices.ContainsFunc(seen, func(r browser.Request) bool { return r.Target == target }) {
			t.Errorf("no request of the %s was seen while loading; targets %v", target, w.browser.Targets())
		}
	}
	if !slices.ContainsFunc(w.server.Requests(), func(r site.Request) bool { return strings.HasPrefix(r.Path, "/model.shq") }) {
		t.Error("the server has not seen the model's download")
	}

	w.more(20)
	w.fill("#labels", strings.Join(s.labels, ", "))
	w.wait(fmt.Sprintf(`results.last.zeroShot.scores.some((s) => s.label === %q)`, s.labels[9]))
	w.click("#adaptation")
	w.more(10)
	w.click("#adaptation")
	w.click("#adaptation-reset")
	w.more(20)

	servedAfter, seenAfter := count()
	if servedAfter != served {
		t.Errorf("the server saw %d requests while the camera ran: %v", servedAfter-served, w.server.Requests()[served:])
	}
	if len(seenAfter) != len(seen) {
		t.Errorf("the browser made %d requests while the camera ran: %v", len(seenAfter)-len(seen), seenAfter[len(seen):])
	}
	t.Logf("%d requests to load, none while the camera ran; targets %v", served, w.browser.Targets())
	w.shot("camera")
}

// TestLabelsChange: other labels hold without a reload while the camera runs.
func TestLabelsChange(t *testing.T) {
	file, s := sampleFilm(t)
	w := start(t, browser.Options{Camera: file})
	w.ready("")
	w.click("#camera-start")
	w.wait(`document.querySelector("#stage").dataset.source === "camera"`)
	w.more(3)
	w.eval("globalThis.sameDocument = true", nil)
	// Ten words that stand in no table, from the last keystroke to the first answer.
	labels := make([]string, 10)
	for i := range labels {
		labels[i] = fmt.Sprintf("a %s on a red sofa", s.labels[i])
	}
	w.eval(fmt.Sprintf(`globalThis.changed = new Promise((resolve) => {
		const labels = new Set(%s), start = performance.now();
		document.addEventListener('lqa-result', ({detail}) => {
			if (detail.zeroShot.scores.every((s) => labels.has(s.label))) resolve(performance.now() - start);
		});
	}), 0`, quote(labels)), nil)
	w.fill("#labels", strings.Join(labels, ", "))
	var ms float64
	w.eval("changed", &ms)
	var same bool
	w.eval("globalThis.sameDocument === true", &same)
	if !same {
		t.Error("the page was loaded again")
	}
	t.Logf("first answer with ten new labels after %.0f ms, 300 of them a wait for typing to end", ms)
}

// TestPageBadModels: the page says what is wrong with a model, each in its own
// words, and loads a good one at a press.
func TestPageBadModels(t *testing.T) {
	path, err := site.Model(root(t))
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte {
		b := slices.Clone(good)
		b[at] ^= 1
		return b
	}
	version := slices.Clone(good)
	binary.LittleEndian.PutUint32(version[4:], 77)
	tests := []struct {
		name string
		file []byte
		want proto.Code
	}{
		{"truncated", good[:len(good)/3], proto.Truncated},
		{"flipped byte", flip(len(good) / 3), proto.Corrupt},
		{"wrong version", version, proto.SHQVersion},
		{"asks for 4 GB", remake(t, good, func(m *shq.Manifest) { m.Frames[0].Raw = 4 << 30 }), proto.TooLarge},
		{"not a model", []byte(strings.Repeat("<p>Sorry, this page was not found.</p>\n", 10)), proto.NotSHQ},
	}
	w := start(t, browser.Options{})
	said := map[string]string{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := w.in(t)
			w.server.Replace("/model.shq", tt.file)
			w.open("/")
			w.eval(results, nil)
			text := w.notice(tt.want)
			t.Log(text)
			if other, ok := said[text]; ok {
				t.Errorf("says the same as %q", other)
			}
			said[text] = tt.name
			w.shot("bad-model-" + strings.ReplaceAll(tt.name, " ", "-"))
			w.server.Replace("/model.shq", nil)
			w.click("#notice-retry")
			w.wait(`document.documentElement.dataset.state === "ready"`)
			w.works()
		})
	}
}

// TestBadLabels: no labels at all, then far too many, then some.
func TestBadLabels(t *testing.T) {
	w := start(t, browser.Options{})
	w.ready("")
	message := func() string {
		var s string
		w.eval(`document.querySelector("#labels-message").textContent`, &s)
		return s
	}
	w.fill("#labels", " , ,\n")
	w.wait(`document.querySelector("#labels-message").textContent`)
	empty := message()
	t.Log(empty)
	w.works()

	many := make([]string, 2000)
	for i := range many {
		many[i] = fmt.Sprintf("thing number %d", i)
	}
	w.fill("#labels", strings.Join(many, ","))
	w.wait(`document.querySelector("#labels-count").textContent.startsWith("2000 labels")`)
	w.works()
	var label string
	w.eval("results.last.zeroShot.scores[0].label", &label)
	if !strings.HasPrefix(label, "thing number") {
		t.Errorf("with 2,000 labels the page answers %q", label)
	}

	for i := range 3000 {
		many = append(many, fmt.Sprintf("other thing %d", i))
	}
	w.fill("#labels", strings.Join(many, ","))
	w.wait(`document.querySelector("#labels-message").textContent`)
	tooMany := message()
	t.Log(tooMany)
	if tooMany == empty {
		t.Error("5,000 labels give the message for none")
	}

	w.fill("#labels", "banana, mug")
	w.wait(`!document.querySelector("#labels-message").textContent && document.querySelectorAll("#chips > li").length === 2`)
	w.works()
}

// TestCameras: refused, and not there.
func TestCameras(t *testing.T) {
	tests := []struct {
		name    string
		options browser.Options
		want    proto.Code
	}{
		{"refused", browser.Options{Refuse: true}, proto.CameraDenied},
		{"none", browser.Options{}, proto.CameraNone},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := start(t, tt.options)
			w.ready("")
			w.click("#camera-start")
			t.Log(w.notice(tt.want))
			w.shot("camera-" + tt.name)
			w.works()
		})
	}
}

// TestUploads: a text file with a picture's name, then a picture of 12
// megapixels.
func TestUploads(t *testing.T) {
	w := start(t, browser.Options{})
	w.ready("")
	dir := t.TempDir()
	text := filepath.Join(dir, "holiday.jpg")
	if err := os.WriteFile(text, []byte("This is no picture.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := w.page.Upload("#upload", text); err != nil {
		t.Fatal(err)
	}
	t.Log(w.notice(proto.FileUnreadable))
	w.shot("text-file")
	w.works()

	large := filepath.Join(dir, "large.jpg")
	if err := os.WriteFile(large, largePicture(t, 4000, 3000), 0o644); err != nil {
		t.Fatal(err)
	}
	w.eval("results.last = null, 0", nil)
	if err := w.page.Upload("#upload", large); err != nil {
		t.Fatal(err)
	}
	w.wait(`document.querySelector("#stage").dataset.source === "picture" && results.last`)
	w.works()
}

func largePicture(t *testing.T, width, height int) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			img.SetRGBA(x, y, color.RGBA{uint8(x / 16), uint8(y / 12), uint8((x ^ y) / 20), 255})
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestClip: the clip is a stream for those without a camera; adaptation can be
// switched off and forget.
func TestClip(t *testing.T) {
	w := start(t, browser.Options{})
	w.ready("")
	w.click("#clip")
	w.wait(`document.querySelector("#stage").dataset.source === "clip"`)
	w.more(10)
	var learned int
	w.wait("results.last.report.entries > 0")
	w.click("#adaptation-reset")
	w.more(2)
	w.eval("results.last.report.entries", &learned)
	t.Logf("%d entries after forgetting", learned)
	w.click("#adaptation")
	w.wait(`results.last.report.method === "zeroshot"`)
	var equal bool
	w.eval("JSON.stringify(results.last.zeroShot) === JSON.stringify(results.last.adapted)", &equal)
	if !equal {
		t.Error("without adaptation the answers differ")
	}
	w.click("#clip")
	w.wait(`document.querySelector("#stage").dataset.source !== "clip"`)
	w.works()
}
