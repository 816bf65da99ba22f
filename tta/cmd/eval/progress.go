package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress tells on stderr how far a run is and how long it will take: in place
// on a terminal, a line now and then elsewhere.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	live  bool // a terminal
	what  string
	done  int
	total int
	start time.Time
	last  time.Time
	every time.Duration
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, every: 15 * time.Second}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.live, p.every = true, 200*time.Millisecond
	}
	return p
}

// begin sets the number of pictures to come.
func (p *progress) begin(total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total, p.done, p.start = total, 0, time.Now()
	p.last = p.start
}

// on says what the pictures to come belong to.
func (p *progress) on(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what = what
}

// add counts n pictures as done.
func (p *progress) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	now := time.Now()
	if now.Sub(p.last) < p.every || p.done == 0 {
		return
	}
	p.last = now
	left := time.Duration(float64(now.Sub(p.start)) / float64(p.done) * float64(p.total-p.done))
	line := fmt.Sprintf("%s: %d of %d pictures, %s left", p.what, p.done, p.total, left.Round(time.Second))
	if p.live {
		fmt.Fprintf(p.w, "\r%s\x1b[K", line)
	} else {
		fmt.Fprintln(p.w, line)
	}
}

// note prints a line.
func (p *progress) note(format string, a ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintf(p.w, format+"\n", a...)
}

// end leaves the terminal's line empty.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) clear() {
	if p.live {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
