package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"

	"lqa/quant/checkpoint/hub"
	"lqa/quant/cmd/progress"
	"lqa/quant/convert"
	"lqa/quant/device"
	"lqa/quant/qtype"
)

// tool goes into the provenance. It changes when the same input would give
// other bytes.
const tool = "shq convert 2"

func convertCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE`"},
		&cli.BoolFlag{Name: "dry-run", Usage: "tell sizes and memory, write nothing"},
		&cli.StringFlag{Name: "name", Usage: "the model's `NAME` (default: FILE's name without .shq)"},
		&cli.StringFlag{Name: "source", Usage: "where the weights come from (default: as the source says)"},
		&cli.StringFlag{Name: "licence", Usage: "their terms (default: as the source says)"},
		&cli.StringFlag{Name: "labels", Usage: "default labels, one a line in `FILE`: what is known before the text tower is there"},
		&cli.StringFlag{Name: "templates", Usage: "prompts around a label, one a line in `FILE`, as in \"a photo of a {}.\""},
		&cli.StringFlag{Name: "merges", Usage: "CLIP's byte pairs, if the source lacks them: merges.txt or bpe_simple_vocab_16e6.txt.gz"},
		&cli.BoolFlag{Name: "float", Usage: "keep every weight as float16"},
		&cli.StringSliceFlag{Name: "kind", Usage: "store the linear weights that fit a pattern as that kind, `PATTERN=KIND` (repeatable; the last that fits holds)"},
		&cli.StringSliceFlag{Name: "keep", Usage: "keep the weights that fit `PATTERN` as float16 (repeatable), as in image.block.00.*"},
	}
	flags = append(flags, calibrationFlags()...)
	flags = append(flags,
		&cli.StringFlag{Name: "cache", Usage: "`FOLDER` of fetched repositories (default: lqa/hub in the user's cache)"},
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "tell what becomes of each tensor, and of each request"},
	)
	return &cli.Command{
		Name:      "convert",
		Usage:     "make a .shq of a checkpoint",
		ArgsUsage: "SOURCE",
		CustomHelpTemplate: `Examples:
   shq convert hf:openai/clip-vit-base-patch32 -o clip.shq
   shq convert hf:openai/clip-vit-base-patch32 --dry-run
   shq convert clip-directory -o clip.shq --labels labels.txt
   shq convert build/train/model -o float.shq --float
   shq convert DIR -o model.shq --source "EfficientNet-Lite0" --licence Apache-2.0
   shq convert DIR -o clip.shq --kind 'text.layer.*=q8c' --kind 'image.layer.00.*=q8c'

SOURCE is a directory as Hugging Face's transformers or OpenCLIP write it, a
repository of the hub (hf:OWNER/NAME[@REVISION]), or a float model directory of
./build.sh train: model.json, model.safetensors, vocab.txt or merges.txt,
ready_names.txt. No code of a checkpoint is run.

HF_ENDPOINT names another hub, HF_TOKEN an account; the token is sent to the
endpoint alone and never printed. Downloads resume where they were cut.

The same source and flags give the same bytes. The file is checked, written
beside its place and then renamed: what stands there is never half a file.

