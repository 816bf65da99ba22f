package convert

import (
	"errors"
	"fmt"
	"io"
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
	if f.Config, err = readText(dir, "model.json"); err != nil {
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
	if f.Vocab, err = readText(dir, vocab); err != nil {
		return nil, err
	}
	if f.ReadyNames, err = readText(dir, "ready_names.txt"); err != nil && !errors.Is(err, fs.ErrNotExist) {
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

// maxText bounds a text file, far above a vocabulary's size.
const maxText = 16 << 20

func readText(dir checkpoint.Folder, name string) ([]byte, error) {
	file, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if file.Size() > maxText {
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrText, name, file.Size())
	}
	return io.ReadAll(io.NewSectionReader(file, 0, file.Size()))
}
