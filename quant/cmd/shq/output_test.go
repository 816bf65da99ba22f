package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// frail is a disk whose step number fails; once it is dead everything fails, as
// if the process had been killed there.
type frail struct {
	steps int // till the one that fails
	dead  bool
	err   error
	names []string // of the steps, as they came
}

func (d *frail) step(name string) error {
	if d.names = append(d.names, name); d.steps == 0 || d.dead && d.steps < 0 {
		d.steps--
		return &fs.PathError{Op: name, Path: "x", Err: d.err}
	}
	d.steps--
	return nil
}

func (d *frail) CreateTemp(dir, pattern string) (file, error) {
	if err := d.step("create"); err != nil {
		return nil, err
	}
	f, err := realDisk{}.CreateTemp(dir, pattern)
	return frailFile{f, d}, err
}

func (d *frail) Rename(from, to string) error {
	if err := d.step("rename"); err != nil {
		return err
	}
	return realDisk{}.Rename(from, to)
}

func (d *frail) Remove(name string) error {
	if err := d.step("remove"); err != nil {
		return err
	}
	return realDisk{}.Remove(name)
}

type frailFile struct {
	file
	d *frail
}

func (f frailFile) Write(b []byte) (int, error) {
	if err := f.d.step("write"); err != nil {
		n, _ := f.file.Write(b[:len(b)/2]) // what had room
		return n, err
	}
	return f.file.Write(b)
}

func (f frailFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.d.step("read"); err != nil {
		return 0, err
	}
	return f.file.ReadAt(b, off)
}

func (f frailFile) Chmod(m fs.FileMode) error {
	if err := f.d.step("chmod"); err != nil {
		return err
	}
	return f.file.Chmod(m)
}

func (f frailFile) Sync() error {
	if err := f.d.step("sync"); err != nil {
		return err
	}
	return f.file.Sync()
}

func (f frailFile) Close() error {
	if err := f.d.step("close"); err != nil {
		f.file.Close()
		return err
	}
	return f.file.Close()
}

// TestReplace_Fails: at whatever step the disk fails or the process dies, the
// file is the old one or the new one.
func TestReplace_Fails(t *testing.T) {
	content := strings.Repeat("new content ", 1000)
	fill := func(w io.Writer) error {
		for part := range 5 {
			n := len(content) / 5
			if _, err := io.WriteString(w, content[part*n:part*n+n]); err != nil {
				return err
			}
		}
		return nil
	}
	check := func(r io.Reader) error {
		b, err := io.ReadAll(r)
		if err == nil && string(b) != content {
			err = errors.New("differs")
		}
		return err
	}
	seen := map[string]bool{}
	for _, dead := range []bool{false, true} {
		for step := 0; ; step++ {
			dir := t.TempDir()
			path := filepath.Join(dir, "model.shq")
			write(t, path, []byte("old"))
			d := &frail{steps: step, dead: dead, err: syscall.ENOSPC}
			err := replace(t.Context(), d, path, fill, check)
			got := string(read(t, path))
			if err == nil && d.steps >= 0 {
				if got != content {
					t.Errorf("no step failed, but the file is %.20q", got)
				}
				break
			}
			failed := d.names[step]
			seen[failed] = true
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("step %d, %s: %v", step, failed, err)
			}
			if got != "old" {
				t.Errorf("step %d, %s: the file is %.20q", step, failed, got)
			}
			if left, _ := os.ReadDir(dir); !dead && len(left) != 1 {
				t.Errorf("step %d, %s: left %v", step, failed, left)
			}
		}
	}
	for _, name := range []string{"create", "write", "read", "chmod", "sync", "close", "rename"} {
		if !seen[name] {
			t.Errorf("no %s has failed", name)
		}
	}

	// A context that ends at any write.
	for n := range 6 {
		path := filepath.Join(t.TempDir(), "model.shq")
		ctx, cancel := context.WithCancel(t.Context())
		err := replace(ctx, realDisk{}, path, func(w io.Writer) error {
			for i := range 6 {
				if i == n {
					cancel()
				}
				if _, err := w.Write([]byte("x")); err != nil {
					return err
				}
			}
			return nil
		}, func(io.Reader) error { return nil })
		if left, _ := os.ReadDir(filepath.Dir(path)); !errors.Is(err, context.Canceled) || len(left) > 0 {
			t.Errorf("cancelled at write %d: %v, left %v", n, err, left)
		}
		cancel()
	}
}

// TestReplace_Sweep: what a killed run has left goes a day later, and nothing else.
func TestReplace_Sweep(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-25 * time.Hour)
	for _, name := range []string{".m.shq.123.part", ".m.shq.124.part", ".n.shq.125.part", "m.shq.126.part", ".m.shq.keep"} {
		write(t, filepath.Join(dir, name), nil)
		if name != ".m.shq.124.part" {
			if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	path := filepath.Join(dir, "m.shq")
	err := replace(t.Context(), realDisk{}, path, func(w io.Writer) error { _, err := w.Write([]byte("x")); return err }, func(io.Reader) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	left, _ := os.ReadDir(dir)
	for _, e := range left {
		names = append(names, e.Name())
	}
	if got, want := fmt.Sprint(names), "[.m.shq.124.part .m.shq.keep .n.shq.125.part m.shq m.shq.126.part]"; got != want {
		t.Errorf("left %s, want %s", got, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestRun_Cancelled(t *testing.T) {
	dir, file := tinyModel(t), filepath.Join(t.TempDir(), "a.shq")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var talk bytes.Buffer
	if code := run(ctx, []string{"shq", "convert", dir, "-o", file}, io.Discard, &talk); code != exitInterrupted || !strings.Contains(talk.String(), "interrupted") {
		t.Errorf("exit code %d: %s", code, talk.String())
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}
