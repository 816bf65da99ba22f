package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"lqa/web/test/browser"
)

// contender is one engine with one model in a page, hence a renderer process,
// of its own.
type contender struct {
	row    row    // what is known before it runs
	macs   int64  // of a frame
	script string // puts bench on the global object: load(config), run(n)
	config any

	page *browser.Page
	pid  int
	peak int64
	ms   []float64
}

//go:embed lqa.js
var lqaScript string

// Frames of a side-by-side measurement.
const (
	burst      = 5 // frames one after another before it is another page's turn
	warmFrames = 8
	warmTime   = 2 * time.Second
	minCosine  = 0.9 // between a peer's embedding and PyTorch's: it computes the right thing
	rest       = 60 * time.Millisecond
)

// blankBytes is the peak of a page with nothing in it: the least of some, as a
// browser's first pages carry what is not theirs.
func blankBytes(b *browser.Browser, url string) (least int64, err error) {
	for i := range 3 {
		c := contender{}
		if err := c.open(b, url); err != nil {
			return 0, err
		}
		c.page.Close()
		if i == 0 || c.peak < least {
			least = c.peak
		}
	}
	return least, nil
}

// sideBySide loads all contenders and goes round them, a burst of frames each,
// until each has n frames: all meet the same machine. One that fails is told
// of and left out.
func sideBySide(b *browser.Browser, url string, all []*contender, n int, blank int64) []row {
	var live []*contender
	defer func() {
		for _, c := range all {
			if c.page != nil {
				c.page.Close()
			}
		}
	}()
	fail := func(c *contender, err error) {
		fmt.Fprintf(os.Stderr, "bench: left out: %s: %v\n", c, err)
	}
	seen := map[int]bool{}
	for _, c := range all {
		if err := c.prepare(b, url); err != nil {
			fail(c, err)
			continue
		}
		if seen[c.pid] {
			fail(c, errors.New("it shares its process with another page"))
			continue
		}
		seen[c.pid] = true
		live = append(live, c)
		fmt.Fprintf(os.Stderr, "chromium: %s is ready\n", c)
	}
	for len(live) > 0 && len(live[0].ms) < n {
		kept := live[:0]
		for _, c := range live {
			if err := c.measure(min(burst, n-len(c.ms))); err != nil {
				fail(c, err)
				continue
			}
			kept = append(kept, c)
		}
		live = kept
	}
	var rows []row
	for _, c := range live {
		r := c.row
		r.MS, r.N = median(c.ms), len(c.ms)
		r = r.rate(c.macs)
		r.RendererPeakBytes, r.RendererBlankBytes = &c.peak, &blank
		rows = append(rows, r)
	}
	return rows
}

func (c *contender) String() string {
	r := &c.row
	return fmt.Sprintf("%s, %s %s, %s, %d threads", r.Model, r.Engine, r.Weights, r.SIMD, r.Threads)
}

// open makes the page and finds its process.
func (c *contender) open(b *browser.Browser, url string) (err error) {
	if c.page, err = b.NewPage(); err != nil {
		return err
	}
	if err = c.page.Open(url + blankPath); err != nil {
		return err
	}
	if c.pid, err = c.page.Process(); err != nil {
		return err
	}
	return c.look()
}

// prepare loads the engine and its model and warms both up.
func (c *contender) prepare(b *browser.Browser, url string) error {
	if err := c.open(b, url); err != nil {
		return err
	}
	stop := c.watch()
	defer stop()
	if err := c.page.Eval(c.script, nil); err != nil {
		return err
	}
	config, err := json.Marshal(c.config)
	if err != nil {
		return err
	}
	var loaded struct {
		Cosine      *float64
		SIMD        string
		Threads     int
		KernelBytes *int64
	}
	if err := c.page.Eval(fmt.Sprintf("bench.load(%s)", config), &loaded); err != nil {
		return err
	}
	if loaded.Cosine != nil && !(*loaded.Cosine >= minCosine) {
		return fmt.Errorf("cosine to the reference is %.4f", *loaded.Cosine)
	}
	if c.row.Engine == lqa {
		if loaded.SIMD != c.row.SIMD || loaded.Threads != c.row.Threads {
			return fmt.Errorf("the engine runs %s on %d threads", loaded.SIMD, loaded.Threads)
		}
		c.row.KernelBytes = loaded.KernelBytes
	}
	for begin, k := time.Now(), 0; k < warmFrames || time.Since(begin) < warmTime; k += burst {
		if err := c.page.Eval(fmt.Sprintf("bench.run(%d)", burst), nil); err != nil {
			return err
		}
	}
	return nil
}

// measure times n frames after one that wakes threads and caches.
func (c *contender) measure(n int) error {
	if err := c.page.Call("Page.bringToFront", nil, nil); err != nil {
		return err
	}
	var ms []float64
	if err := c.page.Eval(fmt.Sprintf("bench.run(1).then(() => bench.run(%d))", n), &ms); err != nil {
		return err
	}
	if len(ms) != n {
		return errors.New("frames are missing")
	}
	c.ms = append(c.ms, ms...)
	time.Sleep(rest) // a pool of threads that spins goes to sleep
	return c.look()
}

// look notes the process's peak.
func (c *contender) look() error {
	n, err := browser.PeakBytes(c.pid)
	c.peak = max(c.peak, n)
	return err
}

// watch notes the peak again and again until it is stopped.
func (c *contender) watch() (stop func()) {
	done := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				if c.look() != nil {
					return
				}
			}
		}
	})
	return func() {
		close(done)
		ended.Wait()
	}
}
