package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"lqa/quant/device/native"
	"lqa/quant/engine"
)

// encoder is what measuring needs of an engine; tests bring their own.
type encoder interface {
	SetFrame(rgba []byte, w, h int) error
	Closer(w, h int) error
	ViewSize() int
	View(dst []byte) error
	SetView(rgba []byte) error
	Encode(dst []float32) error
	EmbedText(labels []string) ([][]float32, error)
	EmbedPrompts(labels, templates []string) ([][]float32, error)
	Known(labels []string) []bool
	Close() error
}

// model is a .shq on as many engines as pictures are encoded at once.
type model struct {
	Name        string
	Hash        string // names the weights: embeddings are kept under it
	Width       int
	Scale       float32
	Temperature float32
	None        *float32  // the manifest's none_cosine, or nil
	Templates   []string  // the text tower's
	Muted       bool      // whether its own classifier is, in part
	engines     []encoder // at least one; the first embeds the labels
}

// openModel opens a .shq on so many engines. mute are classes of the image
// tower's posterior that do not count; a model without one has nothing to mute.
func openModel(ctx context.Context, name string, engines int, mute []int) (*model, error) {
	file, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	m := new(model)
	for range engines {
		e, err := openEngine(file, mute)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", name, err), m.Close())
		}
		m.engines = append(m.engines, e)
		for err == nil {
			_, err = e.LoadStage(ctx)
		}
		if err != io.EOF {
			return nil, errors.Join(fmt.Errorf("%s: %w", name, err), m.Close())
		}
		hash, c := e.Hash(), e.Config()
		m.Name, m.Hash = e.Manifest().Name, hex.EncodeToString(hash[:])
		if m.Muted = len(mute) > 0 && c.Image.Posterior > 0; m.Muted {
			m.Hash += fmt.Sprint(" mute ", mute)
		}
		m.Width, m.Scale, m.Temperature = c.Embed, c.LogitScale, c.Temperature
		m.None, m.Templates = c.NoneCosine, c.Text.Templates
	}
	return m, nil
}

func openEngine(file []byte, mute []int) (*engine.Engine, error) {
	e, err := engine.Open(bytes.NewReader(file), engine.Options{Host: native.New(), Mute: mute})
	if !errors.Is(err, engine.ErrMute) {
		return e, err
	}
	e, without := engine.Open(bytes.NewReader(file), engine.Options{Host: native.New()})
	if without == nil && e.Config().Image.Posterior > 0 {
		return nil, errors.Join(err, e.Close())
	}
	return e, without
}

// The ways to embed a label, and what a line's "text" says of them.
const (
	byTable = "table" // as the product does: the ready row where there is one, else the text tower
	byTower = "tower" // the text tower alone
	byBoth  = "mixed" // kept-out names by tower, the others as the product does
)

// text embeds labels by table or by tower.
func (m *model) text(labels []string, by string) ([][]float32, error) {
	if by == byTower {
		return m.engines[0].EmbedPrompts(labels, m.Templates) // no label is looked up where templates are given
	}
	return m.engines[0].EmbedText(labels)
}

// Close ends the engines.
func (m *model) Close() error {
	var errs []error
	for _, e := range m.engines {
		errs = append(errs, e.Close())
	}
	return errors.Join(errs...)
}
