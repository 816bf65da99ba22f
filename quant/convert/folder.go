package convert

import (
	"errors"
	"fmt"
	"io/fs"

	"lqa/quant/checkpoint"
	"lqa/quant/clip"
)

// Folder is an open float model directory, as ./build.sh train makes it.
type Folder struct {
	Input
	Origin, Licence string // what its safetensors say of themselves
	file            checkpoint.File
}

// Close closes the weights.
func (f *Folder) Close() error { return f.file.Close() }

// OpenFolder opens a float model directory: model.json (the configuration),
// model.safetensors (float weights), vocab.txt (a WordPiece a line) or, of a
// text transformer, merges.txt (CLIP's, a pair a line) and, if the model has
// ready labels, ready_names.txt (a name a line).
func OpenFolder(dir checkpoint.Folder) (_ *Folder, err error) {
	f := &Folder{}
	needed := func(name string) ([]byte, error) {
		b, err := checkpoint.ReadText(dir, name, checkpoint.Limits{})
		if err == nil && b == nil {
			err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return b, err
	}
	if f.Config, err = needed("model.json"); err != nil {
		return nil, err
	}
	cfg, err := clip.ParseConfig(f.Config)
	if err != nil {
		return nil, err
	}
	vocab := "vocab.txt"
	if cfg.Text.VocabTensor() == mergesTensor {
		vocab = "merges.txt"
	}
	if f.Vocab, err = needed(vocab); err != nil {
		return nil, err
	}
	if f.ReadyNames, err = checkpoint.ReadText(dir, "ready_names.txt", checkpoint.Limits{}); err != nil {
		return nil, err
	}
	if f.file, err = dir.Open("model.safetensors"); err != nil {
		return nil, err
	}
	tensors, err := checkpoint.OpenSafetensors(f.file, f.file.Size(), checkpoint.Limits{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("model.safetensors: %w", err), f.Close())
	}
	f.Tensors, f.Origin, f.Licence = tensors, tensors.Metadata()["source"], tensors.Metadata()["licence"]
	return f, nil
}
