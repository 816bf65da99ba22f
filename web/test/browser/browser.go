// Package browser drives a real Chromium in tests and benchmarks, over the
// DevTools protocol on a pipe.
//
// It is a few hundred lines of its own and not a library because the tests
// count requests over page, worker and service worker: every target is stopped
// at its birth, watched, and let go, so that not even its first request is
// missed.
package browser

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrNotFound: there is no Chromium here. Tests skip.
var ErrNotFound = errors.New("browser: no Chromium found (set CHROMIUM, or on Debian: apt-get install chromium)")

// Find returns the path of a Chromium: $CHROMIUM, or the first of the usual
// names on the path.
func Find() (string, error) {
	if p := os.Getenv("CHROMIUM"); p != "" {
		return p, nil
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome-stable", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", ErrNotFound
}

// Options of Start.
type Options struct {
	// Camera is a .y4m file that plays as the camera, over and over, and is
	// allowed without asking. Without one there is no camera.
	Camera string
	// Refuse answers no to every permission that a page asks for; the camera
	// is there.
	Refuse bool
	// Insecure accepts any certificate.
	Insecure bool
	// Width and Height of the window in CSS pixels; 1280 × 900 if zero.
	Width, Height int
	// Log gets Chromium's own messages; they are dropped if nil.
	Log io.Writer
}

// Browser is a running Chromium with a profile of its own.
type Browser struct {
	cmd     *exec.Cmd
	conn    *conn
	profile string
	exited  chan struct{}

	mu       sync.Mutex
	console  []string
	requests []Request
	targets  map[string]string // session → kind of target
}

// Request is one that a target made.
type Request struct {
	Target string // page, worker, service_worker, ...
	Method string
	URL    string
}

// args are quiet: nothing of Chromium's own goes to the network.
func args(o Options, profile string) []string {
	if o.Width == 0 {
		o.Width, o.Height = 1280, 900
	}
	a := []string{
		"--headless", "--remote-debugging-pipe", "--user-data-dir=" + profile,
		fmt.Sprintf("--window-size=%d,%d", o.Width, o.Height),
		"--no-first-run", "--no-default-browser-check", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
		"--disable-domain-reliability", "--disable-quic", "--disable-gpu", "--disable-breakpad",
		"--metrics-recording-only", "--mute-audio", "--password-store=basic",
		"--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required",
		// A hidden or covered window must not slow the page down.
		"--disable-background-timer-throttling", "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding",
		"--disable-features=Translate,OptimizationHints,MediaRouter,SpareRendererForSitePerProcess",
	}
	if os.Geteuid() == 0 {
		a = append(a, "--no-sandbox") // the sandbox refuses root
	}
	if o.Camera != "" {
		a = append(a, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
			"--use-file-for-fake-video-capture="+o.Camera)
	}
	if o.Refuse {
		a = append(a, "--use-fake-device-for-media-stream", "--deny-permission-prompts")
	}
	if o.Insecure {
		a = append(a, "--ignore-certificate-errors")
	}
	return append(a, "about:blank")
}

// Start starts Chromium. Close ends it.
func Start(o Options) (*Browser, error) {
	path, err := Find()
	if err != nil {
		return nil, err
	}
	profile, err := os.MkdirTemp("", "lqa-chromium-")
	if err != nil {
		return nil, fmt.Errorf("browser: %w", err)
	}
	b := &Browser{profile: profile, exited: make(chan struct{}), targets: map[string]string{}}
	if err := b.start(path, o); err != nil {
		os.RemoveAll(profile)
		return nil, err
	}
	return b, nil
}

func (b *Browser) start(path string, o Options) error {
	// Chromium reads commands from descriptor 3 and answers on 4.
	inR, inW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("browser: %w", err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		inR.Close()
		inW.Close()
		return fmt.Errorf("browser: %w", err)
	}
	b.cmd = exec.Command(path, args(o, b.profile)...)
	b.cmd.ExtraFiles = []*os.File{inR, outW}
	b.cmd.Stdout, b.cmd.Stderr = o.Log, o.Log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = b.cmd.Start()
	inR.Close()
	outW.Close()
	if err != nil {
		inW.Close()
		outR.Close()
		return fmt.Errorf("browser: %w", err)
	}
	b.conn = newConn(outR, inW, b.onEvent)
	go func() {
		b.cmd.Wait()
		outR.Close()
		inW.Close()
		close(b.exited)
	}()
	// A page's session brings its workers; those that outlive pages come here.
	if err := b.conn.call("", "Target.setAutoAttach", map[string]any{
		"autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true,
		"filter": []any{map[string]any{"type": "service_worker"}, map[string]any{"type": "shared_worker"}},
	}, nil); err != nil {
		b.Close()
		return err
	}
	return nil
}

// Close ends the browser and removes its profile.
func (b *Browser) Close() {
	if ch, err := b.conn.send("", "Browser.close", nil); err == nil {
		select {
		case <-ch:
		case <-b.exited:
		case <-time.After(5 * time.Second):
		}
	}
	select {
	case <-b.exited:
	case <-time.After(5 * time.Second):
	}
	syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL) // helpers that outlived it
	<-b.exited
	os.RemoveAll(b.profile)
}

