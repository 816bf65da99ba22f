package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"lqa/quant/engine"
	"lqa/quant/engine/enginetest"
)

// TestOpenModel: classes are muted where there is a posterior that has them,
// and a model so changed keeps embeddings of its own; the tower looks no label up.
func TestOpenModel(t *testing.T) {
	dir := t.TempDir()
	open := func(file []byte, mute []int) (*model, error) {
		name := filepath.Join(dir, "model.shq")
		if err := os.WriteFile(name, file, 0o644); err != nil {
			t.Fatal(err)
		}
		m, err := openModel(context.Background(), name, 1, mute)
		if err == nil {
			t.Cleanup(func() { m.Close() })
		}
		return m, err
	}
	posterior := enginetest.Posterior(t, 1, false)
	plain, err := open(posterior, nil)
	if err != nil {
		t.Fatal(err)
	}
	mute, err := open(posterior, []int{0, 28})
	if err != nil || plain.Muted || !mute.Muted || plain.Hash == mute.Hash {
		t.Errorf("with a posterior: %+v, %+v, %v", plain, mute, err)
	}
	if _, err := open(posterior, []int{29}); !errors.Is(err, engine.ErrMute) {
		t.Errorf("a class that is not there: %v", err)
	}
	without, err := open(enginetest.SHQ(t, 1, false), []int{0})
	if err != nil || without.Muted {
		t.Errorf("without a posterior: %+v, %v", without, err)
	}

	var by [2][][]float32
	for i, how := range []string{byTable, byTower} {
		if by[i], err = plain.text([]string{"banana", "red dog"}, how); err != nil {
			t.Fatal(err)
		}
	}
	if slices.Equal(by[0][0], by[1][0]) || !slices.Equal(by[0][1], by[1][1]) {
		t.Error("the tower and the table differ in what stands ready, and in that alone")
	}
}
