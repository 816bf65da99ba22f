// Package kerneltest is the suite that every Host runs: each kernel against
// its plain Go reference, over odd shapes and extreme values, bit for bit. It
// is for tests only.
package kerneltest

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
)

// guard surrounds every buffer: a kernel that writes outside its own leaves a
// mark.
const (
	guard     = 64
	guardByte = 0xa5
)

// bench is one device with guarded buffers.
type bench struct {
	t      *testing.T
	layout device.Layout
	bufs   []buffer
	host   device.Host
	path   *kernel.Path // nil: the host's first
	dev    *device.Device
	rng    *rand.Rand
}

type buffer struct {
	offset uint32
	data   []byte
	output bool
}

func newBench(t *testing.T, h device.Host) *bench {
	return &bench{t: t, host: h, rng: rand.New(rand.NewPCG(1, uint64(len(t.Name()))))}
}

func (b *bench) paths() []kernel.Path {
	if b.path == nil {
		return b.host.Paths()[:1]
	}
	return []kernel.Path{*b.path}
}

// in reserves a buffer and fills it.
func (b *bench) in(data []byte) uint32 {
	b.layout.Alloc(device.Activations, guard)
	o := b.layout.Alloc(device.Activations, len(data))
	b.layout.Alloc(device.Activations, guard)
	b.bufs = append(b.bufs, buffer{offset: o, data: data})
	return o
}

// out reserves a buffer of n bytes that the kernel writes.
func (b *bench) out(n int) uint32 {
	return b.inOut(make([]byte, n))
}

func (b *bench) f32(x []float32) uint32 { return b.in(f32bytes(x)) }

func f32bytes(x []float32) []byte {
	out := make([]byte, 0, 4*len(x))
	for _, v := range x {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
	}
	return out
}

func u32bytes(x []uint32) []byte {
	out := make([]byte, 0, 4*len(x))
	for _, v := range x {
		out = binary.LittleEndian.AppendUint32(out, v)
	}
	return out
}

// inOut reserves a buffer that the kernel reads and writes.
func (b *bench) inOut(data []byte) uint32 {
	o := b.in(data)
	b.bufs[len(b.bufs)-1].output = true
	return o
}

// run starts the device, fills memory, runs the commands one by one (they may
// be cut into threads' shares) and checks that inputs and guards are untouched.
func (b *bench) run(commands ...kernel.Command) {
	b.t.Helper()
	lists := make([]kernel.List, len(commands))
	at := make([]uint32, len(commands))
	for i, c := range commands {
		lists[i] = c.Append(nil).End()
		at[i] = b.layout.Alloc(device.Commands, 4*len(lists[i]))
	}
	dev, err := device.Start(b.host, &b.layout, device.Options{Paths: b.paths(), Lists: lists})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { b.host.Close() })
	b.dev = dev
	mark := make([]byte, guard)
	for i := range mark {
		mark[i] = guardByte
	}
	check := func(err error) {
		b.t.Helper()
		if err != nil {
			b.t.Fatal(err)
		}
	}
	for _, u := range b.bufs {
		end := u.offset + uint32(qtype.RoundUp(len(u.data), 16))
		check(dev.Write(u.offset-guard, mark))
		check(dev.Write(end-16, mark)) // also the padding of the last 16 bytes
		check(dev.Write(u.offset, u.data))
	}
	for i := range lists {
		check(dev.WriteU32(at[i], lists[i]))
		check(dev.Run(at[i]))
	}
	for i, u := range b.bufs {
		got := make([]byte, guard+qtype.RoundUp(len(u.data), 16)+guard-16)
		check(dev.Read(u.offset-guard, got))
		for j, v := range got {
			inside := j >= guard && j < guard+len(u.data)
			switch {
			case inside && !u.output && v != u.data[j-guard]:
				b.t.Fatalf("buffer %d: input changed at byte %d", i, j-guard)
			case !inside && v != guardByte:
				b.t.Fatalf("buffer %d of %d bytes: written outside, at byte %d", i, len(u.data), j-guard)
			}
		}
	}
}

// f32at reads n float32.
func (b *bench) f32at(offset uint32, n int) []float32 {
	b.t.Helper()
	x := make([]float32, n)
	if err := b.dev.ReadF32(offset, x); err != nil {
		b.t.Fatal(err)
	}
	return x
}

// same fails unless got and want have the same bits.
func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s[%d] = %v (%#08x), want %v (%#08x)", what, i,
				got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]))
		}
	}
}

