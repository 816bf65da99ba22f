package hub

import (
	"io/fs"
	"os"
	"path/filepath"

	"lqa/quant/checkpoint"
)

// Names lists the files of the checkpoint.
func (r *Repository) Names() []string {
	names := make([]string, len(r.files))
	for i, e := range r.files {
		names[i] = e.Path
	}
	return names
}

// Open opens one of them.
func (r *Repository) Open(name string) (checkpoint.File, error) {
	for _, e := range r.files {
		if e.Path == name {
			return open(r.blob(e))
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// Dir is a folder on disk as a checkpoint.Folder: its files, not what lies in
// folders below.
func Dir(path string) (checkpoint.Folder, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	d := &dir{path: path}
	for _, e := range entries {
		if info, err := os.Stat(filepath.Join(path, e.Name())); err == nil && info.Mode().IsRegular() { // links are followed
			d.names = append(d.names, e.Name())
		}
	}
	return d, nil
}

type dir struct {
	path  string
	names []string
}

func (d *dir) Names() []string { return d.names }

func (d *dir) Open(name string) (checkpoint.File, error) {
	if !filepath.IsLocal(name) || filepath.Base(name) != name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return open(filepath.Join(d.path, name))
}

type file struct {
	*os.File
	size int64
}

func (f *file) Size() int64 { return f.size }

func open(path string) (checkpoint.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &file{f, info.Size()}, nil
}
