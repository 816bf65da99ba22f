package checkpoint

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"lqa/quant/json"
	"lqa/quant/numeric"
)

// CLIP is a dual encoder read from a Folder: a source of float tensors under
// the names of our configuration (quant/clip, Config.Tensors), made of theirs
// one at a time. Biases that CLIP has not, of the patches and of both
// projections, are zeros.
type CLIP struct {
	// Config is the "model" object of a manifest, as clip.ParseConfig reads
	// it. Its prompt is "a photo of a {}."; default labels and ready names are
	// the caller's to add.
	Config []byte
	Merges []byte   // lines of CLIP's merges.txt, "a b" each; nil if the folder has no vocabulary
	Notes  []string // what was unclear, and how it was decided

	Weights string // the file that holds the tensors, or their index
	Layout  string // "transformers" or "openclip"

	w      *weights
	theirs *spelled
	names  []string
	parts  map[string]part
}

// part says how one of our tensors is made of theirs.
type part struct {
	shape []int
	from  []string // one below the other; none: zeros
	order order
}

// order is how the elements of a tensor stand in their file.
type order int

const (
	same    order = iota
	turned        // [inputs, outputs]
	patches       // [outputs, rgb, ky, kx]; ours is [outputs, (ky, kx, rgb)]
)

// Names lists the tensors in the order of clip.Config.Tensors. The slice must
// not be changed.
func (c *CLIP) Names() []string { return c.names }

// Shape returns a tensor's shape, and whether the model has it.
func (c *CLIP) Shape(name string) ([]int, bool) {
	p, ok := c.parts[name]
	return p.shape, ok
}

// Float32 reads a tensor, row-major.
func (c *CLIP) Float32(name string) ([]float32, error) {
	p, ok := c.parts[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrMissing, name)
	}
	n := 1
	for _, d := range p.shape {
		n *= d
	}
	if len(p.from) == 0 {
		return make([]float32, n), nil
	}
	if len(p.from) == 1 {
		x, err := c.theirs.Float32(p.from[0])
		if err != nil {
			return nil, err
		}
		return p.arrange(x), nil
	}
	out := make([]float32, 0, n)
	for _, from := range p.from {
		x, err := c.theirs.Float32(from)
		if err != nil {
			return nil, err
		}
		out = append(out, x...)
	}
	return out, nil
}

func (p *part) arrange(x []float32) []float32 {
	if p.order == same {
		return x
	}
	rows, cols := p.shape[0], p.shape[1]
	out := make([]float32, len(x))
	for r := range rows {
		for c := range cols {
			if p.order == turned {
				out[r*cols+c] = x[c*rows+r]
			} else { // c is pixel·3 + channel
				out[r*cols+c] = x[r*cols+c%3*(cols/3)+c/3]
			}
		}
	}
	return out
}

// Close closes the folder's files.
func (c *CLIP) Close() error { return c.w.Close() }

// weightFiles are where tensors may be, in OpenCLIP's order of preference
// (open_clip/factory.py) and then transformers'. Where OpenCLIP's names stand
// beside others, as in timm's repositories, model.safetensors is an image
// tower alone.
var weightFiles = []string{
	"open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth",
	"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
}

// OpenCLIP reads a checkpoint of CLIP: the vision transformers of OpenAI,
// LAION and OpenCLIP, and TinyCLIP's, in transformers' or OpenCLIP's layout.
// The tensors decide which layout it is, and each layout needs its
// configuration: config.json of transformers (with preprocessor_config.json if
// it is there), or open_clip_config.json. Everything is checked, every name and
// shape, before a tensor is read. The caller closes what it returns.
//
// Errors wrap ErrArchitecture, and name the key or tensor, where the model is
// of a kind that cannot run here; ErrContradicts where files disagree.
func OpenCLIP(f Folder, l Limits) (*CLIP, error) {
	l = l.filled()
	configs, err := describe(f, l)
	if err != nil {
		return nil, err
	}
	var failed []error
	for _, name := range candidates(f) {
		c, err := openCandidate(f, name, configs, l)
		if err == nil {
			for _, e := range failed {
				c.Notes = append(c.Notes, fmt.Sprintf("passed over: %v", e))
			}
			return c, nil
		}
		if !errors.Is(err, ErrArchitecture) && !errors.Is(err, ErrFolder) {
			return nil, err
		}
		failed = append(failed, err)
	}
	if failed != nil {
		return nil, errors.Join(failed...)
	}
	return nil, noWeights(f, l)
}

