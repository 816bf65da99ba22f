//go:build !js

package test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lqa/quant/clip"
	"lqa/quant/engine"
	"lqa/quant/engine/enginetest"
	"lqa/quant/shq"
	"lqa/wasm/proto"
)

// span is a range of a file that was asked for, to excluded.
type span struct{ from, to int64 }

// remote is a model on a server that counts what is asked for, and can be told
// to misbehave.
type remote struct {
	file  []byte
	m     *shq.Manifest
	first int64 // bytes of an answer to a request without Range before it halts; 0: all
	// cached lets the browser keep what it gets.
	cached bool

	mu     sync.Mutex
	tag    string
	spans  []span              // asked for, without those before answer cut in
	plain  int                 // requests without Range
	answer func(s span) string // how a range is answered: "" well, or cut, whole, short, or a status; nil: well
	gate   chan struct{}       // if not nil, ranges are answered when it is closed
	gated  chan span           // those that wait
}

// clipFile is a small CLIP whose token table is in shards.
func clipFile(t *testing.T) *remote {
	t.Helper()
	cfg := enginetest.CLIPConfig()
	cfg.Text.TokenShards = 20
	r := &remote{file: enginetest.CLIPOf(t, cfg, 1, false), tag: `"one"`, gated: make(chan span, 100)}
	rd, err := shq.NewReader(bytes.NewReader(r.file), shq.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	r.m = rd.Manifest()
	// The browser may take what it likes of an answer without end, so it is
	// given the manifest and a little more.
	r.first = r.m.Frames[0].Offset + 100
	return r
}

func (f *remote) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	gate, tag, s := f.gate, f.tag, span{}
	how := ""
	if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &s.from, &s.to); n == 0 {
		f.plain++
	} else {
		if s.to++; n == 1 {
			s.to = int64(len(f.file))
		}
		f.spans = append(f.spans, s)
		if f.answer != nil {
			how = f.answer(s)
		}
	}
	f.mu.Unlock()
	w.Header().Set("ETag", tag)
	if !f.cached {
		// A browser asks for what its cache lacks, which is hard to foresee.
		w.Header().Set("Cache-Control", "no-store")
	}
	end := func() { panic(http.ErrAbortHandler) }
	switch {
	case s.to == 0:
		w.Header().Set("Content-Length", fmt.Sprint(len(f.file)))
		if how = f.first0(); how == "halt" {
			w.Header().Set("Accept-Ranges", "bytes")
			w.Write(f.file[:f.first])
			http.NewResponseController(w).Flush()
			<-r.Context().Done() // a client that wants no more ends it
			return
		}
		w.Write(f.file)
		return
	case gate != nil:
		f.gated <- s
		select {
		case <-gate:
		case <-r.Context().Done():
			return
		}
	}
	switch how {
	case "":
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.file))
	case "cut":
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", s.from, s.to-1, len(f.file)))
		w.Header().Set("Content-Length", fmt.Sprint(s.to-s.from))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(f.file[s.from : s.from+(s.to-s.from)/2])
		http.NewResponseController(w).Flush()
		end()
	case "whole":
		w.Header().Set("Content-Length", fmt.Sprint(len(f.file)))
		w.Write(f.file)
	default:
		http.Error(w, how, http.StatusServiceUnavailable)
	}
}

// first0 says how a request without Range is answered.
func (f *remote) first0() string {
	if f.first > 0 {
		return "halt"
	}
	return ""
}

// then changes how the next requests are answered, and forgets those so far.
func (f *remote) then(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spans = nil
	change()
}

func (f *remote) asked() []span {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.spans)
}

// wait returns the next range that waits at the gate.
func (f *remote) wait(t *testing.T) span {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case s := <-f.gated:
		return s
	case <-ctx.Done():
		t.Fatal("nothing is asked for")
		return span{}
	}
}

