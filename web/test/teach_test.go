//go:build !js

package test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lqa/wasm/proto"
	"lqa/web/test/browser"
)

// show looks at a sample until it is answered.
func (w *world) show(label string) {
	w.t.Helper()
	w.eval("results.last = null, 0", nil)
	w.click(fmt.Sprintf("#samples button[data-label=%q]", label))
	w.wait(fmt.Sprintf(`document.querySelector("#stage").dataset.truth === %q && results.last`, label))
}

// teach presses a label's chip and waits until the page says that it has learned.
func (w *world) teach(label string) {
	w.t.Helper()
	w.eval(`document.querySelector("#teach-said").textContent = "", results.last = null, 0`, nil)
	w.click(fmt.Sprintf("#chips > li[data-label=%q] button", label))
	w.wait(`document.querySelector("#teach-said").textContent && results.last`)
}

// text is what an element says.
func (w *world) text(selector string) (s string) {
	w.t.Helper()
	w.eval(fmt.Sprintf("document.querySelector(%q).textContent", selector), &s)
	return s
}

// taught counts the examples that the page shows for a label, in its list and
// on its chip, and those with a picture.
func (w *world) taught(label string) (n int) {
	w.t.Helper()
	var got [3]int
	w.eval(fmt.Sprintf(`(() => {
		const shots = [...document.querySelectorAll('#taught > li[data-label=%[1]q] button[data-example]')];
		const seen = (c) => c && c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v, i) => i %% 4 < 3 && v > 20);
		return [shots.length, Number(document.querySelector('#chips > li[data-label=%[1]q]').dataset.count ?? 0), shots.filter((s) => seen(s.querySelector('canvas'))).length];
	})()`, label), &got)
	if got[0] != got[1] || got[0] != got[2] {
		w.t.Errorf("%s: %d in the list, %d on the chip, %d with a picture", label, got[0], got[1], got[2])
	}
	return got[0]
}

const (
	zeroShotBest = `results.last.zeroShot.scores[0].label`
	adaptedBest  = `results.last.adapted.scores[0].label`
)

// swap teaches that mugs are bananas and bananas mugs: what teaching does is
// then plain to see.
func (w *world) swap() {
	w.t.Helper()
	w.show("banana")
	for range 3 {
		w.teach("mug")
	}
	w.show("mug")
	for range 3 {
		w.teach("banana")
	}
}

// best waits for the answers to the picture in view.
func (w *world) best(zeroShot, adapted string) {
	w.t.Helper()
	w.wait(fmt.Sprintf("results.last && %s === %q && %s === %q", zeroShotBest, zeroShot, adaptedBest, adapted))
}

