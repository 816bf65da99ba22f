//go:build !js

package test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"

	"lqa/quant/engine/enginetest"
	"lqa/quant/shq"
	"lqa/wasm/proto"
	"lqa/web/test/browser"
	"lqa/web/test/client"
)

// engineWorld opens an empty page of the site with a client in it.
func engineWorld(t *testing.T) *world {
	w := start(t, browser.Options{})
	w.server.Replace(client.BlankPath, []byte(client.Blank))
	w.open(client.BlankPath)
	w.eval(client.Script, nil)
	return w
}

// ask sends a request without a picture and returns the last reply.
func (w *world) ask(r proto.Request) proto.Reply {
	w.t.Helper()
	var reply proto.Reply
	w.eval("lqa.ask("+quote(r)+")", &reply)
	return reply
}

// frame sends a plain picture.
func (w *world) frame(session string, ms float64, width, height int, color string) proto.Reply {
	w.t.Helper()
	var reply proto.Reply
	r := proto.Request{Kind: proto.Frame, Session: session, Time: ms}
	w.eval(fmt.Sprintf("lqa.ask(%s, lqa.plain(%d, %d, %q))", quote(r), width, height, color), &reply)
	return reply
}

// must fails the test where a reply is an error.
func (w *world) must(r proto.Reply, kind proto.Kind) proto.Reply {
	w.t.Helper()
	if r.Error != nil {
		w.t.Fatalf("%s: %s", r.Code, r.Message)
	}
	if r.Kind != kind {
		w.t.Fatalf("reply %q, want %q", r.Kind, kind)
	}
	return r
}

// smallModel serves a small model with random weights as /small.shq.
func (w *world) smallModel() []byte {
	file := enginetest.SHQ(w.t, 1, false)
	w.server.Replace("/small.shq", file)
	return file
}

// remake gives a file another manifest, with header and hash to match.
func remake(t *testing.T, file []byte, change func(*shq.Manifest)) []byte {
	t.Helper()
	n := int(binary.LittleEndian.Uint32(file[8:]))
	var m shq.Manifest
	if err := json.Unmarshal(file[shq.HeaderBytes:shq.HeaderBytes+n], &m); err != nil {
		t.Fatal(err)
	}
	change(&m)
	var raw []byte
	for was := n; ; was = len(raw) { // the frames move with the manifest's length, which their offsets are part of
		var err error
		if raw, err = json.Marshal(m); err != nil {
			t.Fatal(err)
		}
		if len(raw) == was {
			break
		}
		for i := range m.Frames {
			m.Frames[i].Offset += int64(len(raw) - was)
		}
	}
	out := slices.Clone(file[:shq.HeaderBytes])
	binary.LittleEndian.PutUint32(out[8:], uint32(len(raw)))
	sum := sha256.Sum256(raw)
	copy(out[12:], sum[:])
	return append(append(out, raw...), file[shq.HeaderBytes+n:]...)
}