// rows makes [m][stride] values of which n a row are random and the rest zero.
func (b *bench) rows(m, n, stride int, spread float32) []float32 {
	x := make([]float32, m*stride)
	for r := range m {
		for i := range n {
			x[r*stride+i] = (b.rng.Float32()*2 - 1) * spread
		}
	}
	return x
}

var cases = map[string]func(*testing.T, func() device.Host){
	"gemm_f32": gemmF32, "quant": quant, "gemm_q8c": gemmQ8C, "gemm_low": gemmLow, "depthwise": depthwise, "codes": codes, "first": first,
	"vector": vector, "gather": gather, "softmaxpool": softmaxPool, "softmax": softmax, "gate": gate, "gelu": gelu, "quickgelu": quickGELU,
	"layernorm": layerNorm, "attention": attention, "resize": resize, "patch": patch, "vote": vote, "dots": dots,
}

// Run runs the whole suite; newHost gives a fresh host for each case.
func Run(t *testing.T, newHost func() device.Host) {
	for name, f := range cases {
		t.Run(name, func(t *testing.T) { f(t, newHost) })
	}
	t.Run("threads", func(t *testing.T) { threads(t, newHost) })
}

type shape struct{ m, k, n int }

// shapes break kernels: nothing over a tile, a tail, a prime.
var shapes = []shape{
	{1, 1, 1}, {1, 4, 8}, {2, 3, 5}, {3, 5, 9}, {4, 8, 8}, {5, 16, 17}, {7, 27, 32}, {9, 20, 12}, {13, 97, 24}, {49, 64, 40}, {263, 12, 24},
}

var limits = []struct{ lo, hi float32 }{{-kernel.Inf, kernel.Inf}, {0, 6}}

func gemmF32(t *testing.T, newHost func() device.Host) {
	for _, s := range shapes {
		for _, l := range limits {
			t.Run(fmt.Sprint(s, l), func(t *testing.T) {
				b := newBench(t, newHost())
				lda, ldy := s.k+3, qtype.RoundUp(s.n, 8)
				a := b.rows(s.m, s.k, lda, 2)
				packed := kernel.PackF32(b.rows(1, s.n*s.k, s.n*s.k, 1), b.rows(1, s.n, s.n, 1), s.n, s.k)
				c := kernel.GEMMF32{A: b.f32(a), W: b.f32(packed), Y: b.out(4 * s.m * ldy),
					M: s.m, K: s.k, N: s.n, LDA: lda, LDY: ldy, Lo: l.lo, Hi: l.hi}
				b.run(c)
				want := make([]float32, s.m*ldy)
				kernel.RefGEMMF32(want, a, packed, s.m, s.k, s.n, lda, ldy, l.lo, l.hi)
				same(t, "y", b.f32at(c.Y, len(want)), want)
			})
		}
	}
}

// fills are the values that quantization meets: random, non-negative,
// constant, zero, huge, and rows whose spread is below what is worth codes.
var fills = map[string]func(b *bench, x []float32){
	"random":   func(b *bench, x []float32) { b.fill(x, -3, 3) },
	"relu6":    func(b *bench, x []float32) { b.fill(x, 0, 6) },
	"constant": func(b *bench, x []float32) { b.fill(x, 2.5, 2.5) },
	"zero":     func(b *bench, x []float32) { b.fill(x, 0, 0) },
	"huge":     func(b *bench, x []float32) { b.fill(x, -1e30, 1e30) },
	"tiny":     func(b *bench, x []float32) { b.fill(x, -1e-31, 1e-31) },
	"offset":   func(b *bench, x []float32) { b.fill(x, 1000, 1000.01) },
}

func (b *bench) fill(x []float32, lo, hi float32) {
	for i := range x {
		x[i] = lo + float32((hi-lo)*b.rng.Float32())
	}
}

