package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lqa/quant/calibrate"
	"lqa/quant/calibrate/pictures"
	"lqa/quant/checkpoint/hub"
	"lqa/quant/clip"
	"lqa/quant/convert"
	"lqa/quant/device"
	"lqa/quant/device/native"
	"lqa/quant/engine"
	"lqa/quant/numeric"
	"lqa/quant/picture"
	"lqa/quant/qtype"
	"lqa/quant/shq"
	"lqa/tta/cmd/eval/dataset"
)

// variant is a way to store a model.
type variant struct {
	name   string
	kind   qtype.Kind // of the image tower's linear layers; none: chosen layer by layer
	method calibrate.Method
	share  float64 // where kinds are chosen, the budget: this share of the float32 image tower
	like   string  // or the bytes of that variant
	few    bool    // calibrated on the pictures that ship alone
}

const float32Variant = "float32"

// variants are compared, in this order.
var variants = []variant{
	{name: float32Variant, kind: qtype.F16},
	{name: "int8", kind: qtype.Q8C},
	{name: "rtn4", kind: qtype.Q4},
	{name: "gptq4", kind: qtype.Q4, method: calibrate.GPTQ},
	{name: "rtn5", kind: qtype.Q5},
	{name: "gptq5", kind: qtype.Q5, method: calibrate.GPTQ},
	{name: "rtn6", kind: qtype.Q6},
	{name: "gptq6", kind: qtype.Q6, method: calibrate.GPTQ},
	{name: "mixed, nearest, at rtn5's bytes", like: "rtn5"},
	{name: "shq at gptq5's bytes", method: calibrate.GPTQ, like: "gptq5"},
	{name: "shq", method: calibrate.GPTQ, share: 1 / 5.5},
	{name: "shq, small", method: calibrate.GPTQ, share: 1 / 6.5},
	{name: "shq, pictures that ship", method: calibrate.GPTQ, share: 1 / 5.5, few: true},
}

// comparisons are made of pairs of variants, over sets.
var comparisons = [][2]string{
	{"gptq4", "rtn4"}, {"gptq5", "rtn5"}, {"gptq6", "rtn6"}, {"mixed, nearest, at rtn5's bytes", "rtn5"}, {"shq at gptq5's bytes", "gptq5"},
	{"int8", float32Variant}, {"gptq4", float32Variant}, {"shq", float32Variant}, {"shq, small", float32Variant},
	{"shq, pictures that ship", "shq"},
}

// rounded is a JSON line of the suite quant: a variant on a split.
type rounded struct {
	Suite      string  `json:"suite"`
	Variant    string  `json:"variant"`
	Bytes      int64   `json:"bytes"`        // of the image tower with its head, before zstd
	Packed     int64   `json:"packed_bytes"` // of the first stage: the same and the default labels, after zstd
	File       int64   `json:"file_bytes"`
	CosineMean float64 `json:"cosine_mean"` // of pictures' embeddings to the float model's
	CosineMin  float64 `json:"cosine_min"`
	Set        string  `json:"set"`
	Split      string  `json:"split"`
	N          int     `json:"n"`
	Top1       float64 `json:"top1"`  // percent
	Flips      float64 `json:"flips"` // percent with another answer than the float model's
}

// difference is a JSON line of the suite quant: a variant less another, the mean
// over splits with its 95% interval.
type difference struct {
	Suite        string `json:"suite"`
	Variant      string `json:"variant"`
	Against      string `json:"against"`
	Bytes        int64  `json:"bytes"`
	AgainstBytes int64  `json:"against_bytes"`
	Sets         int    `json:"sets"`
	Top1         span   `json:"top1"`   // points
	Cosine       span   `json:"cosine"` // of embeddings to the float model's
}

