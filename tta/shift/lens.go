package shift

// run is a stretch of a flat blur's kernel: the pixels x0..x1 of the row dy
// away.
type run struct{ dy, x0, x1 int }

// newFlat returns an effect that replaces each pixel by the rounded mean of a
// kernel; beyond the edges the last pixel goes on. kernel is asked anew where
// the size changes.
func newFlat(kernel func(w, h int) []run) apply {
	var runs []run
	var lastW, lastH int
	var sums []uint32 // [h][w+2·pad+1][3], each row's sums from its left
	return func(rgba []byte, w, h int) {
		if w == 0 || h == 0 {
			return
		}
		if w != lastW || h != lastH {
			runs, lastW, lastH = kernel(w, h), w, h
		}
		pad, size := 0, 0
		for _, r := range runs {
			pad = max(pad, -r.x0, r.x1)
			size += r.x1 - r.x0 + 1
		}
		stride := 3 * (w + 2*pad + 1)
		if len(sums) < h*stride {
			sums = make([]uint32, h*stride)
		}
		for y := range h {
			row, in := sums[y*stride:][:stride], rgba[4*w*y:]
			clear(row[:3])
			for i := 3; i < stride; i += 3 {
				p := 4 * min(max(i/3-1-pad, 0), w-1)
				for c := range 3 {
					row[i+c] = row[i-3+c] + uint32(in[p+c])
				}
			}
		}
		for y := range h {
			for x := range w {
				r0, g0, b0 := uint32(size/2), uint32(size/2), uint32(size/2) // rounds
				for _, r := range runs {
					at := min(max(y+r.dy, 0), h-1)*stride + 3*(x+pad)
					lo, hi := sums[at+3*r.x0:][:3], sums[at+3*(r.x1+1):][:3]
					r0 += hi[0] - lo[0]
					g0 += hi[1] - lo[1]
					b0 += hi[2] - lo[2]
				}
				out := rgba[4*(w*y+x):][:3]
				out[0], out[1], out[2] = byte(r0/uint32(size)), byte(g0/uint32(size)), byte(b0/uint32(size))
			}
		}
	}
}

// defocusRadius is the disk's radius where the short side has blurSide pixels.
var defocusRadius = [MaxSeverity]int{2, 3, 5, 7, 9}

func newDefocus(severity int, _ uint64) apply {
	return newFlat(func(w, h int) (runs []run) {
		r := scaled(defocusRadius[severity-1], w, h)
		for dy := -r; dy <= r; dy++ {
			x := 0
			for (x+1)*(x+1)+dy*dy <= r*r+r/2 { // r/2 more makes small disks rounder
				x++
			}
			runs = append(runs, run{dy, -x, x})
		}
		return runs
	})
}

// motionLength is the way in pixels where the short side has blurSide.
var motionLength = [MaxSeverity]int{7, 12, 18, 26, 36}

func newMotion(severity int, seed uint64) apply {
	source := NewSource(seed)
	dx, dy := source.N(33)-16, source.N(33)-16
	if dx == 0 && dy == 0 {
		dx = 1
	}
	long := 1 // the direction's length times 16
	for long*long < 256*(dx*dx+dy*dy) {
		long++
	}
	return newFlat(func(w, h int) (runs []run) {
		half := scaled(motionLength[severity-1], w, h) / 2
		for k := -half; k <= half; k++ {
			x := 16 * k * dx / long
			runs = append(runs, run{16 * k * dy / long, x, x})
		}
		return runs
	})
}

// dirtPatches is how many there are, dirtDensity what the middle of one
// scatters, of 256.
var (
	dirtPatches = [MaxSeverity]int{5, 8, 11, 15, 20}
	dirtDensity = [MaxSeverity]int{110, 140, 170, 200, 230}
)

// newDirt mixes what lies behind a patch with the picture's mean colour: dirt on
// a lens is far out of focus, so it scatters light from everywhere.
func newDirt(severity int, seed uint64) apply {
	var mask []byte
	var lastW, lastH int
	return func(rgba []byte, w, h int) {
		if w == 0 || h == 0 {
			return
		}
		if w != lastW || h != lastH {
			mask, lastW, lastH = dirtMask(severity, seed, w, h), w, h
		}
		var sum [3]int
		for i := 0; i+3 < len(rgba); i += 4 {
			for c := range sum {
				sum[c] += int(rgba[i+c])
			}
		}
		for i, a := range mask {
			for c := range sum {
				v := int(rgba[4*i+c])
				rgba[4*i+c] = byte(v + ((sum[c]/(w*h)-v)*int(a)+128)>>8)
			}
		}
	}
}

func dirtMask(severity int, seed uint64, w, h int) []byte {
	mask := make([]byte, w*h)
	source := NewSource(seed)
	for range dirtPatches[severity-1] {
		cx, cy := source.N(1<<16)*w>>16, source.N(1<<16)*h>>16
		r := max(1, (1<<12+source.N(1<<13))*min(w, h)>>16) // a 16th to a 5th of the short side
		for y := max(0, cy-r); y < min(h, cy+r+1); y++ {
			for x := max(0, cx-r); x < min(w, cx+r+1); x++ {
				d := (x-cx)*(x-cx) + (y-cy)*(y-cy)
				if d >= r*r {
					continue
				}
				soft := min(256, 512-512*d/(r*r)) // full to half of the area, then less and less
				mask[y*w+x] = max(mask[y*w+x], byte(soft*dirtDensity[severity-1]>>8))
			}
		}
	}
	return mask
}
