package clip

import (
	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/qtype"
)

// embedding is the buffer of a tower's result.
const embedding = "embedding"

// tower lays out commands whose buffers are reused from layer to layer: their
// sizes are the largest that any layer asks for, so the commands are recorded
// twice, first to measure, then with offsets.
type tower struct {
	m       *Model
	list    kernel.List
	names   []string // of the buffers, in order of first use
	sizes   map[string]int
	offsets map[string]uint32 // nil while measuring
	steps   *[]Step           // nil unless they are asked for
}

// buf is the buffer of that name, at least bytes long.
func (t *tower) buf(name string, bytes int) uint32 {
	if _, known := t.sizes[name]; !known {
		t.names = append(t.names, name)
	}
	t.sizes[name] = max(t.sizes[name], bytes)
	return t.offsets[name]
}

// record runs f twice and returns the tower and the offset of its list's copy
// on the device.
func (m *Model) record(l *device.Layout, f func(t *tower)) (*tower, uint32) {
	measure := &tower{m: m, sizes: map[string]int{}}
	f(measure)
	offsets := map[string]uint32{}
	for _, n := range measure.names {
		offsets[n] = l.Alloc(device.Activations, measure.sizes[n])
	}
	t := &tower{m: m, sizes: map[string]int{}, offsets: offsets}
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
	t.linearFrom(name, x, stride(t.m.linears[name].cols), y, rows, lo, hi, false)
}

// linearAdd records y += x·wᵀ + bias over rows of x.
func (t *tower) linearAdd(name string, x, y uint32, rows int) {
	t.linearFrom(name, x, stride(t.m.linears[name].cols), y, rows, -kernel.Inf, kernel.Inf, true)
}

// linearFrom is linear, or linearAdd, over rows that are ldx floats apart.
func (t *tower) linearFrom(name string, x uint32, ldx int, y uint32, rows int, lo, hi float32, add bool) {
	n := t.m.linears[name]
	ldy := stride(n.rows)
	if n.kind == qtype.F16 {
		out := y
		if add {
			out = t.buf("sum", 4*rows*ldy)
		}
		c := kernel.GEMMF32{A: x, W: n.w, Y: out, M: rows, K: n.cols, N: n.rows, LDA: ldx, LDY: ldy, Lo: lo, Hi: hi}
		from := len(t.list)
		t.add(c)
		if t.steps != nil {
			*t.steps = append(*t.steps, Step{Layer: name, GEMM: c, From: from, To: len(t.list)})
		}
		if add {
			t.add(kernel.Add{Y: y, X: out, N: rows * ldy})
		}
		return
	}
	t.quantize(n, x, ldx, rows, kernel.First{})
	t.multiply(n, y, rows, product{ldy: ldy, lo: lo, hi: hi, add: add})
}

// quantized are the buffers of a layer's quantized input: codes, a row's scale
// and zero point, and sums.
func (t *tower) quantized(n *linear, rows int) (q, s, starts uint32) {
	q, s = t.buf("codes", kernel.QuantLowBytes(rows, n.cols)), t.buf("scales", 8*rows)
	if n.low.Bits != 0 {
		starts = t.buf("starts", kernel.QuantLowStarts(n.low, rows, n.cols))
	}
	return q, s, starts
}

func (t *tower) quantize(n *linear, x uint32, ldx, rows int, first kernel.First) {
	q, s, starts := t.quantized(n, rows)
	if first.Do != kernel.Nothing {
		first.Scratch = t.buf("first", kernel.FirstScratch(n.cols))
	}
	if n.kind == qtype.Q8C {
		t.add(kernel.Quant{X: x, Q: q, S: s, M: rows, K: n.cols, LDX: ldx, First: first})
		return
	}
	t.add(kernel.QuantLow{X: x, Q: q, S: s, Starts: starts, M: rows, K: n.cols, LDX: ldx, Low: n.low, First: first})
}

// product is how a quantized layer's product ends.
type product struct {
	ldy               int
	lo, hi            float32
	add               bool // to what is there
	codesIn, codesOut bool // of ReLU6, as the kernels know them
}

// multiply records the product of what quantized holds.
func (t *tower) multiply(n *linear, y uint32, rows int, p product) {
	q, s, starts := t.quantized(n, rows)
	n.scratch = t.buf("scratch", kernel.GEMMScratch(n.cols)*kernel.MaxThreads)
	if n.kind == qtype.Q8C {
		t.add(kernel.GEMMQ8C{Q: q, S: s, W: n.w, Cols: n.epi, Y: y, Scratch: n.scratch,
			M: rows, K: n.cols, N: n.rows, LDY: p.ldy, Lo: p.lo, Hi: p.hi, Add: p.add, CodesIn: p.codesIn, CodesOut: p.codesOut})
		return
	}
	t.add(kernel.GEMMLow{Q: q, S: s, Starts: starts, W: n.w, Cols: n.epi, Y: y, Scratch: n.scratch,
		M: rows, K: n.cols, N: n.rows, LDY: p.ldy, Low: n.low, Lo: p.lo, Hi: p.hi, Add: p.add, CodesIn: p.codesIn, CodesOut: p.codesOut})
}

// patches records the view's normalised pixels as rows of side²·3 floats, one
// row a place of a side × side window; they lie in buffer "wide".
func (t *tower) patches(im *Image, side, step, pad, out int) uint32 {
	y := t.buf("wide", 4*out*out*side*side*3)
	c := kernel.Patch{X: t.m.view.pixels, Y: y, Size: im.Size, Kernel: side, Stride: step, Pad: pad, Out: out}
	for i := range 3 {
		c.Mul[i], c.Add[i] = 1/(255*im.Std[i]), -im.Mean[i]/im.Std[i]
	}
	t.add(c)
	return y
}

// embed records the last step of both towers: the linear layer into the shared
// space, scaled to length 1, in buffer embedding.
func (t *tower) embed(name string, x uint32) {
	n := stride(t.m.cfg.Embed)
	y := t.buf(embedding, 4*n)
	t.linear(name, x, y, 1, -kernel.Inf, kernel.Inf)
	t.add(kernel.Normalize{X: y, M: 1, N: n})
}
