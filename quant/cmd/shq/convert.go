package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v3"

	"lqa/quant/checkpoint"
	"lqa/quant/clip"
	"lqa/quant/convert"
	"lqa/quant/qtype"
	"lqa/quant/shq"
)

// tool goes into the provenance. It changes when the same input would give
// other bytes.
const tool = "shq convert 1"

func convertCommand() *cli.Command {
	return &cli.Command{
		Name:      "convert",
		Usage:     "make a .shq of a float model directory",
		ArgsUsage: "DIR",
		CustomHelpTemplate: `Examples:
   shq convert build/train/model -o model.shq
   shq convert build/train/model -o float.shq --float
   shq convert DIR -o model.shq --source "EfficientNet-Lite0" --licence Apache-2.0
   shq convert DIR -o clip.shq --kind 'text.layer.*=q8c' --kind 'image.layer.00.*=q8c'

DIR holds model.json (the configuration), model.safetensors (float weights),
vocab.txt (one WordPiece a line) or, if the text side is a transformer,
merges.txt (CLIP's, one pair a line) and, if the model has ready labels,
ready_names.txt (one name a line). The same directory and flags give the same
bytes. The file is checked, written beside its place and then renamed.

` + cli.CommandHelpTemplate,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE`", Required: true},
			&cli.BoolFlag{Name: "float", Usage: "keep every weight as float16"},
			&cli.StringSliceFlag{Name: "kind", Usage: "store the linear weights that fit a pattern as that kind, `PATTERN=KIND` (repeatable; the last that fits holds)"},
			&cli.StringSliceFlag{Name: "keep", Usage: "keep the weights that fit `PATTERN` as float16 (repeatable), as in image.block.00.*"},
			&cli.StringFlag{Name: "name", Usage: "the model's `NAME` (default: FILE's name without .shq)"},
			&cli.StringFlag{Name: "source", Usage: "where the weights come from (default: \"source\" in the safetensors metadata)"},
			&cli.StringFlag{Name: "licence", Usage: "their terms (default: \"licence\" in the safetensors metadata)"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "tell what becomes of each tensor"},
		},
		OnUsageError: onUsageError,
		Action:       convertAction,
	}
}

func convertAction(_ context.Context, c *cli.Command) error {
	dir, err := oneArg(c, "directory")
	if err != nil {
		return err
	}
	out := c.String("output")
	var in convert.Input
	if in.Config, err = os.ReadFile(filepath.Join(dir, "model.json")); err != nil {
		return err
	}
	cfg, err := clip.ParseConfig(in.Config)
	if err != nil {
		return err
	}
	vocab := "vocab.txt"
	if cfg.Text.VocabTensor() == "text.merges" {
		vocab = "merges.txt"
	}
	if in.Vocab, err = os.ReadFile(filepath.Join(dir, vocab)); err != nil {
		return err
	}
	in.ReadyNames, err = os.ReadFile(filepath.Join(dir, "ready_names.txt"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.Open(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	tensors, err := checkpoint.OpenSafetensors(f, info.Size(), checkpoint.Limits{})
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	in.Tensors = tensors

	var kinds []convert.Choice
	for _, k := range c.StringSlice("kind") {
		pattern, kind, ok := strings.Cut(k, "=")
		if !ok {
			return usageError{fmt.Errorf("--kind %q is no PATTERN=KIND", k)}
		}
		kinds = append(kinds, convert.Choice{Pattern: pattern, Kind: qtype.Kind(kind)})
	}
	count, worst := 0, convert.Outcome{}
	o := convert.Options{
		Name:  cmp.Or(c.String("name"), strings.TrimSuffix(filepath.Base(out), ".shq")),
		Float: c.Bool("float"),
		Kinds: kinds,
		Keep:  c.StringSlice("keep"),
		Provenance: shq.Provenance{
			Source:  cmp.Or(c.String("source"), tensors.Metadata()["source"]),
			Licence: cmp.Or(c.String("licence"), tensors.Metadata()["licence"]),
			Tool:    tool,
		},
		Progress: func(t convert.Outcome) {
			count++
			if t.Error > worst.Error {
				worst = t
			}
			if c.Bool("verbose") {
				fmt.Fprintf(c.Root().ErrWriter, "%-36s %-4s %-13s %9d bytes, relative error %.2e\n", t.Name, t.Kind, fmt.Sprint(t.Shape), t.Bytes, t.Error)
			}
		},
	}
	var file bytes.Buffer
	if err := convert.Convert(&file, in, o); err != nil {
		return err
	}
	report, err := convert.Verify(bytes.NewReader(file.Bytes()), limits)
	if err != nil {
		return fmt.Errorf("the result does not verify: %w", err)
	}
	if err := writeFile(out, file.Bytes()); err != nil {
		return err
	}
	fmt.Fprintf(c.Root().ErrWriter, "%d tensors, %d bytes; largest relative error %.2e, in %s\n", count, file.Len(), worst.Error, cmp.Or(worst.Name, "none"))
	fmt.Fprintf(c.Root().Writer, "%x  %s\n", report.Hash, out)
	return nil
}

// writeFile puts data beside path and renames it, so that path never holds
// half a file.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
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
	return os.Rename(f.Name(), path)
}