// TestBadModels: each way a model can be bad has its own code and a message
// that says so, and the engine takes a good one afterwards.
func TestBadModels(t *testing.T) {
	w := engineWorld(t)
	good := w.smallModel()
	flipped := func(at int) []byte {
		b := slices.Clone(good)
		b[at] ^= 0x40
		return b
	}
	put := func(at int, v uint32) []byte {
		b := slices.Clone(good)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	tests := []struct {
		name string
		file []byte
		want proto.Code
	}{
		{"cut in the header", good[:20], proto.Truncated},
		{"cut in the manifest", good[:200], proto.Truncated},
		{"cut in the last frame", good[:len(good)-1], proto.Truncated},
		{"flipped byte in the manifest", flipped(60), proto.Corrupt},
		{"flipped byte in a frame", flipped(len(good) - 40), proto.Corrupt},
		{"wrong version", put(4, 9), proto.SHQVersion},
		{"manifest of 4 GB", put(8, 1<<32-1), proto.TooLarge},
		{"frames of 4 GB", remake(t, good, func(m *shq.Manifest) { m.Frames[0].Raw = 4 << 30 }), proto.TooLarge},
		{"tensor of 4 GB", remake(t, good, func(m *shq.Manifest) { m.Tensors[0].Shape = []int{1 << 16, 1 << 16} }), proto.TooLarge},
		{"a page instead", []byte("<!doctype html><title>Not found</title>" + string(bytes.Repeat([]byte(" "), 100))), proto.NotSHQ},
		{"not there", nil, proto.FetchFailed},
	}
	w.expect("404") // the browser logs a refused fetch itself
	messages := map[string]string{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.server.Replace("/bad.shq", tt.file)
			r := w.ask(proto.Request{Kind: proto.Load, URL: "/bad.shq"})
			if r.Error == nil {
				t.Fatalf("loaded; want %s", tt.want)
			}
			if r.Code != tt.want {
				t.Errorf("code %s, want %s (%s)", r.Code, tt.want, r.Message)
			}
			if other, ok := messages[r.Message]; ok && r.Code != proto.Truncated {
				t.Errorf("says the same as %q: %s", other, r.Message)
			}
			messages[r.Message] = tt.name
			t.Logf("%s: %s", r.Code, r.Message)

			w.must(w.ask(proto.Request{Kind: proto.Load, URL: "/small.shq"}), proto.Loaded)
			w.must(w.ask(proto.Request{Kind: proto.Open, Session: "a", Labels: []string{"mug", "dog"}, Adapter: "lqa"}), proto.Opened)
			w.must(w.frame("a", 0, 320, 240, "navy"), proto.Result)
		})
	}
}

// TestBadRequests: what a page could ask wrongly, then something good.
func TestBadRequests(t *testing.T) {
	w := engineWorld(t)
	w.smallModel()
	if r := w.ask(proto.Request{Kind: proto.Open, Session: "a", Labels: []string{"mug"}}); r.Error == nil || r.Code != proto.NotLoaded {
		t.Errorf("open before load: %+v", r)
	}
	loaded := w.must(w.ask(proto.Request{Kind: proto.Load, URL: "/small.shq"}), proto.Loaded)
	w.must(w.ask(proto.Request{Kind: proto.Open, Session: "a", Labels: []string{"mug", "dog"}, Adapter: "lqa"}), proto.Opened)

	many := make([]string, 2000)
	tooMany := make([]string, 5000)
	for i := range tooMany {
		tooMany[i] = fmt.Sprintf("red dog %d", i)
	}
	copy(many, tooMany)
	tests := []struct {
		name string
		r    proto.Request
		want proto.Code // "" where it just works
	}{
		{"no labels", proto.Request{Kind: proto.Open, Session: "b", Labels: []string{}}, proto.NoLabels},
		{"blank labels", proto.Request{Kind: proto.Labels, Session: "a", Labels: []string{" ", ""}}, proto.NoLabels},
		{"2,000 labels", proto.Request{Kind: proto.Open, Session: "b", Labels: many, Adapter: "lqa"}, ""},
		{"5,000 labels", proto.Request{Kind: proto.Open, Session: "c", Labels: tooMany}, proto.TooManyLabels},
		{"unknown adapter", proto.Request{Kind: proto.Adapt, Session: "a", Adapter: "magic"}, proto.BadAdapter},
		{"unknown session", proto.Request{Kind: proto.Reset, Session: "nobody"}, proto.UnknownSession},
		{"unknown kind", proto.Request{Kind: "sing", Session: "a"}, proto.BadMessage},
		{"other version", proto.Request{Kind: proto.Hello, Version: 99}, proto.VersionMismatch},
		{"other model", proto.Request{Kind: proto.Load, URL: "/small.shq", Integrity: fmt.Sprintf("%064x", 1)}, proto.IntegrityFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := w.ask(tt.r)
			switch {
			case tt.want == "" && r.Error != nil:
				t.Errorf("%s: %s", r.Code, r.Message)
			case tt.want != "" && (r.Error == nil || r.Code != tt.want):
				t.Errorf("reply %+v, want %s", r, tt.want)
			}
			if tt.r.Kind == proto.Load { // the failed load has ended the old engine
				w.must(w.ask(proto.Request{Kind: proto.Load, URL: "/small.shq", Integrity: loaded.Hash}), proto.Loaded)
				w.must(w.ask(proto.Request{Kind: proto.Open, Session: "a", Labels: []string{"mug"}}), proto.Opened)
			}
			w.must(w.frame("a", 10, 64, 64, "teal"), proto.Result)
		})
	}
}

