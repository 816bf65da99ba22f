package clip

import (
	"lqa/quant/kernel"
	"lqa/quant/qtype"
)

// The transformers of CLIP (A. Radford et al., 2021; code: CLIPVisionTransformer
// and CLIPTextTransformer of huggingface/transformers). Widths are multiples of
// kernel.Lanes, so rows have no padding.

// What the first token is made of.
const (
	classTensor    = "image.class.weight"
	positionTensor = "image.position.weight"
)

// vit records the image tower. tokens are [T][W] float32 that nobody else
// writes: row 0, the class token at its position, stays from frame to frame.
func (t *tower) vit(im *Image, tokens uint32) {
	grid := im.Size / im.Patch
	row := 4 * im.Width
	patches := t.patches(im, im.Patch, im.Patch, 0, grid)
	rest := tokens + uint32(row)
	t.linearFrom("image.patch", patches, im.Patch*im.Patch*3, rest, grid*grid, -kernel.Inf, kernel.Inf, false)
	t.add(kernel.Add{Y: rest, X: t.m.values[positionTensor].at + uint32(row), N: grid * grid * im.Width})
	n := im.Tokens()
	t.norm("image.pre", tokens, t.buf("x", n*row), n, im.Width, im.Eps)
	class := t.blocks("image", &im.Transformer, im.Width, n, 0, false)
	y := t.buf("y", row)
	t.norm("image.post", class, y, 1, im.Width, im.Eps)
	t.embed("image.project", y)
}

// textTransformer records the text tower for n tokens, pooled at the last.
// Under the causal mask no token after it could change it.
func (t *tower) textTransformer(tx *Text, n int) {
	x := t.buf("x", 4*n*tx.Width)
	if table := t.m.tables["text.token"]; table != nil {
		t.add(table.gather(t.m.text.ids, x, n))
	} // else putTokens has written x
	t.add(kernel.Add{Y: x, X: t.m.values["text.position.weight"].at, N: n * tx.Width})
	last := t.blocks("text", &tx.Transformer, tx.Width, n, n-1, true)
	y := t.buf("y", 4*tx.Width)
	t.norm("text.final", last, y, 1, tx.Width, tx.Eps)
	t.embed("text.project", y)
}

// blocks records a tower's blocks over the n rows of buffer "x", in place, and
// returns where row pooled lies: the only one that is right afterwards.
func (t *tower) blocks(tower string, c *Transformer, width, n, pooled int, causal bool) uint32 {
	x, y := t.buf("x", 4*n*width), t.buf("y", 4*n*width)
	wide := t.buf("wide", 4*n*max(3*width, stride(c.MLP)))
	for i := range c.Layers {
		name := LayerPrefix(tower, i)
		t.linearNorm(name+"norm1", name+"attn.in", x, y, wide, n, c.Eps)
		a := kernel.Attention{X: wide, Y: y, T: n, To: n, H: c.Heads, D: width / c.Heads, LDX: 3 * width, LDY: width,
			Causal: causal, Float: t.m.linears[name+"attn.in"].kind == qtype.F16}
		a.Pack, a.Scratch = t.buf("pack", a.PackLen()), t.buf("attention", a.ScratchLen())
		if i == c.Layers-1 {
			a.From, a.To = pooled, pooled+1
		}
		t.add(kernel.AttentionPack(a))
		t.add(a)
		if i == c.Layers-1 { // nobody reads the other rows
			x, y, n = x+uint32(4*pooled*width), y+uint32(4*pooled*width), 1
		}
		t.linearAdd(name+"attn.out", y, x, n)
		t.linearNorm(name+"norm2", name+"mlp.in", x, y, wide, n, c.Eps)
		t.linearGELU(name+"mlp.out", c, wide, x, n)
	}
	return x
}

// norm records a LayerNorm over rows of x.
func (t *tower) norm(name string, x, y uint32, rows, width int, eps float32) {
	t.add(kernel.LayerNorm{X: x, W: t.m.values[name+".weight"].at, Y: y, M: rows, N: width, LDX: width, LDY: width, Eps: eps})
}

// linearNorm records a linear layer from x's rows behind a LayerNorm to z;
// where the layer is quantized the norm's results are, without a stop in y.
func (t *tower) linearNorm(norm, name string, x, y, z uint32, rows int, eps float32) {
	n := t.m.linears[name]
	if n.kind == qtype.F16 || n.cols%kernel.Lanes != 0 {
		t.norm(norm, x, y, rows, n.cols, eps)
		t.linear(name, y, z, rows, -kernel.Inf, kernel.Inf)
		return
	}
	t.quantize(n, x, n.cols, rows, kernel.First{Do: kernel.DoLayerNorm, W: t.m.values[norm+".weight"].at, Eps: eps})
	t.multiply(n, z, rows, product{ldy: stride(n.rows), lo: -kernel.Inf, hi: kernel.Inf})
}

// linearGELU records y += the linear layer of the activation of rows of x,
// which it may overwrite.
func (t *tower) linearGELU(name string, c *Transformer, x, y uint32, rows int) {
	n := t.m.linears[name]
	quick := c.Activation == quickGELU
	if n.kind == qtype.F16 || n.cols%kernel.Lanes != 0 {
		if floats := rows * stride(n.cols); quick {
			t.add(kernel.QuickGELU{X: x, N: floats})
		} else {
			t.add(kernel.GELU{X: x, N: floats})
		}
		t.linearAdd(name, x, y, rows)
		return
	}
	first := kernel.First{Do: kernel.DoGELU}
	if quick {
		first.Do = kernel.DoQuickGELU
	}
	t.quantize(n, x, n.cols, rows, first)
	t.multiply(n, y, rows, product{ldy: stride(n.rows), lo: -kernel.Inf, hi: kernel.Inf, add: true})
}
