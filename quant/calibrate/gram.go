package calibrate

import (
	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/qtype"
)

// gram computes XᵀX with the float GEMM's kernel, which is several times
// faster than Go: the rows of X are both its inner dimension and, eight columns
// a panel, its weight.
type gram struct {
	a, w, y, list uint32
}

// Per call at most so many rows are summed, in float32; per command so many
// rows of the result are made, from the diagonal on.
const (
	gramRows  = 512
	gramBlock = 64
)

func newGram(l *device.Layout, cols int) gram {
	k := qtype.RoundUp(cols, kernel.Lanes)
	return gram{
		a:    l.Alloc(device.Activations, 4*k*gramRows),
		w:    l.Alloc(device.Activations, 4*k*(gramRows+1)),
		y:    l.Alloc(device.Activations, 4*k*gramBlock),
		list: l.Alloc(device.Commands, 128),
	}
}

// add adds XᵀX of rows x [n][K] to l. The sums are in float32: of up to
// gramRows terms in one go, then of those.
func (g *gram) add(d *device.Device, l *Layer, x []float32) error {
	for len(x) > 0 {
		n := min(gramRows, len(x)/l.K)
		if err := g.addSome(d, l, x[:n*l.K], n); err != nil {
			return err
		}
		x = x[n*l.K:]
	}
	return nil
}

func (g *gram) addSome(d *device.Device, l *Layer, x []float32, n int) error {
	const lanes = kernel.Lanes
	k8 := qtype.RoundUp(l.K, lanes)
	panel := make([]float32, lanes*(n+1)) // the biases stay zero
	columns := make([]float32, lanes*n)
	for c := 0; c < k8; c += lanes {
		for r := range n {
			for i := range lanes {
				var v float32
				if c+i < l.K {
					v = x[r*l.K+c+i]
				}
				panel[lanes*(r+1)+i], columns[i*n+r] = v, v
			}
		}
		if err := d.WriteF32(g.w+uint32(4*len(panel)*(c/lanes)), panel); err != nil {
			return err
		}
		if err := d.WriteF32(g.a+uint32(4*n*c), columns); err != nil {
			return err
		}
	}
	y := make([]float32, gramBlock*k8)
	at := 0 // in H
	for first := 0; first < l.K; first += gramBlock {
		rows, width := min(gramBlock, l.K-first), k8-first
		c := kernel.GEMMF32{A: g.a + uint32(4*n*first), W: g.w + uint32(4*len(panel)*(first/lanes)), Y: g.y,
			M: rows, K: n, N: width, LDA: n, LDY: width, Lo: -kernel.Inf, Hi: kernel.Inf}
		if err := d.WriteU32(g.list, c.Append(nil).End()); err != nil {
			return err
		}
		if err := d.Run(g.list); err != nil {
			return err
		}
		if err := d.ReadF32(g.y, y[:rows*width]); err != nil {
			return err
		}
		for r := range rows {
			row := y[r*width+r : r*width+l.K-first]
			sum := l.H[at : at+len(row)]
			for i, v := range row {
				sum[i] += v
			}
			at += len(row)
		}
	}
	return nil
}
