package engine_test

import (
	"bytes"
	"context"
	"image"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lqa/quant/engine"
	"lqa/quant/numeric"
)

// TestCosine compares image embeddings of the model files LQA_COSINE, separated
// by spaces, with those of the first of them, over photographs.
func TestCosine(t *testing.T) {
	paths := strings.Fields(os.Getenv("LQA_COSINE"))
	if len(paths) < 2 || !isNative {
		t.Skip("LQA_COSINE names no model files")
	}
	var views [][]byte
	var want [][]float32
	for i, path := range paths {
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		e := loadImage(t, file)
		x := make([]float32, e.Config().Embed)
		if i == 0 {
			views = someViews(t, e)
		}
		var cosines []float32
		for j, v := range views {
			if err := e.SetView(v); err != nil {
				t.Fatal(err)
			}
			if err := e.Encode(x); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				want = append(want, slices.Clone(x))
			} else {
				cosines = append(cosines, numeric.Dot(x, want[j]))
			}
		}
		if i > 0 {
			t.Logf("%s: n %d, mean cosine %.4f, worst %.4f", filepath.Base(path), len(cosines), mean(cosines), slices.Min(cosines))
		}
	}
}

// loadImage loads what pictures need.
func loadImage(t *testing.T, file []byte) *engine.Engine {
	t.Helper()
	e, err := engine.Open(bytes.NewReader(file), engine.Options{Host: newHost()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if _, err := e.LoadStage(context.Background()); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return e
}

// someViews are what e sees of the first photographs of three sets.
func someViews(t *testing.T, e *engine.Engine) (views [][]byte) {
	t.Helper()
	for _, set := range []string{"imagenette/val.tar", "caltech101/test.tar", "sharp/flickr_cc/test.tar"} {
		f, err := os.Open(filepath.Join(dataDir(), filepath.FromSlash(set)))
		if err != nil {
			t.Skip(err)
		}
		defer f.Close()
		n := 0
		eachPhotograph(t, f, func(name string) bool {
			return n < 34 && (strings.HasSuffix(name, ".jpg") || strings.HasSuffix(name, ".JPEG"))
		}, func(_ string, r *image.RGBA) {
			if err := e.SetFrame(r.Pix, r.Rect.Dx(), r.Rect.Dy()); err != nil {
				t.Fatal(err)
			}
			view := make([]byte, 4*e.ViewSize()*e.ViewSize())
			if err := e.View(view); err != nil {
				t.Fatal(err)
			}
			views, n = append(views, view), n+1
		})
	}
	return views
}
