package checkpoint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// layout is how a library names CLIP's tensors.
type layout struct {
	name   string
	config string // the file that describes it
	image  towerNames
	text   towerNames
	block  blockNames
	turned bool // projections are [inputs, outputs]
}

type towerNames struct {
	first         string // the patches' or the tokens' table
	class         string
	position      string
	blocks        string // what a block's names begin with, before its number
	before, after string // LayerNorms
	project       string
}

// blockNames are a transformer block's tensors, each followed by "weight" or
// "bias".
type blockNames struct {
	norm1, norm2, out, up, down string
	in                          []string // queries, keys, values, or all in one
}

var transformers = &layout{
	name: "transformers", config: "config.json",
	image: towerNames{
		first: "vision_model.embeddings.patch_embedding.weight", class: "vision_model.embeddings.class_embedding",
		position: "vision_model.embeddings.position_embedding.weight", blocks: "vision_model.encoder.layers.",
		before: "vision_model.pre_layrnorm.", after: "vision_model.post_layernorm.", project: "visual_projection.weight",
	},
	text: towerNames{
		first: "text_model.embeddings.token_embedding.weight", position: "text_model.embeddings.position_embedding.weight",
		blocks: "text_model.encoder.layers.", after: "text_model.final_layer_norm.", project: "text_projection.weight",
	},
	block: blockNames{
		norm1: "layer_norm1.", norm2: "layer_norm2.", out: "self_attn.out_proj.", up: "mlp.fc1.", down: "mlp.fc2.",
		in: []string{"self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."},
	},
}

var openCLIP = &layout{
	name: "openclip", config: "open_clip_config.json",
	image: towerNames{
		first: "visual.conv1.weight", class: "visual.class_embedding", position: "visual.positional_embedding",
		blocks: "visual.transformer.resblocks.", before: "visual.ln_pre.", after: "visual.ln_post.", project: "visual.proj",
	},
	text: towerNames{
		first: "token_embedding.weight", position: "positional_embedding", blocks: "transformer.resblocks.",
		after: "ln_final.", project: "text_projection",
	},
	block: blockNames{
		norm1: "ln_1.", norm2: "ln_2.", out: "attn.out_proj.", up: "mlp.c_fc.", down: "mlp.c_proj.",
		in: []string{"attn.in_proj_"},
	},
	turned: true,
}

// spelled are tensors under the names their layout has for them: without the
// prefixes of those who trained them, and without what is no weight.
type spelled struct {
	tensors
	names []string          // in the order of the file
	in    map[string]string // the file's name for each
}

func (s *spelled) Names() []string { return s.names }

func (s *spelled) Shape(name string) ([]int, bool) {
	in, ok := s.in[name]
	if !ok {
		return nil, false
	}
	return s.tensors.Shape(in)
}

func (s *spelled) Float32(name string) ([]float32, error) {
	in, ok := s.in[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrMissing, name)
	}
	return s.tensors.Float32(in)
}

// prefixes are put before all names by training in parallel, by a model around
// the model, by TinyCLIP (twice with the first), and by OpenCLIP's models of
// custom_text.
var prefixes = []string{"module.", "model.", "_image_encoder.", "_text_encoder.", "_logit_scale.", "text."}

// buffers are tensors that are no weights: counters, masks, and what OpenAI's
// archives say of themselves.
var buffers = []string{"position_ids", "num_batches_tracked", "attn_mask", "input_resolution", "context_length", "vocab_size"}

func spell(t tensors) (*spelled, error) {
	s := &spelled{tensors: t, in: map[string]string{}}
	for _, theirs := range t.Names() {
		name := theirs
		for cut := true; cut; {
			cut = false
			for _, p := range prefixes {
				if rest, ok := strings.CutPrefix(name, p); ok {
					name, cut = rest, true
				}
			}
		}
		last := name[strings.LastIndexByte(name, '.')+1:]
		buffer := false
		for _, b := range buffers {
			buffer = buffer || last == b
		}
		if buffer {
			continue
		}
		if double, ok := s.in[name]; ok {
			return nil, fmt.Errorf("%w: %q and %q are the same tensor", ErrCorrupt, double, theirs)
		}
		s.in[name] = theirs
		s.names = append(s.names, name)
	}
	return s, nil
}

// strangers are names of models that cannot run here.
var strangers = []struct{ part, what string }{
	{"_without_ddp.", "TinyCLIP-auto, whose layers differ from each other"},
	{"visual.attnpool.", "a ResNet image tower"},
	{"visual.layer1.", "a ResNet image tower"},
	{"visual.trunk.", "an image tower of timm (MobileCLIP, SigLIP and others)"},
	{"image_encoder.model.", "Apple's own MobileCLIP"},
	{"vision_model.head.", "SigLIP"},
	{"text_model.head.", "SigLIP"},
	{"logit_bias", "SigLIP"},
	{"visual.attn_pool.", "CoCa, or another attention pool"},
	{"cls_emb", "a text tower with a class token"},
	{"transformer.embeddings.", "a text tower of Hugging Face"},
	{"blocks.0.attn.qkv.", "an image tower alone, of timm"},
	{"stem.0.", "an image tower alone, of timm"},
}

