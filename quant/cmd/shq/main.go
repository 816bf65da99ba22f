// Command shq makes, shows and checks .shq model files.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v3"

	"lqa/quant/checkpoint/hub"
	"lqa/quant/cmd/progress"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1 // verify found a fault
	exitUsage       = 2
	exitInput       = 3 // an input cannot be used
	exitNetwork     = 4 // a download failed
	exitIO          = 5 // a file cannot be read or written
	exitInterrupted = 130
)

// exitHelp ends every help text.
const exitHelp = `
EXIT CODES:
   0 done   1 verify found a fault   2 wrong usage   3 an input cannot be used
   4 a download failed   5 a file cannot be read or written   130 interrupted
`

// usageError is a mistake on the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// failedError is a check that found a fault.
type failedError struct{ error }

func (e failedError) Unwrap() error { return e.error }

func main() {
	// The first signal ends the work in good order, the second at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args, os.Stdout, os.Stderr))
}

// run is main without the process: data to stdout, talk to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cli.Command{
		Name:  "shq",
		Usage: "make, show and check .shq model files",
		CustomRootCommandHelpTemplate: `Examples:
   shq convert hf:openai/clip-vit-base-patch32 -o clip.shq
   shq inspect clip.shq
   shq verify clip.shq
   shq verify clip.shq --against float.shq

` + cli.RootCommandHelpTemplate + exitHelp,
		Suggest:   true,
		Writer:    stdout,
		ErrWriter: stderr,
		Commands:  []*cli.Command{convertCommand(), inspectCommand(), verifyCommand()},
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				err := fmt.Errorf("unknown command %q", c.Args().First())
				if s := cli.SuggestCommand(c.Commands, c.Args().First()); s != "" {
					err = fmt.Errorf("%w: %s", err, s)
				}
				return usageError{err}
			}
			return usageError{errors.New("name a command: convert, inspect or verify")}
		},
		ExitErrHandler: func(context.Context, *cli.Command, error) {}, // run reports
		OnUsageError:   onUsageError,
	}
	err := root.Run(ctx, args)
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	if code == exitInterrupted {
		err = errors.New("interrupted")
	}
	fmt.Fprintf(stderr, "shq: %v\n", err)
	if code == exitUsage {
		fmt.Fprintln(stderr, "shq: see shq --help, or shq COMMAND --help")
	}
	return code
}

func onUsageError(_ context.Context, _ *cli.Command, err error, _ bool) error { return usageError{err} }

func exitCode(err error) int {
	var usage usageError
	var failed failedError
	var path *fs.PathError
	var link *os.LinkError
	var call *os.SyscallError
	switch {
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &failed):
		return exitFailed
	case errors.Is(err, hub.ErrNetwork), errors.Is(err, hub.ErrRate), errors.Is(err, hub.ErrRefused), errors.Is(err, hub.ErrAnswer),
		errors.Is(err, hub.ErrChanged), errors.Is(err, hub.ErrChecksum):
		return exitNetwork
	case errors.Is(err, hub.ErrDisk), errors.As(err, &path), errors.As(err, &link), errors.As(err, &call):
		return exitIO
	}
	return exitInput
}

// oneArg returns the command's only argument.
func oneArg(c *cli.Command, what string) (string, error) {
	if n := c.Args().Len(); n != 1 {
		return "", usageError{fmt.Errorf("%s needs one %s, got %d", c.Name, what, n)}
	}
	return c.Args().First(), nil
}

// outputFlags belong to every command.
func outputFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "tell nothing but results and errors"},
	}
}

func newBar(c *cli.Command) *progress.Bar { return progress.New(c.Root().ErrWriter, c.Bool("quiet")) }
