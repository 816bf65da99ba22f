package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"lqa/quant/device"
	wazero "lqa/quant/device/native"
	"lqa/quant/engine"
	"lqa/tta"
	"lqa/tta/score"
	"lqa/tta/ttatest"
	"lqa/web/site"
)

// native measures under wazero.
func native(out *json.Encoder) error {
	fmt.Fprintln(os.Stderr, "native: wazero")
	root, err := site.Root(context.Background())
	if err != nil {
		return err
	}
	path, err := site.Model(root)
	if err != nil {
		return err
	}
	file, err := os.ReadFile(path)
	if err != nil {
		return err
	}

	// cold-start: from the file's first byte to the first embedding.
	var cold []float64
	var e *engine.Engine
	for range starts {
		if e != nil {
			e.Close()
		}
		begin := time.Now()
		if e, err = open(file); err != nil {
			return err
		}
		if err := e.SetFrame(picture(320, 240, 0), 320, 240); err != nil {
			return err
		}
		if err := e.Encode(make([]float32, e.Config().Embed)); err != nil {
			return err
		}
		cold = append(cold, ms(begin))
	}
	defer e.Close()
	cfg := e.Config()
	weights := weightKind(e.Manifest())
	kernel := int64(e.Memory().Total)

	var view, encode []float64
	var seen [][]float32
	x := make([]float32, cfg.Embed)
	for i := range warm + frames {
		rgba := picture(640, 480, i)
		begin := time.Now()
		if err := e.SetFrame(rgba, 640, 480); err != nil {
			return err
		}
		viewed := time.Now()
		if err := e.Encode(x); err != nil {
			return err
		}
		if i >= warm {
			view = append(view, viewed.Sub(begin).Seconds()*1000)
			encode = append(encode, ms(viewed))
		}
		seen = append(seen, slices.Clone(x))
	}
	var text []float64
	for _, l := range rareLabels(20) {
		begin := time.Now()
		if _, err := e.EmbedText([]string{l}); err != nil {
			return err
		}
		text = append(text, ms(begin))
	}
	rows := []row{
		newRow("image-encode", "native", weights, encode).rate(imageMACs(cfg)),
		newRow("view", "native", weights, view),
		newRow("text-embed", "native", weights, text),
		newRow("cold-start", "native", weights, cold),
	}
	for _, n := range labelCounts {
		r, err := adaptRow(e, rareLabels(n), seen, weights)
		if err != nil {
			return err
		}
		rows = append(rows, r)
	}
	for _, r := range rows {
		r.KernelBytes = &kernel
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// adaptRow measures what a session of labels, with full caches, takes for frames
// that have been encoded.
func adaptRow(e *engine.Engine, labels []string, seen [][]float32, weights string) (row, error) {
	cfg := e.Config()
	table, err := e.EmbedText(labels)
	if err != nil {
		return row{}, err
	}
	s, err := tta.NewSession(nil, tta.SessionConfig{Labels: labels, Embeddings: table, Scale: cfg.LogitScale,
		Temperature: cfg.Temperature, NoneCosine: cfg.NoneCosine, Adapter: "stream", Kernels: score.On(func() device.Host { return wazero.New() })})
	if err != nil {
		return row{}, err
	}
	defer s.Close()
	if err := s.Restore(ttatest.Full(s.AppendState(nil), len(labels), cfg.Embed)); err != nil {
		return row{}, err
	}
	var times []float64
	var result tta.Result
	for i, x := range seen {
		begin := time.Now()
		if err := s.Frame(time.Duration(i)*100*time.Millisecond, x, &result); err != nil {
			return row{}, err
		}
		if i >= warm {
			times = append(times, ms(begin))
		}
	}
	r := newRow("adapt", "native", weights, times)
	r.Labels = len(labels)
	return r, nil
}

// open loads all of a file.
func open(file []byte) (*engine.Engine, error) {
	e, err := engine.Open(bytes.NewReader(file), engine.Options{Host: wazero.New()})
	if err != nil {
		return nil, err
	}
	for {
		if _, err := e.LoadStage(context.Background()); errors.Is(err, io.EOF) {
			return e, nil
		} else if err != nil {
			e.Close()
			return nil, err
		}
	}
}

// picture is a gradient that differs from frame to frame.
func picture(w, h, k int) []byte {
	p := make([]byte, 4*w*h)
	for i := range w * h {
		x, y := i%w, i/w
		p[4*i], p[4*i+1], p[4*i+2], p[4*i+3] = byte(x+k), byte(y+2*k), byte(x^y), 255
	}
	return p
}

func ms(since time.Time) float64 { return time.Since(since).Seconds() * 1000 }
