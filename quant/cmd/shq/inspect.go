package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v3"

	"lqa/quant/calibrate"
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
   shq inspect --damage model.shq | head -40
   shq inspect --json model.shq | jq '.layers[] | select(.kind == "f16")'

A row is a layer: its kind, bits a weight (scales and padding counted), bytes
before compression and their share of the file. Where the file says how its
kinds were chosen, a row has the rounding's relative error, the drift of
embeddings (1 - cosine) with that layer alone rounded, and why it kept its bits.

Only header and manifest are read and checked; verify checks all.

` + cli.CommandHelpTemplate + exitHelp,
		Flags:        append([]cli.Flag{&cli.BoolFlag{Name: "damage", Usage: "sort layers by drift, or else error, the worst first"}}, outputFlags()...),
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
			i, err := inspect(rd)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			if c.Bool("damage") {
				slices.SortStableFunc(i.Layers, func(a, b layer) int { return cmp.Compare(b.damage(), a.damage()) })
			}
			out := bufio.NewWriter(c.Root().Writer)
			if c.Bool("json") {
				enc := json.NewEncoder(out)
				enc.SetIndent("", "  ")
				err = enc.Encode(i)
			} else {
				err = i.show(out)
			}
			if err != nil {
				return err
			}
			return out.Flush()
		},
	}
}

// inspection is what inspect prints.
type inspection struct {
	Hash   string      `json:"hash"`
	Bytes  int64       `json:"bytes"` // of the file
	First  int64       `json:"first_prediction_bytes"`
	Stages []stageSize `json:"stages"`
	Towers []towerSize `json:"towers"`
	Layers []layer     `json:"layers"`
	// Memory is what the kernels of an engine take; absent from a file that is no model.
	Memory   *memory       `json:"memory,omitempty"`
	Manifest *shq.Manifest `json:"manifest"`

	planned bool // the file has a plan
}

type stageSize struct {
	Stage  int   `json:"stage"`
	Frames int   `json:"frames"`
	Raw    int64 `json:"raw_bytes"`
	Bytes  int64 `json:"bytes"`
}

// towerSize is all tensors whose names begin alike. Packed is their part of the
// frames they stand in, by raw bytes.
type towerSize struct {
	Tower   string  `json:"tower"`
	Tensors int     `json:"tensors"`
	Raw     int64   `json:"raw_bytes"`
	Packed  float64 `json:"bytes"`
}

// layer is a weight with its bias, or another tensor that stands alone; the
// shards of a table are one.
type layer struct {
	Name    string     `json:"name"`
	Kind    qtype.Kind `json:"kind"`
	Shape   []int      `json:"shape"`
	Stage   int        `json:"stage"`
	Tensors int        `json:"tensors"`
	Bits    float64    `json:"bits"` // a weight, without bias
	Raw     int64      `json:"raw_bytes"`
	Packed  float64    `json:"bytes"`
	Share   float64    `json:"share"` // of all raw bytes, 0..1
	*planned

	weightBytes int64
}

// planned is the plan's entry for a weight (calibrate.Planned).
type planned struct {
	Error float64                `json:"error"` // of the layer's output, relative
	Drift float64                `json:"drift"` // of embeddings, 1 - cosine, with this layer alone rounded
	Tried map[qtype.Kind]float64 `json:"tried"` // the drift of each kind that was tried
	Why   string                 `json:"why"`
}

// damage is what a layer's rounding costs, -1 where nobody has measured.
func (l *layer) damage() float64 {
	if l.planned == nil {
		return -1
	}
	return l.Drift
}

var (
	partOfLayer = regexp.MustCompile(`\.(weight|bias|names)$`)
	shardOf     = regexp.MustCompile(`^(text\.token)\.\d{3}$`)
)

func inspect(rd *shq.Reader) (*inspection, error) {
	m := rd.Manifest()
	hash := rd.Hash()
	i := &inspection{Hash: hex.EncodeToString(hash[:]), Bytes: m.FileBytes(), First: m.StageEnd(0), Manifest: m}
	for _, f := range m.Frames {
		if f.Stage == len(i.Stages) {
			i.Stages = append(i.Stages, stageSize{Stage: f.Stage})
		}
		s := &i.Stages[f.Stage]
		s.Frames, s.Raw, s.Bytes = s.Frames+1, s.Raw+int64(f.Raw), s.Bytes+int64(f.Size)
	}
	plan, err := readPlan(m.Plan)
	if err != nil {
		return nil, err
	}
	i.planned = len(plan) > 0
	var all int64
	for n := range m.Tensors {
		t := &m.Tensors[n]
		raw, packed := int64(t.Bytes()), packedBytes(m, t)
		all += raw
		tower, _, _ := strings.Cut(t.Name, ".")
		at := slices.IndexFunc(i.Towers, func(s towerSize) bool { return s.Tower == tower })
		if at < 0 {
			at = len(i.Towers)
			i.Towers = append(i.Towers, towerSize{Tower: tower})
		}
		s := &i.Towers[at]
		s.Tensors, s.Raw, s.Packed = s.Tensors+1, s.Raw+raw, s.Packed+packed

		name := partOfLayer.ReplaceAllString(t.Name, "")
		shard := shardOf.FindStringSubmatch(name)
		if shard != nil {
			name = shard[1]
		}
		last := len(i.Layers) - 1
		if last < 0 || i.Layers[last].Name != name {
			last++
			i.Layers = append(i.Layers, layer{Name: name, Kind: t.Kind, Shape: slices.Clone(t.Shape), Stage: m.Frames[t.Frame].Stage, weightBytes: raw})
			if p, ok := plan[name]; ok {
				i.Layers[last].planned = &p
			}
		} else if shard != nil {
			i.Layers[last].Shape[0] += t.Shape[0]
			i.Layers[last].weightBytes += raw
		}
		l := &i.Layers[last]
		l.Tensors, l.Raw, l.Packed = l.Tensors+1, l.Raw+raw, l.Packed+packed
	}
	for n := range i.Layers {
		l := &i.Layers[n]
		elements := 1.
		for _, d := range l.Shape {
			elements *= float64(d)
		}
		l.Bits, l.Share = 8*float64(l.weightBytes)/elements, float64(l.Raw)/float64(all)
	}
	if mem, err := convert.Memory(m); err == nil {
		i.Memory = new(memory)
		*i.Memory = memoryOf(mem)
	}
	return i, nil
}

// packedBytes is t's part of its frames' compressed bytes.
func packedBytes(m *shq.Manifest, t *shq.Tensor) (packed float64) {
	left, at := t.Bytes(), t.Offset
	for f := t.Frame; left > 0; f, at = f+1, 0 {
		n := min(left, m.Frames[f].Raw-at)
		packed += float64(m.Frames[f].Size) * float64(n) / float64(m.Frames[f].Raw)
		left -= n
	}
	return packed
}

// readPlan reads a manifest's plan, by layer.
func readPlan(raw []byte) (map[string]planned, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	list, err := calibrate.ReadPlan(raw)
	if err != nil {
		return nil, err
	}
	plan := map[string]planned{}
	for _, l := range list {
		p := planned{Error: l.Error, Drift: l.Drift, Tried: map[qtype.Kind]float64{}, Why: l.Why}
		for _, t := range l.Tried {
			p.Tried[t.Kind] = t.Drift
		}
		plan[partOfLayer.ReplaceAllString(l.Name, "")] = p
	}
	return plan, nil
}

// show prints it for people. Strings of the file are quoted: they may hold
// anything.
func (i *inspection) show(w io.Writer) error {
	m := i.Manifest
	fmt.Fprintf(w, "name      %s\n", strconv.QuoteToASCII(m.Name))
	fmt.Fprintf(w, "hash      %s\n", i.Hash)
	fmt.Fprintf(w, "source    %s\n", strconv.QuoteToASCII(m.Provenance.Source))
	fmt.Fprintf(w, "licence   %s\n", strconv.QuoteToASCII(m.Provenance.Licence))
	fmt.Fprintf(w, "tool      %s\n", strconv.QuoteToASCII(m.Provenance.Tool))
	fmt.Fprintf(w, "bytes     %d in %d frames; %d are fetched before the first prediction\n", i.Bytes, len(m.Frames), i.First)
	if i.Memory != nil {
		fmt.Fprintf(w, "memory    %s\n", i.Memory)
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "part\ttensors\tframes\traw bytes\tcompressed\t")
	for _, s := range i.Stages {
		fmt.Fprintf(tw, "stage %d\t\t%d\t%d\t%d\t\n", s.Stage, s.Frames, s.Raw, s.Bytes)
	}
	for _, t := range i.Towers {
		fmt.Fprintf(tw, "%s\t%d\t\t%d\t%.0f\t\n", t.Tower, t.Tensors, t.Raw, t.Packed)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	tw = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(tw, "layer\tkind\tshape\tstage\tbits\traw bytes\tshare")
	if i.planned {
		fmt.Fprint(tw, "\terror\tdrift\twhy")
	}
	fmt.Fprintln(tw)
	for _, l := range i.Layers {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%.2f\t%d\t%.1f%%", l.Name, l.Kind, shapeText(l.Shape), l.Stage, l.Bits, l.Raw, 100*l.Share)
		if i.planned {
			failure, drift, why := "", "", ""
			if p := l.planned; p != nil {
				failure, drift, why = fmt.Sprintf("%.1e", p.Error), fmt.Sprintf("%.1e", p.Drift), strconv.QuoteToASCII(p.Why)
				why = why[1 : len(why)-1]
			}
			fmt.Fprintf(tw, "\t%s\t%s\t%s", failure, drift, why)
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}

func shapeText(shape []int) string {
	text := make([]string, len(shape))
	for i, d := range shape {
		text[i] = strconv.Itoa(d)
	}
	return strings.Join(text, "×")
}