func quant(t *testing.T, newHost func() device.Host) {
	for name, fill := range fills {
		for _, s := range shapes {
			t.Run(fmt.Sprint(name, s), func(t *testing.T) {
				b := newBench(t, newHost())
				k4 := qtype.RoundUp(s.k, 4)
				ldx := qtype.RoundUp(k4, 16) + 4
				x := make([]float32, s.m*ldx)
				fill(b, x)
				c := kernel.Quant{X: b.f32(x), Q: b.out(2 * s.m * k4), S: b.out(8 * s.m), M: s.m, K: s.k, LDX: ldx}
				b.run(c)
				q := make([]byte, 2*s.m*k4)
				if err := b.dev.Read(c.Q, q); err != nil {
					t.Fatal(err)
				}
				scales := b.f32at(c.S, 2*s.m)
				want := make([]int16, k4)
				for r := range s.m {
					scale, zero := kernel.RefQuant(want, x[r*ldx:r*ldx+k4])
					same(t, "scale, zero", scales[2*r:2*r+2], []float32{scale, zero})
					for i, w := range want {
						got := int16(binary.LittleEndian.Uint16(q[2*(r*k4+i):]))
						if got != w || got < -127 || got > 127 {
							t.Fatalf("q[%d,%d] = %d, want %d", r, i, got, w)
						}
					}
				}
			})
		}
	}
}

func depthwise(t *testing.T, newHost func() device.Host) {
	for _, k := range []int{3, 5} {
		for _, stride := range []int{1, 2} {
			for _, s := range []struct{ h, w, c int }{{1, 1, 1}, {2, 3, 8}, {4, 4, 12}, {7, 5, 3}, {8, 8, 16}, {9, 11, 24}, {6, 17, 8}} {
				t.Run(fmt.Sprint(k, stride, s), func(t *testing.T) {
					newBench(t, newHost()).depthwise(k, stride, s.h, s.w, s.c)
				})
			}
		}
	}
}

func (b *bench) depthwise(k, stride, height, width, channels int) {
	c8 := qtype.RoundUp(channels, 8)
	outH, outW := (height+stride-1)/stride, (width+stride-1)/stride
	pad := max(0, (outH-1)*stride+k-height) / 2
	x, w := b.rows(height*width, channels, c8, 6), b.rows(1+k*k, channels, c8, 1)
	c := kernel.Depthwise{X: b.f32(x), W: b.f32(w), Y: b.out(4 * outH * outW * c8),
		Kernel: k, Stride: stride, Pad: pad, Height: height, Width: width, C: channels,
		OutHeight: outH, OutWidth: outW, Lo: 0, Hi: 6}
	b.run(c)
	want := make([]float32, outH*outW*c8)
	kernel.RefDepthwise(want, x, w, c)
	same(b.t, "y", b.f32at(c.Y, len(want)), want)
}

func vector(t *testing.T, newHost func() device.Host) {
	for _, n := range []int{4, 8, 12, 24, 512} {
		t.Run(fmt.Sprint("add ", n), func(t *testing.T) {
			b := newBench(t, newHost())
			y, x := b.rows(1, n, n, 3), b.rows(1, n, n, 3)
			c := kernel.Add{Y: b.out(4 * n), X: b.f32(x), N: n}
			b.bufs[0].data = f32bytes(y)
			b.run(c)
			kernel.RefAdd(y, x)
			same(t, "y", b.f32at(c.Y, n), y)
		})
		t.Run(fmt.Sprint("pool ", n), func(t *testing.T) {
			b := newBench(t, newHost())
			m, c8 := 49, qtype.RoundUp(n, 8)
			x := b.rows(m, n, c8, 6)
			c := kernel.Pool{X: b.f32(x), Y: b.out(4 * c8), M: m, C: n}
			b.run(c)
			want := make([]float32, c8)
			kernel.RefPool(want, x, m, c8)
			same(t, "y", b.f32at(c.Y, c8), want)
		})
		t.Run(fmt.Sprint("normalize ", n), func(t *testing.T) {
			b := newBench(t, newHost())
			m := 3
			x := b.rows(m, n, n, 6)
			clear(x[n : 2*n]) // a zero row stays zero
			c := kernel.Normalize{X: b.out(4 * m * n), M: m, N: n}
			b.bufs[0].data = f32bytes(x)
			b.run(c)
			for r := range m {
				kernel.RefNormalize(x[r*n : (r+1)*n])
			}
			same(t, "x", b.f32at(c.X, m*n), x)
		})
	}
}

