package engine_test

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"lqa/quant/engine"
)

// TestProfile prints where the image tower of the model file LQA_PROFILE spends
// its time.
func TestProfile(t *testing.T) {
	path := os.Getenv("LQA_PROFILE")
	if path == "" {
		t.Skip("LQA_PROFILE names no model file")
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(bytes.NewReader(file), engine.Options{Host: newHost()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for err == nil {
		_, err = e.LoadStage(context.Background())
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	x := make([]float32, e.Config().Embed)
	best := time.Hour
	for range 60 {
		begin := time.Now()
		if err := e.Encode(x); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(begin))
	}
	p, err := e.Profile(60)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v: a frame takes %v", e.Device().Path(), best)
	for _, timing := range e.Device().Timings() {
		t.Logf("  candidate %v: %.3f ms", timing.Path, timing.MS)
	}
	for _, name := range slices.SortedFunc(maps.Keys(p), func(a, b string) int { return cmp.Compare(p[b], p[a]) }) {
		t.Logf("%9.3f ms  %s", p[name].Seconds()*1000, name)
	}
}
