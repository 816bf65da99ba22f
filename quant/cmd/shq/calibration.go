package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v3"

	"lqa/quant/calibrate"
	"lqa/quant/cmd/progress"
	"lqa/quant/convert"
	"lqa/quant/device"
	"lqa/quant/device/native"
	"lqa/quant/engine"
	"lqa/quant/picture"
	"lqa/quant/qtype"
)

// calibration is how pictures steer rounding and the choice of kinds.
type calibration struct {
	off      bool
	pictures string // folder or tar; "" is those that ship (quant/calibrate/pictures)
	count    int    // of pictures
	method   string // one of methods
	asIs     bool   // outliers stay
	bits     qtype.Kind
	budget   int64   // bytes of the file's tensors; 0: none
	maxDrift float64 // sum of the layers' 1 - cosine to float; 0: none
}

var methods = []string{calibrate.Nearest.String(), calibrate.Clipped.String(), calibrate.GPTQ.String()}

// calibrationFlags belong to convert.
func calibrationFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "bits", Usage: "store all of the image tower's linear weights with `N` bits: 4, 5, 6, 7, 8 or 16"},
		&cli.StringFlag{Name: "budget", Usage: "spend at most `SIZE` on tensors, as in 45MB, where drift per byte is largest"},
		&cli.FloatFlag{Name: "max-drift", Usage: "spend the fewest bytes with which what each layer alone makes embeddings drift, 1 - cosine, adds up to `X`"},
		&cli.StringFlag{Name: "calibration", Usage: "measure on the pictures of a `FOLDER` or tar (default: two dozen that ship)"},
		&cli.IntFlag{Name: "pictures", Usage: "measure on `N` of them, evenly taken", Value: 128},
		&cli.StringFlag{Name: "method", Usage: "round by `METHOD`: " + strings.Join(methods, ", "), Value: calibrate.GPTQ.String()},
		&cli.BoolFlag{Name: "keep-outliers", Usage: "leave outliers in activations, where they cost bits, and not in the weights"},
		&cli.BoolFlag{Name: "no-calibration", Usage: "measure nothing: round to nearest, kinds by rule"},
	}
}

func parseCalibration(c *cli.Command) (*calibration, error) {
	k := &calibration{
		off: c.Bool("no-calibration") || c.Bool("float"), pictures: c.String("calibration"), count: c.Int("pictures"),
		method: c.String("method"), asIs: c.Bool("keep-outliers"), maxDrift: c.Float("max-drift"),
	}
	bad := func(format string, a ...any) error { return usageError{fmt.Errorf(format, a...)} }
	for _, name := range []string{"calibration", "pictures", "method", "keep-outliers", "budget", "max-drift"} {
		if k.off && c.IsSet(name) {
			return nil, bad("--%s has no meaning without calibration", name)
		}
	}
	if !slices.Contains(methods, k.method) {
		return nil, bad("--method %q is none of %s", k.method, strings.Join(methods, ", "))
	}
	if k.count < 1 || k.count > 1<<14 {
		return nil, bad("--pictures %d is not in 1..%d", k.count, 1<<14)
	}
	if c.IsSet("bits") {
		kind, ok := map[string]qtype.Kind{"4": qtype.Q4, "5": qtype.Q5, "6": qtype.Q6, "7": qtype.Q7, "8": qtype.Q8C, "16": qtype.F16}[c.String("bits")]
		if !ok {
			return nil, bad("--bits %q is none of 4, 5, 6, 7, 8, 16", c.String("bits"))
		}
		k.bits = kind
	}
	if c.IsSet("budget") {
		var err error
		if k.budget, err = parseSize(c.String("budget")); err != nil {
			return nil, bad("--budget: %w", err)
		}
	}
	if c.IsSet("max-drift") && !(k.maxDrift > 0 && k.maxDrift < 1) {
		return nil, bad("--max-drift %v is not between 0 and 1", k.maxDrift)
	}
	set := 0
	for _, name := range []string{"bits", "budget", "max-drift"} {
		if c.IsSet(name) {
			set++
		}
	}
	if set > 1 {
		return nil, bad("--bits, --budget and --max-drift: choose one")
	}
	return k, nil
}

// parseSize reads 45MB, 1.5GB, 300kB or plain bytes; MB are millions.
func parseSize(s string) (int64, error) {
	number, factor := s, 1.
	for _, u := range []struct {
		suffix string
		factor float64
	}{{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1}} {
		if n, ok := strings.CutSuffix(s, u.suffix); ok {
			number, factor = strings.TrimSpace(n), u.factor
			break
		}
	}
	x, err := strconv.ParseFloat(number, 64)
	if err != nil || !(x*factor >= 1 && x*factor <= 1e15) {
		return 0, errors.New("no size as 45MB")
	}
	return int64(x * factor), nil
}

// apply watches src at work and decides kinds and rounding. close frees what
// the options need while the file is made.
func (k *calibration) apply(ctx context.Context, src *source, o *convert.Options, bar *progress.Bar) (close func() error, err error) {
	close = func() error { return nil }
	if k.bits != "" {
		o.Kinds = append([]convert.Choice{{Pattern: "image.*", Kind: k.bits}}, o.Kinds...)
	}
	if k.off {
		return close, nil
	}
	seen, err := k.look()
	if err != nil {
		return close, err
	}
	// Nearly all of the heap is float weights that stay: the usual headroom
	// would be their size again.
	percent := debug.SetGCPercent(25)
	close = func() error {
		debug.SetGCPercent(percent)
		return nil
	}
	hosts := make([]device.Host, min(runtime.GOMAXPROCS(0), maxHosts))
	for i := range hosts {
		hosts[i] = cancelledHost{native.New(), ctx}
	}
	at := func(what, unit string) func(done, total int) {
		begun := false
		return func(done, total int) {
			if !begun {
				bar.Begin(what, int64(total), unit)
				begun = true
			}
			bar.Set(int64(done))
		}
	}
	done, err := convert.Calibrate(src.Input, convert.Calibration{Hosts: hosts, Pictures: seen, AsIs: k.asIs, Progress: at("watching the model", "pictures and texts")})
	bar.End()
	if err != nil {
		return close, err
	}
	method, err := calibrate.ParseMethod(k.method)
	close = func() error {
		debug.SetGCPercent(percent)
		return done.Close()
	}
	if err != nil {
		return close, err
	}
	src.Input = done.Input
	*o, err = done.Options(*o, convert.Fit{Method: method, Bytes: k.budget, Drift: k.maxDrift, Progress: at("trying kinds", "layers")})
	bar.End()
	return close, err
}

// maxHosts bounds the copies of a model that work at once: each takes its
// memory.
const maxHosts = 4

// look decodes the pictures.
func (k *calibration) look() ([]calibrate.Picture, error) {
	set, closeSet, err := openPictures(k.pictures)
	if err != nil {
		return nil, err
	}
	defer closeSet()
	var seen []calibrate.Picture
	err = picture.Take(set, k.count, engine.MaxPixels, func(p picture.Picture, _ int) error {
		if p.Err != nil {
			return fmt.Errorf("%s: %w", p.Name, p.Err)
		}
		seen = append(seen, calibrate.Picture{RGBA: p.RGBA, W: p.W, H: p.H})
		return nil
	})
	return seen, err
}

// cancelledHost is a host that ends with a context.
type cancelledHost struct {
	device.Host
	ctx context.Context
}

func (h cancelledHost) Run(list int) error {
	if err := h.ctx.Err(); err != nil {
		return err
	}
	return h.Host.Run(list)
}
