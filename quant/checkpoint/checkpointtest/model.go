package checkpointtest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"

	"lqa/quant/checkpoint"
	"lqa/quant/numeric"
)

// tensor is one of a file: bytes makes its elements.
type tensor struct {
	name  string
	dtype checkpoint.DType
	shape []int
	bytes func() []byte
}

var widths = map[checkpoint.DType]int{"F32": 4, "F16": 2, "BF16": 2, "I64": 8}

func (t *tensor) size() int {
	n := widths[t.dtype]
	for _, d := range t.shape {
		n *= d
	}
	return n
}

func newBuffered(w io.Writer) *bufio.Writer { return bufio.NewWriterSize(w, 1<<16) }

// random is a generator of its own for each tensor, whatever its layout calls
// it.
func (o *Options) random(name string) *rand.Rand {
	h := fnv.New64a()
	io.WriteString(h, name)
	return rand.New(rand.NewPCG(o.Seed, h.Sum64()))
}

// normal are n numbers around mean.
func (o *Options) normal(name string, n int, mean, deviation float64) []float32 {
	rng := o.random(name)
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(mean + float64(deviation*rng.NormFloat64()))
	}
	return x
}

// scales are factors for the channels before a linear layer: one channel in
// forty gets Scales/3 to Scales, the first of them Scales itself.
func (o *Options) scales(name string, n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = 1
	}
	if o.Scales <= 1 {
		return s
	}
	rng := o.random(name + " scales")
	for k := range max(1, n/40) {
		at := rng.IntN(n)
		s[at] = o.Scales
		if k > 0 {
			s[at] /= float32(1 + float64(2*rng.Float64()))
		}
	}
	return s
}

// multiply scales row r of x [rows, cols] by f(r, c).
func multiply(x []float32, cols int, f func(r, c int) float32) []float32 {
	for i := range x {
		x[i] *= f(i/cols, i%cols)
	}
	return x
}

// values are the elements of a tensor of the model: a block's, or one of
// patch, class, position, token, pre, post and project.
type values func() []float32

// block are the tensors of one block.
type block struct{ norm1, norm1b, q, qb, k, kb, v, vb, out, outb, norm2, norm2b, up, upb, down, downb values }

func (o *Options) block(name string, w int) block {
	normal := func(part string, n int, mean, deviation float64) []float32 {
		return o.normal(name+part, n, mean, deviation)
	}
	s1, s2, s3 := o.scales(name+"norm1", w), o.scales(name+"norm2", w), o.scales(name+"v", w)
	times := func(s []float32) func(r, c int) float32 { return func(r, c int) float32 { return s[c] } }
	over := func(s []float32) func(r, c int) float32 { return func(r, c int) float32 { return 1 / s[c] } }
	rows := func(s []float32) func(r, c int) float32 { return func(r, c int) float32 { return s[r] } }
	each := 1 / math.Sqrt(float64(w))
	vector := func(part string, n int, mean float64) values {
		return func() []float32 { return normal(part, n, mean, 0.1) }
	}
	scaled := func(part string, mean float64, s []float32) values {
		return func() []float32 { return multiply(normal(part, w, mean, 0.1), w, times(s)) }
	}
	in := func(part string, rows int, s []float32) values {
		return func() []float32 { return multiply(normal(part, rows*w, 0, each), w, over(s)) }
	}
	return block{
		norm1: scaled("norm1", 1, s1), norm1b: scaled("norm1b", 0, s1),
		q: in("q", w, s1), qb: vector("qb", w, 0), k: in("k", w, s1), kb: vector("kb", w, 0),
		v:   func() []float32 { return multiply(in("v", w, s1)(), w, rows(s3)) },
		vb:  func() []float32 { return multiply(normal("vb", w, 0, 0.1), 1, rows(s3)) },
		out: func() []float32 { return multiply(normal("out", w*w, 0, each), w, over(s3)) }, outb: vector("outb", w, 0),
		norm2: scaled("norm2", 1, s2), norm2b: scaled("norm2b", 0, s2),
		up: in("up", 4*w, s2), upb: vector("upb", 4*w, 0),
		down: func() []float32 { return normal("down", 4*w*w, 0, each/2) }, downb: vector("downb", w, 0),
	}
}

