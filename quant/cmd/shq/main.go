// Command shq makes, shows and checks .shq model files.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/urfave/cli/v3"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // verify found a fault
	exitUsage  = 2
	exitInput  = 3 // an input cannot be used
	exitIO     = 5 // a file cannot be read or written
)

// usageError is a mistake on the command line.
type usageError struct{ error }

// failedError is a check that found a fault.
type failedError struct{ error }

func main() { os.Exit(run(context.Background(), os.Args, os.Stdout, os.Stderr)) }

// run is main without the process: data to stdout, talk to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cli.Command{
		Name:  "shq",
		Usage: "make, show and check .shq model files",
		CustomRootCommandHelpTemplate: `Examples:
   shq convert build/train/model -o model.shq
   shq inspect model.shq
   shq verify model.shq

` + cli.RootCommandHelpTemplate,
		Writer:    stdout,
		ErrWriter: stderr,
		Commands:  []*cli.Command{convertCommand(), inspectCommand(), verifyCommand()},
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return usageError{fmt.Errorf("unknown command %q", c.Args().First())}
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
	fmt.Fprintf(stderr, "shq: %v\n", err)
	code := exitCode(err)
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
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &failed):
		return exitFailed
	case errors.As(err, &path), errors.As(err, &link):
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
