package main

import (
	"encoding/base64"
	"fmt"

	"lqa/quant/kernel"
	"lqa/web/test/browser"
)

// peakScript resolves with the milliseconds of n runs of a list, after a
// tenth of a second of warming up.
const peakScript = `(async () => {
	const bytes = Uint8Array.from(atob('%s'), (c) => c.charCodeAt(0));
	const memory = new WebAssembly.Memory({initial: 1, maximum: 1});
	const {instance: {exports: {run}}} = await WebAssembly.instantiate(bytes, {env: {memory}});
	const list = %d;
	new Uint32Array(memory.buffer).set(%s, list / 4);
	const time = () => { const t = performance.now(); run(list, 0, 1); return performance.now() - t; };
	for (const end = performance.now() + 100; performance.now() < end;) time();
	return Array.from({length: %d}, time);
})()`

const peakTurns = 20_000

// roofline measures the inner loop of every path from the first cache, and
// gives the fastest with and without relaxed SIMD: what no layer can exceed.
func roofline(b *browser.Browser, url string, n int) ([]row, error) {
	c := contender{}
	if err := c.open(b, url); err != nil {
		return nil, err
	}
	defer c.page.Close()
	best := map[string]row{}
	for _, p := range kernel.Paths(true) {
		list := kernel.Peak{X: kernel.ControlBytes, Turns: peakTurns}.Append(nil).End()
		module, err := kernel.Module(kernel.Spec{Pages: 1, Path: p, Lists: []kernel.List{list}})
		if err != nil {
			return nil, err
		}
		words := "["
		for _, w := range list {
			words += fmt.Sprint(w, ",")
		}
		at := (kernel.ControlBytes + kernel.PeakBytes + 15) / 16 * 16
		var ms []float64
		script := fmt.Sprintf(peakScript, base64.StdEncoding.EncodeToString(module), at, words+"]", n)
		if err := c.page.Eval(script, &ms); err != nil {
			return nil, fmt.Errorf("roofline of %v: %w", p, err)
		}
		r := row{Bench: "roofline", Engine: lqa, Host: "chromium", Model: p.String(), Weights: "none", SIMD: "simd128", Threads: 1, MS: median(ms), N: n}
		if p.Form.Relaxed() {
			r.SIMD = "relaxed"
		}
		r = r.rate(int64(peakTurns * kernel.PeakMACs(p)))
		if old, ok := best[r.SIMD]; !ok || *r.GMACs > *old.GMACs {
			best[r.SIMD] = r
		}
	}
	return []row{best["relaxed"], best["simd128"]}, nil
}
