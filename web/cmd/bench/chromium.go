package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"lqa/quant/clip"
	"lqa/quant/shq"
	"lqa/tta/ttatest"
	"lqa/wasm/proto"
	"lqa/web/site"
	"lqa/web/test/browser"
	"lqa/web/test/client"
)

// encodeScript sends n frames of a session, the first of them to warm up, and
// resolves with the results of the others.
const encodeScript = `(async () => {
	const colors = ['teal', 'maroon', 'olive', 'navy', 'gold'];
	const out = [];
	for (let i = 0; i < %d + %d; i++) {
		const r = await lqa.ask({kind: 'frame', session: 'bench', time: 100 * i}, lqa.plain(640, 480, colors[i %% colors.length]));
		if (r.kind !== 'result') throw new Error(r.message);
		if (i >= %d) out.push({view: r.viewMS, encode: r.encodeMS, adapt: r.adaptMS, kernel: r.memory.kernel});
	}
	return out;
})()`

// look is a result of it.
type look struct {
	View, Encode, Adapt float64
	Kernel              int64
}

// coldScript resolves with the milliseconds from navigation to the first
// answer of the page.
const coldScript = `new Promise((resolve) => {
	if (document.querySelector('#adapted > li')) resolve(-1);
	document.addEventListener('lqa-result', () => resolve(performance.now()), {once: true});
})`

// chromium measures in a real browser.
func chromium(c choice, out *json.Encoder) error {
	if _, err := browser.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: skipped:", err)
		return nil
	}
	ctx := context.Background()
	root, err := site.Root(ctx)
	if err != nil {
		return err
	}
	d := newDirs(root)
	fmt.Fprintln(os.Stderr, "chromium: building the site")
	if err := site.Build(ctx, root, d.site, os.Stderr); err != nil {
		return err
	}
	url, stop, err := d.serve()
	if err != nil {
		return err
	}
	defer stop()
	if slices.Contains(c.models, shipped) {
		if err := shippedRows(d, url, out); err != nil {
			return err
		}
	}
	return comparedRows(c, root, d, url, out)
}