// plain are values of a tensor outside the blocks.
func (o *Options) plain(name string, n int, mean, deviation float64) values {
	return func() []float32 { return o.normal(name, n, mean, deviation) }
}

// transposed are the values of [rows, cols] as [cols, rows].
func transposed(v values, rows, cols int) values {
	return func() []float32 {
		x := v()
		out := make([]float32, len(x))
		for i := range x {
			out[i%cols*rows+i/cols] = x[i]
		}
		return out
	}
}

// stacked are the values of several tensors, one below the other.
func stacked(parts ...values) values {
	return func() []float32 {
		var out []float32
		for _, p := range parts {
			out = append(out, p()...)
		}
		return out
	}
}

// tensors lists the checkpoint's tensors in the order of the real files.
func (o *Options) tensors() []tensor {
	l := &lister{o: o}
	a := &o.Arch
	grid := a.Size / a.Patch
	tokens := grid*grid + 1
	iw, tw := a.Image.Width, a.Text.Width
	logit := func() []float32 { return []float32{numeric.Log(80)} }
	token, textPosition := o.plain("token", a.Vocab*tw, 0, 0.3), o.plain("text position", a.Context*tw, 0, 0.1)
	patch, class := o.plain("patch", iw*a.Patch*a.Patch*3, 0, 1/float64(a.Patch)), o.plain("class", iw, 0, 0.5)
	position := o.plain("position", tokens*iw, 0, 0.3)
	imageProject, textProject := o.plain("visual project", a.D*iw, 0, 1/math.Sqrt(float64(iw))), o.plain("text project", a.D*tw, 0, 1/math.Sqrt(float64(tw)))

	if o.Layout == OpenCLIP {
		l.add("positional_embedding", textPosition, a.Context, tw)
		l.add("text_projection", transposed(textProject, a.D, tw), tw, a.D)
		l.add("logit_scale", logit)
		l.add("visual.class_embedding", class, iw)
		l.add("visual.positional_embedding", position, tokens, iw)
		l.add("visual.proj", transposed(imageProject, a.D, iw), iw, a.D)
		l.add("visual.conv1.weight", patch, iw, 3, a.Patch, a.Patch)
		l.norm("visual.ln_pre", "pre", iw)
		for i := range a.Image.Layers {
			l.resblock(fmt.Sprintf("visual.transformer.resblocks.%d.", i), o.block(fmt.Sprint("image ", i), iw), iw)
		}
		l.norm("visual.ln_post", "post", iw)
		for i := range a.Text.Layers {
			l.resblock(fmt.Sprintf("transformer.resblocks.%d.", i), o.block(fmt.Sprint("text ", i), tw), tw)
		}
		l.add("token_embedding.weight", token, a.Vocab, tw)
		l.norm("ln_final", "final", tw)
		return l.list
	}
	l.add("logit_scale", logit)
	if o.PositionIDs {
		l.positions("text_model.embeddings.position_ids", a.Context)
	}
	l.add("text_model.embeddings.token_embedding.weight", token, a.Vocab, tw)
	l.add("text_model.embeddings.position_embedding.weight", textPosition, a.Context, tw)
	for i := range a.Text.Layers {
		l.encoderLayer(fmt.Sprintf("text_model.encoder.layers.%d.", i), o.block(fmt.Sprint("text ", i), tw), tw)
	}
	l.norm("text_model.final_layer_norm", "final", tw)
	l.add("vision_model.embeddings.class_embedding", class, iw)
	if o.PositionIDs {
		l.positions("vision_model.embeddings.position_ids", tokens)
	}
	l.add("vision_model.embeddings.patch_embedding.weight", patch, iw, 3, a.Patch, a.Patch)
	l.add("vision_model.embeddings.position_embedding.weight", position, tokens, iw)
	l.norm("vision_model.pre_layrnorm", "pre", iw)
	for i := range a.Image.Layers {
		l.encoderLayer(fmt.Sprintf("vision_model.encoder.layers.%d.", i), o.block(fmt.Sprint("image ", i), iw), iw)
	}
	l.norm("vision_model.post_layernorm", "post", iw)
	l.add("visual_projection.weight", imageProject, a.D, iw)
	l.add("text_projection.weight", textProject, a.D, tw)
	return l.list
}

