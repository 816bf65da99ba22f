// Package worker is the engine role: messages in, results out. It wires one
// engine to many sessions and knows nothing of pages.
//
// web/worker.js puts two functions on the global object before it starts Go:
// lqaSend(bytes, n, view, state) posts a reply, whose JSON is the first n of the
// bytes, with RGBA bytes and a state where there are any, and
// lqaPixels(image, target, capacity) writes an image's RGBA bytes into target.
// Go puts two there: lqaReceive(bytes, n, beside) takes a request, and
// lqaPixelsDone(width, height, error) hears how lqaPixels ended. Bytes and
// functions are kept from frame to frame: a promise, a callback or a string
// for each would be garbage in two heaps.
package worker

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall/js"
	"time"

	"lqa/quant/clip"
	"lqa/quant/device"
	"lqa/quant/device/browser"
	"lqa/quant/engine"
	"lqa/quant/json"
	"lqa/quant/kernel"
	"lqa/quant/shq"
	"lqa/tta"
	"lqa/tta/score"
	"lqa/tta/shift"
	"lqa/wasm/proto"
	"lqa/wasm/remote"
)

var (
	errIntegrity = errors.New("the model is not the one that was asked for")
	errSession   = errors.New("no such session")
	errImage     = errors.New("not a picture")
	errVersion   = errors.New("page and engine are of different versions")
	errReplaced  = errors.New("another model was asked for")
	errNothing   = errors.New("nothing has been looked at yet")
)

// request is a message with what came beside it: an image, or a state.
type request struct {
	proto.Request
	beside js.Value
}

// session is a tta.Session with what makes its pictures hard, and its results,
// reused from frame to frame.
type session struct {
	*tta.Session
	effect  *shift.Effect // nil: none
	frozen  bool
	watched bool
	newest  []float32 // embedding of its newest picture; empty: none yet
	both    bool      // which has a closer look in it
	size    outcome   // of that picture

	result            tta.Result
	zeroShot, adapted []proto.Score
	exemplars         []tta.Exemplar
	voted             []proto.Vote
	taught            []tta.Taught
}

// outcome is how lqaPixels ended.
type outcome struct {
	width, height int
	err           error
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
	metric   *tta.Metric // of the engine; made when something is first taught

	ctx      context.Context // of the engine's file; load ends it
	end      context.CancelFunc
	needing  []request // need shards of the file's token table, the first of them now
	fetching bool

	embedding []float32
	middle    []float32    // that of a closer look
	heap      proto.Memory // what is looked at once a second
	heapAt    time.Time

	reader    json.Reader
	writer    json.Writer
	text      []byte   // of a request
	bytes     js.Value // Uint8Array, of a reply
	bytesLen  int
	send      js.Value
	pixels    js.Value
	target    js.Value // where pixels go
	view      js.Value // what the image tower looks at, RGBA
	viewed    *session // whose picture that is; it lies in the frame memory, too
	scratch   []byte   // the view, while an effect works on it
	pixelsEnd chan outcome
}

// gcPercent keeps the heap near what lives: the memory of a Go program in a
// browser never shrinks, and all that is large here lies in the kernels'.
const gcPercent = 10

// Run serves the page until the worker is ended. It does not return.
func Run() {
	debug.SetGCPercent(gcPercent)
	global := js.Global()
	w := &worker{wake: make(chan struct{}, 1), end: func() {}, sessions: map[string]*session{}, send: global.Get("lqaSend"),
		pixels: global.Get("lqaPixels"), pixelsEnd: make(chan outcome, 1)}
	global.Set("lqaReceive", js.FuncOf(func(_ js.Value, args []js.Value) any {
		w.receive(args[0], args[1].Int(), args[2])
		return nil
	}))
	global.Set("lqaPixelsDone", js.FuncOf(func(_ js.Value, args []js.Value) any {
		o := outcome{width: args[0].Int(), height: args[1].Int()}
		if s := args[2].String(); s != "" {
			o.err = errors.New(s)
		}
		w.pixelsEnd <- o
		return nil
	}))
	w.reply(request{}, proto.Reply{Kind: proto.Hello, Version: proto.Version})
	w.mu.Lock()
	for {
		for len(w.queue) == 0 {
			w.mu.Unlock()
			<-w.wake
			w.mu.Lock()
		}
		r := w.queue[0]
		w.queue = slices.Delete(w.queue, 0, 1)
		w.serve(r)
	}
}