// layoutOf says which library's names these are.
func layoutOf(s *spelled) (*layout, error) {
	for _, x := range strangers {
		for _, name := range s.names {
			if strings.Contains(name, x.part) {
				return nil, fmt.Errorf("%w: tensor %q is of %s", ErrArchitecture, s.in[name], x.what)
			}
		}
	}
	for _, l := range []*layout{transformers, openCLIP} {
		_, image := s.in[l.image.first]
		_, text := s.in[l.text.first]
		switch {
		case image && text:
			return l, nil
		case image:
			return nil, fmt.Errorf("%w: an image tower alone: it has %q but no %q", ErrArchitecture, s.in[l.image.first], l.text.first)
		case text:
			return nil, fmt.Errorf("%w: a text tower alone: it has %q but no %q", ErrArchitecture, s.in[l.text.first], l.image.first)
		}
	}
	first := ""
	if len(s.names) > 0 {
		first = s.in[s.names[0]]
	}
	return nil, fmt.Errorf("%w: no tensor is named as CLIP's are; the first is %.100q", ErrArchitecture, first)
}

// mapping compares tensors with a description, and says how ours are made of
// them.
type mapping struct {
	*description
	lay    *layout
	theirs *spelled
	used   map[string]bool
	clip   *CLIP
	faults []string
}

// run fills in the description's sizes and the parts of clip. All faults of
// one kind are reported together.
func (m *mapping) run() error {
	if err := m.measure(); err != nil {
		return err
	}
	m.imageTower()
	m.textTower()
	if shape, ok := m.theirs.Shape("logit_scale"); !ok || len(shape) > 1 || len(shape) == 1 && shape[0] != 1 {
		m.fault("logit_scale is %v, want one number", shape)
	}
	m.used["logit_scale"] = true
	for _, name := range m.theirs.names {
		if !m.used[name] {
			m.fault("%q is none of CLIP's with %s, %s", m.theirs.in[name], m.image.layers, m.text.layers)
		}
	}
	if n := len(m.faults); n > 0 {
		const most = 12
		if n > most {
			m.faults = append(m.faults[:most], fmt.Sprintf("and %d more", n-most))
		}
		return fmt.Errorf("%w: between %s and the tensors:\n  %s", ErrContradicts, m.file, strings.Join(m.faults, "\n  "))
	}
	return nil
}

func (m *mapping) fault(format string, a ...any) {
	m.faults = append(m.faults, fmt.Sprintf(format, a...))
}

// measure compares the sizes that a description gives with those of the
// tensors that have them. The width of the common space is the tensors' where
// the files are transformers': they give it in three places, and not always the
// same.
func (m *mapping) measure() error {
	l := m.lay
	patch, position := m.shape(l.image.first, 4), m.shape(l.image.position, 2)
	token, context := m.shape(l.text.first, 2), m.shape(l.text.position, 2)
	project := m.shape(l.image.project, 2)
	if len(m.faults) > 0 {
		return fmt.Errorf("%w: %s", ErrArchitecture, strings.Join(m.faults, "; "))
	}
	m.agree(m.image.width, l.image.first, patch, 0)
	m.agree(m.patch, l.image.first, patch, 2)
	m.agree(m.vocab, l.text.first, token, 0)
	m.agree(m.text.width, l.text.first, token, 1)
	m.agree(m.context, l.text.position, context, 0)
	for _, t := range []struct {
		tower
		names towerNames
	}{{m.image, l.image}, {m.text, l.text}} {
		up := t.names.blocks + "0." + l.block.up + "weight"
		m.agree(t.mlp, up, m.shape(up, 2), 0)
		if n := m.layers(t.names.blocks); n != t.layers.value {
			m.fault("%s, but the tensors %sN.* have %d", t.layers, t.names.blocks, n)
		}
	}
	if m.patch.value == 0 {
		m.fault("%s", m.patch)
	} else if n := m.tokens(); n != position[0] {
		m.fault("%s and %s, which makes %d tokens, but %s is %v", m.size, m.patch, n, m.theirs.in[l.image.position], position)
	}
	for _, v := range m.views {
		if v.value != m.size.value {
			m.fault("%s, but %s", v, m.size)
		}
	}
	embed := project[0]
	if l.turned {
		embed = project[1]
	}
	switch {
	case m.embed.value == embed:
	case l == openCLIP && m.embed.stated:
		m.agree(m.embed, l.image.project, project, 1)
	case l == openCLIP:
		m.embed.value = embed
	default:
		note := fmt.Sprintf("%s, but %s is %v: taken from the tensor", m.embed, m.theirs.in[l.image.project], project)
		m.notes = append(m.notes, note)
		m.embed.value = embed
	}
	if len(m.faults) > 0 {
		return fmt.Errorf("%w:\n  %s", ErrContradicts, strings.Join(m.faults, "\n  "))
	}
	return nil
}

