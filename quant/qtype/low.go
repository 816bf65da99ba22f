package qtype

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	"lqa/quant/numeric"
)

// Low is a low-bit storage type: [N,K] unsigned codes of 4, 5, 6 or 7 bits in
// groups along K, each group of a row with its float16 scale:
//
//	w[n,k] ≈ scale[n,k/group]·(code[n,k] - Zero)
//
// Kinds are named q4, q5, q6 and q7, with the group chosen by Group's rule, or
// q4g32, q4g128 and so on, with a fixed one.
//
// The bytes are those the kernels read. First the scales, [panels][groups] of
// PanelCols halves; then panel after panel its codes: per step of PanelK k
// sixteen bytes, byte 4·c + k holding that k of column c in its low half and
// of column c + 4 in its high half: the four lowest bits. The bits above
// follow for the whole panel, in blocks of four steps. With vector
// j = 2·(step%4) + column/4, 5-bit codes have 16 bytes a block, in which bit j
// of byte 4·(c%4) + k is bit 4 of the code; 6-bit codes have 32, in which bits
// 2·(j%4) and up of byte 16·(j/4) + 4·(c%4) + k are bits 4 and 5. Codes of 7
// bits have a byte each, 32 a step: byte 16·(c/4) + 4·(c%4) + k.
type Low struct {
	Bits  int // 4 to 7
	fixed int // group, 0: by rule
}

// Groups that a kind may fix.
var fixedGroups = []int{32, 64, 128}

// Low returns the low-bit type that k names.
func (k Kind) Low() (Low, bool) {
	s, ok := strings.CutPrefix(string(k), "q")
	if !ok || s == "" || s[0] < '4' || s[0] > '7' {
		return Low{}, false
	}
	l := Low{Bits: int(s[0] - '0')}
	if s = s[1:]; s == "" {
		return l, true
	}
	for _, g := range fixedGroups {
		if s == "g"+strconv.Itoa(g) {
			l.fixed = g
			return l, true
		}
	}
	return Low{}, false
}

// Zero is the code of weight zero.
func (l Low) Zero() int { return 1 << (l.Bits - 1) }

// Group is how many k share a scale: the fixed number, or the largest multiple
// of 4, not over 64, that divides K rounded up to 4. Where there is none of 16
// or more it is 64 and the last group is shorter.
func (l Low) Group(k int) int {
	if l.fixed != 0 {
		return l.fixed
	}
	k = RoundUp(k, PanelK)
	for g := 64; g > min(12, k-PanelK); g -= PanelK {
		if k%g == 0 {
			return g
		}
	}
	return 64
}

// Groups is the number of groups along K.
func (l Low) Groups(k int) int {
	g := l.Group(k)
	return (RoundUp(k, PanelK) + g - 1) / g
}

// PanelBytes is the bytes of one panel's codes.
func (l Low) PanelBytes(k int) int {
	steps := RoundUp(k, PanelK) / PanelK
	if l.Bits == 7 {
		return 32 * steps
	}
	return 16*steps + 16*(l.Bits-4)*((steps+3)/4)
}

// ScaleBytes is the bytes of all scales, which precede the codes.
func (l Low) ScaleBytes(n, k int) int { return panels(n) * l.Groups(k) * PanelCols * 2 }

func panels(n int) int { return (n + PanelCols - 1) / PanelCols }

func (l Low) size(n, k int) int64 {
	return int64(panels(n)) * (int64(l.Groups(k))*PanelCols*2 + int64(l.PanelBytes(k)))
}

// place says where the bits of code [n,k] lie among the codes: its four lowest
// in byte lo from bit loShift on, those above in byte hi from bit hiShift on.
func (l Low) place(n, k, K int) (lo, loShift, hi, hiShift int) {
	step, half, lane := k/PanelK, n%PanelCols/4, n%4*4+k%PanelK
	base := n / PanelCols * l.PanelBytes(K)
	if l.Bits == 7 {
		return base + 32*step + 16*half + lane, 0, 0, 0
	}
	j := step%4*2 + half
	plane := base + 16*(RoundUp(K, PanelK)/PanelK)
	lo, loShift = base+16*step+lane, 4*half
	if l.Bits == 6 {
		return lo, loShift, plane + 32*(step/4) + 16*(j/4) + lane, 2 * (j % 4)
	}
	return lo, loShift, plane + 16*(step/4) + lane, j
}

