package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"text/tabwriter"

	"github.com/urfave/cli/v3"

	"lqa/quant/convert"
	"lqa/quant/qtype"
	"lqa/quant/shq"
)

// limits of the tools: a file on disk may be larger than one for a browser.
var limits = shq.Limits{RawBytes: 1 << 40}

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show what a .shq file says of itself",
		ArgsUsage: "FILE",
		CustomHelpTemplate: `Examples:
   shq inspect model.shq
   shq inspect --json model.shq | jq .manifest.model

Only header and manifest are read and checked; verify checks all.

` + cli.CommandHelpTemplate,
		Flags:        []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON: hash, bytes, manifest"}},
		OnUsageError: onUsageError,
		Action: func(_ context.Context, c *cli.Command) error {
			path, err := oneArg(c, "file")
			if err != nil {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			rd, err := shq.NewReader(f, limits, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			defer rd.Close()
			out := bufio.NewWriter(c.Root().Writer)
			if c.Bool("json") {
				hash := rd.Hash()
				enc := json.NewEncoder(out)
				enc.SetIndent("", "  ")
				err = enc.Encode(struct {
					Hash     string        `json:"hash"`
					Bytes    int64         `json:"bytes"`
					Manifest *shq.Manifest `json:"manifest"`
				}{hex.EncodeToString(hash[:]), rd.Manifest().FileBytes(), rd.Manifest()})
			} else {
				err = show(out, rd)
			}
			if err != nil {
				return err
			}
			return out.Flush()
		},
	}
}

// show prints a manifest for people. Strings of the file are quoted: they may
// hold anything.
func show(w io.Writer, rd *shq.Reader) error {
	m := rd.Manifest()
	fmt.Fprintf(w, "name      %s\n", strconv.QuoteToASCII(m.Name))
	fmt.Fprintf(w, "hash      %x\n", rd.Hash())
	fmt.Fprintf(w, "source    %s\n", strconv.QuoteToASCII(m.Provenance.Source))
	fmt.Fprintf(w, "licence   %s\n", strconv.QuoteToASCII(m.Provenance.Licence))
	fmt.Fprintf(w, "tool      %s\n", strconv.QuoteToASCII(m.Provenance.Tool))
	fmt.Fprintf(w, "bytes     %d in %d frames\n", m.FileBytes(), len(m.Frames))
	for stage := range m.Stages() {
		packed, raw := 0, 0
		for _, f := range m.Frames {
			if f.Stage == stage {
				packed, raw = packed+f.Size, raw+f.Raw
			}
		}
		fmt.Fprintf(w, "stage %d   %d bytes, %d raw\n", stage, packed, raw)
	}
	for _, kind := range []qtype.Kind{qtype.F16, qtype.Q8C, qtype.Q8R, qtype.U8} {
		count, bytes := 0, 0
		for i := range m.Tensors {
			if m.Tensors[i].Kind == kind {
				count, bytes = count+1, bytes+m.Tensors[i].Bytes()
			}
		}
		if count > 0 {
			fmt.Fprintf(w, "%-9s %d raw bytes in %d tensors\n", kind, bytes, count)
		}
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "tensor\tkind\tshape\tbytes\tstage\tframe\toffset")
	for i := range m.Tensors {
		t := &m.Tensors[i]
		fmt.Fprintf(tw, "%s\t%s\t%v\t%d\t%d\t%d\t%d\n", t.Name, t.Kind, t.Shape, t.Bytes(), m.Frames[t.Frame].Stage, t.Frame, t.Offset)
	}
	return tw.Flush()
}

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "read a .shq file to its end and check all of it",
		ArgsUsage: "FILE",
		CustomHelpTemplate: `Examples:
   shq verify model.shq
   shq verify model.shq && cp model.shq site/

Checks every hash, the container's rules, and that the tensors, scales,
vocabulary and names are those the model's configuration demands. Exits with 1
if something is wrong.

` + cli.CommandHelpTemplate,
		OnUsageError: onUsageError,
		Action: func(_ context.Context, c *cli.Command) error {
			path, err := oneArg(c, "file")
			if err != nil {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			report, err := convert.Verify(bufio.NewReaderSize(f, 1<<16), limits)
			if err != nil {
				var disk *fs.PathError
				if errors.As(err, &disk) { // the check did not get to run
					return disk
				}
				return failedError{fmt.Errorf("%s: %w", f.Name(), err)}
			}
			_, err = fmt.Fprintf(c.Root().Writer, "%x  %s: ok, %d tensors, %d bytes\n", report.Hash, path, len(report.Manifest.Tensors), report.Bytes)
			return err
		},
	}
}
