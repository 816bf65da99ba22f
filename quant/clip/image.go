package clip

import (
	"fmt"

	"lqa/quant/device"
	"lqa/quant/kernel"
)

// same is TensorFlow's SAME padding: the output size, and how many of the
// pad taps come before the picture (the odd one goes after).
func same(size, k, s int) (out, pad int) {
	out = (size + s - 1) / s
	return out, max(0, (out-1)*s+k-size) / 2
}

func (m *Model) layoutImage(l *device.Layout) {
	im := &m.cfg.Image
	record := func(t *tower) { t.efficientNetLite(im) }
	if im.Kind == imageViT {
		tokens := l.Alloc(device.Activations, 4*im.Tokens()*im.Width)
		m.values["image.class.weight"].start = tokens
		m.values["image.position.weight"].start = tokens
		record = func(t *tower) { t.vit(im, tokens) }
	}
	t, at := m.record(l, record)
	m.image, m.embedding = at, t.offsets["embedding"]
}

// efficientNetLite records the EfficientNet-Lite tower (M. Tan, Q. Le, 2019;
// the Lite variant has ReLU6 and no squeeze-excite). Blocks read buffer "a" or
// "b" and write the other.
func (t *tower) efficientNetLite(im *Image) {
	const stemK, stemS = 3, 2
	size, pad := same(im.Size, stemK, stemS)
	patches := t.patches(im, stemK, stemS, pad, size)
	in, out := "a", "b"
	y := t.buf(in, 4*size*size*stride(im.Stem))
	t.linearFrom("image.stem", patches, stemK*stemK*3, y, size*size, 0, 6, false)

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
	t.embed("image.project", pooled)
}
