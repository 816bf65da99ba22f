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
	if im.Kind == imageViT {
		tokens := l.Alloc(device.Activations, 4*im.Tokens()*im.Width)
		m.values[classTensor].start = tokens
		m.values[positionTensor].start = tokens
	}
	t, at := m.record(l, func(t *tower) { t.image(im) })
	m.image, m.offsets = at, t.offsets
}

// image records the image tower.
func (t *tower) image(im *Image) {
	if im.Kind == imageViT {
		t.vit(im, t.m.values[classTensor].start)
	} else {
		t.efficientNetLite(im)
	}
}

// BlockPrefix is what the names of a convolutional block's tensors begin with.
func BlockPrefix(i int) string { return fmt.Sprintf("image.block.%02d.", i) }

// efficientNetLite records the EfficientNet-Lite tower (M. Tan, Q. Le, 2019;
// the Lite variant has ReLU6 and no squeeze-excite). Blocks read buffer "a" or
// "b" and write the other. Between the ReLU6 of a block whose weights are
// quantized go codes, so that nothing is left to be quantized there.
func (t *tower) efficientNetLite(im *Image) {
	const stemK, stemS = 3, 2
	size, pad := same(im.Size, stemK, stemS)
	patches := t.patches(im, stemK, stemS, pad, size)
	in, out := "a", "b"
	y := t.buf(in, 4*size*size*stride(im.Stem))
	t.linearFrom("image.stem", patches, stemK*stemK*3, y, size*size, 0, 6, false)

	for i, b := range im.Blocks {
		name := BlockPrefix(i)
		filters := t.m.filters[name+"depthwise"]
		wide := b.In * b.Expand
		x := t.buf(in, 0)
		switch {
		case filters.codes:
			x = t.buf("wide", size*size*wide)
			expand := t.m.linears[name+"expand"]
			t.quantize(expand, t.buf(in, 0), stride(b.In), size*size, kernel.First{})
			t.multiply(expand, x, size*size, product{ldy: wide, codesOut: true})
		case b.Expand != 1:
			x = t.buf("wide", 4*size*size*stride(wide))
			t.linear(name+"expand", t.buf(in, 0), x, size*size, 0, 6)
		}
		outSize, pad := same(size, b.Kernel, b.Stride)
		residual := b.Stride == 1 && b.In == b.Out
		pixels := outSize * outSize
		floats := pixels * stride(b.Out)
		if filters.codes {
			project := t.m.linears[name+"project"]
			q, _, starts := t.quantized(project, pixels)
			t.add(kernel.DepthwiseCodes{X: x, W: filters.w, Y: q, Starts: starts,
				Scratch: t.buf("columns", kernel.MaxThreads*kernel.DepthwiseScratch(b.Kernel, b.Stride, outSize)),
				Kernel:  b.Kernel, Stride: b.Stride, Pad: pad, Height: size, Width: size, C: wide,
				OutHeight: outSize, OutWidth: outSize, Low: project.low})
			if !residual { // else the block adds to its input
				in, out = out, in
			}
			t.multiply(project, t.buf(in, 4*floats), pixels, product{ldy: stride(b.Out), lo: -kernel.Inf, hi: kernel.Inf, add: residual, codesIn: true})
			size = outSize
			continue
		}
		deep := t.buf("deep", 4*pixels*stride(wide))
		t.add(kernel.Depthwise{X: x, W: filters.w, Y: deep,
			Kernel: b.Kernel, Stride: b.Stride, Pad: pad, Height: size, Width: size, C: wide,
			OutHeight: outSize, OutWidth: outSize, Lo: 0, Hi: 6})
		size = outSize
		y := t.buf(out, 4*floats)
		t.linear(name+"project", deep, y, pixels, -kernel.Inf, kernel.Inf)
		if residual {
			t.add(kernel.Add{Y: y, X: t.buf(in, 0), N: floats})
		}
		in, out = out, in
	}

	features := t.buf("wide", 4*size*size*stride(im.Features))
	t.linear("image.features", t.buf(in, 0), features, size*size, 0, 6)
	pooled := t.buf("pooled", 4*stride(im.Features))
	t.add(kernel.Pool{X: features, Y: pooled, M: size * size, C: im.Features})
	t.head(im, pooled)
}