// receive takes a request, whose JSON is the first n of the bytes. It does not
// wait for the lock.
func (w *worker) receive(bytes js.Value, n int, beside js.Value) {
	w.text = slices.Grow(w.text[:0], n)[:n]
	js.CopyBytesToGo(w.text, bytes)
	r := request{beside: beside}
	if err := w.reader.Read(w.text, func() { r.Read(&w.reader) }); err != nil {
		w.drop(r)
		w.fail(r, fmt.Errorf("%w: %w", errMessage, err))
		return
	}
	w.queue = append(w.queue, r)
	select {
	case w.wake <- struct{}{}:
	default:
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
		w.overtake(r.Session)
		return w.open(r)
	case proto.Close:
		w.overtake(r.Session)
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
		if r.Taught {
			s.ResetAll()
		} else {
			s.Reset()
		}
	case proto.Teach:
		return w.teach(r, s)
	case proto.Unteach:
		if int(uint32(r.Example)) != r.Example {
			return fmt.Errorf("%w: %d", tta.ErrTaught, r.Example)
		}
		if err := s.Unteach(uint32(r.Example)); err != nil {
			return err
		}
		w.lessons(r, s, proto.Taught, 0)
		return nil
	case proto.Freeze:
		s.frozen = r.On
		s.Freeze(r.On)
	case proto.Watch:
		s.watched = r.On
	case proto.Effect:
		var effect *shift.Effect
		if r.Effect != "" {
			var err error
			if effect, err = shift.New(r.Effect, r.Strength, 1); err != nil {
				return err
			}
		}
		s.effect = effect
	case proto.Save:
		state := s.AppendState(nil)
		bytes := js.Global().Get("Uint8Array").New(len(state))
		js.CopyBytesToJS(bytes, state)
		w.reply(r, proto.Reply{Kind: proto.Saved}, nil, bytes)
		return nil
	case proto.Restore:
		return w.restore(r, s)
	case proto.Close:
		s.Close()
		delete(w.sessions, r.Session)
	default:
		return fmt.Errorf("%w: kind %q", errMessage, r.Kind)
	}
	w.reply(r, proto.Reply{Kind: proto.Done})
	return nil
}

// teach makes the session's newest picture an example.
func (w *worker) teach(r request, s *session) error {
	if len(s.newest) == 0 {
		return errNothing
	}
	label := slices.Index(s.Labels(), r.Label)
	if label < 0 {
		return fmt.Errorf("%w: %q", tta.ErrLabel, r.Label)
	}
	if !s.both && w.viewed == s { // as later pictures will be seen
		if err := w.closer(s); err != nil {
			return err
		}
		if err := w.show(s); err != nil {
			return err
		}
		tta.Both(s.newest, s.newest, w.middle)
		s.both = true
	}
	t, err := s.Teach(label, s.newest)
	if err != nil {
		return err
	}
	var view any
	if w.viewed == s {
		view = w.view
	}
	w.lessons(r, s, proto.Taught, int(t.Replaced), view)
	return nil
}

// maxState bounds the bytes of a state: more than 4,096 labels have.
const maxState = 32 << 20

// restore takes up a state, which the session checks.
func (w *worker) restore(r request, s *session) error {
	if !r.beside.InstanceOf(js.Global().Get("Uint8Array")) {
		return fmt.Errorf("%w: no state beside it", errMessage)
	}
	n := r.beside.Length()
	if n > maxState {
		return fmt.Errorf("%w: %d bytes, at most %d", tta.ErrState, n, maxState)
	}
	state := make([]byte, n)
	js.CopyBytesToGo(state, r.beside)
	if err := s.Restore(state); err != nil {
		return fmt.Errorf("%w: %w", tta.ErrState, err)
	}
	w.lessons(r, s, proto.Restored, 0)
	return nil
}

// lessons replies with what s was taught.
func (w *worker) lessons(r request, s *session, kind proto.Kind, replaced int, beside ...any) {
	s.taught = s.Taught(s.taught[:0])
	l := &proto.Lessons{Taught: make([]proto.Example, len(s.taught)), Replaced: replaced, Adapter: s.Adapter()}
	for i, t := range s.taught {
		l.Taught[i] = proto.Example{Example: int(t.ID), Label: s.Labels()[t.Label]}
	}
	w.reply(r, proto.Reply{Kind: kind, Lessons: l}, beside...)
}