func gather(t *testing.T, newHost func() device.Host) {
	for _, d := range []int{1, 4, 7, 12, 64} {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			const rows = 11
			ids := []uint32{0, 10, 3, 3}
			d8 := qtype.RoundUp(d, 8)
			b := newBench(t, newHost())
			codes := make([]byte, rows*d)
			for i := range codes {
				codes[i] = byte(b.rng.IntN(255) - 127)
			}
			scales := b.rows(1, rows, rows, 1)
			c := kernel.GatherQ8R{IDs: b.in(u32bytes(ids)), Codes: b.in(codes), Scales: b.f32(scales), Y: b.out(4 * len(ids) * d8), T: len(ids), D: d}
			b.run(c)
			want := make([]float32, len(ids)*d8)
			kernel.RefGatherQ8R(want, ids, codes, scales, d)
			same(t, "y", b.f32at(c.Y, len(want)), want)

			b = newBench(t, newHost())
			table := b.rows(rows, d, d8, 1)
			f := kernel.GatherF32{IDs: b.in(u32bytes(ids)), Table: b.f32(table), Y: b.out(4 * len(ids) * d8), T: len(ids), D: d}
			b.run(f)
			got := b.f32at(f.Y, len(want))
			for t2, id := range ids {
				same(t, "row", got[t2*d8:(t2+1)*d8], table[int(id)*d8:int(id+1)*d8])
			}
		})
	}
}

func vote(t *testing.T, newHost func() device.Host) {
	for _, s := range []struct{ n, k int }{{1, 1}, {3, 7}, {4, 8}, {5, 9}, {9, 16}, {13, 97}, {40, 512}} {
		for _, fill := range []string{"random", "least", "most", "none"} {
			t.Run(fmt.Sprint(s, fill), func(t *testing.T) { newBench(t, newHost()).vote(s.n, s.k, fill) })
		}
	}
}

// vote fills with random codes, or with products all as small or as large as
// there are; with random or "none", some rows or all have no scale.
func (b *bench) vote(n, k int, fill string) {
	n4, k32 := qtype.RoundUp(n, 4), qtype.RoundUp(k, 32)
	code := func(sign int) int8 {
		switch fill {
		case "least":
			return int8(127 * sign)
		case "most":
			return 127
		}
		return int8(b.rng.IntN(255) - 127)
	}
	scale := func() float32 {
		switch {
		case fill == "none" || fill == "random" && b.rng.IntN(2) == 0:
			return 0
		case fill == "random":
			return b.rng.Float32() / 40
		}
		return 1
	}
	x, keys := make([]int8, k32), make([]int8, n4*k32)
	xScale, scales, beta := b.rng.Float32()/40, make([]float32, n4), 5*b.rng.Float32()
	for i := range k {
		x[i] = code(-1)
	}
	for r := range n {
		for i := range k {
			keys[r*k32+i] = code(1)
		}
		scales[r] = scale()
	}
	xBytes := append(f32bytes([]float32{xScale}), make([]byte, kernel.VoteHead-4)...)
	keyBytes := make([]byte, len(keys))
	for _, v := range x {
		xBytes = binary.LittleEndian.AppendUint16(xBytes, uint16(int16(v)))
	}
	for i, v := range keys {
		keyBytes[i] = byte(v)
	}
	want := b.rows(1, n4, n4, 1) // what is there before
	c := kernel.Vote{X: b.in(xBytes), Keys: b.in(keyBytes), Scales: b.f32(scales), Y: b.inOut(f32bytes(want)), N: n, K: k, Beta: beta}
	b.run(c)
	for r := range want {
		if g := r / 4 * 4; scales[g] != 0 || scales[g+1] != 0 || scales[g+2] != 0 || scales[g+3] != 0 {
			want[r] = kernel.RefVote(x, keys[r*k32:(r+1)*k32], xScale, scales[r], beta)
		}
	}
	same(b.t, "y", b.f32at(c.Y, n4), want)
}

func dots(t *testing.T, newHost func() device.Host) {
	for _, s := range []struct{ n, k int }{{1, 1}, {3, 7}, {15, 8}, {16, 5}, {17, 33}, {47, 16}, {100, 512}} {
		for _, spread := range []float32{1, 1e18} {
			t.Run(fmt.Sprint(s, spread), func(t *testing.T) { newBench(t, newHost()).dots(s.n, s.k, spread) })
		}
	}
}

func (b *bench) dots(n, k int, spread float32) {
	x, w := b.rows(1, k, qtype.RoundUp(k, 4), spread), b.rows(n, k, k, spread)
	var rows [][]float32
	var packed []float32
	for r := range n {
		rows = append(rows, w[r*k:(r+1)*k])
		if len(rows) == 16 || r == n-1 {
			packed = append(packed, kernel.PackDots(rows, k)...)
			rows = nil
		}
	}
	c := kernel.Dots{X: b.f32(x), W: b.f32(packed), Y: b.out(4 * qtype.RoundUp(n, 16)), K: k, N: n}
	b.run(c)
	want := make([]float32, n)
	for r := range want {
		want[r] = numeric.Dot(w[r*k:(r+1)*k], x[:k])
	}
	same(b.t, "y", b.f32at(c.Y, n), want)
}

