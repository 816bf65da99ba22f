// Command eval measures a model on real pictures and streams and prints one
// JSON line a result.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"lqa/quant/cmd/progress"
	"lqa/tta/cmd/eval/dataset"
)

// suites is the one list of what --suite takes.
var suites = []struct {
	name, doc string
	run       func(context.Context, *run) error
}{
	{"zero-shot", "the model's own answer on every test split and stream, by ready table and by text tower", zeroShotSuite},
	{"open", "names that stayed out of training, the backbone's own classes for them mute", openSuite},
	{"retrieval", "pictures to captions by text tower: flickr8k/test", retrievalSuite},
	{"unknown", "\"none of these\": known pictures kept, unknown ones refused, calibration", unknownSuite},
	{"desk", "everyday words, each picture against all of them", deskSuite},
	{"camera", "what darkness, blur, noise and colour cast cost", cameraSuite},
	{"quant", "what rounding costs: a float model stored in many ways, on every test split", quantSuite},
	{"shift", "every adapter on shifted streams of pictures and on real video: as published, and as cameras see", shiftSuite},
	{"teach", "what one, three and five taught frames a label are worth on real video", teachSuite},
	{"soak", "every adapter on 100,000 frames in a row: accuracy, memory, numbers that stay numbers", soakSuite},
	{"real-clip", "every adapter on image embeddings of the real CLIP ViT-B/32, from $LQA_MODELS", realClipSuite},
	{"memory", "peak memory of adaptation: ours beside gradients in PyTorch ($LQA_PYTHON), ViT-B/16", memorySuite},
}

// Bounds of --pool and --seeds.
const (
	maxPool  = 1 << 16
	maxSeeds = 1000
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := command(os.Stdout, os.Stderr).Run(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "eval:", err)
		os.Exit(1)
	}
}