// TestPictures: pictures of all sizes either work or say why not.
func TestPictures(t *testing.T) {
	w := engineWorld(t)
	w.smallModel()
	w.must(w.ask(proto.Request{Kind: proto.Load, URL: "/small.shq"}), proto.Loaded)
	w.must(w.ask(proto.Request{Kind: proto.Open, Session: "a", Labels: []string{"mug", "dog"}}), proto.Opened)
	for _, size := range [][2]int{{1, 1}, {3, 500}, {1920, 1080}, {4000, 3000}} {
		t.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(t *testing.T) {
			w.must(w.frame("a", 0, size[0], size[1], "olive"), proto.Result)
		})
	}
	var r proto.Reply
	w.eval("lqa.ask("+quote(proto.Request{Kind: proto.Frame, Session: "a"})+")", &r)
	if r.Error == nil || r.Code != proto.BadImage {
		t.Errorf("a frame without a picture: %+v, want %s", r, proto.BadImage)
	}
	w.must(w.frame("a", 1, 64, 64, "olive"), proto.Result)
}

// TestSessions: sessions on one engine do not know of each other. B's first
// answer is the same whether or not A's adapter has learned.
func TestSessions(t *testing.T) {
	w := engineWorld(t)
	w.smallModel()
	w.must(w.ask(proto.Request{Kind: proto.Load, URL: "/small.shq"}), proto.Loaded)
	openB := proto.Request{Kind: proto.Open, Session: "b", Labels: []string{"red dog", "blue cat", "key"}, Adapter: "lqa"}
	w.must(w.ask(openB), proto.Opened)
	alone := w.must(w.frame("b", 0, 64, 64, "maroon"), proto.Result)

	w.must(w.ask(proto.Request{Kind: proto.Open, Session: "a", Labels: []string{"mug", "banana"}, Adapter: "lqa"}), proto.Opened)
	w.must(w.ask(openB), proto.Opened) // as new
	var a proto.Reply
	for i := range 20 {
		a = w.must(w.frame("a", float64(100*i), 64, 64, "maroon"), proto.Result)
	}
	b := w.must(w.frame("b", 0, 64, 64, "maroon"), proto.Result)
	if quote(b.ZeroShot) != quote(alone.ZeroShot) || quote(b.Adapted) != quote(alone.Adapted) {
		t.Errorf("b answers %s after a's frames, %s alone", quote(b.Adapted), quote(alone.Adapted))
	}
	if a.Report.Entries == 0 {
		t.Error("a has learned nothing from 20 frames")
	}
	for _, s := range a.Adapted.Scores {
		if s.Label != "mug" && s.Label != "banana" {
			t.Errorf("a answers %q, which is b's", s.Label)
		}
	}
	if len(b.Adapted.Scores) != 3 {
		t.Errorf("b answers %d labels, want 3", len(b.Adapted.Scores))
	}
}

// manyLabels are enough for a session to have kernels of its own.
func manyLabels() []string {
	labels := make([]string, 40)
	for i := range labels {
		labels[i] = fmt.Sprintf("%s %s %d", []string{"red", "blue"}[i%2], []string{"dog", "cat", "key"}[i%3], i)
	}
	return labels
}

