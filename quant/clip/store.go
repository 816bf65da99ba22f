package clip

import (
	"fmt"

	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/numeric"
	"lqa/quant/qtype"
)

// linear is a layer y = x·wᵀ + bias in device memory. w and epi are, by kind,
// codes and kernel.PackCols, the tensor's bytes and kernel.PackLowCols, or
// kernel.PackF32 alone.
type linear struct {
	rows, cols int
	kind       qtype.Kind
	low        qtype.Low // of a low-bit kind
	w, epi     uint32
	scratch    uint32 // of the tower that has the layer
}

func newLinear(l *device.Layout, kind qtype.Kind, rows, cols int) *linear {
	n := &linear{rows: rows, cols: cols, kind: kind}
	var low bool
	switch n.low, low = kind.Low(); {
	case low:
		size, _ := kind.Size([]int{rows, cols}) // checked with the file
		n.w = l.Alloc(device.Weights, size)
		n.epi = l.Alloc(device.Weights, 4*kernel.PackedLowColsLen(rows))
	case kind == qtype.Q8C:
		n.w = l.Alloc(device.Weights, qtype.RoundUp(rows, qtype.PanelCols)*qtype.RoundUp(cols, qtype.PanelK))
		n.epi = l.Alloc(device.Weights, 4*kernel.PackedColsLen(rows))
	default:
		n.w = l.Alloc(device.Weights, 4*kernel.PackedF32Len(rows, cols))
	}
	return n
}

// sums is the command that makes a low-bit layer's column sums at load.
func (n *linear) sums() kernel.ColSums {
	return kernel.ColSums{W: n.w, Cols: n.epi, Scratch: n.scratch, K: n.cols, N: n.rows, Low: n.low}
}

// putWeight writes the weight; b are the tensor's bytes.
func (n *linear) putWeight(d *device.Device, b []byte) error {
	switch {
	case n.low.Bits != 0:
		return d.Write(n.w, b)
	case n.kind == qtype.Q8C:
		codes := b[qtype.Q8C.ScaleBytes(n.rows):]
		if err := d.Write(n.w, codes); err != nil {
			return err
		}
		return d.WriteF32(n.epi, kernel.PackCols(codes, qtype.Q8C.Scales(b, n.rows), make([]float32, n.rows), n.rows, n.cols))
	}
	return n.putFloats(d, halves(b))
}

// floats reads a tensor's values from at on.
type floats func(dst []float32, at int)

func halves(b []byte) floats {
	return func(dst []float32, at int) { numeric.FromFloat16(dst, b[2*at:2*(at+len(dst))]) }
}

// putFloats writes a float layer's weight, panel by panel, so that no whole
// weight is held as floats. The biases stay.
func (n *linear) putFloats(d *device.Device, weight floats) error {
	w, zero := make([]float32, qtype.PanelCols*n.cols), make([]float32, qtype.PanelCols)
	for r := 0; r < n.rows; r += qtype.PanelCols {
		rows := min(qtype.PanelCols, n.rows-r)
		weight(w[:rows*n.cols], r*n.cols)
		at := n.w + uint32(4*kernel.PackedF32Len(r, n.cols)+4*qtype.PanelCols)
		if err := d.WriteF32(at, kernel.PackF32(w, zero, rows, n.cols)[qtype.PanelCols:]); err != nil {
			return err
		}
	}
	return nil
}

// putBias writes the bias, after the weight, among what the weight has written.
func (n *linear) putBias(m *Model, bias floats) error {
	d, b := m.dev, make([]float32, qtype.RoundUp(n.rows, qtype.PanelCols))
	bias(b[:n.rows], 0)
	at, step := n.w, 4*kernel.PackedF32Len(qtype.PanelCols, n.cols)
	switch {
	case n.low.Bits != 0:
		if err := d.WriteF32(n.epi, kernel.PackLowCols(b)); err != nil {
			return err
		}
		if err := d.WriteU32(m.once, n.sums().Append(nil).End()); err != nil {
			return err
		}
		return d.Run(m.once)
	case n.kind == qtype.Q8C:
		step = 4 * kernel.PackedColsLen(qtype.PanelCols)
		at = n.epi + uint32(step-4*qtype.PanelCols)
	}
	for r := 0; r < n.rows; r += qtype.PanelCols {
		if err := d.WriteF32(at, b[r:r+qtype.PanelCols]); err != nil {
			return err
		}
		at += uint32(step)
	}
	return nil
}

// read reads the weight [rows, cols] back.
func (n *linear) read(d *device.Device) ([]float32, error) {
	x := make([]float32, n.rows*n.cols)
	switch {
	case n.low.Bits != 0:
		size, err := n.kind.Size([]int{n.rows, n.cols})
		if err != nil {
			return nil, err
		}
		b := make([]byte, size)
		if err := d.Read(n.w, b); err != nil {
			return nil, err
		}
		return n.kind.Dequantize(b, []int{n.rows, n.cols})
	case n.kind == qtype.Q8C:
		codes := make([]byte, qtype.RoundUp(n.rows, qtype.PanelCols)*qtype.RoundUp(n.cols, qtype.PanelK))
		scales := make([]float32, kernel.PackedColsLen(n.rows))
		if err := d.Read(n.w, codes); err != nil {
			return nil, err
		}
		if err := d.ReadF32(n.epi, scales); err != nil {
			return nil, err
		}
		for i := range x {
			r, c := i/n.cols, i%n.cols
			x[i] = scales[r/8*24+r%8] * float32(int8(codes[qtype.PanelIndex(r, c, n.cols)]))
		}
	default:
		packed := make([]float32, kernel.PackedF32Len(n.rows, n.cols))
		if err := d.ReadF32(n.w, packed); err != nil {
			return nil, err
		}
		for i := range x {
			r, c := i/n.cols, i%n.cols
			x[i] = packed[r/8*8*(n.cols+1)+8*(c+1)+r%8]
		}
	}
	return x, nil
}

