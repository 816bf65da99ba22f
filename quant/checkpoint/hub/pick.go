package hub

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
)

// texts are the small files that describe a model, as far as they are there.
var texts = []string{
	"config.json", "open_clip_config.json", "preprocessor_config.json",
	"merges.txt", "vocab.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
}

func (l *listing) texts() (found []Entry, err error) {
	for _, name := range texts {
		if e, ok := l.entry(name); ok {
			if e.Size > maxText {
				return nil, fmt.Errorf("%w: %s has %d bytes, at most %d", ErrWeights, name, e.Size, maxText)
			}
			found = append(found, e)
		}
	}
	return found, nil
}

const indexSuffix = ".index.json"

// layouts are the sets of weights that may be taken, the best first: of one
// layout a file that is no pickle before one that is, open_clip's names before
// transformers' where both stand for one model. In timm's repositories
// model.safetensors is the image tower alone, so transformers' names need
// transformers' configuration.
//
// A conversion that waits in a pull request (refs/pr/N) is not looked for:
// anyone can open one, and pickles are read without being run. It can be named
// as the revision.
var layouts = []struct {
	file     string
	openCLIP bool
}{
	{"open_clip_model.safetensors", true},
	{"open_clip_pytorch_model.safetensors", true},
	{"model.safetensors", false},
	{"model.safetensors.index.json", false},
	{"open_clip_pytorch_model.bin", true},
	{"open_clip_pytorch_model.bin.index.json", true},
	{"open_clip_pytorch_model.pth", true},
	{"pytorch_model.bin", false},
	{"pytorch_model.bin.index.json", false},
}

// weights chooses the file of weights, or the index of several. read returns a
// small file, nil if there is none.
func (l *listing) weights(read func(name string) ([]byte, error)) ([]Entry, error) {
	var open, hf bool // has a configuration of open_clip, of transformers
	for _, name := range []string{"config.json", "open_clip_config.json"} {
		b, err := read(name)
		if err != nil {
			return nil, err
		}
		var c struct {
			Model     json.RawMessage `json:"model_cfg"`
			ModelType string          `json:"model_type"`
		}
		if len(b) == 0 || json.Unmarshal(b, &c) != nil {
			continue // who reads it for its values will complain
		}
		// open_clip's is also found under transformers' name.
		open = open || c.Model != nil
		hf = hf || c.Model == nil && c.ModelType != ""
	}
	for _, w := range layouts {
		if w.openCLIP && open || !w.openCLIP && hf {
			e, ok := l.entry(w.file)
			if ok && strings.HasSuffix(w.file, indexSuffix) && e.Size > maxText {
				return nil, fmt.Errorf("%w: %s has %d bytes, at most %d", ErrWeights, w.file, e.Size, maxText)
			}
			if ok {
				return []Entry{e}, nil
			}
		}
	}
	return nil, l.nothing(open, hf)
}

// nothing says why there are no weights to take.
func (l *listing) nothing(open, hf bool) error {
	var onnx bool
	var seen []string
	for _, e := range l.Entries {
		switch ext := path.Ext(e.Path); ext {
		case ".onnx", ".onnx_data":
			onnx = true
		case ".safetensors", ".bin", ".pth", ".pt", ".h5", ".msgpack", ".gguf", ".npz", ".tflite":
			seen = append(seen, e.Path)
		}
	}
	switch {
	case onnx && len(seen) == 0:
		return fmt.Errorf("%w: convert the repository that it was made from%s", ErrONNX, l.origin())
	case len(seen) == 0:
		return fmt.Errorf("%w: there are no weights in it", ErrWeights)
	case !open && !hf:
		return fmt.Errorf("%w: neither config.json nor open_clip_config.json describes %s", ErrWeights, few(seen))
	}
	return fmt.Errorf("%w: of %s none is safetensors or a torch archive in transformers' or open_clip's layout", ErrWeights, few(seen))
}

// origin names the source of a repository of ONNX files: as its card does, or
// else the owner who has published such names first.
func (l *listing) origin() string {
	var names []string
	for _, b := range l.Base {
		if r, err := Parse(b); err == nil {
			names = append(names, "hf:"+r.ID)
		}
	}
	if len(names) == 0 {
		name := strings.TrimSuffix(path.Base(l.id), "-ONNX")
		for _, known := range []struct{ prefix, owner string }{{"clip-vit-", "openai/"}, {"TinyCLIP-", "wkcn/"}} {
			if strings.HasPrefix(name, known.prefix) {
				names = append(names, "hf:"+known.owner+name)
			}
		}
	}
	if len(names) == 0 {
		return ", which its page may name"
	}
	return ": " + few(names)
}

func few(names []string) string {
	quoted := make([]string, 0, 4)
	for i, n := range names {
		if i == 3 {
			quoted = append(quoted, "…")
			break
		}
		quoted = append(quoted, printable(n))
	}
	return strings.Join(quoted, ", ")
}

// shards are the files that the index among chosen names, if there is one.
func (l *listing) shards(chosen []Entry, read func(Entry) ([]byte, error)) (found []Entry, err error) {
	for _, e := range chosen {
		if !strings.HasSuffix(e.Path, indexSuffix) {
			continue
		}
		b, err := read(e)
		if err != nil {
			return nil, err
		}
		var index struct {
			Map map[string]string `json:"weight_map"`
		}
		if err := json.Unmarshal(b, &index); err != nil || len(index.Map) == 0 {
			return nil, fmt.Errorf("%w: %s is no index", ErrWeights, e.Path)
		}
		var names []string
		for _, name := range index.Map {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			shard, ok := l.entry(name)
			if !ok || strings.Contains(name, "/") {
				return nil, fmt.Errorf("%w: %s names %.100q, which is not there", ErrEntry, e.Path, name)
			}
			found = append(found, shard)
		}
	}
	return found, nil
}