func softmaxPool(t *testing.T, newHost func() device.Host) {
	for _, n := range []int{1, 2, 7, 32} {
		for _, spread := range []float32{0.1, 1, 30} { // 30: one token takes all
			t.Run(fmt.Sprint(n, spread), func(t *testing.T) {
				const d, d8 = 12, 16
				b := newBench(t, newHost())
				x, u := b.rows(n, d, d8, spread), b.rows(1, d, d8, spread)
				c := kernel.SoftmaxPool{X: b.f32(x), U: b.f32(u), Y: b.out(4 * d8), Scratch: b.out(4 * n), T: n, D: d}
				b.run(c)
				want := make([]float32, d8)
				kernel.RefSoftmaxPool(want, x, u, n, d8)
				same(t, "y", b.f32at(c.Y, d8), want)
			})
		}
	}
}

func softmax(t *testing.T, newHost func() device.Host) {
	for _, n := range []int{1, 3, 4, 6, 29, 1000} {
		for _, s := range []struct{ spread, middle float32 }{{0.1, 0}, {5, -60000}, {65504, 0}, {3e38, 0}} { // even; all mute; one takes all
			t.Run(fmt.Sprint(n, s), func(t *testing.T) { newBench(t, newHost()).softmax(n, s.spread, s.middle) })
		}
	}
}

func (b *bench) softmax(n int, spread, middle float32) {
	x := b.rows(1, n, qtype.RoundUp(n, 4), spread)
	for i := range x[:n] {
		x[i] += middle
	}
	b.fill(x[n:], 7, 9) // what pads a row does not count
	c := kernel.Softmax{X: b.inOut(f32bytes(x)), N: n}
	b.run(c)
	kernel.RefSoftmax(x, n)
	same(b.t, "x", b.f32at(c.X, len(x)), x)
	var sum float64
	for i, v := range x {
		sum += float64(v)
		if i >= n && v != 0 {
			b.t.Errorf("padding %d is %v", i, v)
		}
	}
	if math.Abs(sum-1) > 1e-5 {
		b.t.Errorf("the sum is %v", sum)
	}
}

func gate(t *testing.T, newHost func() device.Host) {
	for _, n := range []int{1, 3, 4, 512} {
		for _, logit := range []float32{0, 0.7, 100, -65504, 3e38} {
			t.Run(fmt.Sprint(n, logit), func(t *testing.T) { newBench(t, newHost()).gate(n, logit, 3) })
		}
		t.Run(fmt.Sprint(n, " zero"), func(t *testing.T) { newBench(t, newHost()).gate(n, 1, 0) }) // no direction
	}
}

func (b *bench) gate(n int, logit, spread float32) {
	y, q := b.rows(1, n, qtype.RoundUp(n+1, 4), spread), b.rows(1, n, qtype.RoundUp(n, 4), 1)
	y[n] = logit
	c := kernel.Gate{Y: b.inOut(f32bytes(y)), Q: b.f32(q), N: n}
	b.run(c)
	kernel.RefGate(y, q, n)
	same(b.t, "y", b.f32at(c.Y, len(y)), y)
	if length := numeric.Dot(y, y); math.Abs(float64(length)-1) > 1e-5 || y[n] != 0 {
		b.t.Errorf("length² %v, behind the row %v", length, y[n])
	}
}

func gelu(t *testing.T, newHost func() device.Host) {
	b := newBench(t, newHost())
	x := []float32{0, float32(math.Copysign(0, -1)), 1e-30, -1e-30, 1, -1, 3, -3, 10, -10, 100, -100, 1e4, -1e4, 1e-3, -1e-3}
	for v := float32(-8); v < 8; v += 0.0625 {
		x = append(x, v)
	}
	c := kernel.GELU{X: b.out(4 * len(x)), N: len(x)}
	b.bufs[0].data = f32bytes(x)
	b.run(c)
	kernel.RefGELU(x)
	same(t, "x", b.f32at(c.X, len(x)), x)
}

