// Command tally reads the events of go test -json on stdin and prints what
// people want to see: a line a package, failed tests with their output, and
// every skipped test with its reason, so that none vanishes unseen.
//
//	go test -json ./... | go run ./web/cmd/tally -totals build/totals
//
// With -totals it appends "passed failed skipped" to that file; with -log it
// writes all output there, that of passed tests too: what they measured. The
// status is 1 when something failed.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64

	ImportPath string // of build output
}

func main() {
	totals := flag.String("totals", "", "file to append the counts to")
	log := flag.String("log", "", "file for everything the tests print")
	flag.Parse()
	t := newTally(os.Stdout)
	var err error
	if *log != "" {
		var f *os.File
		if f, err = os.Create(*log); err == nil {
			defer f.Close()
			t.log = f
		}
	}
	if err == nil {
		err = t.read(os.Stdin)
	}
	if err == nil && *totals != "" {
		err = t.append(*totals)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(2)
	}
	if t.failed > 0 {
		os.Exit(1)
	}
}

type key struct{ pkg, test string }

// tally counts top-level tests; subtests belong to theirs. A package that
// fails without a failed test (it does not build, it panics) counts as one.
type tally struct {
	out, log                io.Writer
	passed, failed, skipped int

	output map[key]*strings.Builder
	broken map[string]bool // packages with a failed test
}

func newTally(out io.Writer) *tally {
	return &tally{out: out, log: io.Discard, output: map[key]*strings.Builder{}, broken: map[string]bool{}}
}

func (t *tally) read(r io.Reader) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var e event
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			fmt.Fprintln(t.out, s.Text()) // of the go command itself
			continue
		}
		t.take(e)
	}
	return s.Err()
}

func (t *tally) take(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(t.out, e.Output)
	case "output":
		b := t.output[k]
		if b == nil {
			b = new(strings.Builder)
			t.output[k] = b
		}
		b.WriteString(e.Output)
		fmt.Fprint(t.log, e.Output)
	case "pass", "fail", "skip":
		t.end(k, e)
		delete(t.output, k)
	}
}

func (t *tally) end(k key, e event) {
	said := ""
	if b := t.output[k]; b != nil {
		said = b.String()
	}
	if k.test == "" {
		switch e.Action {
		case "pass":
			fmt.Fprintf(t.out, "ok  \t%s\t%.3fs\n", k.pkg, e.Elapsed)
		case "skip":
			fmt.Fprintf(t.out, "?   \t%s\t[no test files]\n", k.pkg)
		case "fail":
			if !t.broken[k.pkg] {
				t.failed++
			}
			for kk, b := range t.output { // tests that never ended
				if kk.pkg == k.pkg && kk.test != "" {
					fmt.Fprint(t.out, told(b.String()))
				}
			}
			fmt.Fprint(t.out, told(said)) // a panic's trace is here
			fmt.Fprintf(t.out, "FAIL\t%s\t%.3fs\n", k.pkg, e.Elapsed)
		}
		return
	}
	top := !strings.Contains(k.test, "/")
	switch e.Action {
	case "pass":
		if top {
			t.passed++
		}
	case "fail":
		t.broken[k.pkg] = true
		if top {
			t.failed++
		}
		fmt.Fprint(t.out, told(said))
	case "skip":
		if top {
			t.skipped++
		}
		fmt.Fprintf(t.out, "skip\t%s %s: %s\n", k.pkg, k.test, reason(said))
	}
}

// told is output without the lines that say what is said anyway.
func told(said string) string {
	var b strings.Builder
	for line := range strings.Lines(said) {
		if !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "FAIL") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// reason is what a skipped test logged, on one line.
func reason(said string) string {
	var parts []string
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		parts = append(parts, line)
	}
	return strings.Join(parts, " ")
}

func (t *tally) append(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, t.passed, t.failed, t.skipped)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