func openCandidate(f Folder, name string, configs map[string]config, l Limits) (*CLIP, error) {
	w, err := openWeights(f, name, l)
	if err != nil {
		return nil, err
	}
	c := &CLIP{Weights: name, w: w, parts: map[string]part{}}
	if err := c.open(f, configs, l); err != nil {
		w.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func (c *CLIP) open(f Folder, configs map[string]config, l Limits) error {
	theirs, err := spell(c.w)
	c.theirs = theirs
	if err != nil {
		return err
	}
	lay, err := layoutOf(theirs)
	if err != nil {
		return err
	}
	c.Layout = lay.name
	conf, ok := configs[lay.name]
	switch {
	case !ok:
		return fmt.Errorf("%w: its tensors are in the layout of %s, but there is no %s", ErrFolder, lay.name, lay.config)
	case conf.err != nil:
		return conf.err
	}
	d := *conf.description // a copy: a file that is passed over leaves no trace
	m := &mapping{description: &d, lay: lay, theirs: theirs, used: map[string]bool{}, clip: c}
	if err := m.run(); err != nil {
		return err
	}
	if c.Merges, err = readMerges(f, d.vocab, l); err != nil {
		return err
	}
	c.Notes = append(c.Notes, d.notes...)
	for _, other := range []*layout{transformers, openCLIP} {
		o := configs[other.name]
		if o.description != nil && (o.image.activation != d.image.activation || o.text.activation != d.text.activation) {
			c.Notes = append(c.Notes, fmt.Sprintf("activation: %s says %s, %s says %s: the first is followed", d.file, d.image.activation, o.file, o.image.activation))
		}
	}
	if c.Merges == nil {
		c.Notes = append(c.Notes, "no vocabulary in the folder")
	}
	scale, err := theirs.Float32("logit_scale") // its logarithm; learning keeps it below ln 100
	if err != nil {
		return err
	}
	c.Config, err = d.manifest(numeric.Exp(scale[0]))
	return err
}

// candidates lists the folder's files of tensors, best first. A file of
// another name is taken if it is the only one.
func candidates(f Folder) []string {
	var found, others []string
	names := f.Names()
	for _, name := range weightFiles {
		if slices.Contains(names, name) {
			found = append(found, name)
		}
	}
	for _, name := range names {
		for _, suffix := range []string{".safetensors", ".bin", ".pt", ".pth"} {
			if strings.HasSuffix(name, suffix) {
				others = append(others, name)
			}
		}
	}
	if len(found) == 0 && len(others) == 1 {
		return others
	}
	return found
}

// noWeights says what the folder has instead.
func noWeights(f Folder, l Limits) error {
	names := slices.Clone(f.Names())
	slices.Sort(names)
	list := strings.Join(names[:min(len(names), 20)], ", ")
	text, err := ReadText(f, "config.json", l)
	if err == nil && text != nil {
		if o, err := readObject("config.json", text); err == nil {
			if origin := o.text("_name_or_path", ""); origin != "" {
				return fmt.Errorf("%w: no weights among %s; repositories of ONNX graphs have none: this one was made from %.100q", ErrFolder, list, origin)
			}
		}
	}
	return fmt.Errorf("%w: no weights among %s; if these are ONNX graphs, convert the repository they were made from", ErrFolder, list)
}

// config is what a configuration says, or why it is refused.
type config struct {
	*description
	err error
}

// describe reads the folder's configurations, by the layout they are for. If
// one can be used a bad one counts only for tensors of its layout.
func describe(f Folder, l Limits) (map[string]config, error) {
	read := func(name string) (object, error) {
		text, err := ReadText(f, name, l)
		if err != nil || text == nil {
			return object{}, err
		}
		return readObject(name, text)
	}
	var files [4]object
	for i, name := range []string{"config.json", "open_clip_config.json", "preprocessor_config.json", "processor_config.json"} {
		var err error
		if files[i], err = read(name); err != nil {
			return nil, err
		}
	}
	hf, oc, processor := files[0], files[1], files[2]
	if hf.has("model_cfg") || hf.has("vision_cfg") { // people rename OpenCLIP's
		if oc.members == nil {
			oc = hf
		}
		hf = object{}
	}
	if processor.members == nil && files[3].has("image_processor") { // transformers 5
		processor = files[3].object("image_processor")
	}
	configs := map[string]config{}
	var errs []error
	switch {
	case hf.has("architecture") && !hf.has("model_type"): // timm's, of an image tower
		configs[transformers.name] = config{nil, hf.refuse("architecture")}
		errs = append(errs, hf.refuse("architecture"))
	case hf.members != nil:
		d, err := describeTransformers(hf, processor)
		configs[transformers.name] = config{d, err}
		errs = append(errs, err)
	}
	if oc.members != nil {
		d, err := describeOpenCLIP(oc)
		configs[openCLIP.name] = config{d, err}
		errs = append(errs, err)
	}
	if len(errs) > 0 && !slices.Contains(errs, nil) {
		return nil, errors.Join(errs...)
	}
	return configs, nil
}

// manifest writes the "model" object.
func (d *description) manifest(scale float32) ([]byte, error) {
	w := new(json.Writer)
	number := func(key string, n int) {
		w.Key(key)
		w.Int(int64(n))
	}
	float := func(key string, v float32) {
		w.Key(key)
		w.Float32(v)
	}
	str := func(key, s string) {
		w.Key(key)
		w.String(s)
	}
	rgb := func(key string, v [3]float32) {
		w.Key(key)
		w.Open('[')
		for _, c := range v {
			w.Float32(c)
		}
		w.Close(']')
	}
	tower := func(t tower) {
		number("width", t.width.value)
		number("layers", t.layers.value)
		number("heads", t.heads.value)
		number("mlp", t.mlp.value)
		str("activation", t.activation)
		float("eps", float32(t.eps))
	}
	w.Open('{')
	number("embed", d.embed.value)
	float("logit_scale", scale)
	number("temperature", 1)
	w.Key("image")
	w.Open('{')
	str("kind", "vit")
	number("size", d.size.value)
	rgb("mean", d.mean)
	rgb("std", d.std)
	number("patch", d.patch.value)
	tower(d.image)
	w.Close('}')
	w.Key("text")
	w.Open('{')
	str("kind", "transformer")
	number("vocab", d.vocab.value)
	number("context", d.context.value)
	tower(d.text)
	number("eos_token_id", d.eos)
	w.Key("templates")
	w.Strings([]string{"a photo of a {}."})
	w.Key("defaults")
	w.Strings(nil)
	number("ready", 0)
	w.Close('}')
	w.Close('}')
	if err := w.Err(); err != nil {
		return nil, fmt.Errorf("%w: %s, or logit_scale: %w", ErrConfig, d.file, err)
	}
	return w.Text, nil
}