// Done is closed when the browser has ended.
func (b *Browser) Done() <-chan struct{} { return b.exited }

// Version is the browser's name and version.
func (b *Browser) Version() (string, error) {
	var v struct{ Product string }
	err := b.conn.call("", "Browser.getVersion", nil, &v)
	return v.Product, err
}

// Console returns errors, warnings and uncaught exceptions of all targets.
func (b *Browser) Console() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.console...)
}

// Requests returns what all targets have asked the network for, in order.
func (b *Browser) Requests() []Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Request(nil), b.requests...)
}

// Targets lists the kinds of targets that are watched, with repeats.
func (b *Browser) Targets() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var kinds []string
	for _, k := range b.targets {
		kinds = append(kinds, k)
	}
	return kinds
}

// PeakBytes is the largest resident size that any renderer process of this
// browser has had (Linux: VmHWM).
func (b *Browser) PeakBytes() (int64, error) {
	renderers, err := b.renderers()
	if err != nil {
		return 0, err
	}
	var peak int64
	for pid := range renderers {
		if n, err := PeakBytes(pid); err == nil { // else it has just ended
			peak = max(peak, n)
		}
	}
	if peak == 0 {
		return 0, errors.New("browser: no renderer's memory could be read")
	}
	return peak, nil
}

// PeakBytes is the largest resident size that a process has had since Chromium
// last set the mark back, which it does now and then: poll it (Linux: VmHWM).
func PeakBytes(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("browser: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("browser: process %d has no VmHWM", pid)
}

// renderers are the processor seconds that each renderer process has used.
func (b *Browser) renderers() (map[int]float64, error) {
	var info struct {
		ProcessInfo []struct {
			Type    string
			ID      int
			CPUTime float64
		}
	}
	if err := b.conn.call("", "SystemInfo.getProcessInfo", nil, &info); err != nil {
		return nil, err
	}
	seconds := map[int]float64{}
	for _, p := range info.ProcessInfo {
		if p.Type == "renderer" {
			seconds[p.ID] = p.CPUTime
		}
	}
	return seconds, nil
}

// onEvent keeps the books; it runs on the connection's reader.
func (b *Browser) onEvent(e event) {
	switch e.Method {
	case "Target.attachedToTarget":
		var p struct {
			SessionID  string `json:"sessionId"`
			TargetInfo struct {
				Type string `json:"type"`
			} `json:"targetInfo"`
		}
		if json.Unmarshal(e.Params, &p) != nil {
			return
		}
		b.mu.Lock()
		b.targets[p.SessionID] = p.TargetInfo.Type
		b.mu.Unlock()
		b.watch(p.SessionID)
	case "Target.detachedFromTarget":
		var p struct {
			SessionID string `json:"sessionId"`
		}
		if json.Unmarshal(e.Params, &p) == nil {
			b.mu.Lock()
			delete(b.targets, p.SessionID)
			b.mu.Unlock()
		}
	case "Network.requestWillBeSent":
		var p struct {
			Request struct{ URL, Method string }
		}
		if json.Unmarshal(e.Params, &p) != nil {
			return
		}
		b.mu.Lock()
		b.requests = append(b.requests, Request{b.targets[e.Session], p.Request.Method, p.Request.URL})
		b.mu.Unlock()
	case "Network.webSocketCreated", "Network.webTransportCreated":
		var p struct{ URL string }
		if json.Unmarshal(e.Params, &p) != nil {
			return
		}
		b.mu.Lock()
		b.requests = append(b.requests, Request{b.targets[e.Session], "CONNECT", p.URL})
		b.mu.Unlock()
	case "Runtime.exceptionThrown":
		var p struct {
			ExceptionDetails exception
		}
		if json.Unmarshal(e.Params, &p) == nil {
			b.note(e.Session, "exception: "+p.ExceptionDetails.String())
		}
	case "Runtime.consoleAPICalled":
		var p struct {
			Type string
			Args []struct {
				Value       any
				Description string
			}
		}
		if json.Unmarshal(e.Params, &p) != nil || p.Type != "error" && p.Type != "warning" {
			return
		}
		line := p.Type + ":"
		for _, a := range p.Args {
			if a.Value != nil {
				line += fmt.Sprint(" ", a.Value)
			} else {
				line += " " + a.Description
			}
		}
		b.note(e.Session, line)
	case "Log.entryAdded":
		var p struct {
			Entry struct{ Source, Level, Text, URL string }
		}
		if json.Unmarshal(e.Params, &p) == nil && (p.Entry.Level == "error" || p.Entry.Level == "warning") {
			b.note(e.Session, p.Entry.Level+": "+p.Entry.Text+" "+p.Entry.URL)
		}
	}
}

func (b *Browser) note(session, line string) {
	b.mu.Lock()
	b.console = append(b.console, b.targets[session]+" "+line)
	b.mu.Unlock()
}

// watch sets up a target that is stopped at its birth and lets it go. Answers
// are not waited for: commands of a session run in order.
func (b *Browser) watch(session string) {
	for _, c := range []struct {
		method string
		params any
	}{
		{"Target.setAutoAttach", map[string]any{"autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true}},
		{"Network.enable", nil},
		{"Runtime.enable", nil},
		{"Log.enable", nil},
		{"Runtime.runIfWaitingForDebugger", nil},
	} {
		b.conn.send(session, c.method, c.params)
	}
}

// Page is one tab.
type Page struct {
	b       *Browser
	session string
	target  string
}

// NewPage opens an empty tab.
func (b *Browser) NewPage() (*Page, error) {
	var created struct{ TargetID string }
	if err := b.conn.call("", "Target.createTarget", map[string]any{"url": "about:blank"}, &created); err != nil {
		return nil, err
	}
	var attached struct{ SessionID string }
	if err := b.conn.call("", "Target.attachToTarget", map[string]any{"targetId": created.TargetID, "flatten": true}, &attached); err != nil {
		return nil, err
	}
	p := &Page{b: b, session: attached.SessionID, target: created.TargetID}
	return p, p.Call("Page.enable", nil, nil)
}

// Call is a raw command of the protocol; params and result may be nil.
func (p *Page) Call(method string, params, result any) error {
	return p.b.conn.call(p.session, method, params, result)
}

// Open navigates and waits until the document has loaded.
func (p *Page) Open(url string) error {
	var nav struct{ ErrorText string }
	if err := p.Call("Page.navigate", map[string]any{"url": url}, &nav); err != nil {
		return err
	}
	if nav.ErrorText != "" {
		return fmt.Errorf("browser: %s: %s", url, nav.ErrorText)
	}
	return p.Wait(30*time.Second, `document.readyState === "complete"`)
}

// Process is the page's renderer process. The protocol does not tell: it is
// the one that works while the page is kept busy for a moment, or for another
// one on a busy machine.
func (p *Page) Process() (int, error) {
	for range 10 {
		before, err := p.b.renderers()
		if err != nil {
			return 0, err
		}
		if err := p.Eval(`(() => { for (const end = performance.now() + 150; performance.now() < end;); })()`, nil); err != nil {
			return 0, err
		}
		after, err := p.b.renderers()
		if err != nil {
			return 0, err
		}
		for pid, seconds := range after {
			if seconds-before[pid] > 0.1 {
				return pid, nil
			}
		}
	}
	return 0, errors.New("browser: no renderer process has worked for the page")
}

// Close closes the tab.
func (p *Page) Close() error {
	return p.b.conn.call("", "Target.closeTarget", map[string]any{"targetId": p.target}, nil)
}

type exception struct {
	Text      string
	Exception *struct {
		Description string
		Value       any
	}
}

func (e exception) String() string {
	if e.Exception == nil {
		return e.Text
	}
	if e.Exception.Description != "" {
		return e.Text + " " + e.Exception.Description
	}
	return fmt.Sprint(e.Text, " ", e.Exception.Value)
}

// Eval evaluates an expression as a visitor's act (so that it may open a
// camera or play a video), waits for it if it is a promise, and decodes its
// value into result, which may be nil.
func (p *Page) Eval(expression string, result any) error {
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *exception
	}
	err := p.Call("Runtime.evaluate", map[string]any{
		"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true,
	}, &r)
	if err != nil {
		return err
	}
	if r.ExceptionDetails != nil {
		return fmt.Errorf("browser: %s: %s", expression, r.ExceptionDetails)
	}
	if result == nil {
		return nil
	}
	if r.Result.Value == nil {
		return fmt.Errorf("browser: %s: no value", expression)
	}
	if err := json.Unmarshal(r.Result.Value, result); err != nil {
		return fmt.Errorf("browser: %s: %w", expression, err)
	}
	return nil
}

// Wait waits until the condition, a JavaScript expression, is true. The limit
// is there to end a test that hangs, not to measure.
func (p *Page) Wait(limit time.Duration, condition string) error {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		var ok bool
		err := p.Eval("!!("+condition+")", &ok)
		if err == nil && ok {
			return nil
		}
		if errors.Is(err, ErrClosed) {
			return err
		}
		if time.Now().After(end) {
			if err != nil {
				return fmt.Errorf("browser: waited %v: %w", limit, err)
			}
			return fmt.Errorf("browser: waited %v in vain for %s", limit, condition)
		}
	}
}

// Click presses and releases the left button in the middle of an element that
// is given by its selector.
func (p *Page) Click(selector string) error {
	q, err := json.Marshal(selector)
	if err != nil {
		return fmt.Errorf("browser: click: %w", err)
	}
	return p.ClickOn("document.querySelector(" + string(q) + ")")
}

// ClickOn is Click on an element that is given by a JavaScript expression, for
// those in shadow roots.
func (p *Page) ClickOn(element string) error {
	var at []float64
	err := p.Eval(`(() => { const e = `+element+`;
		if (!e) throw new Error("nothing there");
		e.scrollIntoView({block: "center", behavior: "instant"});
		const r = e.getBoundingClientRect();
		return [r.left + r.width / 2, r.top + r.height / 2]; })()`, &at)
	if err != nil {
		return fmt.Errorf("browser: click: %w", err)
	}
	for _, kind := range []string{"mouseMoved", "mousePressed", "mouseReleased"} {
		err := p.Call("Input.dispatchMouseEvent", map[string]any{
			"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1,
		}, nil)
		if err != nil {
			return err
		}
	}
	return nil
}

// Upload puts files into a file input.
func (p *Page) Upload(selector string, files ...string) error {
	var doc struct{ Root struct{ NodeID int } }
	if err := p.Call("DOM.getDocument", nil, &doc); err != nil {
		return err
	}
	var node struct{ NodeID int }
	if err := p.Call("DOM.querySelector", map[string]any{"nodeId": doc.Root.NodeID, "selector": selector}, &node); err != nil {
		return err
	}
	if node.NodeID == 0 {
		return fmt.Errorf("browser: upload: no %s", selector)
	}
	return p.Call("DOM.setFileInputFiles", map[string]any{"nodeId": node.NodeID, "files": files}, nil)
}

// Resize gives the page another viewport, in CSS pixels.
func (p *Page) Resize(width, height int, mobile bool) error {
	return p.Call("Emulation.setDeviceMetricsOverride", map[string]any{
		"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile,
	}, nil)
}

// Screenshot returns a PNG of the whole page.
func (p *Page) Screenshot() ([]byte, error) {
	var shot struct{ Data string }
	if err := p.Call("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &shot); err != nil {
		return nil, err
	}
	return base64.StdEncoding.DecodeString(shot.Data)
}