// shards are the spans of the shards that labels need, neighbours together.
func (f *remote) shards(t *testing.T, labels ...string) (list []span) {
	t.Helper()
	cfg := enginetest.CLIPConfig()
	bpe, err := clip.NewBPE(enginetest.Merges(t), cfg.Text.Vocab)
	if err != nil {
		t.Fatal(err)
	}
	need := map[string]bool{}
	for _, l := range labels {
		for _, template := range cfg.Text.Templates {
			for _, id := range bpe.Encode(nil, clip.Expand(template, l), cfg.Text.Context) {
				need[clip.ShardName(int(id)/20)] = true
			}
		}
	}
	for _, x := range f.m.Tensors {
		if frame := f.m.Frames[x.Frame]; need[x.Name] {
			s := span{frame.Offset, frame.Offset + int64(frame.Size)}
			if n := len(list); n > 0 && list[n-1].to == s.from {
				list[n-1].to = s.to
			} else {
				list = append(list, s)
			}
		}
	}
	return list
}

// streamWorld is an engine's world with f at /clip.shq. Replies are kept, by
// what a test calls their requests.
func streamWorld(t *testing.T, f *remote) *world {
	w := engineWorld(t)
	w.server.Handle("/clip.shq", f)
	w.eval(`globalThis.replies = {}; globalThis.begin = (name, request) => { lqa.ask(request).then((r) => { replies[name] = r; }); };
		globalThis.pictures = 0; lqa.worker.addEventListener('message', ({data}) => { if (data.kind === 'loaded' && data.stage === 'image') pictures++; }); 0`, nil)
	return w
}

// begin sends a request without waiting for its reply, and reply waits for it.
func (w *world) begin(name string, r proto.Request) {
	w.t.Helper()
	w.eval(fmt.Sprintf("begin(%q, %s), 0", name, quote(r)), nil)
}

func (w *world) reply(name string) (r proto.Reply) {
	w.t.Helper()
	w.wait(fmt.Sprintf("replies[%q]", name))
	w.eval(fmt.Sprintf("replies[%q]", name), &r)
	return r
}

func labels(session string, list ...string) proto.Request {
	return proto.Request{Kind: proto.Open, Session: session, Labels: list}
}

var loadCLIP = proto.Request{Kind: proto.Load, URL: "/clip.shq"}

// TestStreaming counts what is asked of the server: the image tower before the
// first answer, the text tower after it, shards when a label needs them, and
// nothing twice. Meanwhile frames are answered.
func TestStreaming(t *testing.T) {
	f := clipFile(t)
	w := streamWorld(t, f)
	gate := make(chan struct{})
	imageEnd, textEnd := f.m.StageEnd(engine.StageImage), f.m.StageEnd(engine.StageText)

	f.then(func() { f.gate = gate })
	w.begin("load", loadCLIP)
	image := f.wait(t)
	close(gate)
	gate = make(chan struct{})
	f.then(func() { f.gate = gate })
	w.wait("pictures")
	if image.from > f.first || image.to != imageEnd {
		t.Errorf("the image tower is fetched by %+v, after %d bytes; it ends at %d", image, f.first, imageEnd)
	}

	// The text tower is on its way: what stands ready is answered.
	if text := f.wait(t); text != (span{imageEnd, textEnd}) {
		t.Errorf("the text tower is fetched by %+v, want %d to %d", text, imageEnd, textEnd)
	}
	w.must(w.ask(labels("a", "mug", "banana")), proto.Opened)
	w.must(w.frame("a", 0, 64, 64, "navy"), proto.Result)
	w.begin("early", labels("early", "~"))
	w.must(w.frame("a", 1, 64, 64, "navy"), proto.Result)
	close(gate)
	gate = make(chan struct{})
	f.then(func() { f.gate = gate })
	w.must(w.reply("load"), proto.Loaded)

	// The label that had to wait for it needs shards; others are answered.
	want := f.shards(t, "~")
	if len(want) < 2 {
		t.Fatalf("shards at %v: this tests nothing", want)
	}
	if s := f.wait(t); s != want[0] {
		t.Errorf("%+v is fetched, want %+v", s, want[0])
	}
	w.must(w.frame("a", 2, 64, 64, "navy"), proto.Result)
	w.must(w.ask(labels("b", "keyboard")), proto.Opened)
	w.begin("overtaken", labels("b", "ÿ"))
	w.must(w.ask(labels("b", "mug")), proto.Opened)
	w.must(w.reply("overtaken"), proto.Dropped)
	close(gate)
	f.mu.Lock() // not then: what has been asked counts
	f.gate = nil
	f.mu.Unlock()
	w.must(w.reply("early"), proto.Opened)
	w.must(w.frame("early", 0, 64, 64, "navy"), proto.Result)
	if got := f.asked(); !slices.Equal(got, want) {
		t.Errorf("for one label %v was fetched, want %v", got, want)
	}
	if r := w.must(w.frame("b", 3, 64, 64, "navy"), proto.Result); r.ZeroShot.Scores[0].Label != "mug" {
		t.Errorf("b answers %q, which came before", r.ZeroShot.Scores[0].Label)
	}

	f.then(func() {})
	w.must(w.ask(labels("c", "~", "~ ~")), proto.Opened)
	if got := f.asked(); len(got) > 0 || f.plain != 1 {
		t.Errorf("once more: %v, %d requests for the whole file", got, f.plain)
	}
}