// TestTeach: three taps a label change the answer; each can be taken back, the
// seventh replaces the oldest and the page says so.
func TestTeach(t *testing.T) {
	t.Parallel()
	w := start(t, browser.Options{})
	w.ready("")
	w.swap()
	w.best("mug", "banana")
	w.show("banana")
	w.best("banana", "mug")
	if m, b := w.taught("mug"), w.taught("banana"); m != 3 || b != 3 {
		t.Errorf("taught %d and %d, want 3 and 3", m, b)
	}
	w.shot("taught")
	if err := w.page.Resize(390, 844, true); err != nil {
		t.Fatal(err)
	}
	w.shot("taught-phone")

	w.click("#teach-undo")
	w.wait(`document.querySelector("#taught > li[data-label=banana]").querySelectorAll("button").length === 2`)
	w.click("#taught > li[data-label=mug] button")
	w.wait(`document.querySelector("#taught > li[data-label=mug]").querySelectorAll("button").length === 2`)

	for n := 3; n <= 7; n++ {
		w.teach("mug")
		said := w.text("#teach-said")
		if full := strings.Contains(said, "oldest"); full != (n == 7) {
			t.Errorf("example %d: %q", n, said)
		}
		if got := w.taught("mug"); got != min(n, 6) {
			t.Errorf("%d examples are shown after %d", got, n)
		}
	}

	// By keyboard: the next chip, and the key that presses buttons.
	w.eval(`document.querySelector("#chips > li[data-label=guitar] button").focus(), document.querySelector("#teach-said").textContent = "", 0`, nil)
	for _, kind := range []string{"keyDown", "keyUp"} {
		if err := w.page.Call("Input.dispatchKeyEvent", map[string]any{"type": kind, "key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13}, nil); err != nil {
			t.Fatal(err)
		}
	}
	w.wait(`document.querySelector("#teach-said").textContent.includes("guitar")`)
	if got := w.taught("guitar"); got != 1 {
		t.Errorf("the key taught %d examples", got)
	}

	w.click("#taught-clear")
	w.wait(`!document.querySelector("#taught > li")`)
	w.show("mug")
	var equal bool
	w.eval("JSON.stringify(results.last.zeroShot) === JSON.stringify(results.last.adapted)", &equal)
	if !equal {
		t.Error("after everything was taken back the answers differ")
	}
	w.accessible()
	for _, width := range []int{320, 390} {
		if err := w.page.Resize(width, 844, true); err != nil {
			t.Fatal(err)
		}
		w.fits(width)
	}
}

// accessible: whatever can be operated has a name.
func (w *world) accessible() {
	w.t.Helper()
	var tree struct {
		Nodes []struct {
			Ignored    bool
			Role, Name struct{ Value any }
		}
	}
	if err := w.page.Call("Accessibility.getFullAXTree", map[string]any{}, &tree); err != nil {
		w.t.Fatal(err)
	}
	operated := []string{"button", "switch", "combobox", "slider", "textbox", "link", "image", "progressbar"}
	n := 0
	for _, node := range tree.Nodes {
		if role, _ := node.Role.Value.(string); !node.Ignored && slices.Contains(operated, role) {
			n++
			if name, _ := node.Name.Value.(string); strings.TrimSpace(name) == "" {
				w.t.Errorf("a %s has no name", role)
			}
		}
	}
	if n < 20 {
		w.t.Errorf("only %d controls were found", n)
	}
}

// fits: a page of this width does not scroll sideways, and chips are large
// enough for a thumb.
func (w *world) fits(width int) {
	w.t.Helper()
	w.wait(fmt.Sprintf("innerWidth === %d", width))
	var got struct{ Scroll, Chip, Shot float64 }
	w.eval(`({scroll: document.documentElement.scrollWidth, chip: Math.min(...[...document.querySelectorAll('#chips button')].map((b) => b.getBoundingClientRect().height))})`, &got)
	if got.Scroll > float64(width) || got.Chip < 44 {
		w.t.Errorf("%d px wide: the page is %.0f wide, the lowest chip %.0f high", width, got.Scroll, got.Chip)
	}
}

// TestTeachLive: with a camera a tap teaches what is in view; the chart and
// the pictures that voted are shown; frozen, nothing more enters.
func TestTeachLive(t *testing.T) {
	t.Parallel()
	file, _ := sampleFilm(t)
	w := start(t, browser.Options{Camera: file})
	w.ready("")
	w.click("#camera-start")
	w.wait(`document.querySelector("#stage").dataset.source === "camera"`)
	w.more(3)
	w.teach("castle")
	if got := w.taught("castle"); got != 1 {
		t.Errorf("%d examples", got)
	}
	w.wait(`results.last.report.voted?.some((v) => v.taught && v.label === "castle")`)
	w.wait(`document.querySelector("#votes > li[data-taught]") && document.querySelector("#chart-adapted").getAttribute("d") && document.querySelector("#chart-text").textContent`)
	w.wait(`[...document.querySelectorAll("#votes > li:not([data-taught])")].some((li) => li.firstChild.getContext("2d").getImageData(32, 32, 1, 1).data[3])`)

	w.click("#expert > summary")
	w.click("#freeze")
	w.more(2) // what was on its way
	var before, after int
	w.eval("results.last.report.entries", &before)
	w.eval(`results.entered = 0, document.addEventListener('lqa-result', ({detail}) => { if (detail.report.entered >= 0) results.entered++; }), 0`, nil)
	w.more(15)
	w.eval("results.last.report.entries", &after)
	var entered int
	w.eval("results.entered", &entered)
	if after != before || entered > 0 {
		t.Errorf("frozen, %d entries became %d, %d frames entered", before, after, entered)
	}
	w.shot("teach-live")

	// Another method, and everything forgotten.
	w.eval(`(() => { const m = document.querySelector("#method"); m.value = "lqa"; m.dispatchEvent(new Event("change")); })()`, nil)
	w.wait(`results.last.report.method === "lqa"`)
	w.click("#state-forget")
	w.wait(`!document.querySelector("#taught > li") && results.last.report.entries === 0`)
}

// TestHard: an effect changes what the model sees, which is shown.
func TestHard(t *testing.T) {
	t.Parallel()
	w := start(t, browser.Options{})
	w.ready("")
	w.show("zebra")
	light := func() (v float64) {
		w.eval(`(() => {
			const c = document.querySelector("#view"), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
			let sum = 0;
			for (let i = 0; i < d.length; i += 4) sum += d[i] + d[i + 1] + d[i + 2];
			return sum / d.length * 4 / 3;
		})()`, &v)
		return v
	}
	next := func(do func()) float64 {
		var n int
		w.eval("results.count", &n)
		do()
		// A result of before may still come.
		w.wait(fmt.Sprintf("results.count > %d && performance.now() - results.at > %d", n, settle))
		return light()
	}
	var plain string
	w.eval("JSON.stringify(results.last.zeroShot)", &plain)
	strength := func(n int) func() {
		return func() {
			w.eval(fmt.Sprintf(`(() => { const e = document.querySelector("#strength"); e.value = %d; e.dispatchEvent(new Event("change")); })()`, n), nil)
		}
	}
	first := next(func() { w.click("#hard") })
	w.wait(`document.querySelector("#view").checkVisibility() && document.querySelector("#hard").ariaPressed === "true"`)
	weak, strong := next(strength(1)), next(strength(5))
	bright := next(func() { w.click("#effects > button[data-effect=exposure]") })
	if !(strong < first && first < weak && weak < bright) {
		t.Errorf("mean light: dark 5 %.1f, default %.1f, dark 1 %.1f, exposure 5 %.1f", strong, first, weak, bright)
	}
	w.shot("hard")
	next(func() { w.click("#hard") })
	var again string
	w.eval("JSON.stringify(results.last.zeroShot)", &again)
	if again != plain {
		t.Error("without the effect the answer is another than before")
	}
}

// kept waits until the browser has so many states in its store, with so many
// thumbnails in all.
func (w *world) kept(states, thumbs int) {
	w.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		var got [2]int
		w.eval(`new Promise((resolve) => {
			const open = indexedDB.open('lqa', 1);
			open.onupgradeneeded = () => open.result.createObjectStore('states', {keyPath: 'key'});
			open.onsuccess = () => {
				const all = open.result.transaction('states').objectStore('states').getAll();
				all.onsuccess = () => { open.result.close(); resolve([all.result.length, all.result.reduce((n, k) => n + k.thumbs.length, 0)]); };
			};
		})`, &got)
		if got == [2]int{states, thumbs} {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("%d states and thumbnails are kept, want %d and %d", got, states, thumbs)
		}
	}
}

