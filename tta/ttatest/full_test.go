package ttatest_test

import (
	"fmt"
	"testing"
	"time"

	"lqa/tta"
	"lqa/tta/ttatest"
)

// TestFull: sessions take the state, and no label has room for another view.
func TestFull(t *testing.T) {
	const labels, width = 40, 64
	for _, c := range []struct {
		adapter string
		entries int // of a label
	}{{"lqa", 5}, {"stream", 3}} {
		config := tta.SessionConfig{Adapter: c.adapter, Scale: 24}
		for l := range labels {
			e := make([]float32, width)
			e[l] = 1
			config.Labels, config.Embeddings = append(config.Labels, fmt.Sprint(l)), append(config.Embeddings, e)
		}
		s, err := tta.NewSession(nil, config)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Restore(ttatest.Full(s.AppendState(nil), labels, width)); err != nil {
			t.Fatal(err)
		}
		if n := s.Report().Entries; n != c.entries*labels {
			t.Errorf("%s: %d entries, want %d a label", c.adapter, n, c.entries)
		}
		var r tta.Result
		if err := s.Frame(time.Second, config.Embeddings[0], &r); err != nil {
			t.Fatal(err)
		}
	}
}