// scores are what a loaded engine answers to a picture with labels that need
// shards.
func (w *world) scores() string {
	w.t.Helper()
	w.must(w.ask(labels("s", "~", "of an", "mug")), proto.Opened)
	return quote(w.must(w.frame("s", 0, 64, 64, "teal"), proto.Result).ZeroShot)
}

// TestStreamingFaults: whatever the network and the server do, the answers are
// those of a good one, or the error says what is wrong and the rest works.
func TestStreamingFaults(t *testing.T) {
	good := clipFile(t)
	w := streamWorld(t, good)
	w.must(w.ask(loadCLIP), proto.Loaded)
	want := w.scores()
	w.expect("net::ERR_")
	w.expect("503")

	// serve puts another file, or server, in the place.
	serve := func(t *testing.T, change func(f *remote)) (*world, *remote) {
		f := clipFile(t)
		change(f)
		w := w.in(t)
		w.server.Handle("/clip.shq", f)
		return w, f
	}
	well := func(t *testing.T, change func(f *remote)) {
		w, f := serve(t, change)
		w.must(w.ask(loadCLIP), proto.Loaded)
		if got := w.scores(); got != want {
			t.Errorf("answers %s, want %s", got, want)
		}
		t.Logf("of %d bytes %v", len(f.file), f.asked())
	}
	times := func(n int, how string) func(span) string {
		return func(span) string {
			if n--; n < 0 {
				return ""
			}
			return how
		}
	}
	t.Run("cut", func(t *testing.T) { well(t, func(f *remote) { f.answer = times(3, "cut") }) })
	t.Run("busy", func(t *testing.T) { well(t, func(f *remote) { f.answer = times(2, "busy") }) })
	t.Run("cut in the shards", func(t *testing.T) {
		well(t, func(f *remote) {
			cut := times(2, "cut")
			f.answer = func(s span) string {
				if s.from < f.m.StageEnd(engine.StageText) {
					return ""
				}
				return cut(s)
			}
		})
	})
	t.Run("a large file", func(t *testing.T) {
		w, f := serve(t, func(f *remote) { f.file = append(f.file, make([]byte, 16<<20)...) })
		w.must(w.ask(loadCLIP), proto.Loaded)
		if got := w.scores(); got != want {
			t.Errorf("answers %s, want %s", got, want)
		}
		if got := f.asked()[0]; got != (span{0, 128 << 10}) {
			t.Errorf("it begins with %+v", got)
		}
	})
	t.Run("without ranges", func(t *testing.T) { well(t, func(f *remote) { f.first = 0 }) })
	t.Run("ranges promised, not given", func(t *testing.T) { well(t, func(f *remote) { f.answer = times(99, "whole") }) })
	t.Run("ranges for the towers alone", func(t *testing.T) {
		well(t, func(f *remote) {
			f.answer = func(s span) string {
				if s.from < f.m.StageEnd(engine.StageText) {
					return ""
				}
				return "whole"
			}
		})
	})

	bad := func(w *world, r proto.Reply, code proto.Code, says string) {
		w.t.Helper()
		if r.Error == nil || r.Code != code || !strings.Contains(r.Message, says) {
			w.t.Errorf("%+v, want %s that says %q", r, code, says)
		}
	}
	t.Run("another file after the image tower", func(t *testing.T) {
		w, f := serve(t, func(f *remote) {})
		f.answer = func(s span) string {
			if s.from == f.m.StageEnd(engine.StageImage) {
				f.tag = `"two"` // from the next request on
				return "cut"
			}
			return ""
		}
		bad(w, w.ask(loadCLIP), proto.FileChanged, `"two"`)
		w.must(w.ask(labels("a", "mug")), proto.Opened) // what has come works
		w.must(w.frame("a", 0, 64, 64, "teal"), proto.Result)
	})
	t.Run("another file before the shards", func(t *testing.T) {
		w, f := serve(t, func(f *remote) {})
		w.must(w.ask(loadCLIP), proto.Loaded)
		f.then(func() { f.tag = `"two"` })
		bad(w, w.ask(labels("a", "~")), proto.FileChanged, `"two"`)
		f.then(func() { f.tag = `"one"` })
		if got := w.scores(); got != want {
			t.Errorf("answers %s, want %s", got, want)
		}
	})
	t.Run("a damaged shard", func(t *testing.T) {
		w, _ := serve(t, func(f *remote) { f.file[f.shards(t, "~")[1].to-1] ^= 1 })
		w.must(w.ask(loadCLIP), proto.Loaded)
		bad(w, w.ask(labels("a", "~")), proto.Corrupt, "SHA-256 differs")
		w.must(w.ask(labels("a", "mug")), proto.Opened)
		w.must(w.frame("a", 0, 64, 64, "teal"), proto.Result)
	})
	t.Run("another model while a shard comes", func(t *testing.T) {
		w, f := serve(t, func(f *remote) {})
		w.must(w.ask(loadCLIP), proto.Loaded)
		gate := make(chan struct{})
		f.then(func() { f.gate = gate })
		w.begin("old", labels("old", "~"))
		f.wait(t)
		f.then(func() { f.gate = nil })
		w.must(w.ask(loadCLIP), proto.Loaded) // the first request ends with it
		w.must(w.reply("old"), proto.Opened)  // by the new one
		if got := w.scores(); got != want {
			t.Errorf("answers %s, want %s", got, want)
		}
	})
	t.Run("two models at once", func(t *testing.T) {
		w, f := serve(t, func(f *remote) {})
		gate := make(chan struct{})
		f.then(func() { f.gate = gate })
		w.begin("first", loadCLIP)
		f.wait(t)
		f.then(func() { f.gate = nil })
		w.must(w.ask(loadCLIP), proto.Loaded)
		bad(w, w.reply("first"), proto.NotLoaded, "another model")
		if got := w.scores(); got != want {
			t.Errorf("answers %s, want %s", got, want)
		}
	})
	// Last, for the cache keeps it.
	t.Run("from the browser's cache", func(t *testing.T) {
		w, f := serve(t, func(f *remote) { f.cached = true })
		for i := range 3 {
			f.then(func() {})
			w.must(w.ask(loadCLIP), proto.Loaded)
			if got := w.scores(); got != want {
				t.Errorf("answers %s, want %s", got, want)
			}
			t.Logf("time %d: %v", i, f.asked())
		}
	})
}