// TestState: what was taught is there after a reload, for the same labels
// alone; a file of it can be saved and loaded; all of it can be forgotten.
func TestState(t *testing.T) {
	t.Parallel()
	w := start(t, browser.Options{})
	w.ready("")
	w.swap()
	w.kept(1, 6)

	w.ready("")
	w.wait(`document.querySelector("#kept").checkVisibility() && document.querySelector("#taught > li")`)
	t.Log(w.text("#kept-text"))
	if m, b := w.taught("mug"), w.taught("banana"); m != 3 || b != 3 {
		t.Errorf("restored %d and %d examples, want 3 and 3", m, b)
	}
	w.show("mug")
	w.best("mug", "banana")
	w.shot("restored")

	// A file, and what is no file of ours.
	w.eval(`globalThis.saved = new Promise((resolve) => { URL.createObjectURL = (blob) => { resolve(blob); return 'blob:'; }; });
		HTMLAnchorElement.prototype.click = () => {}; document.querySelector("#expert").open = true, 0`, nil)
	w.click("#state-save")
	var text string
	w.eval(`saved.then((blob) => blob.arrayBuffer()).then((b) => btoa(String.fromCharCode(...new Uint8Array(b))))`, &text)
	state, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(state) < 100 {
		t.Fatalf("a state of %d bytes: %v", len(state), err)
	}
	t.Logf("a state of %d bytes", len(state))
	dir := t.TempDir()
	load := func(name string, b []byte) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := w.page.Upload("#state-file", file); err != nil {
			t.Fatal(err)
		}
	}
	damaged := slices.Clone(state)
	damaged[len(damaged)/2] ^= 1
	load("damaged.lqa", damaged)
	t.Log(w.notice(proto.BadState))
	if got := w.taught("mug"); got != 3 {
		t.Errorf("after a damaged file %d examples", got)
	}
	w.click("#notice-close")

	// Other labels start over; the first ones come back.
	all := w.text("#labels")
	w.fill("#labels", "mug, banana")
	w.wait(`document.querySelectorAll("#chips > li").length === 2`)
	w.wait(`document.querySelector("#kept-text").textContent.includes("starts over")`)
	if got := w.taught("mug"); got != 0 {
		t.Errorf("with other labels %d examples", got)
	}
	load("good.lqa", state)
	w.notice(proto.BadState) // of the other labels
	w.click("#notice-close")
	w.fill("#labels", all)
	w.wait(`document.querySelectorAll("#taught > li").length === 2`)

	w.click("#kept-forget")
	w.wait(`!document.querySelector("#taught > li")`)
	w.kept(0, 0)
	load("good.lqa", state)
	w.wait(`document.querySelectorAll("#taught > li").length === 2`)
	w.kept(1, 0) // files have no pictures
	w.show("mug")
	w.best("mug", "banana")
	w.click("#state-forget")
	w.kept(0, 0)
	w.ready("")
	w.show("mug")
	w.best("mug", "mug")
	// What another model learned, and what is damaged, is thrown out.
	put := func(model string) {
		w.eval(fmt.Sprintf(`new Promise((resolve) => {
			const open = indexedDB.open('lqa', 1), model = %s;
			const labels = [...[...document.querySelectorAll('#chips > li')].map((li) => li.dataset.label), ''].join('\n');
			open.onsuccess = () => {
				const put = open.result.transaction('states', 'readwrite').objectStore('states').put({key: model + '\n' + labels, model, labels, at: 0, state: new Uint8Array(99), thumbs: []});
				put.onsuccess = () => { open.result.close(); resolve(); };
			};
		})`, model), nil)
	}
	put(`"another"`)
	w.ready("")
	w.wait(`document.querySelector("#kept-text").textContent.includes("model has changed")`)
	w.kept(0, 0)
	put(`document.documentElement.dataset.model`)
	w.ready("")
	w.kept(0, 0)
	if got := w.text("#kept-text"); got != "" {
		t.Errorf("after a damaged state: %q", got)
	}
}