// shape is that of a tensor which must be there with so many dimensions.
func (m *mapping) shape(name string, rank int) []int {
	shape, ok := m.theirs.Shape(name)
	switch {
	case !ok:
		m.fault("there is no tensor %q", name)
	case len(shape) != rank:
		m.fault("tensor %q is %v, not of %d dimensions", m.theirs.in[name], shape, rank)
	default:
		return shape
	}
	return make([]int, rank)
}

func (m *mapping) agree(n number, name string, shape []int, dim int) {
	if n.value != shape[dim] {
		m.fault("%s, but %s is %v", n, m.theirs.in[name], shape)
	}
}

// layers counts the blocks whose names begin so.
func (m *mapping) layers(blocks string) int {
	seen := map[string]bool{}
	for _, name := range m.theirs.names {
		if rest, ok := strings.CutPrefix(name, blocks); ok {
			n, _, _ := strings.Cut(rest, ".")
			seen[n] = true
		}
	}
	return len(seen)
}

// tokens is how many an image has: its patches and the class token.
func (d *description) tokens() int {
	side := d.size.value / d.patch.value
	return side*side + 1
}

func (m *mapping) imageTower() {
	n, w := m.lay.image, m.image.width.value
	p := m.patch.value
	m.add("image.patch.weight", []int{w, p * p * 3}, patches, []int{w, 3, p, p}, n.first)
	m.zeros("image.patch.bias", w)
	m.add("image.class.weight", []int{1, w}, same, []int{w}, n.class)
	tokens := m.tokens()
	m.add("image.position.weight", []int{tokens, w}, same, []int{tokens, w}, n.position)
	m.norm("image.pre", n.before, w)
	m.blocks("image", m.image, n.blocks)
	m.norm("image.post", n.after, w)
	m.project("image.project", n.project, w)
}

func (m *mapping) textTower() {
	n, w := m.lay.text, m.text.width.value
	m.add("text.token.weight", []int{m.vocab.value, w}, same, []int{m.vocab.value, w}, n.first)
	m.add("text.position.weight", []int{m.context.value, w}, same, []int{m.context.value, w}, n.position)
	m.blocks("text", m.text, n.blocks)
	m.norm("text.final", n.after, w)
	m.project("text.project", n.project, w)
}

func (m *mapping) blocks(ours string, t tower, theirs string) {
	w, mlp, b := t.width.value, t.mlp.value, m.lay.block
	for i := range t.layers.value {
		to, of := fmt.Sprintf("%s.layer.%02d.", ours, i), theirs+strconv.Itoa(i)+"."
		var in []string
		for _, n := range b.in {
			in = append(in, of+n)
		}
		m.norm(to+"norm1", of+b.norm1, w)
		m.linear(to+"attn.in", 3*w, w, in...)
		m.linear(to+"attn.out", w, w, of+b.out)
		m.norm(to+"norm2", of+b.norm2, w)
		m.linear(to+"mlp.in", mlp, w, of+b.up)
		m.linear(to+"mlp.out", w, mlp, of+b.down)
	}
}

// add says that a tensor of ours is made of theirs, each of which must have
// the shape want.
func (m *mapping) add(ours string, shape []int, o order, want []int, theirs ...string) {
	m.clip.names = append(m.clip.names, ours)
	m.clip.parts[ours] = part{shape, theirs, o}
	for _, name := range theirs {
		m.used[name] = true
		switch got, ok := m.theirs.Shape(name); {
		case !ok:
			m.fault("%q %v is missing", name, want)
		case !slices.Equal(got, want):
			m.fault("%q is %v, want %v", m.theirs.in[name], got, want)
		}
	}
}

func (m *mapping) zeros(ours string, n int) { m.add(ours, []int{n}, same, nil) }

// norm adds a LayerNorm's gain and bias.
func (m *mapping) norm(ours, theirs string, n int) {
	m.add(ours+".weight", []int{n}, same, []int{n}, theirs+"weight")
	m.add(ours+".bias", []int{n}, same, []int{n}, theirs+"bias")
}

// linear adds a weight [rows, cols] and its bias, of equal parts of theirs.
func (m *mapping) linear(ours string, rows, cols int, theirs ...string) {
	var weights, biases []string
	for _, n := range theirs {
		weights, biases = append(weights, n+"weight"), append(biases, n+"bias")
	}
	each := rows / len(theirs)
	m.add(ours+".weight", []int{rows, cols}, same, []int{each, cols}, weights...)
	m.add(ours+".bias", []int{rows}, same, []int{each}, biases...)
}

// project adds a projection into the common space.
func (m *mapping) project(ours, theirs string, w int) {
	e := m.embed.value
	if m.lay.turned {
		m.add(ours+".weight", []int{e, w}, turned, []int{w, e}, theirs)
	} else {
		m.add(ours+".weight", []int{e, w}, same, []int{e, w}, theirs)
	}
	m.zeros(ours+".bias", e)
}