// shippedRows measures the shipped model: the page's own worker, driven over
// its protocol from an empty page, and the whole page for the cold start.
func shippedRows(d dirs, url string, out *json.Encoder) error {
	cfg, weights, err := manifest(filepath.Join(d.site, "model.shq"))
	if err != nil {
		return err
	}
	rows, err := engineRows(url, weights)
	if err != nil {
		return err
	}
	adapt, err := adaptRows(url, "/model.shq", shipped, weights, cfg.Embed)
	if err != nil {
		return err
	}
	for _, r := range append(rows, adapt...) {
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	r, err := coldRow(url, weights)
	if err != nil {
		return err
	}
	r.KernelBytes = rows[0].KernelBytes
	return out.Encode(r)
}

// comparedRows measures all forms of our engine side by side with the peers,
// model by model, in one Chromium.
func comparedRows(c choice, root string, d dirs, url string, out *json.Encoder) error {
	b, err := browser.Start(browser.Options{})
	if err != nil {
		return err
	}
	defer b.Close()
	version, err := b.Version()
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "chromium:", version)
	blank, err := blankBytes(b, url)
	if err != nil {
		return err
	}
	all, err := roofline(b, url, c.n)
	if err != nil {
		return err
	}
	for _, r := range all {
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	for _, name := range c.models {
		m, err := d.loadModel(root, name)
		if err == nil {
			err = d.write(m)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: left out: %s: %v\n", name, err)
			continue
		}
		pages := d.ours(m, c.threads)
		if c.peers {
			pages = append(pages, d.peers(name, c.threads, imageMACs(m.config))...)
		}
		rows := sideBySide(b, url, pages, c.n, blank)
		compare(rows)
		for _, r := range rows {
			if err := out.Encode(r); err != nil {
				return err
			}
		}
		all = append(all, rows...)
		if name == largest {
			f := m.files[0]
			adapt, err := adaptRows(url, f.url, name, f.weights, m.config.Embed)
			if err != nil {
				return err
			}
			for _, r := range adapt {
				if err := out.Encode(r); err != nil {
					return err
				}
			}
		}
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s, medians of %d frames.\n\n", version, c.n)
	table(&text, all)
	os.Stderr.Write(text.Bytes())
	return os.WriteFile(filepath.Join(filepath.Dir(d.made), "bench.md"), text.Bytes(), 0o644)
}

// manifest reads what the model is.
func manifest(path string) (*clip.Config, string, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, "", err
	}
	r, err := shq.NewReader(bytes.NewReader(file), shq.Limits{}, nil)
	if err != nil {
		return nil, "", err
	}
	defer r.Close()
	cfg, err := clip.ParseConfig(r.Manifest().Model)
	if err != nil {
		return nil, "", err
	}
	return cfg, weightKind(r.Manifest()), nil
}

// driver is an empty page with a client in it.
type driver struct {
	browser *browser.Browser
	page    *browser.Page
	blank   int64
	loaded  proto.Reply
}

// drive starts one and loads a model.
func drive(url string, load proto.Request) (d *driver, err error) {
	d = new(driver)
	if d.browser, err = browser.Start(browser.Options{}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.browser.Close()
		}
	}()
	if d.page, err = d.browser.NewPage(); err != nil {
		return nil, err
	}
	if err = d.page.Open(url + client.BlankPath); err != nil {
		return nil, err
	}
	if d.blank, err = d.browser.PeakBytes(); err != nil {
		return nil, err
	}
	if err = d.page.Eval(client.Script, nil); err != nil {
		return nil, err
	}
	load.Kind = proto.Load
	d.loaded, err = d.ask(load)
	return d, err
}

func (d *driver) ask(r proto.Request) (proto.Reply, error) {
	q, err := json.Marshal(r)
	if err != nil {
		return proto.Reply{}, err
	}
	var reply proto.Reply
	if err := d.page.Eval("lqa.ask("+string(q)+")", &reply); err != nil {
		return reply, err
	}
	if reply.Error != nil {
		return reply, fmt.Errorf("%s: %s", reply.Code, reply.Message)
	}
	return reply, nil
}

func (d *driver) frames() (looks []look, err error) {
	return looks, d.page.Eval(fmt.Sprintf(encodeScript, warm, frames, warm), &looks)
}

func engineRows(url, weights string) ([]row, error) {
	d, err := drive(url, proto.Request{URL: "/model.shq"})
	if err != nil {
		return nil, err
	}
	defer d.browser.Close()
	if _, err := d.ask(proto.Request{Kind: proto.Open, Session: "bench", Labels: rareLabels(10), Adapter: "stream"}); err != nil {
		return nil, err
	}
	fmt.Fprintln(os.Stderr, "chromium: frames")
	looks, err := d.frames()
	if err != nil {
		return nil, err
	}
	var view, text []float64
	for _, l := range looks {
		view = append(view, l.View)
	}
	fmt.Fprintln(os.Stderr, "chromium: labels")
	for _, l := range rareLabels(20) {
		reply, err := d.ask(proto.Request{Kind: proto.Open, Session: "text", Labels: []string{l}})
		if err != nil {
			return nil, err
		}
		text = append(text, reply.EmbedMS)
	}
	peak, err := d.browser.PeakBytes()
	if err != nil {
		return nil, err
	}
	rows := []row{
		newRow("view", "chromium", weights, view),
		newRow("text-embed", "chromium", weights, text),
	}
	for i := range rows {
		rows[i].SIMD, rows[i].Threads = d.loaded.Simd, d.loaded.Threads
		rows[i].KernelBytes, rows[i].RendererPeakBytes, rows[i].RendererBlankBytes = &looks[0].Kernel, &peak, &d.blank
	}
	return rows, nil
}