// Code returns code [n,k] of codes with inner dimension K.
func (l Low) Code(codes []byte, n, k, K int) int {
	lo, loShift, hi, hiShift := l.place(n, k, K)
	if l.Bits == 7 {
		return int(codes[lo]) & 127
	}
	v := int(codes[lo]>>loShift) & 15
	if l.Bits > 4 {
		v |= int(codes[hi]>>hiShift) & (1<<(l.Bits-4) - 1) << 4
	}
	return v
}

func (l Low) set(codes []byte, n, k, K, v int) {
	lo, loShift, hi, hiShift := l.place(n, k, K)
	if l.Bits == 7 {
		codes[lo] = byte(v)
		return
	}
	codes[lo] |= byte(v & 15 << loShift)
	if l.Bits > 4 {
		codes[hi] |= byte(v >> 4 << hiShift)
	}
}

// Append quantizes w [N,K], row-major, to the nearest codes, and appends the
// tensor's bytes to b.
func (l Low) Append(b []byte, w []float32, n, k int) []byte {
	g, groups, zero := l.Group(k), l.Groups(k), l.Zero()
	scales, codes := make([]float32, n*groups), make([]byte, n*k)
	for r := range n {
		for i := range groups {
			row := w[r*k+i*g : r*k+min(k, (i+1)*g)]
			var m float32
			for _, v := range row {
				m = max(m, float32(math.Abs(float64(v))))
			}
			// Half a step is clipped off the largest magnitude, on one side only.
			scale := max(numeric.RoundFloat16(m/(float32(zero)-0.5)), 0x1p-24)
			scales[r*groups+i] = scale
			for j, v := range row {
				c := math.RoundToEven(float64(v)/float64(scale)) + float64(zero)
				codes[r*k+i*g+j] = byte(max(0, min(2*float64(zero)-1, c)))
			}
		}
	}
	return l.AppendCodes(b, scales, codes, n, k)
}

// AppendCodes appends the bytes of ready scales [N, Groups(K)] and codes
// [N,K], row-major. What pads the last panel and the last step is weight zero.
func (l Low) AppendCodes(b []byte, scales []float32, codes []byte, n, k int) []byte {
	groups, zero, head := l.Groups(k), l.Zero(), l.ScaleBytes(n, k)
	start := len(b)
	b = append(b, make([]byte, int(l.size(n, k)))...)
	out := b[start:]
	for r := range n {
		for i := range groups {
			half := numeric.AppendFloat16(nil, scales[r*groups+i])
			copy(out[l.scaleAt(r, i, k):], half)
		}
	}
	for r := range RoundUp(n, PanelCols) {
		for c := range RoundUp(k, PanelK) {
			v := zero
			if r < n && c < k {
				v = int(codes[r*k+c])
			}
			l.set(out[head:], r, c, k, v)
		}
	}
	return b
}

// scaleAt is where the scale of row n's group i lies.
func (l Low) scaleAt(n, i, k int) int {
	return ((n/PanelCols*l.Groups(k)+i)*PanelCols + n%PanelCols) * 2
}

// Scale returns the scale of row n's group i; b are the tensor's bytes.
func (l Low) Scale(b []byte, n, i, k int) float32 {
	var s [1]float32
	numeric.FromFloat16(s[:], b[l.scaleAt(n, i, k):][:2])
	return s[0]
}

func (l Low) dequantize(x []float32, b []byte, n, k int) {
	g, zero, codes := l.Group(k), l.Zero(), b[l.ScaleBytes(n, k):]
	for r := range n {
		for c := range k {
			x[r*k+c] = l.Scale(b, r, c/g, k) * float32(l.Code(codes, r, c, k)-zero)
		}
	}
}

func (l Low) checkScales(b []byte, n, k int) error {
	groups := l.Groups(k)
	for r := range RoundUp(n, PanelCols) {
		for i := range groups {
			h := binary.LittleEndian.Uint16(b[l.scaleAt(r, i, k):])
			switch {
			case r < n && (h == 0 || h >= 0x7c00):
				return fmt.Errorf("qtype: scale [%d,%d] is %#04x, not a positive finite half", r, i, h)
			case r >= n && h != 0:
				return fmt.Errorf("qtype: scale padding [%d,%d] is %#04x, not zero", r, i, h)
			}
		}
	}
	return nil
}