// load replaces the engine. It runs beside the message loop, under its lock.
func (w *worker) load(r request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end()
	ctx, end := context.WithCancel(context.Background())
	w.ctx, w.end = ctx, end
	if w.engine != nil {
		w.engine.Close()
	}
	w.engine, w.host, w.metric = nil, nil, nil
	for _, s := range w.sessions {
		s.Close()
	}
	clear(w.sessions)
	w.waiting, w.needing = append(w.waiting, w.needing...), nil
	w.loading = true
	err := w.read(ctx, r)
	if ctx.Err() != nil { // the rest is the next one's
		w.fail(r, errReplaced)
		return
	}
	w.loading = false
	if err == nil {
		return
	}
	// What was verified stays: with the image tower, default labels work.
	w.fail(r, err)
	for _, q := range w.waiting {
		w.fail(q, err)
	}
	w.waiting = nil
}

// read answers r stage by stage until the file ends.
func (w *worker) read(ctx context.Context, r request) (err error) {
	var f *remote.File
	var e *engine.Engine
	installed := false
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		if err != nil && f != nil {
			f.Close()
		}
		if err != nil && e != nil && !installed {
			e.Close()
		}
	}()
	start := time.Now()
	if err := browser.Supported(); err != nil {
		return err
	}
	if f, err = remote.Open(ctx, fetch(&w.mu, r.URL), pause(&w.mu)); err != nil {
		return err
	}
	host := browser.New(browser.Options{Threads: r.Threads, Helper: func() js.Value { return js.Global().Call("lqaHelper") }})
	paths, err := choices(host, r.SIMD)
	if err != nil {
		return err
	}
	if f.Size() > largeBytes {
		f.Pieces(headBytes)
	}
	hash, shards := "", false
	stream := &progress{Reader: f, total: max(0, f.Size()), report: func(loaded, total int64) { w.progress(r, "fetch", loaded, total) }}
	o := engine.Options{Host: host, Paths: paths, Hash: subtleHash(&w.mu), Manifest: func(m *shq.Manifest, sum [32]byte) error {
		hash = hex.EncodeToString(sum[:])
		if r.Integrity != "" && !strings.EqualFold(r.Integrity, hash) {
			return fmt.Errorf("%w: manifest %s, not %s", errIntegrity, hash, r.Integrity)
		}
		stream.total = m.FileBytes()
		f.Limit(-1)
		if shards = m.Stages() > engine.StageTokens; shards && f.Ranges() {
			// Stage by stage, so that nothing is on its way before it is needed.
			f.Limit(m.StageEnd(engine.StageImage))
			stream.total = m.StageEnd(engine.StageText)
		}
		return nil
	}}
	if f.Ranges() {
		o.Fetch = f.ReadAt
	}
	if e, err = engine.Open(stream, o); err != nil {
		return err
	}
	w.host = host
	w.embedding, w.middle = make([]float32, e.Config().Embed), make([]float32, e.Config().Embed)
	for {
		if !f.Ranges() {
			e.StopFetching()
		}
		stage, err := e.LoadStage(ctx)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		switch stage {
		case engine.StageImage:
			if err := w.warmUp(r, e); err != nil {
				return err
			}
			w.engine, w.target, w.view, w.viewed = e, host.Pixels(e.FrameMemory()), host.Pixels(e.ViewMemory()), nil
			installed = true
			w.loaded(r, "image", hash, start)
		case engine.StageText:
			w.loaded(r, "text", hash, start)
		}
		if shards {
			f.Limit(e.Manifest().StageEnd(stage + 1))
		}
		w.again(w.waiting...)
		w.waiting = nil
	}
}

// A file over largeBytes is read in pieces of headBytes until its manifest says
// where they should end: of a fast line megabytes are under way before a request can
// be taken back. Others are asked for at once, which is sooner, and leaves a
// file to the browser's cache that it can use again.
const (
	largeBytes = 16 << 20
	headBytes  = 128 << 10
)

