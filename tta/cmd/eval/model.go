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
	ViewSize() int
	View(dst []byte) error
	SetView(rgba []byte) error
	Encode(dst []float32) error
	EmbedText(labels []string) ([][]float32, error)
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
	engines     []encoder // at least one; the first embeds the labels
}

func openModel(ctx context.Context, name string, engines int) (*model, error) {
	file, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	m := new(model)
	for range engines {
		e, err := engine.Open(bytes.NewReader(file), engine.Options{Host: native.New()})
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
		m.Width, m.Scale, m.Temperature = c.Embed, c.LogitScale, c.Temperature
	}
	return m, nil
}

// Close ends the engines.
func (m *model) Close() error {
	var errs []error
	for _, e := range m.engines {
		errs = append(errs, e.Close())
	}
	return errors.Join(errs...)
}