// saveScript resolves with the session's state, restoreScript gives it another,
// in base64.
const (
	saveScript = `lqa.ask({kind: 'save', session: 'bench'}).then(async ({state}) => {
		const url = await new Promise((done) => {
			const r = new FileReader();
			r.onload = () => done(r.result);
			r.readAsDataURL(new Blob([state]));
		});
		return url.slice(url.indexOf(',') + 1);
	})`
	restoreScript = `(async () => {
		const r = await lqa.ask({kind: 'restore', session: 'bench', state: Uint8Array.from(atob('%s'), (c) => c.charCodeAt(0))});
		if (r.kind !== 'restored') throw new Error(r.message);
	})()`
)

// adaptRows measures what comes after the image tower, with few labels and
// with many, by stream, whose caches are full; and what share of the tower's time that
// is, on one thread.
func adaptRows(url, file, name, weights string, width int) ([]row, error) {
	d, err := drive(url, proto.Request{URL: file, Threads: 1})
	if err != nil {
		return nil, err
	}
	defer d.browser.Close()
	var rows []row
	for _, n := range labelCounts {
		fmt.Fprintf(os.Stderr, "chromium: %s, %d labels\n", name, n)
		if _, err := d.ask(proto.Request{Kind: proto.Open, Session: "bench", Labels: rareLabels(n), Adapter: "stream"}); err != nil {
			return nil, err
		}
		var empty []byte
		if err := d.page.Eval(saveScript, &empty); err != nil {
			return nil, err
		}
		full := base64.StdEncoding.EncodeToString(ttatest.Full(empty, n, width))
		if err := d.page.Eval(fmt.Sprintf(restoreScript, full), nil); err != nil {
			return nil, err
		}
		looks, err := d.frames()
		if err != nil {
			return nil, err
		}
		var adapt, encode []float64
		for _, l := range looks {
			adapt, encode = append(adapt, l.Adapt), append(encode, l.Encode)
		}
		r := newRow("adapt", "chromium", weights, adapt)
		share := r.MS / median(encode)
		r.Model, r.SIMD, r.Labels, r.Share, r.KernelBytes = name, d.loaded.Simd, n, &share, &looks[0].Kernel
		rows = append(rows, r)
	}
	return rows, nil
}

// coldRow opens the page anew, with an empty cache each time.
func coldRow(url, weights string) (row, error) {
	var cold []float64
	var peak, blank int64
	for i := range starts {
		fmt.Fprintf(os.Stderr, "chromium: cold start %d of %d\n", i+1, starts)
		t, p, b, err := coldStart(url)
		if err != nil {
			return row{}, err
		}
		cold = append(cold, t)
		peak, blank = max(peak, p), max(blank, b)
	}
	r := newRow("cold-start", "chromium", weights, cold)
	r.RendererPeakBytes, r.RendererBlankBytes = &peak, &blank
	return r, nil
}

func coldStart(url string) (ms float64, peak, blank int64, err error) {
	b, err := browser.Start(browser.Options{})
	if err != nil {
		return 0, 0, 0, err
	}
	defer b.Close()
	p, err := b.NewPage()
	if err != nil {
		return 0, 0, 0, err
	}
	if err = p.Open(url + client.BlankPath); err != nil {
		return 0, 0, 0, err
	}
	if blank, err = b.PeakBytes(); err != nil {
		return 0, 0, 0, err
	}
	if err = p.Call("Page.navigate", map[string]any{"url": url + "/"}, nil); err != nil {
		return 0, 0, 0, err
	}
	if err = p.Eval(coldScript, &ms); err != nil {
		return 0, 0, 0, err
	}
	if ms < 0 {
		return 0, 0, 0, fmt.Errorf("the page had answered before it was listened to")
	}
	peak, err = b.PeakBytes()
	return ms, peak, blank, err
}
