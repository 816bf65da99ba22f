// Package progress tells how far a long command is: one bar in place on a
// terminal, a line now and then elsewhere.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// Bytes is the unit whose numbers are printed as kB, MB or GB.
const Bytes = "bytes"

// Bar is safe for concurrent use. Its zero value and nil print nothing.
type Bar struct {
	mu    sync.Mutex
	w     io.Writer
	live  bool // a terminal
	every time.Duration
	now   func() time.Time

	what, unit  string
	done, total int64
	start, last time.Time
}

// New returns a bar on w; a quiet one prints nothing, its notes included.
func New(w io.Writer, quiet bool) *Bar {
	b := &Bar{w: w, every: 15 * time.Second, now: time.Now}
	if quiet {
		b.w = nil
	} else if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b.live, b.every = true, 200*time.Millisecond
	}
	return b
}

func (b *Bar) silent() bool { return b == nil || b.w == nil }

// Begin starts a task of total units.
func (b *Bar) Begin(what string, total int64, unit string) {
	if b.silent() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clear()
	b.what, b.unit, b.done, b.total = what, unit, 0, total
	b.start = b.now()
	b.last = b.start
}

// On says what the units to come belong to.
func (b *Bar) On(what string) {
	if b.silent() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.what = what
}

// Add counts n units as done.
func (b *Bar) Add(n int64) {
	if b.silent() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(b.done + n)
}

// Set says that done units are done.
func (b *Bar) Set(done int64) {
	if b.silent() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(done)
}

func (b *Bar) set(done int64) {
	b.done = done
	now := b.now()
	if now.Sub(b.last) < b.every || b.done <= 0 {
		return
	}
	b.last = now
	left := time.Duration(float64(now.Sub(b.start)) / float64(b.done) * float64(max(0, b.total-b.done)))
	line := fmt.Sprintf("%d of %d %s", b.done, b.total, b.unit)
	if b.unit == Bytes {
		line = Size(b.done) + " of " + Size(b.total)
	}
	line = fmt.Sprintf("%s: %s, %s left", b.what, line, left.Round(time.Second))
	if !b.live {
		fmt.Fprintln(b.w, line)
		return
	}
	const width = 20
	full := 0
	if b.total > 0 {
		full = int(min(width, width*b.done/b.total))
	}
	fmt.Fprintf(b.w, "\r[%s%s] %s\x1b[K", strings.Repeat("#", full), strings.Repeat(".", width-full), line)
}

// Note prints a line.
func (b *Bar) Note(format string, a ...any) {
	if b.silent() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clear()
	fmt.Fprintf(b.w, format+"\n", a...)
}

// End leaves the terminal's line empty.
func (b *Bar) End() {
	if b.silent() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clear()
}

func (b *Bar) clear() {
	if b.live {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
}

// Size prints bytes for people: 1.5 MB is 1,500,000.
func Size(n int64) string {
	switch {
	case n < 1e3:
		return fmt.Sprintf("%d B", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1e9:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.2f GB", float64(n)/1e9)
}