// filters are a depthwise layer's, as kernel.Depthwise reads them or, with
// codes, kernel.DepthwiseCodes.
type filters struct {
	channels, taps int
	kind           qtype.Kind
	codes          bool
	w              uint32
}

func newFilters(l *device.Layout, kind qtype.Kind, channels, taps int, codes bool) *filters {
	f := &filters{channels: channels, taps: taps, kind: kind, codes: codes}
	bytes := 4 * (1 + taps) * qtype.RoundUp(channels, kernel.Lanes)
	if f.codes {
		bytes = kernel.PackedDepthwiseLen(f.side(), channels)
	}
	f.w = l.Alloc(device.Weights, bytes)
	return f
}

// side is the length of the window's.
func (f *filters) side() int {
	if f.taps == 9 {
		return 3
	}
	return 5
}

func (f *filters) put(d *device.Device, weight, bias []byte) error {
	if f.codes {
		b := make([]float32, f.channels)
		numeric.FromFloat16(b, bias)
		return d.Write(f.w, kernel.PackDepthwise(weight[qtype.Q8R.ScaleBytes(f.channels):], qtype.Q8R.Scales(weight, f.channels), b, f.side()))
	}
	w, err := f.kind.Dequantize(weight, []int{f.channels, f.taps})
	if err != nil {
		return err
	}
	c8 := qtype.RoundUp(f.channels, kernel.Lanes)
	out := make([]float32, (1+f.taps)*c8)
	numeric.FromFloat16(out[:f.channels], bias)
	for c := range f.channels {
		for t := range f.taps {
			out[(1+t)*c8+c] = w[c*f.taps+t]
		}
	}
	return d.WriteF32(f.w, out)
}

// values are rows of float32, padded to whole vectors: what kernels read as it
// is.
type values struct {
	rows, cols int
	at         uint32
	// start, if not 0, is where row 0 is added as well: the class token and
	// its position make the first token of every picture.
	start uint32
}

// newValues lays rows out without gaps between one tensor and the next: a
// norm's gain and bias are one array.
func newValues(l *device.Layout, shape []int) *values {
	v := &values{rows: 1, cols: shape[len(shape)-1]}
	for _, d := range shape[:len(shape)-1] {
		v.rows *= d
	}
	v.at = l.Alloc(device.Weights, 4*v.rows*stride(v.cols))
	return v
}

func (v *values) put(d *device.Device, x floats) error {
	row := make([]float32, stride(v.cols))
	for r := range v.rows {
		x(row[:v.cols], r*v.cols)
		if err := d.WriteF32(v.at+uint32(4*r*len(row)), row); err != nil {
			return err
		}
		if r > 0 || v.start == 0 {
			continue
		}
		sum := make([]float32, len(row))
		if err := d.ReadF32(v.start, sum); err != nil {
			return err
		}
		for i, x := range row {
			sum[i] += x
		}
		if err := d.WriteF32(v.start, sum); err != nil {
			return err
		}
	}
	return nil
}

// table is rows to gather from: int8 codes and scales, or float32 rows.
type table struct {
	rows, cols    int
	kind          qtype.Kind
	codes, scales uint32
}

func newTable(l *device.Layout, kind qtype.Kind, rows, cols int) *table {
	t := &table{rows: rows, cols: cols, kind: kind}
	if kind == qtype.Q8R {
		t.codes = l.Alloc(device.Weights, rows*cols)
		t.scales = l.Alloc(device.Weights, 4*rows)
	} else {
		t.codes = l.Alloc(device.Weights, 4*rows*qtype.RoundUp(cols, kernel.Lanes))
	}
	return t
}

func (t *table) put(d *device.Device, weight []byte) error {
	if t.kind == qtype.Q8R {
		if err := d.Write(t.codes, weight[qtype.Q8R.ScaleBytes(t.rows):]); err != nil {
			return err
		}
		return d.WriteF32(t.scales, qtype.Q8R.Scales(weight, t.rows))
	}
	c8 := qtype.RoundUp(t.cols, kernel.Lanes)
	row := make([]float32, c8)
	for r := range t.rows {
		numeric.FromFloat16(row[:t.cols], weight[2*r*t.cols:2*(r+1)*t.cols])
		if err := d.WriteF32(t.codes+uint32(4*r*c8), row); err != nil {
			return err
		}
	}
	return nil
}

// gather is the command that copies rows to y.
func (t *table) gather(ids, y uint32, n int) kernel.Command {
	if t.kind == qtype.Q8R {
		return kernel.GatherQ8R{IDs: ids, Codes: t.codes, Scales: t.scales, Y: y, T: n, D: t.cols}
	}
	return kernel.GatherF32{IDs: ids, Table: t.codes, Y: y, T: n, D: t.cols}
}

// row reads row i back, scaled to length 1.
func (t *table) row(d *device.Device, i int) ([]float32, error) {
	x := make([]float32, t.cols)
	if t.kind == qtype.Q8R {
		codes := make([]byte, t.cols)
		if err := d.Read(t.codes+uint32(i*t.cols), codes); err != nil {
			return nil, err
		}
		for j, c := range codes {
			x[j] = float32(int8(c)) // the scale falls out below
		}
	} else if err := d.ReadF32(t.codes+uint32(4*i*qtype.RoundUp(t.cols, kernel.Lanes)), x); err != nil {
		return nil, err
	}
	if numeric.Normalize(x) == 0 {
		return nil, fmt.Errorf("%w: table row %d is zero", ErrTensor, i)
	}
	return x, nil
}