func command(stdout, stderr io.Writer) *cli.Command {
	var names []string
	list := ""
	for _, s := range suites {
		names = append(names, s.name)
		list += fmt.Sprintf("   %-12s %s\n", s.name, s.doc)
	}
	return &cli.Command{
		Name:      "eval",
		Usage:     "measure a model on real pictures and streams",
		UsageText: "eval --suite NAME [options]",
		Description: `Examples:

   eval --suite zero-shot                                 everything under $LQA_DATA
   eval --suite zero-shot --sets cifar10,hands --limit 200   a quick look
   eval --suite zero-shot --model build/float.shq         another model
   eval --suite zero-shot --markdown build/zero-shot.md   a table as well
   eval --suite camera --model build/float.shq            how another model bears it
   eval --suite shift --sets cifar10 --pool 100 --plots build/plots   adapters, a quick look
   eval --features img.npy --text txt.npy --labels y.npy --scale 100   your own embeddings

Suites:

` + strings.TrimRight(list, "\n") + `

JSON lines go to stdout: suite, set, split, n (pictures or frames), top1 (or
recall10) and ece in percent, text (table: labels as the product embeds them;
tower: by the text tower alone; mixed: kept-out names by tower), and the model's
name. zero-shot has lqa_top1 (streams: with that adapter, frames in order),
prompts (whether --prompts were used), classes, known (classes whose name stands
ready in the model), reworded (by the prompts), unreadable (pictures, counted as
wrong) and ms a picture where it was encoded in this run; of names a part of the
pictures: kept-out, trained. shift has shift, severity, stream, adapter, gain over
zero-shot in points with half its 95% interval, tail_top1 (worst tenth of the
streams), flicker (changes of answer a second), switch_s and recover_s (median
seconds until right), loss (by poison, or by nothing listed in view) and chosen_on
(constants were chosen there). Last lines with set "mean" or "all" sum up. Progress
goes to stderr. Embeddings are kept, so that a second run takes seconds.`,
		Writer:          stdout,
		ErrWriter:       stderr,
		ExitErrHandler:  func(context.Context, *cli.Command, error) {}, // main reports
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "suite", Usage: "what to measure: " + strings.Join(names, ", ")},
			&cli.StringFlag{Name: "model", Usage: "`FILE`.shq (default: the newest in assets)"},
			&cli.StringFlag{Name: "float", Usage: "suite quant: `FOLDER` of the float model", Value: filepath.Join("build", "train", "model")},
			&cli.StringFlag{Name: "data", Usage: "`FOLDER` with the sets", Value: "../shared/data", Sources: cli.EnvVars("LQA_DATA")},
			&cli.StringFlag{Name: "models", Usage: "suite real-clip: `FOLDER` with CLIP's embeddings", Value: "../shared/models", Sources: cli.EnvVars("LQA_MODELS")},
			&cli.StringFlag{Name: "prompts", Usage: "`FILE` of better wordings, label and wording a line; \"\" for none", Value: filepath.Join("assets", "prompts.tsv")},
			&cli.StringFlag{Name: "desk", Usage: "`FOLDER` with desk_words.txt and desk_classes.tsv, for desk and unknown", Value: filepath.Join("assets", "train")},
			&cli.StringSliceFlag{Name: "sets", Usage: "only these `SETS`, by folder name"},
			&cli.IntFlag{Name: "limit", Usage: "about `N` pictures a split, evenly taken; 0 for all"},
			&cli.IntFlag{Name: "jobs", Usage: "encode on `N` engines at once", Value: 2},
			&cli.StringFlag{Name: "keep", Usage: "`FOLDER` for embeddings", Value: filepath.Join("build", "eval")},
			&cli.IntFlag{Name: "pool", Usage: "suites shift and soak: about `N` frames a set and condition", Value: 1200},
			&cli.IntFlag{Name: "seeds", Usage: "streams a condition; of real video at most 5", Value: 10},
			&cli.StringSliceFlag{Name: "streams", Usage: "suite shift: only these `KINDS` of streams"},
			&cli.StringSliceFlag{Name: "corruptions", Usage: "suite shift: these `NAMES` of ImageNet-C's in place of five; all for all 15"},
			&cli.StringSliceFlag{Name: "adapters", Aliases: []string{"adapter"}, Usage: "only these `NAMES`"},
			&cli.BoolFlag{Name: "ablations", Usage: "adapters without one of their parts, too"},
			&cli.StringFlag{Name: "features", Usage: "in place of a suite, adapters on your own image embeddings: `FILE`.npy of [n, D] ..."},
			&cli.StringFlag{Name: "text", Usage: "... with text embeddings, `FILE`.npy of [C, D] ..."},
			&cli.StringFlag{Name: "labels", Usage: "... and the right label of each image, `FILE`.npy of [n] integers from 0"},
			&cli.FloatFlag{Name: "scale", Usage: "logits are `S` times the cosine, with --features", Value: 100},
			&cli.StringFlag{Name: "plots", Usage: "draw accuracy over time and reliability as SVG into `FOLDER`"},
			&cli.StringFlag{Name: "markdown", Usage: "write the results as a table to `FILE` too"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			r := &run{
				modelFile: c.String("model"), float: c.String("float"), data: c.String("data"), models: c.String("models"), keep: c.String("keep"), desk: c.String("desk"), markdown: c.String("markdown"),
				sets: c.StringSlice("sets"), limit: c.Int("limit"), jobs: c.Int("jobs"),
				streamOptions: streamOptions{
					pool: c.Int("pool"), seeds: c.Int("seeds"), kinds: c.StringSlice("streams"), corruptions: c.StringSlice("corruptions"),
					adapters: c.StringSlice("adapters"), ablations: c.Bool("ablations"), plots: c.String("plots"),
				},
				stdout: stdout, stderr: stderr, progress: progress.New(stderr, false),
			}
			if r.limit < 0 || r.jobs < 1 || r.jobs > 64 {
				return fmt.Errorf("--limit %d, --jobs %d: out of range", r.limit, r.jobs)
			}
			if r.pool < 1 || r.pool > maxPool || r.seeds < 1 || r.seeds > maxSeeds {
				return fmt.Errorf("--pool %d, --seeds %d: out of range", r.pool, r.seeds)
			}
			var err error
			if r.prompts, err = readPrompts(c.String("prompts"), c.IsSet("prompts"), r.progress); err != nil {
				return err
			}
			if c.String("features") != "" {
				if c.String("suite") != "" {
					return errors.New("--features and --suite: one of them")
				}
				return r.features(ctx, featureFiles{c.String("features"), c.String("text"), c.String("labels"), c.Float("scale")})
			}
			for _, s := range suites {
				if s.name == c.String("suite") {
					return s.run(ctx, r)
				}
			}
			return fmt.Errorf("unknown suite %q; there are: %s", c.String("suite"), strings.Join(names, ", "))
		},
	}
}

// readPrompts reads the file of better wordings. That the default file is not
// there is no error.
func readPrompts(name string, asked bool, p *progress.Bar) (dataset.Prompts, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if os.IsNotExist(err) && !asked {
		p.Note("no %s: labels are asked as they are", name)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return dataset.ReadPrompts(f)
}

// newestModel returns the .shq in dir that was changed last.
func newestModel(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.shq"))
	if err != nil {
		return "", err
	}
	slices.Sort(files)
	newest := ""
	var when int64
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.ModTime().UnixNano() >= when {
			newest, when = f, info.ModTime().UnixNano()
		}
	}
	if newest == "" {
		return "", fmt.Errorf("no .shq in %s: give one with --model", dir)
	}
	return newest, nil
}