// TestManyLabels: a session of many labels, which has kernels of its own,
// answers as one of few does, which has none, and gives their memory back.
func TestManyLabels(t *testing.T) {
	w := engineWorld(t)
	w.smallModel()
	w.must(w.ask(proto.Request{Kind: proto.Load, URL: "/small.shq"}), proto.Loaded)
	w.must(w.ask(proto.Request{Kind: proto.Open, Session: "many", Labels: manyLabels()}), proto.Opened)
	many := w.must(w.frame("many", 0, 64, 64, "maroon"), proto.Result)
	top := many.ZeroShot.Scores[:2]
	w.must(w.ask(proto.Request{Kind: proto.Open, Session: "few", Labels: []string{top[0].Label, top[1].Label}}), proto.Opened)
	both := w.must(w.frame("few", 0, 64, 64, "maroon"), proto.Result)
	few := both.ZeroShot.Scores
	if r := few[0].Score * top[1].Score / (few[1].Score * top[0].Score); few[0].Label != top[0].Label || r < 0.9999 || r > 1.0001 {
		t.Errorf("of many labels %+v, of two %+v", top, few)
	}

	w.must(w.ask(proto.Request{Kind: proto.Close, Session: "many"}), proto.Done)
	few0 := w.must(w.frame("few", 100, 64, 64, "maroon"), proto.Result).Memory.Kernel
	if both.Memory.Kernel != many.Memory.Kernel || few0 >= both.Memory.Kernel {
		t.Errorf("kernel memory %d with many labels, %d with both sessions, %d with few labels", many.Memory.Kernel, both.Memory.Kernel, few0)
	}
}

// TestLabelsBetweenFrames: new labels hold from the frame after them on, and
// with ten labels they are there at once.
func TestLabelsBetweenFrames(t *testing.T) {
	w := engineWorld(t)
	loaded := w.must(w.ask(proto.Request{Kind: proto.Load, URL: "/model.shq"}), proto.Loaded)
	w.must(w.ask(proto.Request{Kind: proto.Open, Session: "a", Labels: loaded.Defaults[:2]}), proto.Opened)
	w.must(w.frame("a", 0, 320, 240, "gold"), proto.Result)

	// All at once: a frame, ten labels that no table knows, a frame.
	labels := make([]string, 10)
	for i := range labels {
		labels[i] = fmt.Sprintf("a wooden thing with %d small wheels", i+2)
	}
	var replies []proto.Reply
	w.eval(`(async () => Promise.all([
		lqa.ask(`+quote(proto.Request{Kind: proto.Frame, Session: "a", Time: 100})+`, lqa.plain(320, 240, 'gold')),
		lqa.ask(`+quote(proto.Request{Kind: proto.Labels, Session: "a", Labels: labels})+`),
		lqa.ask(`+quote(proto.Request{Kind: proto.Frame, Session: "a", Time: 200})+`, lqa.plain(320, 240, 'gold')),
	]))()`, &replies)
	opened := w.must(replies[1], proto.Opened)
	after := w.must(replies[2], proto.Result)
	if !slices.ContainsFunc(labels, func(l string) bool { return l == after.ZeroShot.Scores[0].Label }) {
		t.Errorf("the frame after the new labels answers %q", after.ZeroShot.Scores[0].Label)
	}
	t.Logf("ten new labels took %.1f ms", opened.EmbedMS)
}

