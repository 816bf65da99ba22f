// Package worker is the engine role: messages in, results out. It wires one
// engine to many sessions and knows nothing of pages.
//
// web/worker.js puts two functions on the global object before it starts Go:
// lqaSend(json) posts a reply, lqaPixels(image, target, capacity) writes an
// image's RGBA bytes into target and resolves to {width, height}. Go puts
// lqaReceive(json, image) there, which takes a request.
package worker

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sort"
	"strings"
	"sync"
	"syscall/js"
	"time"

	"lqa/quant/clip"
	"lqa/quant/device"
	"lqa/quant/device/browser"
	"lqa/quant/engine"
	"lqa/quant/kernel"
	"lqa/quant/shq"
	"lqa/tta"
	"lqa/wasm/proto"
)

var (
	errFetch     = errors.New("fetch")
	errIntegrity = errors.New("the model is not the one that was asked for")
	errSession   = errors.New("no such session")
	errImage     = errors.New("not a picture")
	errVersion   = errors.New("page and engine are of different versions")
)

// request is a message with what came beside it.
type request struct {
	proto.Request
	image js.Value
}

// session is a tta.Session and its result, reused from frame to frame.
type session struct {
	*tta.Session
	result tta.Result
}

type worker struct {
	mu    sync.Mutex // held but while the worker waits for JavaScript
	queue []request
	wake  chan struct{}

	host     *browser.Host
	engine   *engine.Engine
	loading  bool      // a file is being read
	waiting  []request // for a stage of it
	sessions map[string]*session

	embedding []float32
	heap      int
	heapAt    time.Time
	send      js.Value
}

// gcPercent keeps the heap near what lives: the memory of a Go program in a
// browser never shrinks, and all that is large here lies in the kernels'.
const gcPercent = 10

// Run serves the page until the worker is ended. It does not return.
func Run() {
	debug.SetGCPercent(gcPercent)
	w := &worker{wake: make(chan struct{}, 1), sessions: map[string]*session{}, send: js.Global().Get("lqaSend")}
	receive := js.FuncOf(func(_ js.Value, args []js.Value) any {
		r := request{image: js.Undefined()}
		if err := json.Unmarshal([]byte(args[0].String()), &r.Request); err != nil {
			w.fail(r, fmt.Errorf("%w: %w", errMessage, err))
			return nil
		}
		if len(args) > 1 {
			r.image = args[1]
		}
		w.queue = append(w.queue, r)
		select {
		case w.wake <- struct{}{}:
		default:
		}
		return nil
	})
	js.Global().Set("lqaReceive", receive)
	w.reply(request{}, proto.Reply{Kind: proto.Hello, Version: proto.Version})
	w.mu.Lock()
	for {
		for len(w.queue) == 0 {
			w.mu.Unlock()
			<-w.wake
			w.mu.Lock()
		}
		r := w.queue[0]
		w.queue = w.queue[1:]
		w.serve(r)
	}
}

var errMessage = errors.New("not a request")

// serve answers one request. A panic, which a JavaScript exception is too,
// becomes an answer: the worker lives on.
func (w *worker) serve(r request) {
	defer func() {
		if p := recover(); p != nil {
			w.fail(r, fmt.Errorf("%v", p))
		}
	}()
	if err := w.handle(r); err != nil {
		w.fail(r, err)
	}
}

func (w *worker) handle(r request) error {
	switch r.Kind {
	case proto.Hello:
		if r.Version != proto.Version {
			return fmt.Errorf("%w: %d and %d", errVersion, r.Version, proto.Version)
		}
		w.reply(r, proto.Reply{Kind: proto.Hello, Version: proto.Version})
		return nil
	case proto.Load:
		w.loading = true
		go w.load(r)
		return nil
	case proto.Open, proto.Labels:
		return w.open(r)
	}
	s := w.sessions[r.Session]
	if s == nil {
		w.drop(r)
		return fmt.Errorf("%w: %q", errSession, r.Session)
	}
	switch r.Kind {
	case proto.Frame:
		return w.frame(r, s)
	case proto.Adapt:
		if err := s.SetAdapter(r.Adapter); err != nil {
			return err
		}
	case proto.Reset:
		s.Reset()
	case proto.Close:
		delete(w.sessions, r.Session)
	default:
		return fmt.Errorf("%w: kind %q", errMessage, r.Kind)
	}
	w.reply(r, proto.Reply{Kind: proto.Done})
	return nil
}

