package main

import (
	"bufio"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"lqa/quant/convert"
	"lqa/quant/convert/random"
	"lqa/quant/device/native"
	"lqa/quant/engine"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
	"lqa/quant/shq"
	"lqa/tta"
	"lqa/tta/shift"
)

// The suite memory measures what adaptation costs as a whole process, from its
// start on: PyTorch with gradients and ours, one process each, on towers of the
// same shape (CLIP ViT-B/16) with random weights, which cost what trained ones
// do. With --model it measures this very process on that file: that is how it
// calls itself.

//go:embed memory.py
var memoryScript string

const (
	memoryTower  = "vit-b-16"
	memoryLabels = 100
	memoryFrames = 3
	// streamFrames go through the adapter after that, so that its state is full.
	streamFrames = 1000
)

// memoryResult is a JSON line of the suite memory.
type memoryResult struct {
	Suite      string  `json:"suite"`
	Set        string  `json:"set"` // the image tower
	Method     string  `json:"method"`
	Runtime    string  `json:"runtime"`
	Weights    string  `json:"weights"`
	Classes    int     `json:"classes"`
	Batch      int     `json:"batch"`      // pictures at a time
	PeakBytes  int64   `json:"peak_bytes"` // resident, the process's largest (Linux: VmHWM)
	BaseBytes  int64   `json:"base_bytes"` // the same before there is a model
	StateBytes int     `json:"state_bytes,omitempty"`
	MS         float64 `json:"ms"`                  // a frame, on whatever else the machine does
	TPT        float64 `json:"tpt_ratio,omitempty"` // TPT's peak by this one's
	TENT       float64 `json:"tent_ratio,omitempty"`
}

// Gradients, as their authors run them; TENT also on a single frame, the least
// that gradients can cost.
var gradients = []struct {
	method string
	batch  int
}{{"tpt", 64}, {"tent", 64}, {"tent", 1}}

var memoryKinds = []struct {
	name  string
	float bool
	kinds []convert.Choice
}{
	{"4-bit image, 8-bit text", false, []convert.Choice{{Pattern: "image.layer.*", Kind: qtype.Q4}}},
	{"float32", true, nil},
}

func memorySuite(ctx context.Context, r *run) error {
	out := json.NewEncoder(r.stdout)
	if r.modelFile != "" {
		res, err := measureMemory(ctx, r.modelFile)
		if err != nil {
			return err
		}
		return out.Encode(res)
	}
	dir := filepath.Join(r.keep, "memory")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r.progress.Begin("processes", int64(len(gradients)+len(memoryKinds)), "processes")
	defer r.progress.End()
	var all []memoryResult
	report := func(res memoryResult) error {
		r.progress.Add(1)
		r.progress.End()
		all = append(all, res)
		return out.Encode(res)
	}
	for _, g := range gradients {
		r.progress.On(fmt.Sprintf("%s, %d pictures", g.method, g.batch))
		python := cmp.Or(os.Getenv("LQA_PYTHON"), "python3")
		cmd := exec.CommandContext(ctx, python, "-", g.method, strconv.Itoa(g.batch))
		cmd.Stdin = strings.NewReader(memoryScript)
		res := memoryResult{Suite: "memory", Set: memoryTower, Method: g.method, Weights: "float32", Classes: memoryLabels, Batch: g.batch}
		if err := child(cmd, &res); err != nil {
			return fmt.Errorf("%s: %w (LQA_PYTHON names a Python with PyTorch)", g.method, err)
		}
		if err := report(res); err != nil {
			return err
		}
	}
	for _, k := range memoryKinds {
		r.progress.On(k.name)
		name := filepath.Join(dir, "model.shq")
		if err := writeRandom(name, convert.Options{Name: k.name, Float: k.float, Kinds: k.kinds}); err != nil {
			return err
		}
		var res memoryResult
		if err := child(exec.CommandContext(ctx, self, "--suite", "memory", "--model", name), &res); err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		res.TPT, res.TENT = ratio(all[0], res), ratio(all[1], res)
		if err := report(res); err != nil {
			return err
		}
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return r.writeMarkdown(memoryTable(all))
}

// child runs cmd and reads the line that it prints into res.
func child(cmd *exec.Cmd, res *memoryResult) error {
	var said strings.Builder
	cmd.Stderr = &said
	b, err := cmd.Output()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		return fmt.Errorf("%w: %s", err, lines[len(lines)-1])
	}
	return json.Unmarshal(b, res)
}

func ratio(of, by memoryResult) float64 {
	return math.Round(100*float64(of.PeakBytes)/float64(by.PeakBytes)) / 100
}