` + cli.CommandHelpTemplate + exitHelp,
		Flags:        append(flags, outputFlags()...),
		OnUsageError: onUsageError,
		Action:       convertAction,
	}
}

// conversion is what convert prints with --json.
type conversion struct {
	File    string           `json:"file,omitempty"` // absent from a dry run
	Hash    string           `json:"hash,omitempty"`
	Bytes   int64            `json:"bytes,omitempty"` // of the file
	Raw     int64            `json:"raw_bytes"`       // of the tensors, before compression
	Source  string           `json:"source"`
	Licence string           `json:"licence"`
	Notes   []string         `json:"notes"`
	Parts   []share          `json:"parts"`
	Memory  memory           `json:"memory"` // the kernels' of an engine that has loaded it
	Worst   *worstTensor     `json:"worst,omitempty"`
	Tensors []convertOutcome `json:"tensors"`
}

type worstTensor struct {
	Name  string  `json:"name"`
	Error float64 `json:"error"`
}

type convertOutcome struct {
	Name  string     `json:"name"`
	Kind  qtype.Kind `json:"kind"`
	Shape []int      `json:"shape"`
	Bytes int        `json:"bytes"`
	Error float64    `json:"error"` // relative, 0 in a dry run
}

// share is a tower's bytes in one kind.
type share struct {
	Tower   string     `json:"tower"`
	Kind    qtype.Kind `json:"kind"`
	Tensors int        `json:"tensors"`
	Bytes   int64      `json:"bytes"`
}

// shares adds outcomes up by tower and kind, in the order of the file.
func shares(tensors []convertOutcome) (out []share) {
	for _, t := range tensors {
		tower, _, _ := strings.Cut(t.Name, ".")
		i := slices.IndexFunc(out, func(s share) bool { return s.Tower == tower && s.Kind == t.Kind })
		if i < 0 {
			i = len(out)
			out = append(out, share{Tower: tower, Kind: t.Kind})
		}
		out[i].Tensors++
		out[i].Bytes += int64(t.Bytes)
	}
	slices.SortStableFunc(out, func(a, b share) int { return cmp.Or(cmp.Compare(a.Tower, b.Tower), cmp.Compare(b.Bytes, a.Bytes)) })
	return out
}

// memory is device.Memory in JSON.
type memory struct {
	Weights     int `json:"weights"`
	Activations int `json:"activations"`
	Frame       int `json:"frame"`
	Commands    int `json:"commands"`
	Total       int `json:"total"`
}

func memoryOf(m device.Memory) memory {
	return memory{m.Weights, m.Activations, m.Frame, m.Commands, m.Total}
}

func (m memory) String() string {
	return fmt.Sprintf("%s: weights %s, activations %s, picture %s", progress.Size(int64(m.Total)),
		progress.Size(int64(m.Weights)), progress.Size(int64(m.Activations)), progress.Size(int64(m.Frame)))
}

// hubSleep is how retries wait; tests do not.
var hubSleep func(context.Context, time.Duration) error

func hubOptions(c *cli.Command) hub.Options {
	o := hub.FromEnvironment()
	o.Sleep, o.Cache = hubSleep, c.String("cache")
	return o
}

func convertAction(ctx context.Context, c *cli.Command) error {
	name, err := oneArg(c, "source")
	if err != nil {
		return err
	}
	out, dry := c.String("output"), c.Bool("dry-run")
	if (out == "") != dry {
		return usageError{fmt.Errorf("convert needs either --output FILE or --dry-run")}
	}
	measure, err := parseCalibration(c)
	if err != nil {
		return err
	}
	o := convert.Options{
		Name:  cmp.Or(c.String("name"), strings.TrimSuffix(filepath.Base(cmp.Or(out, name)), ".shq")),
		Float: c.Bool("float"),
		Keep:  c.StringSlice("keep"),
	}
	for _, k := range c.StringSlice("kind") {
		pattern, kind, ok := strings.Cut(k, "=")
		if !ok {
			return usageError{fmt.Errorf("--kind %q is no PATTERN=KIND", k)}
		}
		o.Kinds = append(o.Kinds, convert.Choice{Pattern: pattern, Kind: qtype.Kind(kind)})
	}

	bar := newBar(c)
	fetch := hubOptions(c)
	verbose := c.Bool("verbose")
	if verbose {
		fetch.Log = func(line string) { bar.Note("%s", line) }
	}
	src, err := openSource(ctx, name, fetch, bar)
	if err != nil {
		return err
	}
	defer src.Close()
	for _, n := range src.notes {
		bar.Note("note: %s", n)
	}
	embed, err := texts{labels: c.String("labels"), templates: c.String("templates"), merges: c.String("merges")}.apply(src)
	if err != nil {
		return err
	}
	if embed {
		if err := embedLabels(ctx, src, dry); err != nil {
			return err
		}
	}
	o.Provenance.Source, o.Provenance.Licence = src.provenance(c.String("source"), c.String("licence"))
	o.Provenance.Tool = tool
	src.Tensors = cancelled{src.Tensors, ctx}
	if dry && !measure.off && measure.budget == 0 && measure.maxDrift == 0 {
		measure.off = true // all that pictures would change of sizes is this:
		if src.Input, err = convert.WithImageMean(src.Input, nil); err != nil {
			return err
		}
	}
	free, err := measure.apply(ctx, src, &o, bar)
	defer free()
	if err != nil {
		return err
	}

	made, err := convert.Predict(src.Input, o)
	if err != nil {
		return err
	}
	result := conversion{Raw: made.Bytes, Source: o.Provenance.Source, Licence: o.Provenance.Licence, Notes: src.notes, Memory: memoryOf(made.Memory)}
	if dry {
		for _, t := range made.Tensors {
			result.Tensors = append(result.Tensors, convertOutcome(t))
		}
		return result.print(c)
	}

	bar.Begin("converting", int64(len(made.Tensors)), "tensors")
	result.Worst = &worstTensor{Name: "none"}
	o.Progress = func(t convert.Outcome) {
		bar.Add(1)
		result.Tensors = append(result.Tensors, convertOutcome(t))
		if t.Error > result.Worst.Error {
			result.Worst = &worstTensor{t.Name, t.Error}
		}
		if verbose {
			bar.Note("%-36s %-4s %-13s %9d bytes, relative error %.2e", t.Name, t.Kind, fmt.Sprint(t.Shape), t.Bytes, t.Error)
		}
	}
	fill := func(w io.Writer) error { return convert.Convert(w, src.Input, o) }
	check := func(r io.Reader) error {
		report, err := convert.Verify(r, limits)
		if err != nil {
			return fmt.Errorf("the result does not verify: %w", err)
		}
		result.File, result.Hash, result.Bytes = out, hex.EncodeToString(report.Hash[:]), report.Bytes
		return nil
	}
	err = replace(ctx, realDisk{}, out, fill, check)
	bar.End()
	if err != nil {
		return err
	}
	bar.Note("%d tensors, %d bytes; largest relative error %.2e, in %s", len(result.Tensors), result.Bytes, result.Worst.Error, result.Worst.Name)
	return result.print(c)
}

// print writes a conversion: one line for a file that was made, a table for one
// that was not, or JSON.
func (r *conversion) print(c *cli.Command) error {
	w := c.Root().Writer
	r.Parts = shares(r.Tensors)
	if r.Notes == nil {
		r.Notes = []string{}
	}
	if c.Bool("json") {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	if r.File != "" {
		_, err := fmt.Fprintf(w, "%s  %s\n", r.Hash, r.File)
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "part\tkind\ttensors\tbytes\t")
	for _, p := range r.Parts {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t\n", p.Tower, p.Kind, p.Tensors, p.Bytes)
	}
	fmt.Fprintf(tw, "all\t\t%d\t%d\t\n", len(r.Tensors), r.Raw)
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nThe file will be somewhat smaller: its frames are compressed.\nMemory of an engine's kernels: %s.\n", r.Memory)
	return err
}
