//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Variables that make the test binary a process to be killed or starved.
const (
	hangVar  = "SHQ_TEST_HANG"  // replace the file of this name, and stop half-way
	fsizeVar = "SHQ_TEST_FSIZE" // be shq, with files of at most so many bytes
)

func TestMain(m *testing.M) {
	if path := os.Getenv(hangVar); path != "" {
		ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt)
		err := replace(ctx, realDisk{}, path, func(w io.Writer) error {
			if _, err := w.Write([]byte("half")); err != nil {
				return err
			}
			fmt.Println("half")
			<-ctx.Done()
			_, err := w.Write([]byte("more"))
			return err
		}, func(io.Reader) error { return nil })
		os.Exit(exitCode(err))
	}
	if n, err := strconv.ParseUint(os.Getenv(fsizeVar), 10, 64); err == nil {
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			panic(err)
		}
		os.Exit(run(context.Background(), append([]string{"shq"}, os.Args[1:]...), os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// TestProcess_Killed: a signal in the middle of writing leaves the old file,
// and one that can be caught leaves nothing else.
func TestProcess_Killed(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
		dir := tinyModel(t)
		path := filepath.Join(t.TempDir(), "model.shq")
		write(t, path, []byte("old"))
		p := exec.Command(os.Args[0])
		p.Env = append(os.Environ(), hangVar+"="+path)
		out, err := p.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "half\n" {
			t.Fatalf("%q, %v", line, err)
		}
		p.Process.Signal(sig)
		p.Wait()
		if code := p.ProcessState.ExitCode(); sig == syscall.SIGINT && code != exitInterrupted {
			t.Errorf("%v: exit code %d", sig, code)
		}
		if got := read(t, path); string(got) != "old" {
			t.Errorf("%v: the file is %q", sig, got)
		}
		left, _ := os.ReadDir(filepath.Dir(path))
		if want := map[syscall.Signal]int{syscall.SIGKILL: 2, syscall.SIGINT: 1}[sig]; len(left) != want {
			t.Errorf("%v: left %v", sig, left)
		}
		command(t, exitOK, "convert", dir, "-o", path)
		command(t, exitOK, "verify", path)
	}
}

// TestProcess_DiskFull: convert meets the end of the room at several places.
func TestProcess_DiskFull(t *testing.T) {
	dir := tinyModel(t)
	out := t.TempDir()
	path := filepath.Join(out, "model.shq")
	for _, room := range []int{0, 10, 500, 3000} {
		p := exec.Command(os.Args[0], "convert", dir, "-o", path)
		p.Env = append(os.Environ(), fsizeVar+"="+strconv.Itoa(room))
		var talk bytes.Buffer
		p.Stderr = &talk
		p.Run()
		if code := p.ProcessState.ExitCode(); code != exitIO || !strings.Contains(talk.String(), "file too large") {
			t.Errorf("%d bytes: exit code %d: %s", room, code, talk.String())
		}
		if left, _ := os.ReadDir(out); len(left) > 0 {
			t.Errorf("%d bytes: left %v", room, left)
		}
	}
}