// load replaces the engine. It runs beside the message loop, under its lock.
func (w *worker) load(r request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.engine != nil {
		w.engine.Close()
	}
	w.engine, w.host = nil, nil
	clear(w.sessions)
	w.loading = true
	err := w.read(r)
	w.loading = false
	if err == nil {
		return
	}
	// What was verified stays: with the image tower, default labels work.
	w.fail(r, err)
	for _, q := range w.waiting {
		w.fail(q, engine.ErrNotLoaded)
	}
	w.waiting = nil
}

// read answers r stage by stage until the file ends.
func (w *worker) read(r request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	start := time.Now()
	if err := browser.Supported(); err != nil {
		return err
	}
	b, err := fetch(&w.mu, r.URL, func(loaded, total int64) { w.progress(r, "fetch", loaded, total) })
	if err != nil {
		return err
	}
	defer b.Close()
	host := browser.New(browser.Options{Threads: r.Threads, Helper: func() js.Value { return js.Global().Call("lqaHelper") }})
	paths, err := choices(host, r.SIMD)
	if err != nil {
		return err
	}
	e, err := engine.Open(b, engine.Options{Host: host, Paths: paths, Hash: subtleHash(&w.mu)})
	if err != nil {
		return err
	}
	sum := e.Hash()
	hash := hex.EncodeToString(sum[:])
	if r.Integrity != "" && !strings.EqualFold(r.Integrity, hash) {
		e.Close()
		return fmt.Errorf("%w: manifest %s, not %s", errIntegrity, hash, r.Integrity)
	}
	w.host = host
	w.embedding = make([]float32, e.Config().Embed)
	for {
		stage, err := e.LoadStage(context.Background())
		if err == io.EOF {
			return nil
		}
		if err != nil {
			if w.engine == nil {
				e.Close()
			}
			return err
		}
		name := "image"
		if stage == engine.StageImage {
			if err := w.warmUp(r, e); err != nil {
				return err
			}
			w.engine = e
		} else {
			name = "text"
		}
		mem := w.memory(nil)
		w.reply(r, proto.Reply{Kind: proto.Loaded, Memory: &mem, ModelInfo: &proto.ModelInfo{
			Stage: name, Model: e.Manifest().Name, Hash: hash, Simd: simd(e.Device().Path()), Threads: e.Device().Threads(), Kernels: kernels(e.Device()),
			Defaults: e.Config().Text.Defaults, Templates: e.Config().Text.Templates, Adapters: tta.Names(),
			LoadMS: ms(time.Since(start)),
		}})
		w.queue, w.waiting = append(w.waiting, w.queue...), nil
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// choices are the host's paths, or those of the SIMD that was asked for.
func choices(host *browser.Host, want string) ([]kernel.Path, error) {
	var paths []kernel.Path
	for _, p := range host.Paths() {
		if want == "" || want == simd(p) {
			paths = append(paths, p)
		}
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%w: %q", device.ErrNoSIMD, want)
	}
	return paths, nil
}

func simd(p kernel.Path) string {
	if p.Form.Relaxed() {
		return "relaxed"
	}
	return "simd128"
}

// kernels tells how matrix products run, and that it was chosen.
func kernels(d *device.Device) string {
	s := d.Path().String()
	if n := len(d.Timings()); n > 0 {
		s += fmt.Sprintf(", fastest of %d", n)
	}
	return s
}

// warmFrames let the JavaScript engine compile the kernels with its better
// compiler before the first frame that somebody waits for.
const warmFrames = 3

func (w *worker) warmUp(r request, e *engine.Engine) error {
	size := e.ViewSize()
	for i := range warmFrames {
		w.progress(r, "warm-up", int64(i), warmFrames)
		if err := e.SetFrame(nil, size, size); err != nil {
			return err
		}
		if err := e.Encode(w.embedding); err != nil {
			return err
		}
	}
	return nil
}

// open starts a session, or gives one other labels.
func (w *worker) open(r request) error {
	if w.engine == nil {
		return w.wait(r, engine.ErrNotLoaded)
	}
	adapter := r.Adapter
	if old := w.sessions[r.Session]; old != nil && adapter == "" {
		adapter = old.Adapter()
	}
	labels := tta.CleanLabels(r.Labels)
	if len(labels) == 0 {
		return tta.ErrNoLabels
	}
	if len(labels) > tta.MaxLabels {
		return fmt.Errorf("%w: %d, at most %d", tta.ErrTooManyLabels, len(labels), tta.MaxLabels)
	}
	start := time.Now()
	var templates []string
	if r.Template != "" {
		templates = []string{r.Template}
	}
	embeddings, err := w.engine.EmbedPrompts(labels, templates)
	if errors.Is(err, engine.ErrTextNotReady) {
		return w.wait(r, err)
	}
	if err != nil {
		return err
	}
	cfg := w.engine.Config()
	s, err := tta.NewSession(nil, tta.SessionConfig{
		Labels: labels, Embeddings: embeddings, Scale: cfg.LogitScale, Temperature: cfg.Temperature,
		NoneCosine: cfg.NoneCosine, Adapter: adapter,
	})
	if err != nil {
		return err
	}
	w.sessions[r.Session] = &session{Session: s}
	w.reply(r, proto.Reply{Kind: proto.Opened, SessionInfo: &proto.SessionInfo{
		Labels: s.Labels(), Known: w.engine.Known(labels), EmbedMS: ms(time.Since(start)),
	}})
	return nil
}

// wait keeps r until the next stage has come, or fails it where none will.
func (w *worker) wait(r request, err error) error {
	if !w.loading {
		return err
	}
	w.waiting = append(w.waiting, r)
	return nil
}

// frame answers one picture; the newest of a session's waiting pictures wins.
func (w *worker) frame(r request, s *session) error {
	for _, q := range w.queue {
		if q.Kind == proto.Frame && q.Session == r.Session && !r.Still {
			w.drop(r)
			w.reply(r, proto.Reply{Kind: proto.Dropped})
			return nil
		}
	}
	if w.engine == nil {
		w.drop(r)
		return engine.ErrNotLoaded
	}
	if t := r.image.Type(); t != js.TypeObject {
		return errImage
	}
	start := time.Now()
	offset, capacity := w.engine.FrameMemory()
	e := w.engine
	size, err := unlocked(&w.mu, js.Global().Call("lqaPixels", r.image, w.host.Pixels(offset, capacity), engine.MaxPixels))
	if err != nil {
		return fmt.Errorf("%w: %w", errImage, err)
	}
	if e != w.engine || w.sessions[r.Session] != s { // the world changed while the pixels came
		w.reply(r, proto.Reply{Kind: proto.Dropped})
		return nil
	}
	if err := e.SetFrame(nil, size.Get("width").Int(), size.Get("height").Int()); err != nil {
		return err
	}
	viewed := time.Now()
	if err := e.Encode(w.embedding); err != nil {
		return err
	}
	encoded := time.Now()
	if r.Still {
		err = s.Still(w.embedding, &s.result)
	} else {
		err = s.Frame(time.Duration(r.Time*float64(time.Millisecond)), w.embedding, &s.result)
	}
	if err != nil {
		return err
	}
	mem := w.memory(s)
	w.reply(r, proto.Reply{Kind: proto.Result, Memory: &mem, Answer: &proto.Answer{
		ZeroShot: scores(s.Labels(), s.result.ZeroShot), Adapted: scores(s.Labels(), s.result.Adapted), Time: r.Time,
		ViewMS: ms(viewed.Sub(start)), EncodeMS: ms(encoded.Sub(viewed)), AdaptMS: ms(time.Since(encoded)),
		Report: proto.Report{Method: s.result.Report.Method, Entries: s.result.Report.Entries, Shift: s.result.Report.Shift, Text: s.result.Report.Text},
	}})
	return nil
}

// drop frees a picture that nobody will look at.
func (w *worker) drop(r request) {
	if r.image.Type() == js.TypeObject && r.image.Get("close").Type() == js.TypeFunction {
		r.image.Call("close")
	}
}

// maxScores is how many scores an answer holds: nobody reads further, and
// 2,000 of them cost more than the frame.
const maxScores = 32

// scores lists the likeliest labels, best first, ties in the order of labels.
func scores(labels []string, s tta.Scores) proto.Scores {
	out := proto.Scores{None: s.None, Scores: make([]proto.Score, len(labels))}
	for i, l := range labels {
		out.Scores[i] = proto.Score{Label: l, Score: s.P[i]}
	}
	sort.SliceStable(out.Scores, func(i, j int) bool { return out.Scores[i].Score > out.Scores[j].Score })
	out.Scores = out.Scores[:min(len(out.Scores), maxScores)]
	return out
}

// memory counts bytes. The Go heap is looked at once a second: that stops the
// world for a moment.
func (w *worker) memory(s *session) proto.Memory {
	if time.Since(w.heapAt) > time.Second {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		w.heap, w.heapAt = int(m.Sys), time.Now()
	}
	k := w.engine.Memory()
	m := proto.Memory{Kernel: k.Total, Weights: k.Weights, Activations: k.Activations, GoHeap: w.heap}
	if s != nil {
		m.State = s.result.Report.StateBytes
	}
	return m
}

func (w *worker) progress(r request, phase string, loaded, total int64) {
	w.reply(r, proto.Reply{Kind: proto.Progress, ProgressInfo: &proto.ProgressInfo{Phase: phase, LoadedBytes: loaded, TotalBytes: total}})
}

func (w *worker) reply(r request, m proto.Reply) {
	m.ID, m.Session = r.ID, r.Session
	b, err := json.Marshal(m)
	if err != nil {
		b, _ = json.Marshal(proto.Reply{Kind: proto.Failed, ID: r.ID, Error: &proto.Error{Code: proto.Internal, Message: err.Error()}})
	}
	w.send.Invoke(string(b))
}

func (w *worker) fail(r request, err error) {
	w.reply(r, proto.Reply{Kind: proto.Failed, Error: &proto.Error{Code: codeOf(err), Message: err.Error()}})
}

// codes maps errors to what programs branch on; the first that fits wins.
var codes = []struct {
	err  error
	code proto.Code
}{
	{errMessage, proto.BadMessage},
	{errVersion, proto.VersionMismatch},
	{errSession, proto.UnknownSession},
	{errIntegrity, proto.IntegrityFailed},
	{errFetch, proto.FetchFailed},
	{errImage, proto.BadImage},
	{clip.ErrPicture, proto.BadImage},
	{tta.ErrNoLabels, proto.NoLabels},
	{tta.ErrTooManyLabels, proto.TooManyLabels},
	{tta.ErrAdapter, proto.BadAdapter},
	{engine.ErrTextNotReady, proto.TextNotReady},
	{engine.ErrNotLoaded, proto.NotLoaded},
	{shq.ErrMagic, proto.NotSHQ},
	{shq.ErrVersion, proto.SHQVersion},
	{shq.ErrTruncated, proto.Truncated},
	{shq.ErrTooLarge, proto.TooLarge},
	{shq.ErrCorrupt, proto.Corrupt},
	{engine.ErrModel, proto.Corrupt},
	{device.ErrMemory, proto.NoMemory},
	{device.ErrNoSIMD, proto.NoSIMD},
}

func codeOf(err error) proto.Code {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return proto.Internal
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