// loaded tells that a stage has come.
func (w *worker) loaded(r request, stage, hash string, start time.Time) {
	e := w.engine
	mem := w.memory(nil)
	w.reply(r, proto.Reply{Kind: proto.Loaded, Memory: &mem, ModelInfo: &proto.ModelInfo{
		Stage: stage, Model: e.Manifest().Name, Hash: hash, Simd: simd(e.Device().Path()), Threads: e.Device().Threads(), Kernels: kernels(e.Device()),
		Defaults: e.Config().Text.Defaults, Templates: e.Config().Text.Templates, Adapters: tta.Names(), Methods: methods(), Effects: effects(),
		LoadMS: ms(time.Since(start)),
	}})
}

func methods() (list []proto.Method) {
	for _, m := range tta.Methods {
		list = append(list, proto.Method{Name: m.Name, Title: m.Title, Doc: m.Doc})
	}
	return list
}

func effects() (list []string) {
	for _, k := range shift.Kinds {
		list = append(list, k.Name)
	}
	return list
}

// again serves requests that had to wait, before those that came after them.
func (w *worker) again(r ...request) {
	w.queue = append(r, w.queue...)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// overtake ends what waits to give a session labels: others have come, or its
// end.
func (w *worker) overtake(session string) {
	for _, list := range []*[]request{&w.waiting, &w.needing} {
		var rest []request
		for _, q := range *list {
			if q.Session != session {
				rest = append(rest, q)
				continue
			}
			w.reply(q, proto.Reply{Kind: proto.Dropped})
		}
		*list = rest
	}
}

// need has the token rows fetched that r's labels need, after those of earlier
// requests; all else goes on.
func (w *worker) need(r request) {
	w.needing = append(w.needing, r)
	if !w.fetching {
		w.fetching = true
		go w.fetchTokens()
	}
}

func (w *worker) fetchTokens() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.needing) > 0 {
		r := w.needing[0]
		err := w.prepare(r)
		// While it waited r may have been overtaken, or the engine replaced.
		i := slices.IndexFunc(w.needing, func(q request) bool { return q.ID == r.ID })
		if i < 0 {
			continue
		}
		w.needing = slices.Delete(w.needing, i, i+1)
		if err != nil {
			w.fail(r, err)
			continue
		}
		w.again(r)
	}
	w.fetching = false
}