// span is a mean and its 95% interval.
type span struct {
	Mean float64 `json:"mean"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// quantSuite stores a float model in many ways and measures what each loses.
func quantSuite(ctx context.Context, r *run) error {
	splits, err := r.find()
	if err != nil {
		return err
	}
	splits = slices.DeleteFunc(splits, func(s dataset.Split) bool { return s.Stream })
	mk, err := newMaker(r)
	if err != nil {
		return err
	}
	defer mk.Close()
	out := json.NewEncoder(r.stdout)
	var all []rounded
	var float []answers // of the float model, by split
	for _, v := range variants {
		size, err := mk.make(ctx, v)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		lines, got, err := r.compare(ctx, v.name, size, splits, float)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		if float == nil {
			float = got
		}
		for _, l := range lines {
			if err := out.Encode(l); err != nil {
				return err
			}
		}
		all = append(all, lines...)
	}
	var differences []difference
	for _, c := range comparisons {
		d := differ(c[0], c[1], all)
		if err := out.Encode(d); err != nil {
			return err
		}
		differences = append(differences, d)
	}
	return r.writeMarkdown(quantTable(all, differences))
}

// answers are a model's to the pictures of a split.
type answers struct {
	features *features
	best     []int // label of each picture, -1 if it could not be read
}

// compare measures one variant on all splits; float is nil for the float model
// itself.
func (r *run) compare(ctx context.Context, name string, size *made, splits []dataset.Split, float []answers) ([]rounded, []answers, error) {
	m, err := openModel(ctx, size.file, r.jobs, nil)
	if err != nil {
		return nil, nil, err
	}
	defer m.Close()
	var lines []rounded
	var all []answers
	r.begin(name, splits)
	defer r.progress.End()
	for i := range splits {
		s := &splits[i]
		f, err := embed(ctx, m, s, step(s.Pictures, r.limit), effect{}, r.keep, r.progress)
		if err != nil {
			return nil, nil, err
		}
		q, err := r.ask(m, s, asking{byTable, r.prompts})
		if err != nil {
			return nil, nil, err
		}
		a := answers{f, make([]int, len(f.Class))}
		right := 0
		for j, e := range f.Embeddings {
			a.best[j] = q.best(e)
			if a.best[j] >= 0 && a.best[j] == q.label[f.Class[j]] {
				right++
			}
		}
		line := rounded{Suite: "quant", Variant: name, Bytes: size.bytes, Packed: size.packed, File: size.whole,
			CosineMean: 1, CosineMin: 1, Set: s.Set, Split: s.Name, N: len(f.Class), Top1: percent(float64(right), float64(len(f.Class)))}
		if float != nil {
			line.drift(a, float[i])
		}
		lines, all = append(lines, line), append(all, a)
	}
	return lines, all, nil
}

// best is the label nearest to embedding e; -1 if there is none.
func (q *question) best(e []float32) int {
	best, most := -1, float32(math.Inf(-1))
	for i, label := range q.embeddings {
		if e == nil {
			break
		}
		if v := numeric.Dot(e, label); v > most {
			best, most = i, v
		}
	}
	return best
}

// drift notes how far a is from the float model's answers.
func (l *rounded) drift(a, float answers) {
	var sum float64
	n, flips := 0, 0
	for i, e := range a.features.Embeddings {
		if e == nil {
			continue
		}
		c := float64(numeric.Dot(e, float.features.Embeddings[i]))
		sum, l.CosineMin = sum+c, min(l.CosineMin, c)
		n++
		if a.best[i] != float.best[i] {
			flips++
		}
	}
	l.CosineMean = math.Round(1e5*sum/float64(max(1, n))) / 1e5
	l.CosineMin = math.Round(1e5*l.CosineMin) / 1e5
	l.Flips = percent(float64(flips), float64(max(1, n)))
}

// differ compares two variants, paired over splits.
func differ(a, b string, all []rounded) difference {
	d := difference{Suite: "quant", Variant: a, Against: b}
	var points, cosines []float64
	for _, x := range all {
		for _, y := range all {
			if x.Variant == a && y.Variant == b && x.Set == y.Set && x.Split == y.Split {
				points, cosines = append(points, x.Top1-y.Top1), append(cosines, x.CosineMean-y.CosineMean)
				d.Bytes, d.AgainstBytes = x.Bytes, y.Bytes
			}
		}
	}
	d.Sets = len(points)
	d.Top1, d.Cosine = interval(points), interval(cosines)
	return d
}

// interval is the mean of x with its interval by Student's t.
func interval(x []float64) span {
	n, mean := float64(len(x)), 0.0
	for _, v := range x {
		mean += v / n
	}
	var square float64
	for _, v := range x {
		square += (v - mean) * (v - mean)
	}
	half := math.MaxFloat64
	if len(x) > 1 {
		half = studentT(len(x)-1) * math.Sqrt(square/(n-1)/n)
	}
	return span{mean, mean - half, mean + half}
}

// studentT is the 97.5% quantile of Student's t with df degrees of freedom
// (Abramowitz and Stegun, Handbook of Mathematical Functions, table 26.10).
func studentT(df int) float64 {
	table := []float64{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
		2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042}
	if df <= len(table) {
		return table[df-1]
	}
	return 2.042 - (2.042-1.960)*(1-30/float64(df)) // 1/df runs straight from 30 to infinity
}

// quantTable is the suite's results in Markdown: means over splits, then
// splits by variants, then differences.
func quantTable(all []rounded, differences []difference) string {
	var b strings.Builder
	b.WriteString("| variant | image tower, bytes | float32 / it | first stage, zstd | file | cosine, mean | cosine, least | other answers, % | top-1, % |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	var names []string
	by := map[string][]rounded{}
	for _, l := range all {
		if by[l.Variant] == nil {
			names = append(names, l.Variant)
		}
		by[l.Variant] = append(by[l.Variant], l)
	}
	for _, name := range names {
		var cosine, flips, top1 float64
		least := 1.0
		lines := by[name]
		for _, l := range lines {
			n := float64(len(lines))
			cosine, flips, top1, least = cosine+l.CosineMean/n, flips+l.Flips/n, top1+l.Top1/n, min(least, l.CosineMin)
		}
		ratio := float64(by[float32Variant][0].Bytes) / float64(lines[0].Bytes)
		fmt.Fprintf(&b, "| %s | %d | %.2f | %d | %d | %.4f | %.3f | %.1f | %.2f |\n",
			name, lines[0].Bytes, ratio, lines[0].Packed, lines[0].File, cosine, least, flips, top1)
	}
	fmt.Fprintf(&b, "\nTop-1, %%:\n\n| set | n | %s |\n|---|---:|%s\n", strings.Join(names, " | "), strings.Repeat("---:|", len(names)))
	for i, l := range by[names[0]] {
		fmt.Fprintf(&b, "| %s %s | %d |", l.Set, l.Split, l.N)
		for _, name := range names {
			fmt.Fprintf(&b, " %.1f |", by[name][i].Top1)
		}
		b.WriteString("\n")
	}
	b.WriteString("\nDifferences, means over sets with their 95% intervals:\n\n| variant | against | bytes | bytes | sets | points of top-1 | cosine to float32 |\n|---|---|---:|---:|---:|---|---|\n")
	for _, d := range differences {
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %+.2f (%+.2f to %+.2f) | %+.4f (%+.4f to %+.4f) |\n", d.Variant, d.Against, d.Bytes, d.AgainstBytes, d.Sets,
			d.Top1.Mean, d.Top1.Low, d.Top1.High, d.Cosine.Mean, d.Cosine.Low, d.Cosine.High)
	}
	return b.String()
}

// made is a variant's file.
type made struct {
	file                 string
	bytes, packed, whole int64 // image tower with head, raw; first stage, zstd; all
}

// maker stores a float model in variants.
type maker struct {
	r          *run
	in         *convert.Folder
	folder     string
	float      int64 // bytes of the image tower in float32
	made       map[string]*made
	calibrated map[bool]*convert.Calibrated // by variant.few
}

func newMaker(r *run) (*maker, error) {
	k := &maker{r: r, folder: filepath.Join(r.keep, "quant"), made: map[string]*made{}, calibrated: map[bool]*convert.Calibrated{}}
	dir, err := hub.Dir(r.float)
	if err != nil {
		return nil, fmt.Errorf("no float model (./build.sh train makes one, --float names another): %w", err)
	}
	if k.in, err = convert.OpenFolder(dir); err != nil {
		return nil, fmt.Errorf("%s: %w", r.float, err)
	}
	cfg, err := clip.ParseConfig(k.in.Config)
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	for _, s := range cfg.Tensors() {
		if isImage(s.Name) {
			n := int64(4)
			for _, d := range s.Shape {
				n *= int64(d)
			}
			k.float += n
		}
	}
	return k, os.MkdirAll(k.folder, 0o777)
}

// isImage reports whether a tensor is of the image tower or its head.
func isImage(name string) bool {
	return strings.HasPrefix(name, "image.") && name != "image.mean.weight"
}

func (k *maker) Close() error {
	errs := []error{k.in.Close()}
	for _, c := range k.calibrated {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// make stores variant v.
func (k *maker) make(ctx context.Context, v variant) (*made, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k.r.progress.Note("%s: converting", v.name)
	in, o := k.in.Input, convert.Options{Name: v.name, Float: v.name == float32Variant}
	if v.kind != "" {
		o.Kinds = []convert.Choice{{Pattern: "image.*", Kind: v.kind}}
	}
	if v.method != calibrate.Nearest || v.kind == "" {
		c, err := k.calibrate(v.few)
		if err != nil {
			return nil, err
		}
		fit := convert.Fit{Method: v.method, Count: isImage}
		if v.kind == "" {
			fit.Bytes = int64(v.share * float64(k.float))
			if v.like != "" {
				fit.Bytes = k.made[v.like].bytes
			}
		}
		in = c.Input
		if o, err = c.Options(o, fit); err != nil {
			return nil, err
		}
	}
	var file bytes.Buffer
	if err := convert.Convert(&file, in, o); err != nil {
		return nil, err
	}
	report, err := convert.Verify(bytes.NewReader(file.Bytes()), shq.Limits{})
	if err != nil {
		return nil, err
	}
	m := &made{file: filepath.Join(k.folder, strings.Map(slug, v.name)+".shq"), whole: report.Bytes}
	for _, t := range report.Manifest.Tensors {
		if isImage(t.Name) {
			m.bytes += int64(t.Bytes())
		}
	}
	for _, f := range report.Manifest.Frames {
		if f.Stage == 0 {
			m.packed += int64(f.Size)
		}
	}
	if o.Float {
		m.bytes = k.float
	}
	k.made[v.name] = m
	return m, os.WriteFile(m.file, file.Bytes(), 0o666)
}

// slug keeps what any file system takes.
func slug(c rune) rune {
	if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
		return c
	}
	return '-'
}

// calibrate watches the float model on pictures: those that ship, or more of
// the sets' training pictures.
func (k *maker) calibrate(few bool) (*convert.Calibrated, error) {
	if c := k.calibrated[few]; c != nil {
		return c, nil
	}
	sets := []picture.Set{picture.Folder(pictures.FS)}
	if !few {
		var err error
		if sets, err = trainingSets(k.r.data); err != nil {
			return nil, err
		}
	}
	var seen []calibrate.Picture
	for _, s := range sets {
		err := picture.Take(s, (calibrationPictures+len(sets)-1)/len(sets), engine.MaxPixels, func(p picture.Picture, _ int) error {
			if p.Err == nil {
				seen = append(seen, calibrate.Picture{RGBA: p.RGBA, W: p.W, H: p.H})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	k.r.progress.Note("calibrating on %d pictures", len(seen))
	hosts := make([]device.Host, k.r.jobs)
	for i := range hosts {
		hosts[i] = native.New()
	}
	c, err := convert.Calibrate(k.in.Input, convert.Calibration{Hosts: hosts, Pictures: seen})
	if err == nil {
		k.calibrated[few] = c
	}
	return c, err
}

// calibrationPictures is about how many training pictures are used.
const calibrationPictures = 128

// trainingSets are the training splits below root.
func trainingSets(root string) ([]picture.Set, error) {
	var sets []picture.Set
	for _, depth := range []string{"*", "*/*"} {
		names, err := filepath.Glob(filepath.Join(root, depth, "train.tar"))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			sets = append(sets, picture.Tar(bytes.NewReader(b), int64(len(b))))
		}
	}
	if len(sets) == 0 {
		return nil, fmt.Errorf("no train.tar below %s", root)
	}
	return sets, nil
}
