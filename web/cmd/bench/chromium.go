package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"lqa/quant/clip"
	"lqa/quant/shq"
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
		if (i >= %d) out.push({view: r.viewMS, adapt: r.adaptMS, kernel: r.memory.kernel});
	}
	return out;
})()`

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
	_, weights, err := manifest(filepath.Join(d.site, "model.shq"))
	if err != nil {
		return err
	}
	rows, err := engineRows(url, weights)
	if err != nil {
		return err
	}
	for _, r := range rows {
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

func engineRows(url, weights string) ([]row, error) {
	b, err := browser.Start(browser.Options{})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	p, err := b.NewPage()
	if err != nil {
		return nil, err
	}
	if err := p.Open(url + client.BlankPath); err != nil {
		return nil, err
	}
	blank, err := b.PeakBytes()
	if err != nil {
		return nil, err
	}
	if err := p.Eval(client.Script, nil); err != nil {
		return nil, err
	}
	ask := func(r proto.Request) (proto.Reply, error) {
		q, err := json.Marshal(r)
		if err != nil {
			return proto.Reply{}, err
		}
		var reply proto.Reply
		if err := p.Eval("lqa.ask("+string(q)+")", &reply); err != nil {
			return reply, err
		}
		if reply.Error != nil {
			return reply, fmt.Errorf("%s: %s", reply.Code, reply.Message)
		}
		return reply, nil
	}
	loaded, err := ask(proto.Request{Kind: proto.Load, URL: "/model.shq"})
	if err != nil {
		return nil, err
	}
	if _, err := ask(proto.Request{Kind: proto.Open, Session: "bench", Labels: common, Adapter: "lqa"}); err != nil {
		return nil, err
	}
	fmt.Fprintln(os.Stderr, "chromium: frames")
	var looks []struct {
		View, Adapt float64
		Kernel      int64
	}
	if err := p.Eval(fmt.Sprintf(encodeScript, warm, frames, warm), &looks); err != nil {
		return nil, err
	}
	var view, adapt, text []float64
	for _, l := range looks {
		view, adapt = append(view, l.View), append(adapt, l.Adapt)
	}
	fmt.Fprintln(os.Stderr, "chromium: labels")
	for _, l := range rareLabels(20) {
		reply, err := ask(proto.Request{Kind: proto.Open, Session: "text", Labels: []string{l}})
		if err != nil {
			return nil, err
		}
		text = append(text, reply.EmbedMS)
	}
	peak, err := b.PeakBytes()
	if err != nil {
		return nil, err
	}
	rows := []row{
		newRow("view", "chromium", weights, view),
		newRow("adapt", "chromium", weights, adapt),
		newRow("text-embed", "chromium", weights, text),
	}
	for i := range rows {
		rows[i].SIMD, rows[i].Threads = loaded.Simd, loaded.Threads
		rows[i].KernelBytes, rows[i].RendererPeakBytes, rows[i].RendererBlankBytes = &looks[0].Kernel, &peak, &blank
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