func (w *worker) prepare(r request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	e, ctx := w.engine, w.ctx
	err = e.Prepare(ctx, tta.CleanLabels(r.Labels), templates(r))
	if !errors.Is(err, remote.ErrNoRanges) {
		return err
	}
	// The server promised pieces and sends all: then all, once.
	e.StopFetching()
	for err = nil; err == nil; {
		_, err = e.LoadStage(ctx)
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// templates are those that a request asks for; none: the model's own.
func templates(r request) []string {
	if r.Template == "" {
		return nil
	}
	return []string{r.Template}
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
	embeddings, err := w.engine.EmbedPrompts(labels, templates(r))
	switch {
	case errors.Is(err, engine.ErrTokens) && !w.loading:
		w.need(r)
		return nil
	case errors.Is(err, engine.ErrTextNotReady), errors.Is(err, engine.ErrTokens):
		return w.wait(r, err)
	case err != nil:
		return err
	}
	mean, err := w.engine.ImageMean()
	if err != nil {
		return err
	}
	cfg := w.engine.Config()
	s, err := tta.NewSession(nil, tta.SessionConfig{
		Labels: labels, Embeddings: embeddings, Scale: cfg.LogitScale, Temperature: cfg.Temperature,
		NoneCosine: cfg.NoneCosine, ImageMean: mean, Adapter: adapter, Metric: w.compare,
		Kernels: score.On(func() device.Host { return browser.New(browser.Options{}) }),
	})
	if err != nil {
		return err
	}
	now := &session{Session: s}
	if old := w.sessions[r.Session]; old != nil {
		now.effect, now.frozen, now.watched = old.effect, old.frozen, old.watched
		now.Freeze(now.frozen)
		old.Close()
	}
	w.sessions[r.Session] = now
	w.reply(r, proto.Reply{Kind: proto.Opened, SessionInfo: &proto.SessionInfo{
		Labels: s.Labels(), Known: w.engine.Known(labels), EmbedMS: ms(time.Since(start)),
	}})
	return nil
}

// compare is the engine's metric, or nil, where its weights cannot be read.
func (w *worker) compare() *tta.Metric {
	if w.metric == nil && w.engine != nil {
		if p, err := w.engine.Projection(); err == nil {
			w.metric = tta.NewMetric(p, w.engine.Config().Embed)
		}
	}
	return w.metric
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
	if t := r.beside.Type(); t != js.TypeObject {
		return errImage
	}
	start := time.Now()
	e := w.engine
	w.viewed = nil
	w.pixels.Invoke(r.beside, w.target, engine.MaxPixels)
	w.mu.Unlock()
	size := <-w.pixelsEnd
	w.mu.Lock()
	if size.err != nil {
		return fmt.Errorf("%w: %w", errImage, size.err)
	}
	if e != w.engine || w.sessions[r.Session] != s { // the world changed while the pixels came
		w.reply(r, proto.Reply{Kind: proto.Dropped})
		return nil
	}
	s.size = size
	var middle time.Duration // that a closer look took
	s.taught = s.Taught(s.taught[:0])
	if s.both = len(s.taught) > 0; s.both { // first, so that the view is of the whole
		from := time.Now()
		if err := w.closer(s); err != nil {
			return err
		}
		middle = time.Since(from)
	}
	if err := w.show(s); err != nil {
		return err
	}
	viewed := time.Now()
	if err := e.Encode(w.embedding); err != nil {
		return err
	}
	if s.both {
		tta.Both(w.embedding, w.embedding, w.middle)
	}
	encoded := time.Now()
	s.newest, w.viewed = append(s.newest[:0], w.embedding...), s
	var err error
	if r.Still {
		err = s.Still(w.embedding, &s.result)
	} else {
		err = s.Frame(time.Duration(r.Time*float64(time.Millisecond)), w.embedding, &s.result)
	}
	if err != nil {
		return err
	}
	s.zeroShot = scores(s.zeroShot, s.Labels(), s.result.ZeroShot)
	s.adapted = scores(s.adapted, s.Labels(), s.result.Adapted)
	mem := w.memory(s)
	report := s.result.Report
	told := proto.Report{Method: report.Method, Entries: report.Entries, Shift: report.Shift, Text: report.Text,
		Stickiness: report.Stickiness, Entered: report.Entered}
	var beside []any
	if s.watched {
		told.Voted = s.votes()
		if s.effect != nil || report.Entered >= 0 && !r.Still {
			beside = []any{w.view}
		}
	}
	w.reply(r, proto.Reply{Kind: proto.Result, Memory: &mem, Answer: &proto.Answer{
		ZeroShot: proto.Scores{Scores: s.zeroShot, None: s.result.ZeroShot.None}, Adapted: proto.Scores{Scores: s.adapted, None: s.result.Adapted.None}, Time: r.Time,
		ViewMS: ms(viewed.Sub(start) - middle), EncodeMS: ms(encoded.Sub(viewed) + middle), AdaptMS: ms(time.Since(encoded)),
		Report: told,
	}}, beside...)
	return nil
}

// show makes the view of s's picture in the frame memory.
func (w *worker) show(s *session) error {
	if err := w.engine.SetFrame(nil, s.size.width, s.size.height); err != nil {
		return err
	}
	return w.harden(s.effect)
}

// closer embeds the middle of that picture.
func (w *worker) closer(s *session) error {
	if err := w.engine.Closer(s.size.width, s.size.height); err != nil {
		return err
	}
	if err := w.harden(s.effect); err != nil {
		return err
	}
	return w.engine.Encode(w.middle)
}

// harden lets an effect, if there is one, work on the view.
func (w *worker) harden(effect *shift.Effect) error {
	if effect == nil {
		return nil
	}
	side := w.engine.ViewSize()
	w.scratch = slices.Grow(w.scratch[:0], 4*side*side)[:4*side*side]
	if err := w.engine.View(w.scratch); err != nil {
		return err
	}
	effect.Apply(w.scratch, side, side)
	return w.engine.SetView(w.scratch)
}

// maxVotes is how many votes an answer tells.
const maxVotes = 8

// votes are the weightiest of the last frame. Taught examples, which come in
// the order of Taught, are told by their number.
func (s *session) votes() []proto.Vote {
	s.exemplars, s.taught = s.Exemplars(s.exemplars[:0]), s.Taught(s.taught[:0])
	n := 0
	for i := range s.exemplars {
		if s.exemplars[i].Taught {
			s.exemplars[i].Slot = int(s.taught[n].ID)
			n++
		}
	}
	weight := func(w float32) float32 {
		if w < 0 {
			return -w
		}
		return w
	}
	s.voted = s.voted[:0]
	for _, e := range s.exemplars {
		n := len(s.voted)
		if n < maxVotes {
			n++
			s.voted = append(s.voted, proto.Vote{})
		} else if weight(e.Weight) <= weight(s.voted[n-1].Weight) {
			continue
		}
		k := n - 1
		for ; k > 0 && weight(e.Weight) > weight(s.voted[k-1].Weight); k-- {
			s.voted[k] = s.voted[k-1]
		}
		s.voted[k] = proto.Vote{Slot: e.Slot, Label: s.Labels()[e.Label], Taught: e.Taught, Weight: e.Weight}
	}
	return s.voted
}

// drop frees a picture that nobody will look at.
func (w *worker) drop(r request) {
	if r.beside.Type() == js.TypeObject && r.beside.Get("close").Type() == js.TypeFunction {
		r.beside.Call("close")
	}
}

// maxScores is how many scores an answer holds: nobody reads further, and
// 2,000 of them cost more than the frame.
const maxScores = 32

// scores lists the likeliest labels in dst's memory, ties in their order.
// (Sorting all of them would be 9 kB more of program.)
func scores(dst []proto.Score, labels []string, s tta.Scores) []proto.Score {
	var best [maxScores]int
	n := 0
	for i, p := range s.P {
		if n < maxScores {
			n++
		} else if p <= s.P[best[n-1]] {
			continue
		}
		k := n - 1
		for ; k > 0 && p > s.P[best[k-1]]; k-- {
			best[k] = best[k-1]
		}
		best[k] = i
	}
	dst = dst[:0]
	for _, i := range best[:n] {
		dst = append(dst, proto.Score{Label: labels[i], Score: s.P[i]})
	}
	return dst
}

// memory counts bytes. The Go heap is looked at once a second: that stops the
// world for a moment.
func (w *worker) memory(s *session) proto.Memory {
	if time.Since(w.heapAt) > time.Second {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		w.heap, w.heapAt = proto.Memory{GoHeap: int(m.Sys), Mallocs: int(m.Mallocs)}, time.Now()
	}
	k := w.engine.Memory()
	m := w.heap
	m.Kernel, m.Weights, m.Activations = k.Total, k.Weights, k.Activations
	for _, s := range w.sessions {
		m.Kernel += s.KernelBytes()
	}
	if s != nil {
		m.State = s.result.Report.StateBytes
	}
	return m
}

func (w *worker) progress(r request, phase string, loaded, total int64) {
	w.reply(r, proto.Reply{Kind: proto.Progress, ProgressInfo: &proto.ProgressInfo{Phase: phase, LoadedBytes: loaded, TotalBytes: total}})
}

// reply answers a request; beside it go a view and a state, where given.
func (w *worker) reply(r request, m proto.Reply, beside ...any) {
	m.ID, m.Session = r.ID, r.Session
	w.writer.Reset()
	m.Write(&w.writer)
	if err := w.writer.Err(); err != nil {
		m = proto.Reply{Kind: proto.Failed, ID: r.ID, Session: r.Session, Error: &proto.Error{Code: proto.Internal, Message: err.Error()}}
		w.writer.Reset()
		m.Write(&w.writer)
	}
	text := w.writer.Text
	if w.bytesLen < len(text) {
		w.bytesLen = 2 * len(text)
		w.bytes = js.Global().Get("Uint8Array").New(w.bytesLen)
	}
	js.CopyBytesToJS(w.bytes, text)
	w.send.Invoke(append([]any{w.bytes, len(text)}, beside...)...)
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
	{remote.ErrChanged, proto.FileChanged},
	{remote.ErrFetch, proto.FetchFailed},
	{errReplaced, proto.NotLoaded},
	{errImage, proto.BadImage},
	{clip.ErrPicture, proto.BadImage},
	{tta.ErrNoLabels, proto.NoLabels},
	{tta.ErrTooManyLabels, proto.TooManyLabels},
	{tta.ErrState, proto.BadState},
	{tta.ErrAdapter, proto.BadAdapter},
	{tta.ErrLabel, proto.UnknownLabel},
	{tta.ErrTaught, proto.UnknownExample},
	{errNothing, proto.NothingSeen},
	{shift.ErrEffect, proto.BadEffect},
	{engine.ErrTextNotReady, proto.TextNotReady},
	{engine.ErrTokens, proto.TextNotReady},
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