func resize(t *testing.T, newHost func() device.Host) {
	for _, s := range []struct{ w, h, outW, outH int }{{1, 1, 8, 8}, {3, 2, 9, 7}, {40, 30, 8, 8}, {33, 65, 16, 31}, {16, 16, 16, 16}, {200, 9, 7, 9}} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			x := make([]byte, s.w*s.h*4)
			b := newBench(t, newHost())
			for i := range x {
				x[i] = byte(255 * b.rng.IntN(2)) // hard edges: overshoot on both sides
			}
			h, err := kernel.Bicubic(s.w, s.outW, 0, s.outW)
			if err != nil {
				t.Fatal(err)
			}
			c := kernel.ResizeH{X: b.in(x), Y: b.out(s.h * s.outW * 4), Table: b.in(u32bytes(h.Words(4))), Rows: s.h, Stride: s.w * 4, Count: s.outW, Taps: h.Taps}
			b.run(c)
			mid := make([]byte, s.h*s.outW*4)
			if err := b.dev.Read(c.Y, mid); err != nil {
				t.Fatal(err)
			}
			for r := range s.h {
				for i := range s.outW {
					for ch := range 4 {
						want := kernel.RefResize(x[(r*s.w+int(h.Starts[i]))*4+ch:], 4, h.Coefs[i*h.Taps:i*h.Taps+int(h.Counts[i])])
						if got := mid[(r*s.outW+i)*4+ch]; got != want {
							t.Fatalf("horizontal [%d,%d,%d] = %d, want %d", r, i, ch, got, want)
						}
					}
				}
			}
			v, err := kernel.Bicubic(s.h, s.outH, 0, s.outH)
			if err != nil {
				t.Fatal(err)
			}
			b = newBench(t, newHost())
			row := s.outW * 4
			d := kernel.ResizeV{X: b.in(mid), Y: b.out(s.outH * row), Table: b.in(u32bytes(v.Words(row))), Width: s.outW, Count: s.outH, Taps: v.Taps}
			b.run(d)
			got := make([]byte, s.outH*row)
			if err := b.dev.Read(d.Y, got); err != nil {
				t.Fatal(err)
			}
			for i := range s.outH {
				for j := range row {
					want := kernel.RefResize(mid[int(v.Starts[i])*row+j:], row, v.Coefs[i*v.Taps:i*v.Taps+int(v.Counts[i])])
					if got[i*row+j] != want {
						t.Fatalf("vertical [%d,%d] = %d, want %d", i, j, got[i*row+j], want)
					}
				}
			}
		})
	}
}

func patch(t *testing.T, newHost func() device.Host) {
	for _, s := range []struct{ size, kernel, stride, pad, out int }{{8, 3, 2, 0, 4}, {7, 3, 2, 1, 4}, {8, 4, 4, 0, 2}, {5, 3, 1, 1, 5}} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			b := newBench(t, newHost())
			x := make([]byte, s.size*s.size*4)
			for i := range x {
				x[i] = byte(b.rng.IntN(256))
			}
			n := s.out * s.out * s.kernel * s.kernel * 3
			c := kernel.Patch{X: b.in(x), Y: b.out(4 * n), Size: s.size, Kernel: s.kernel, Stride: s.stride, Pad: s.pad, Out: s.out,
				Mul: [3]float32{1. / 128, 1. / 64, 0.017}, Add: [3]float32{-127. / 128, -2, -1.8}}
			b.run(c)
			want := make([]float32, n)
			kernel.RefPatch(want, x, c)
			same(t, "y", b.f32at(c.Y, n), want)
		})
	}
}

// split is a host that runs a list as several threads would, one after the
// other: what each writes must not depend on how the work is cut.
type split struct {
	device.Host
	threads int
}

// RunsAs is a Host that can run one thread's share of a list.
type RunsAs interface {
	RunAs(list, tid, threads int) error
}

func (s split) Run(list int) error {
	for tid := range s.threads {
		if err := s.Host.(RunsAs).RunAs(list, tid, s.threads); err != nil {
			return err
		}
	}
	return nil
}

// maxThreads is the most that the suite splits over.
const maxThreads = 7

func threads(t *testing.T, newHost func() device.Host) {
	for _, n := range []int{2, 3, maxThreads} {
		host := func() device.Host { return split{newHost(), n} }
		for name, f := range cases {
			t.Run(fmt.Sprint(name, " ", n), func(t *testing.T) { f(t, host) })
		}
	}
}