// soak is how many frames TestAllocations looks at; LQA_SOAK=10000 looks longer.
func soak(t *testing.T) int {
	n, err := strconv.Atoi(cmp.Or(os.Getenv("LQA_SOAK"), "2000"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// maxMallocs is how many objects a frame may leave in the worker's Go heap:
// what syscall/js makes of two events and their pictures, and two strings.
const maxMallocs = 32

// maxGrowth bounds the Go heap however many frames there are: so much comes
// together until the collector runs first; from there on it is flat.
const maxGrowth = 8 << 20

// TestAllocations: a frame leaves next to nothing for Go's collector, from the
// request's JSON to the reply's, and many do not make the heap grow.
func TestAllocations(t *testing.T) {
	for name, labels := range map[string][]string{"few labels": {"mug", "dog", "red cat"}, "many labels": manyLabels()} {
		t.Run(name, func(t *testing.T) { allocations(t, labels) })
	}
}

func allocations(t *testing.T, labels []string) {
	w := engineWorld(t)
	w.smallModel()
	w.must(w.ask(proto.Request{Kind: proto.Load, URL: "/small.shq"}), proto.Loaded)
	w.must(w.ask(proto.Request{Kind: proto.Open, Session: "a", Labels: labels, Adapter: "lqa"}), proto.Opened)
	// The counters are read once a second: two frames at which they change
	// bound a span that is counted exactly.
	var seen []struct {
		Frame   int
		Mallocs int
		GoHeap  int
	}
	w.eval(fmt.Sprintf(`(async () => {
		const seen = [], image = new ImageData(64, 64);
		image.data.fill(200);
		let last = 0;
		for (let i = 0; i < %d || seen.length < 4; i++) {
			const m = await lqa.askCopy({kind: 'frame', session: 'a', time: 33 * i}, image);
			if (m.kind !== 'result') throw new Error(JSON.stringify(m));
			const {mallocs, goHeap} = m.memory;
			if (mallocs !== last) seen.push({Frame: i, Mallocs: mallocs, GoHeap: goHeap});
			last = mallocs;
		}
		return seen;
	})()`, soak(t)), &seen)
	first, last := seen[1], seen[len(seen)-1] // the first was counted before there were frames
	frames := last.Frame - first.Frame
	each := float64(last.Mallocs-first.Mallocs) / float64(frames)
	t.Logf("%.1f objects a frame over %d frames; Go heap %d bytes, then %d", each, frames, first.GoHeap, last.GoHeap)
	if each > maxMallocs {
		t.Errorf("%.1f objects a frame, at most %d", each, maxMallocs)
	}
	if last.GoHeap > first.GoHeap+maxGrowth {
		t.Errorf("the Go heap grew from %d bytes to %d", first.GoHeap, last.GoHeap)
	}
}

// TestLessons: teaching, freezing, effects and state by the protocol; each
// thing that can be asked wrongly has its code and changes nothing.
func TestLessons(t *testing.T) {
	w := engineWorld(t)
	w.smallModel()
	loaded := w.must(w.ask(proto.Request{Kind: proto.Load, URL: "/small.shq"}), proto.Loaded)
	if len(loaded.Methods) != len(loaded.Adapters) || len(loaded.Effects) == 0 {
		t.Errorf("%d adapters, %d in words; effects %v", len(loaded.Adapters), len(loaded.Methods), loaded.Effects)
	}
	open := proto.Request{Kind: proto.Open, Session: "a", Labels: []string{"mug", "dog", "red cat"}, Adapter: "lqa"}
	w.must(w.ask(open), proto.Opened)
	teach := func(label string) proto.Request {
		return proto.Request{Kind: proto.Teach, Session: "a", Label: label}
	}
	wrong := func(r proto.Reply, code proto.Code) {
		t.Helper()
		if r.Error == nil || r.Code != code {
			t.Errorf("%+v, want %s", r, code)
		}
	}
	wrong(w.ask(teach("mug")), proto.NothingSeen)
	w.must(w.frame("a", 0, 320, 240, "navy"), proto.Result)
	wrong(w.ask(teach("cow")), proto.UnknownLabel)
	first := w.must(w.ask(teach("mug")), proto.Taught).Taught[0].Example
	for n := 2; n <= 7; n++ {
		r := w.must(w.ask(teach("mug")), proto.Taught)
		if len(r.Taught) != min(n, 6) || (r.Replaced == first) != (n == 7) {
			t.Errorf("example %d: %+v", n, *r.Lessons)
		}
	}
	wrong(w.ask(proto.Request{Kind: proto.Unteach, Session: "a", Example: first}), proto.UnknownExample)
	wrong(w.ask(proto.Request{Kind: proto.Unteach, Session: "a", Example: 1 << 40}), proto.UnknownExample)
	wrong(w.ask(proto.Request{Kind: proto.Unteach, Session: "a", Example: -1}), proto.UnknownExample)
	if r := w.must(w.ask(proto.Request{Kind: proto.Unteach, Session: "a", Example: first + 1}), proto.Taught); len(r.Taught) != 5 {
		t.Errorf("after taking one back: %+v", *r.Lessons)
	}

	// Watched, answers tell the votes, and an effect's view comes along.
	w.must(w.ask(proto.Request{Kind: proto.Watch, Session: "a", On: true}), proto.Done)
	wrong(w.ask(proto.Request{Kind: proto.Effect, Session: "a", Effect: "dark", Strength: 6}), proto.BadEffect)
	wrong(w.ask(proto.Request{Kind: proto.Effect, Session: "a", Effect: "sparkle", Strength: 1}), proto.BadEffect)
	light := func() (v float64) {
		w.eval(`lqa.ask({kind: 'frame', session: 'a', time: 1000}, lqa.plain(320, 240, 'navy')).then(({view}) => view ? view.data.reduce((a, b) => a + b) / view.data.length : 0)`, &v)
		return v
	}
	w.must(w.ask(proto.Request{Kind: proto.Effect, Session: "a", Effect: "dark", Strength: 1}), proto.Done)
	weak := light()
	w.must(w.ask(proto.Request{Kind: proto.Effect, Session: "a", Effect: "dark", Strength: 5}), proto.Done)
	if strong := light(); !(strong > 0 && strong < weak) {
		t.Errorf("mean of the view: %.1f, darker %.1f", weak, strong)
	}
	w.must(w.ask(proto.Request{Kind: proto.Effect, Session: "a"}), proto.Done)
	if r := w.must(w.frame("a", 2000, 320, 240, "navy"), proto.Result); len(r.Report.Voted) == 0 || len(r.Report.Voted) > 8 {
		t.Errorf("votes %+v", r.Report.Voted)
	}

	w.must(w.ask(proto.Request{Kind: proto.Freeze, Session: "a", On: true}), proto.Done)
	before := w.must(w.frame("a", 3000, 320, 240, "red"), proto.Result).Report.Entries
	for i, color := range []string{"green", "gold", "white"} {
		if r := w.must(w.frame("a", float64(4000+i), 320, 240, color), proto.Result).Report; r.Entries != before || r.Entered >= 0 {
			t.Errorf("frozen, %d entries became %d", before, r.Entries)
		}
	}

	// A state, and what is none.
	w.eval(`lqa.ask({kind: 'save', session: 'a'}).then(({state}) => { globalThis.state = state; })`, nil)
	restore := func(state string) (r proto.Reply) {
		t.Helper()
		w.eval(`lqa.ask({kind: 'restore', session: 'a', state: `+state+`})`, &r)
		return r
	}
	for state, code := range map[string]proto.Code{
		"undefined": proto.BadMessage, "'text'": proto.BadMessage, "{length: 9}": proto.BadMessage, "[1, 2]": proto.BadMessage,
		"new Uint8Array(0)": proto.BadState, "new Uint8Array(64 << 20)": proto.BadState,
		"state.slice(0, -1)": proto.BadState, "state.map((b, i) => i === 40 ? b ^ 1 : b)": proto.BadState,
	} {
		wrong(restore(state), code)
	}
	if r := w.must(w.ask(proto.Request{Kind: proto.Reset, Session: "a", Taught: true}), proto.Done); r.Lessons != nil {
		t.Errorf("%+v", r)
	}
	r := w.must(restore("state"), proto.Restored)
	if len(r.Taught) != 5 || r.Adapter != "lqa" {
		t.Errorf("restored %+v", *r.Lessons)
	}
	var same bool
	w.eval(`lqa.ask({kind: 'save', session: 'a'}).then((m) => m.state.length === state.length && m.state.every((b, i) => b === state[i]))`, &same)
	if !same {
		t.Error("what is saved again differs")
	}
	open.Labels = open.Labels[:2]
	w.must(w.ask(open), proto.Opened)
	wrong(restore("state"), proto.BadState)
	w.must(w.frame("a", 5000, 320, 240, "navy"), proto.Result)
}
