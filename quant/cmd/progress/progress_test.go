package progress

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestBar(t *testing.T) {
	var out bytes.Buffer
	b := New(&out, false)
	now := time.Unix(1000, 0)
	b.now = func() time.Time { return now }
	b.Begin("weights", 4e6, Bytes)
	b.Add(1e6) // too soon for a line
	now = now.Add(20 * time.Second)
	b.Add(1e6)
	b.Note("%d left out", 3)
	b.End()
	if got, want := out.String(), "weights: 2.0 MB of 4.0 MB, 20s left\n3 left out\n"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}

	out.Reset()
	b.live, b.every = true, 0
	b.Begin("pictures", 0, "pictures") // a total of nothing
	b.Add(1)
	b.Begin("pictures", 4, "pictures")
	b.Set(1)
	b.End()
	if got := out.String(); !strings.Contains(got, "[#####...............] pictures: 1 of 4 pictures") || !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("on a terminal %q", got)
	}

	out.Reset()
	var none *Bar
	for _, b := range []*Bar{none, {}, New(&out, true)} {
		b.Begin("x", 1, Bytes)
		b.On("y")
		b.Add(1)
		b.Set(1)
		b.Note("z")
		b.End()
	}
	if out.Len() > 0 {
		t.Errorf("a quiet bar tells %q", out.String())
	}
}
