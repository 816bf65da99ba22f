package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v3"

	"lqa/quant/convert"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "read a .shq file to its end and check all of it",
		ArgsUsage: "FILE",
		CustomHelpTemplate: `Examples:
   shq verify model.shq
   shq verify model.shq && cp model.shq site/
   shq verify clip.shq --against hf:openai/clip-vit-base-patch32
   shq verify model.shq --against build/train/model --pictures photos/ --min-cosine 0.98

Checks every hash, the container's rules, and that the tensors, scales,
vocabulary and names are those the model's configuration demands.

With --against it also runs the model and its original, another .shq or
whatever convert takes, on pictures (two dozen that ship, unless --pictures
names better ones) and compares embeddings and answers. The original's weights
are held as float16.

` + cli.CommandHelpTemplate + exitHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "against", Usage: "compare with the model `SOURCE`"},
			&cli.StringFlag{Name: "pictures", Usage: "compare on the pictures of a `FOLDER` or tar"},
			&cli.IntFlag{Name: "count", Usage: "compare on `N` of them, evenly taken; 0 for all", Value: 64},
			&cli.StringFlag{Name: "labels", Usage: "answer with the labels in `FILE`, one a line (default: the file's default labels)"},
			&cli.StringFlag{Name: "merges", Usage: "CLIP's byte pairs, if the original lacks them"},
			&cli.FloatFlag{Name: "min-cosine", Usage: "fail if the mean cosine of the pictures' embeddings is under `X`", Value: 0.97},
			&cli.FloatFlag{Name: "min-worst", Usage: "fail if any picture's cosine is under `X`", Value: 0.9},
			&cli.FloatFlag{Name: "min-agreement", Usage: "fail if the best label agrees on less than this part of the pictures, `X` in 0..1", Value: 0.9},
			&cli.StringFlag{Name: "cache", Usage: "`FOLDER` of fetched repositories"},
		}, outputFlags()...),
		OnUsageError: onUsageError,
		Action:       verifyAction,
	}
}

// verdict is what verify prints with --json.
type verdict struct {
	File    string      `json:"file"`
	OK      bool        `json:"ok"`
	Hash    string      `json:"hash,omitempty"`
	Bytes   int64       `json:"bytes,omitempty"`
	Tensors int         `json:"tensors,omitempty"`
	Against *comparison `json:"against,omitempty"`
	Faults  []string    `json:"faults"`
}

func verifyAction(ctx context.Context, c *cli.Command) error {
	path, err := oneArg(c, "file")
	if err != nil {
		return err
	}
	if c.String("against") == "" {
		for _, name := range []string{"pictures", "count", "labels", "merges", "min-cosine", "min-worst", "min-agreement", "cache"} {
			if c.IsSet(name) {
				return usageError{fmt.Errorf("--%s has no meaning without --against", name)}
			}
		}
	}
	v := verdict{File: path, Faults: []string{}}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	report, err := convert.Verify(bufio.NewReaderSize(f, 1<<16), limits)
	f.Close()
	var disk *fs.PathError
	switch {
	case errors.As(err, &disk): // the check did not get to run
		return disk
	case err != nil:
		v.Faults = append(v.Faults, err.Error())
	default:
		v.Hash, v.Bytes, v.Tensors = hex.EncodeToString(report.Hash[:]), report.Bytes, len(report.Manifest.Tensors)
	}
	if err == nil && c.String("against") != "" {
		if v.Against, err = compare(ctx, c, path); err != nil {
			return err
		}
		v.Faults = append(v.Faults, v.Against.faults(c)...)
	}
	v.OK = len(v.Faults) == 0
	if err := v.print(c); err != nil {
		return err
	}
	if !v.OK {
		return failedError{fmt.Errorf("%s: %s", path, strings.Join(v.Faults, "; "))}
	}
	return nil
}

func (v *verdict) print(c *cli.Command) error {
	w := c.Root().Writer
	if c.Bool("json") {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	if a := v.Against; a != nil {
		fmt.Fprintf(w, "pictures   %d: mean cosine %.5f, worst %.5f (%s)\n", a.Pictures, a.CosineMean, a.CosineMin, a.Worst)
		if a.Labels > 0 {
			fmt.Fprintf(w, "labels     %d: mean cosine %.5f, worst %.5f; the best label agrees on %.1f%% of the pictures\n",
				a.Labels, a.LabelMean, a.LabelMin, 100*a.Agreement)
		} else {
			fmt.Fprintln(w, "labels     none by default: --labels names some")
		}
	}
	if v.OK {
		_, err := fmt.Fprintf(w, "%s  %s: ok, %d tensors, %d bytes\n", v.Hash, v.File, v.Tensors, v.Bytes)
		return err
	}
	return nil
}