// writeRandom writes CLIP with random weights.
func writeRandom(name string, o convert.Options) (err error) {
	vocab, err := random.Merges(os.DirFS("."))
	if err != nil {
		return err
	}
	_, in, err := random.Input(random.Images[memoryTower], random.CLIP, vocab)
	if err != nil {
		return err
	}
	o.Provenance = shq.Provenance{Source: "random weights", Licence: "Apache-2.0", Tool: "eval"}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return convert.Convert(f, in, o)
}

// measureMemory does in this process what a page's worker does: the file as a
// stream, token rows as labels need them, frames, the costliest adapter.
func measureMemory(ctx context.Context, name string) (memoryResult, error) {
	// Go's collector takes the kernels' memory for its own and would let as much
	// again pile up before it starts; in a page it does not know of it.
	debug.SetGCPercent(10)
	method := tta.Methods[len(tta.Methods)-1].Name
	res := memoryResult{Suite: "memory", Set: memoryTower, Method: method, Classes: memoryLabels, Batch: 1}
	var err error
	if res.BaseBytes, err = peakMemory(); err != nil {
		return res, err
	}
	f, err := os.Open(name)
	if err != nil {
		return res, err
	}
	defer f.Close()
	e, err := engine.Open(bufio.NewReader(f), engine.Options{Host: native.New(), Fetch: func(_ context.Context, offset int64, size int) ([]byte, error) {
		b := make([]byte, size)
		_, err := f.ReadAt(b, offset)
		return b, err
	}})
	if err != nil {
		return res, fmt.Errorf("%s: %w", name, err)
	}
	defer e.Close()
	for err == nil {
		_, err = e.LoadStage(ctx)
	}
	if err != io.EOF {
		return res, fmt.Errorf("%s: %w", name, err)
	}
	labels := make([]string, memoryLabels)
	for i := range labels {
		labels[i] = fmt.Sprintf("a photo of thing number %d", i)
	}
	if err := e.Prepare(ctx, labels, nil); err != nil {
		return res, err
	}
	c := e.Config()
	text, err := e.EmbedText(labels)
	if err != nil {
		return res, err
	}
	session, err := tta.NewSession(nil, tta.SessionConfig{Labels: labels, Embeddings: text, Scale: c.LogitScale, Temperature: c.Temperature, Adapter: method})
	if err != nil {
		return res, err
	}

	var answer tta.Result
	x, source := make([]float32, c.Embed), shift.NewSource(0)
	rgba := make([]byte, 640*480*4)
	begin := time.Now()
	for i := range memoryFrames {
		for k := range rgba {
			rgba[k] = byte(source.Next())
		}
		if err := errors.Join(e.SetFrame(rgba, 640, 480), e.Encode(x)); err != nil {
			return res, err
		}
		if err := session.Frame(time.Duration(i)*frameTime, x, &answer); err != nil {
			return res, err
		}
	}
	res.MS = math.Round(10*float64(time.Since(begin).Microseconds())/1e3/memoryFrames) / 10
	for i := range streamFrames {
		// Near one label each, so that all caches fill.
		for k, v := range text[i%len(text)] {
			x[k] = v + (float32(source.Next()>>40)/(1<<24)-0.5)/16
		}
		numeric.Normalize(x)
		if err := session.Frame(time.Duration(memoryFrames+i)*frameTime, x, &answer); err != nil {
			return res, err
		}
	}
	res.Runtime, res.Weights = "wazero", e.Manifest().Name
	res.StateBytes = session.Report().StateBytes
	res.PeakBytes, err = peakMemory()
	return res, err
}

// peakMemory is the largest resident size this process has had. getrusage would
// count what was resident before exec, the parent's.
func peakMemory() (int64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, fmt.Errorf("suite memory needs Linux: %w", err)
	}
	_, rest, ok := strings.Cut(string(b), "VmHWM:")
	number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	kB, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil {
		return 0, errors.New("no VmHWM in /proc/self/status")
	}
	return kB << 10, nil
}

// memoryTable is the results in Markdown.
func memoryTable(all []memoryResult) string {
	var b strings.Builder
	b.WriteString("| method | runtime | weights | pictures | peak, MB | before the model, MB | TPT / it | TENT / it |\n|---|---|---|---:|---:|---:|---:|---:|\n")
	for _, r := range all {
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %.0f | %.0f | %s | %s |\n", r.Method, r.Runtime, r.Weights, r.Batch,
			float64(r.PeakBytes)/1e6, float64(r.BaseBytes)/1e6, times(r.TPT), times(r.TENT))
	}
	return b.String()
}

func times(x float64) string {
	if x == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", x)
}
