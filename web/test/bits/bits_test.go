// Package bits holds the shipped model to its promise: the same RGBA bytes
// give the same embedding bits, the same scores and the same adapter state on
// every host. The golden file is made natively; Node.js and Chromium must
// arrive at it too.
package bits

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lqa/quant/engine"
	"lqa/tta"
)

var update = flag.Bool("update", false, "write the golden file (natively, after the model has changed)")

const golden = "testdata/bits.txt"

// TestShippedModel looks at the samples as a camera would, three frames each,
// and remembers what came of it.
func TestShippedModel(t *testing.T) {
	models, _ := filepath.Glob("../../../assets/*.shq")
	if len(models) != 1 {
		t.Skipf("%d models in assets", len(models))
	}
	file, err := os.ReadFile(models[0])
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(bytes.NewReader(file), engine.Options{Host: host()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for {
		if _, err := e.LoadStage(context.Background()); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	cfg := e.Config()
	labels := []string{"mug", "banana", "guitar", "castle", "zebra", "a small wooden elephant", "tent", "train", "peacock", "laptop"}
	table, err := e.EmbedText(labels)
	if err != nil {
		t.Fatal(err)
	}
	s, err := tta.NewSession(nil, tta.SessionConfig{Labels: labels, Embeddings: table, Scale: cfg.LogitScale,
		Temperature: cfg.Temperature, NoneCosine: cfg.NoneCosine, Adapter: "lqa"})
	if err != nil {
		t.Fatal(err)
	}

	pictures, _ := filepath.Glob("../../../assets/samples/*.jpg")
	if len(pictures) < 8 {
		t.Fatalf("%d samples", len(pictures))
	}
	embeddings, scores := sha256.New(), sha256.New()
	put := func(w io.Writer, x []float32) {
		for _, v := range x {
			binary.Write(w, binary.LittleEndian, math.Float32bits(v))
		}
	}
	for _, row := range table {
		put(embeddings, row)
	}
	x := make([]float32, cfg.Embed)
	var out tta.Result
	for i, name := range pictures[:8] {
		rgba := decode(t, name)
		for k := range 3 {
			rgba.Pix[0] ^= byte(k) // no two frames of a camera are the same
			if err := e.SetFrame(rgba.Pix, rgba.Rect.Dx(), rgba.Rect.Dy()); err != nil {
				t.Fatal(err)
			}
			if err := e.Encode(x); err != nil {
				t.Fatal(err)
			}
			put(embeddings, x)
			if err := s.Frame(time.Duration(3*i+k)*100*time.Millisecond, x, &out); err != nil {
				t.Fatal(err)
			}
			put(scores, out.ZeroShot.P)
			put(scores, out.Adapted.P)
			put(scores, []float32{out.ZeroShot.None, out.Adapted.None})
		}
	}
	model := e.Hash()
	state := sha256.Sum256(s.AppendState(nil))
	got := fmt.Sprintf("model %s\nembeddings %s\nscores %s\nstate %s\n", hex.EncodeToString(model[:]),
		hex.EncodeToString(embeddings.Sum(nil)), hex.EncodeToString(scores.Sum(nil)), hex.EncodeToString(state[:]))

	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if line, _, _ := strings.Cut(got, "\n"); !strings.HasPrefix(string(want), line) {
		t.Fatalf("the golden file is of another model: go test ./web/test/bits -update")
	}
	if got != string(want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func decode(t *testing.T, name string) *image.RGBA {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := jpeg.Decode(f)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	rgba := image.NewRGBA(image.Rect(0, 0, img.Bounds().Dx(), img.Bounds().Dy()))
	draw.Draw(rgba, rgba.Rect, img, img.Bounds().Min, draw.Src)
	return rgba
}
