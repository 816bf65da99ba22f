package clip

import (
	"fmt"

	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/qtype"
)

// tower lays out commands whose buffers are reused from layer to layer: their
// sizes are the largest that any layer asks for, so the commands are recorded
// twice, first to measure, then with offsets.
type tower struct {
	m       *Model
	list    kernel.List
	sizes   map[string]int
	offsets map[string]uint32 // nil while measuring
}

// buf is the buffer of that name, at least bytes long.
func (t *tower) buf(name string, bytes int) uint32 {
	t.sizes[name] = max(t.sizes[name], bytes)
	return t.offsets[name]
}

// record runs f twice and returns the list and the offset of its copy on the
// device.
func (m *Model) record(l *device.Layout, names []string, f func(t *tower)) (*tower, uint32) {
	t := &tower{m: m, sizes: map[string]int{}}
	f(t)
	offsets := map[string]uint32{}
	for _, n := range names {
		offsets[n] = l.Alloc(device.Activations, t.sizes[n])
	}
	t = &tower{m: m, sizes: map[string]int{}, offsets: offsets}
	f(t)
	list := t.list.End()
	at := l.Alloc(device.Commands, 4*len(list))
	m.programs = append(m.programs, program{at, list})
	return t, at
}

func (t *tower) add(c kernel.Command) { t.list = c.Append(t.list) }

// stride is the floats between pixels of c channels.
func stride(c int) int { return qtype.RoundUp(c, kernel.Lanes) }

// linear records y = clamp(x·wᵀ + bias, lo, hi) over rows of x, quantizing
// them first where the layer is.
func (t *tower) linear(name string, x, y uint32, rows int, lo, hi float32) {
	n := t.m.linears[name]
	if n.kind != qtype.Q8C {
		t.add(kernel.GEMMF32{A: x, W: n.w, Y: y, M: rows, K: n.cols, N: n.rows,
			LDA: stride(n.cols), LDY: stride(n.rows), Lo: lo, Hi: hi})
		return
	}
	k4 := qtype.RoundUp(n.cols, 4)
	q, s := t.buf("codes", 2*rows*k4), t.buf("scales", 8*rows)
	t.add(kernel.Quant{X: x, Q: q, S: s, M: rows, K: n.cols, LDX: stride(n.cols)})
	t.add(kernel.GEMMQ8C{Q: q, S: s, W: n.w, Cols: n.epi, Y: y, Scratch: t.buf("scratch", 16*k4),
		M: rows, K: n.cols, N: n.rows, LDY: stride(n.rows), Lo: lo, Hi: hi})
}

// same is TensorFlow's SAME padding: the output size, and how many of the
// pad taps come before the picture (the odd one goes after).
func same(size, k, s int) (out, pad int) {
	out = (size + s - 1) / s
	return out, max(0, (out-1)*s+k-size) / 2
}

// The image tower's buffers. Blocks read "a" or "b" and write the other.
var imageBuffers = []string{"a", "b", "wide", "deep", "codes", "scales", "scratch", "pooled", "embedding"}

// layoutImage records the EfficientNet-Lite tower (M. Tan, Q. Le, 2019; the
// Lite variant has ReLU6 and no squeeze-excite).
func (m *Model) layoutImage(l *device.Layout) {
	im := &m.cfg.Image
	t, at := m.record(l, imageBuffers, func(t *tower) { t.efficientNetLite(im, m.cfg.Embed) })
	m.image, m.embedding = at, t.offsets["embedding"]
}

func (t *tower) efficientNetLite(im *Image, embed int) {
	const stemK, stemS = 3, 2
	size, pad := same(im.Size, stemK, stemS)
	patches := t.buf("wide", 4*size*size*stemK*stemK*3)
	c := kernel.Patch{X: t.m.view.pixels, Y: patches, Size: im.Size, Kernel: stemK, Stride: stemS, Pad: pad, Out: size}
	for i := range 3 {
		c.Mul[i], c.Add[i] = 1/(255*im.Std[i]), -im.Mean[i]/im.Std[i]
	}
	t.add(c)
	in, out := "a", "b"
	stem := t.m.linears["image.stem"]
	t.add(kernel.GEMMF32{A: patches, W: stem.w, Y: t.buf(in, 4*size*size*stride(im.Stem)),
		M: size * size, K: stem.cols, N: im.Stem, LDA: stem.cols, LDY: stride(im.Stem), Lo: 0, Hi: 6})

	for i, b := range im.Blocks {
		name := fmt.Sprintf("image.block.%02d.", i)
		wide := b.In * b.Expand
		x := t.buf(in, 0)
		if b.Expand != 1 {
			y := t.buf("wide", 4*size*size*stride(wide))
			t.linear(name+"expand", x, y, size*size, 0, 6)
			x = y
		}
		outSize, pad := same(size, b.Kernel, b.Stride)
		deep := t.buf("deep", 4*outSize*outSize*stride(wide))
		t.add(kernel.Depthwise{X: x, W: t.m.filters[name+"depthwise"].w, Y: deep,
			Kernel: b.Kernel, Stride: b.Stride, Pad: pad, Height: size, Width: size, C: wide,
			OutHeight: outSize, OutWidth: outSize, Lo: 0, Hi: 6})
		size = outSize
		floats := size * size * stride(b.Out)
		y := t.buf(out, 4*floats)
		t.linear(name+"project", deep, y, size*size, -kernel.Inf, kernel.Inf)
		if b.Stride == 1 && b.In == b.Out {
			t.add(kernel.Add{Y: y, X: t.buf(in, 0), N: floats})
		}
		in, out = out, in
	}

	features := t.buf("wide", 4*size*size*stride(im.Features))
	t.linear("image.features", t.buf(in, 0), features, size*size, 0, 6)
	pooled := t.buf("pooled", 4*stride(im.Features))
	t.add(kernel.Pool{X: features, Y: pooled, M: size * size, C: im.Features})
	embedding := t.buf("embedding", 4*stride(embed))
	t.linear("image.project", pooled, embedding, 1, -kernel.Inf, kernel.Inf)
	t.add(kernel.Normalize{X: embedding, M: 1, N: stride(embed)})
}