type lister struct {
	o    *Options
	list []tensor
}

func (l *lister) add(name string, v values, shape ...int) {
	t := tensor{name: l.o.Prefix + name, dtype: l.o.DType, shape: shape}
	t.bytes = func() []byte {
		if l.o.Zeros {
			return make([]byte, t.size())
		}
		return encode(t.dtype, v())
	}
	l.list = append(l.list, t)
}

// positions adds a buffer [1,n] that counts.
func (l *lister) positions(name string, n int) {
	l.list = append(l.list, tensor{l.o.Prefix + name, "I64", []int{1, n}, func() (b []byte) {
		for i := range n {
			b = binary.LittleEndian.AppendUint64(b, uint64(i))
		}
		return b
	}})
}

func (l *lister) norm(name, of string, n int) {
	l.add(name+".weight", l.o.plain(of, n, 1, 0.1), n)
	l.add(name+".bias", l.o.plain(of+" bias", n, 0, 0.1), n)
}

// encoderLayer adds a block as transformers names it.
func (l *lister) encoderLayer(name string, b block, w int) {
	for _, p := range []struct {
		name         string
		weight, bias values
		shape        []int
	}{
		{"self_attn.k_proj", b.k, b.kb, []int{w, w}}, {"self_attn.v_proj", b.v, b.vb, []int{w, w}}, {"self_attn.q_proj", b.q, b.qb, []int{w, w}},
		{"self_attn.out_proj", b.out, b.outb, []int{w, w}},
		{"layer_norm1", b.norm1, b.norm1b, []int{w}},
		{"mlp.fc1", b.up, b.upb, []int{4 * w, w}}, {"mlp.fc2", b.down, b.downb, []int{w, 4 * w}},
		{"layer_norm2", b.norm2, b.norm2b, []int{w}},
	} {
		l.add(name+p.name+".weight", p.weight, p.shape...)
		l.add(name+p.name+".bias", p.bias, p.shape[0])
	}
}

// resblock adds a block as OpenCLIP names it.
func (l *lister) resblock(name string, b block, w int) {
	l.add(name+"ln_1.weight", b.norm1, w)
	l.add(name+"ln_1.bias", b.norm1b, w)
	l.add(name+"attn.in_proj_weight", stacked(b.q, b.k, b.v), 3*w, w)
	l.add(name+"attn.in_proj_bias", stacked(b.qb, b.kb, b.vb), 3*w)
	l.add(name+"attn.out_proj.weight", b.out, w, w)
	l.add(name+"attn.out_proj.bias", b.outb, w)
	l.add(name+"ln_2.weight", b.norm2, w)
	l.add(name+"ln_2.bias", b.norm2b, w)
	l.add(name+"mlp.c_fc.weight", b.up, 4*w, w)
	l.add(name+"mlp.c_fc.bias", b.upb, 4*w)
	l.add(name+"mlp.c_proj.weight", b.down, w, 4*w)
	l.add(name+"mlp.c_proj.bias", b.downb, w)
}

// encode is x in a file's type; bfloat16 is cut, not rounded.
func encode(d checkpoint.DType, x []float32) []byte {
	switch d {
	case "F16":
		return numeric.AppendFloat16(make([]byte, 0, 2*len(x)), x...)
	case "BF16":
		b := make([]byte, 0, 2*len(x))
		for _, v := range x {
			b = binary.LittleEndian.AppendUint16(b, uint16(math.Float32bits(v)>>16))
		}
		return b
	}
	b := make([]byte, 0, 4*len(x))
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}
