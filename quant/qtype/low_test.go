package qtype

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func TestLow_Names(t *testing.T) {
	for _, k := range []Kind{"q4", "q5", "q6", "q7", "q4g32", "q5g64", "q6g128"} {
		if _, ok := k.Low(); !ok {
			t.Errorf("%s is no low-bit kind", k)
		}
	}
	for _, k := range []Kind{"", "q", "q3", "q8", "q8c", "q4g", "q4g0", "q4g16", "q4g032", "q4g-32", "q44", "Q4", F16} {
		if _, ok := k.Low(); ok {
			t.Errorf("%q is taken for a low-bit kind", k)
		}
	}
}

// TestLow_Group holds the rule to the examples of the design.
func TestLow_Group(t *testing.T) {
	for k, want := range map[int]int{768: 64, 3072: 64, 144: 48, 88: 44, 720: 60, 16: 16, 96: 48, 27: 28, 1: 4, 5: 8, 9: 12, 1248: 52, 268: 64} {
		l, _ := Q4.Low()
		if got := l.Group(k); got != want {
			t.Errorf("K = %d: group %d, want %d", k, got, want)
		}
	}
}

// TestLow_RoundTrip: whatever the shape, a value comes back within half a step
// (one step at the end that is clipped), and no code lies on another's bits.
func TestLow_RoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, kind := range []Kind{"q4", "q5", "q6", "q7", "q4g32", "q5g128", "q6g32", "q7g64"} {
		for _, s := range [][]int{{1, 1}, {8, 4}, {9, 5}, {3, 27}, {17, 64}, {8, 200}, {5, 129}} {
			t.Run(fmt.Sprint(kind, s), func(t *testing.T) {
				n, k := s[0], s[1]
				l, _ := kind.Low()
				w := make([]float32, n*k)
				for i := range w {
					w[i] = rng.Float32()*2 - 1
				}
				clear(w[:k]) // a zero row
				b := l.Append(nil, w, n, k)
				if size, err := kind.Size(s); err != nil || size != len(b) {
					t.Fatalf("%d bytes, Size says %d, %v", len(b), size, err)
				}
				if err := kind.CheckScales(b, s); err != nil {
					t.Fatal(err)
				}
				got, err := kind.Dequantize(b, s)
				if err != nil {
					t.Fatal(err)
				}
				for i := range w {
					scale := l.Scale(b, i/k, i%k/l.Group(k), k)
					if d := math.Abs(float64(got[i] - w[i])); d > float64(scale)*0.57 {
						t.Fatalf("[%d] %v → %v, scale %v", i, w[i], got[i], scale)
					}
				}
				codes := make([]byte, n*k)
				for i := range codes {
					codes[i] = byte(rng.IntN(1 << l.Bits))
				}
				b = l.AppendCodes(nil, make([]float32, n*l.Groups(k)), codes, n, k)[l.ScaleBytes(n, k):]
				for i, want := range codes {
					if got := l.Code(b, i/k, i%k, k); got != int(want) {
						t.Fatalf("code %d is %d, want %d", i, got, want)
					}
				}
			})
		}
	}
}

func TestLow_CheckScales(t *testing.T) {
	l, _ := Q4.Low()
	good := l.Append(nil, []float32{1, 2, 3}, 3, 1)
	for name, spoil := range map[string]func(b []byte){
		"zero":     func(b []byte) { b[0], b[1] = 0, 0 },
		"negative": func(b []byte) { b[1] |= 0x80 },
		"infinite": func(b []byte) { b[0], b[1] = 0, 0x7c },
		"padding":  func(b []byte) { b[7] = 1 },
	} {
		b := append([]byte(nil), good...)
		spoil(b)
		if Q4.CheckScales(b, []int{3, 1}) == nil {
			t.Errorf("%s scale accepted", name)
		}
	}
}
