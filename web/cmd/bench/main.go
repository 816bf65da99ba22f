// Command bench measures speed and memory, natively and in Chromium, and
// prints a JSON line a measurement; progress goes to stderr.
//
//	./build.sh bench [-busy-ok] [-models vit-b-32,lite2] [-threads 1] [-peers=false] [-n 20]
//
// The shipped model is measured by itself. The others meet engines that people
// use today, side by side in one Chromium, a page each: onnxruntime-web and
// LiteRT.js, which build.sh fetches; LQA_PEERS names a folder of LiteRT models.
// What can't be had is told of and left out. Those rows go into
// build/bench.md too, as a table.
//
// Times are medians in milliseconds after a warm-up. It refuses to run on a
// busy machine, where a time would tell more of the neighbours than of us.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"lqa/quant/clip"
	"lqa/quant/qtype"
	"lqa/quant/shq"
)

// row is one line of the output. What a measurement does not have is null.
type row struct {
	Bench   string   `json:"bench"`   // image-encode, view, text-embed, adapt, cold-start, roofline
	Engine  string   `json:"engine"`  // lqa, onnxruntime-web, litert
	Host    string   `json:"host"`    // chromium, native
	Model   string   `json:"model"`   // shipped, vit-b-32, vit-tiny-16, lite2; of a roofline its kernel
	Weights string   `json:"weights"` // what most of them are stored in
	SIMD    string   `json:"simd"`
	Threads int      `json:"threads"`
	Labels  int      `json:"labels,omitempty"` // of adapt: how many, all with full caches
	Share   *float64 `json:"share,omitempty"`  // of adapt: its time by that of the image tower
	MS      float64  `json:"ms"`
	GMACs   *float64 `json:"gmacs"` // 10⁹ multiplications and additions a second

	KernelBytes        *int64 `json:"kernel_bytes"`
	RendererPeakBytes  *int64 `json:"renderer_peak_bytes"`
	RendererBlankBytes *int64 `json:"renderer_blank_bytes"` // of an empty page, same browser

	EngineDownloadBytes *int64   `json:"engine_download_bytes"` // wasm and JavaScript, brotli
	Ratio               *float64 `json:"ratio"`                 // the fastest peer's time by this one, same model and threads

	N int `json:"n"` // measurements behind the median
}

// lqa is our engine's name in rows.
const lqa = "lqa"

// shipped names the model that the site serves.
const shipped = "shipped"

// labels that stand in no table, so that the text tower runs.
func rareLabels(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("a blue wooden thing with %d wheels", i+2)
	}
	return out
}

// labelCounts are how many labels adaptation is measured with, by stream, the
// costliest method.
var labelCounts = []int{10, 100, 1000}

// How often things are measured.
const (
	warm   = 15
	frames = 60
	starts = 5
)

// choice is what to measure.
type choice struct {
	models  []string
	threads []int
	peers   bool
	n       int // frames side by side
}

// largest is the model whose frame a thousand labels should be a hundredth of.
const largest = "vit-b-32"

const allModels = "vit-b-32,vit-b-32+text,vit-tiny-16,lite2,shipped"

func main() {
	busyOK := flag.Bool("busy-ok", false, "measure on a busy machine too")
	models := flag.String("models", allModels, "which of "+allModels)
	threads := flag.String("threads", "1,2", "numbers of threads")
	peers := flag.Bool("peers", true, "measure other engines beside ours")
	n := flag.Int("n", 20, "frames of each engine side by side")
	flag.Parse()
	err := func() error {
		c := choice{models: strings.Split(*models, ","), peers: *peers, n: *n}
		for _, m := range c.models {
			if !slices.Contains(strings.Split(allModels, ","), m) {
				return fmt.Errorf("-models: %q is none of %s", m, allModels)
			}
		}
		for _, f := range strings.Split(*threads, ",") {
			t, err := strconv.Atoi(f)
			if err != nil || t < 1 {
				return fmt.Errorf("-threads: %q is no number of threads", f)
			}
			c.threads = append(c.threads, t)
		}
		if c.n < 1 {
			return fmt.Errorf("-n: %d frames", c.n)
		}
		return run(c, *busyOK)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(c choice, busyOK bool) error {
	if load, err := loadPerCore(); err == nil && load > 0.3 {
		if !busyOK {
			return fmt.Errorf("the machine is busy: load %.2f a core, over 0.3 (-busy-ok measures all the same)", load)
		}
		fmt.Fprintf(os.Stderr, "bench: the machine is busy, load %.2f a core: these times are not to be quoted\n", load)
	}
	out := json.NewEncoder(os.Stdout)
	if slices.Contains(c.models, shipped) {
		if err := native(out); err != nil {
			return err
		}
	}
	return chromium(c, out)
}

// loadPerCore is the load of the last minute by the number of cores (Linux).
func loadPerCore() (float64, error) {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	var load float64
	if _, err := fmt.Sscan(string(b), &load); err != nil {
		return 0, err
	}
	return load / float64(runtime.NumCPU()), nil
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

// newRow is a row with what all have in common.
func newRow(bench, host, weights string, ms []float64) row {
	return row{Bench: bench, Engine: lqa, Host: host, Model: shipped, Weights: weights, SIMD: "simd128", Threads: 1, MS: median(ms), N: len(ms)}
}

// rate sets GMACs from the work of one measurement.
func (r row) rate(macs int64) row {
	g := float64(macs) / (r.MS / 1000) / 1e9
	r.GMACs = &g
	return r
}

// weightKind is what most of a file's tensor bytes are stored in.
func weightKind(m *shq.Manifest) string {
	bytes := map[string]int{}
	for i := range m.Tensors {
		bytes[string(m.Tensors[i].Kind)] += m.Tensors[i].Bytes()
	}
	best := ""
	for kind, n := range bytes {
		if n > bytes[best] || n == bytes[best] && kind < best {
			best = kind
		}
	}
	return weightName(qtype.Kind(best))
}

// weightName is how rows call a kind.
func weightName(k qtype.Kind) string {
	if strings.HasPrefix(string(k), "q8") {
		return "int8"
	}
	return string(k)
}

// imageMACs counts the multiplications of one run of the image tower; a
// transformer's products of attention count too.
func imageMACs(c *clip.Config) int64 {
	im := &c.Image
	if im.Kind == "vit" {
		w, t := int64(im.Width), int64(im.Tokens())
		patches := (t - 1) * w * int64(3*im.Patch*im.Patch)
		layer := t*w*(4*w+2*int64(im.MLP)) + 2*t*t*w
		return patches + int64(im.Layers)*layer + w*int64(c.Embed)
	}
	side := (im.Size + 1) / 2
	n := int64(side*side) * int64(im.Stem) * 27
	for _, b := range im.Blocks {
		wide := b.In * b.Expand
		if b.Expand != 1 {
			n += int64(side*side) * int64(b.In) * int64(wide)
		}
		side = (side + b.Stride - 1) / b.Stride
		n += int64(side*side) * int64(wide) * int64(b.Kernel*b.Kernel+b.Out)
	}
	last := im.Blocks[len(im.Blocks)-1].Out
	return n + int64(side*side)*int64(last)*int64(im.Features) + int64(im.Features)*int64(c.Embed)
}
