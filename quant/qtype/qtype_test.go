package qtype

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"lqa/quant/numeric"
)

func TestSize(t *testing.T) {
	for _, c := range []struct {
		kind  Kind
		shape []int
		want  int
		err   error
	}{
		{F16, []int{3}, 6, nil},
		{F16, []int{2, 3, 4}, 48, nil},
		{U8, []int{17}, 17, nil},
		{Q8C, []int{1, 1}, 16 + 32, nil},
		{Q8C, []int{9, 5}, 32 + 16*8, nil},
		{Q8R, []int{9, 5}, 32 + 45, nil},
		{Q8R, []int{9}, 0, ErrShape},
		{F16, nil, 0, ErrShape},
		{F16, []int{1, 1, 1, 1, 1}, 0, ErrShape},
		{F16, []int{0}, 0, ErrShape},
		{F16, []int{-1}, 0, ErrShape},
		{F16, []int{1 << 31}, 0, ErrShape},
		{F16, []int{1 << 16, 1 << 16}, 0, ErrShape},
		{F16, []int{1 << 30, 1}, 0, ErrShape},
		{Q8C, []int{math.MaxInt32, 1}, 0, ErrShape},
		{Q8C, []int{1, math.MaxInt32}, 0, ErrShape},
		{Q8R, []int{math.MaxInt32, 1}, 0, ErrShape},
		{"q9", []int{1}, 0, ErrKind},
	} {
		got, err := c.kind.Size(c.shape)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s %v: %d, %v; want %d, %v", c.kind, c.shape, got, err, c.want, c.err)
		}
	}
}

// TestRoundTrip: codes are the nearest to the values, whatever the shape.
func TestRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, s := range [][2]int{{1, 1}, {8, 4}, {9, 5}, {3, 27}, {17, 64}} {
		for _, kind := range []Kind{Q8C, Q8R} {
			t.Run(fmt.Sprint(kind, s), func(t *testing.T) {
				w := make([]float32, s[0]*s[1])
				for i := range w {
					w[i] = rng.Float32()*2 - 1
				}
				clear(w[:s[1]]) // a zero row
				var b []byte
				if kind == Q8C {
					b = AppendQ8C(nil, w, s[0], s[1])
				} else {
					b = AppendQ8R(nil, w, s[0], s[1])
				}
				if err := kind.CheckScales(b, s[:]); err != nil {
					t.Fatal(err)
				}
				got, err := kind.Dequantize(b, s[:])
				if err != nil {
					t.Fatal(err)
				}
				scales := kind.Scales(b, s[0])
				for i := range w {
					// half a step, and the float16 rounding of the scale at the edge
					if d := math.Abs(float64(got[i] - w[i])); d > float64(scales[i/s[1]])*0.57 {
						t.Fatalf("[%d] %v → %v, scale %v", i, w[i], got[i], scales[i/s[1]])
					}
				}
			})
		}
	}
}

// TestRow: rows are those of Dequantize.
func TestRow(t *testing.T) {
	const n, d = 9, 5
	w := make([]float32, n*d)
	for i := range w {
		w[i] = float32(i*i%17) - 8
	}
	for kind, b := range map[Kind][]byte{Q8R: AppendQ8R(nil, w, n, d), F16: numeric.AppendFloat16(nil, w...)} {
		want, err := kind.Dequantize(b, []int{n, d})
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			got := make([]float32, d)
			if kind.Row(got, b, n, i); !slices.Equal(got, want[i*d:(i+1)*d]) {
				t.Errorf("%s: row %d is %v, want %v", kind, i, got, want[i*d:(i+1)*d])
			}
		}
	}
}

func TestQuantizeRow_Extremes(t *testing.T) {
	q := make([]int8, 4)
	for _, x := range [][]float32{{0, 0, 0, 0}, {1e-20, -1e-20, 0, 0}, {1, -1, 0.5, -0.5}, {3e4, -3e4, 1, 0}} {
		if s := QuantizeRow(q, x); !(s > 0) {
			t.Errorf("%v: scale %v", x, s)
		}
		for i, c := range q {
			if c < -127 {
				t.Errorf("%v: code %d is %d", x, i, c)
			}
		}
	}
}

func TestDequantize_WrongLength(t *testing.T) {
	if _, err := F16.Dequantize(make([]byte, 3), []int{2}); !errors.Is(err, ErrShape) {
		t.Errorf("got %v", err)
	}
}

func TestCheckScales(t *testing.T) {
	good := AppendQ8R(nil, []float32{1, 2, 3}, 3, 1)
	for name, spoil := range map[string]func(b []byte){
		"zero":     func(b []byte) { b[0], b[1] = 0, 0 },
		"negative": func(b []byte) { b[1] |= 0x80 },
		"infinite": func(b []byte) { b[0], b[1] = 0, 0x7c },
		"nan":      func(b []byte) { b[0], b[1] = 1, 0x7c },
		"padding":  func(b []byte) { b[7] = 1 },
	} {
		b := append([]byte(nil), good...)
		spoil(b)
		if Q8R.CheckScales(b, []int{3, 1}) == nil {
			t.Errorf("%s scale accepted", name)
		}
	}
}

// TestPanelIndex: every code has a place of its own inside the tensor.
func TestPanelIndex(t *testing.T) {
	const n, k = 17, 10
	seen := map[int]bool{}
	for r := range n {
		for c := range k {
			i := PanelIndex(r, c, k)
			if i < 0 || i >= RoundUp(n, PanelCols)*RoundUp(k, PanelK) || seen[i] {
				t.Fatalf("[%d,%d] at %d", r, c, i)
			}
			seen[i] = true
		}
	}
}
