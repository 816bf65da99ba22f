package main

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// disk is what replace does to a file system. Tests put one that fails in its place.
type disk interface {
	CreateTemp(dir, pattern string) (file, error)
	Rename(from, to string) error
	Remove(name string) error
}

type file interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Name() string
	Chmod(fs.FileMode) error
	Sync() error
}

type realDisk struct{}

func (realDisk) CreateTemp(dir, pattern string) (file, error) { return os.CreateTemp(dir, pattern) }
func (realDisk) Remove(name string) error                     { return os.Remove(name) }

func (realDisk) Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	// The name, too, should survive a power cut; where folders cannot be synced, it may not.
	if d, err := os.Open(filepath.Dir(to)); err == nil {
		d.Sync()
		d.Close()
	}
	return nil
}

// partSuffix ends the name of a file that is not whole yet.
const partSuffix = ".part"

// replace makes the file path of what fill writes to a file beside it, which is
// renamed when it is whole and check finds it good: path never holds half a
// file. On an error or a cancelled context the file beside is removed; a killed
// run leaves it, under a hidden name, to the next.
func replace(ctx context.Context, d disk, path string, fill func(io.Writer) error, check func(r io.Reader) error) (err error) {
	dir, base := filepath.Split(path)
	dir = filepath.Clean(dir) // "" is "."
	sweep(d, dir, base)
	f, err := d.CreateTemp(dir, "."+base+".*"+partSuffix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			d.Remove(f.Name())
		}
	}()
	w := &counted{ctx: ctx, w: f}
	if err = fill(w); err != nil {
		return err
	}
	if err = check(io.NewSectionReader(f, 0, w.n)); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = ctx.Err(); err != nil {
		return err
	}
	return d.Rename(f.Name(), path)
}

// counted counts what it passes on, and stops when the context ends.
type counted struct {
	ctx context.Context
	w   io.Writer
	n   int64
}

func (c *counted) Write(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// sweep removes what killed runs have left beside base: parts that nobody has
// written to for a day.
func sweep(d disk, dir, base string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // CreateTemp will tell
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "."+base+".") || !strings.HasSuffix(e.Name(), partSuffix) {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > 24*time.Hour {
			d.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
