package shift

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"testing"
)

// picture has gradients, random texture and every alpha.
func picture(w, h int) []byte {
	p := make([]byte, 4*w*h)
	source := NewSource(1)
	for i := range w * h {
		x, y := i%w, i/w
		p[4*i], p[4*i+1], p[4*i+2], p[4*i+3] = byte(x*255/max(1, w-1)), byte(y*255/max(1, h-1)), byte(source.Next()), byte(i)
	}
	return p
}

func mean(p []byte) (m float64) {
	for i := range p {
		if i%4 != 3 {
			m += float64(p[i])
		}
	}
	return m / float64(len(p)*3/4)
}

// roughness is the mean absolute difference of neighbours in a row.
func roughness(p []byte, w int) (m float64) {
	for i := 4; i < len(p); i++ {
		if i%4 != 3 && i/4%w != 0 {
			m += max(float64(p[i])-float64(p[i-4]), float64(p[i-4])-float64(p[i]))
		}
	}
	return m / float64(len(p))
}

// TestEffects: each severity is harder than the one before, alpha stays, the
// same seed gives the same bytes, and odd sizes work.
func TestEffects(t *testing.T) {
	const w, h = 230, 224
	original := picture(w, h)
	smooth := func(p []byte) float64 { return -roughness(p, w) }
	change := func(p []byte) (d float64) {
		for i := range p {
			d += math.Abs(float64(p[i]) - float64(original[i]))
		}
		return d
	}
	harm := map[string]func(p []byte) float64{
		"dark":     func(p []byte) float64 { return -mean(p) },
		"exposure": mean,
		"cast":     change,
		"blur":     smooth,
		"defocus":  smooth,
		"motion":   smooth,
		"noise":    func(p []byte) float64 { return roughness(p, w) },
		"rolling":  change,
		"dirt":     change,
	}
	for _, k := range Kinds {
		t.Run(k.Name, func(t *testing.T) {
			last := harm[k.Name](picture(w, h))
			for s := 1; s <= MaxSeverity; s++ {
				a, b := picture(w, h), picture(w, h)
				for _, p := range [][]byte{a, b} {
					e, err := New(k.Name, s, 7)
					if err != nil {
						t.Fatal(err)
					}
					e.Apply(p, w, h)
				}
				if !bytes.Equal(a, b) {
					t.Errorf("severity %d: same seed, other bytes", s)
				}
				for i, v := range picture(w, h) {
					if i%4 == 3 && a[i] != v {
						t.Fatalf("severity %d: alpha %d became %d", s, v, a[i])
					}
				}
				now := harm[k.Name](a)
				if now <= last {
					t.Errorf("severity %d: harm %v after %v", s, now, last)
				}
				last = now
			}
			e, _ := New(k.Name, 5, 7)
			for _, size := range [][2]int{{0, 0}, {1, 1}, {1, 9}, {9, 1}, {2, 3}, {7, 5}} {
				e.Apply(picture(size[0], size[1]), size[0], size[1])
			}
		})
	}
}

// TestNoise_Fresh: two frames of one effect have different noise, of the stated
// deviation.
func TestNoise_Fresh(t *testing.T) {
	e, err := New("noise", 3, 1)
	if err != nil {
		t.Fatal(err)
	}
	grey := bytes.Repeat([]byte{128}, 4*100*100)
	a, b := bytes.Clone(grey), bytes.Clone(grey)
	e.Apply(a, 100, 100)
	e.Apply(b, 100, 100)
	if bytes.Equal(a, b) {
		t.Error("the same noise twice")
	}
	var sum, square float64
	for i, v := range a {
		if i%4 != 3 {
			d := float64(v) - 128
			sum += d
			square += d * d
		}
	}
	n := float64(len(a) * 3 / 4)
	if m, s2 := sum/n, square/n; m < -0.5 || m > 0.5 || s2 < 21*21 || s2 > 23*23 {
		t.Errorf("mean %v, mean square %v, want 0 and 22²", m, s2)
	}
}

// TestBlur_Box compares with the mean worked out in plain loops.
func TestBlur_Box(t *testing.T) {
	const w, h, r = 9, 4, 2
	got := picture(w, h)
	line := make([]byte, 4*w)
	for y := range h {
		boxLine(got[4*w*y:], line, 4, w, r)
	}
	in := picture(w, h)
	for y := range h {
		for x := range w {
			for c := range 3 {
				sum := 0
				for k := -r; k <= r; k++ {
					sum += int(in[4*(w*y+min(max(x+k, 0), w-1))+c])
				}
				if want := byte((sum + r) / (2*r + 1)); got[4*(w*y+x)+c] != want {
					t.Errorf("(%d,%d)[%d] = %d, want %d", x, y, c, got[4*(w*y+x)+c], want)
				}
			}
		}
	}
}

// TestFlat compares with means worked out in plain loops.
func TestFlat(t *testing.T) {
	const w, h = 9, 6
	runs := []run{{-1, -2, 1}, {0, 0, 0}, {2, 1, 3}, {2, -3, -3}}
	got, in := picture(w, h), picture(w, h)
	newFlat(func(int, int) []run { return runs })(got, w, h)
	for y := range h {
		for x := range w {
			for c := range 3 {
				sum, n := 0, 0
				for _, r := range runs {
					for dx := r.x0; dx <= r.x1; dx++ {
						sum += int(in[4*(w*min(max(y+r.dy, 0), h-1)+min(max(x+dx, 0), w-1))+c])
						n++
					}
				}
				if want := byte((sum + n/2) / n); got[4*(w*y+x)+c] != want {
					t.Errorf("(%d,%d)[%d] = %d, want %d", x, y, c, got[4*(w*y+x)+c], want)
				}
			}
		}
	}
}

// TestDefocus_Point: a point becomes a round disk of the stated area.
func TestDefocus_Point(t *testing.T) {
	const side = 224
	p := make([]byte, 4*side*side)
	for c := range 3 {
		p[4*(side*112+112)+c] = 255
	}
	e, err := New("defocus", 3, 0)
	if err != nil {
		t.Fatal(err)
	}
	e.Apply(p, side, side)
	lit := 0
	for i := 0; i < len(p); i += 4 {
		if p[i] > 0 {
			lit++
			x, y := i/4%side-112, i/4/side-112
			if x*x+y*y > 27 {
				t.Errorf("(%d,%d) is lit", x, y)
			}
		}
	}
	if lit < 75 || lit > 90 { // π·5² = 78.5
		t.Errorf("%d pixels lit", lit)
	}
}

// TestCast_Direction: seeds decide between warm and cold; both change red and
// blue against each other and leave green.
func TestCast_Direction(t *testing.T) {
	warm := 0
	for seed := range uint64(64) {
		e, err := New("cast", 3, seed)
		if err != nil {
			t.Fatal(err)
		}
		p := []byte{100, 100, 100, 7}
		e.Apply(p, 1, 1)
		if p[1] != 100 || (p[0] > 100) == (p[2] > 100) {
			t.Fatalf("grey became %v", p)
		}
		if p[0] > 100 {
			warm++
		}
	}
	if warm < 16 || warm > 48 {
		t.Errorf("%d of 64 are warm", warm)
	}
}

// TestRolling_Rolls: the bands move from frame to frame.
func TestRolling_Rolls(t *testing.T) {
	darkest := func(p []byte) (at int) {
		low := math.Inf(1)
		for y := range 100 {
			if m := mean(p[400*y:][:400]); m < low {
				low, at = m, y
			}
		}
		return at
	}
	e, _ := New("rolling", 4, 3)
	a, b := bytes.Repeat([]byte{200}, 40000), bytes.Repeat([]byte{200}, 40000)
	e.Apply(a, 100, 100)
	e.Apply(b, 100, 100)
	if darkest(a) == darkest(b) {
		t.Errorf("the darkest row stays at %d", darkest(a))
	}
}

// TestDirt_Stays: dirt does not move and is in the same place at another size.
func TestDirt_Stays(t *testing.T) {
	e, _ := New("dirt", 3, 3)
	a, b := picture(96, 96), picture(96, 96)
	e.Apply(a, 96, 96)
	e.Apply(b, 96, 96)
	if !bytes.Equal(a, b) {
		t.Error("dirt moved")
	}
	small, large := dirtMask(3, 3, 50, 50), dirtMask(3, 3, 100, 100)
	diff := 0
	for i := range small {
		if d := int(small[i]) - int(large[2*(i/50)*100+2*(i%50)]); d > 60 || d < -60 {
			diff++
		}
	}
	if diff > len(small)/20 {
		t.Errorf("%d of %d places differ at twice the size", diff, len(small))
	}
}

func TestSource_N(t *testing.T) {
	var count [7]int
	s := NewSource(1)
	for range 7000 {
		count[s.N(7)]++
	}
	for i, n := range count {
		if n < 850 || n > 1150 { // 1000 ± 5 standard deviations
			t.Errorf("%d came %d times of 7000", i, n)
		}
	}
}

// TestBits holds every platform to the same bytes.
func TestBits(t *testing.T) {
	h := sha256.New()
	for _, k := range Kinds {
		for s := 1; s <= MaxSeverity; s++ {
			e, err := New(k.Name, s, 42)
			if err != nil {
				t.Fatal(err)
			}
			p := picture(230, 225)
			e.Apply(p, 230, 225)
			h.Write(p)
		}
	}
	const want = "4e987435e180d27d90f38245988e57ba50094f4bf7be621ca5d97e01d40bf23f"
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("effects hash to %s, want %s", got, want)
	}
}

func TestNew_Errors(t *testing.T) {
	for _, c := range []struct {
		name     string
		severity int
	}{{"fog", 1}, {"", 1}, {"dark", 0}, {"dark", 6}, {"dark", -1}} {
		if _, err := New(c.name, c.severity, 0); !errors.Is(err, ErrEffect) {
			t.Errorf("%s:%d: %v, want ErrEffect", c.name, c.severity, err)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	for _, k := range Kinds {
		b.Run(fmt.Sprintf("%s/224", k.Name), func(b *testing.B) {
			e, _ := New(k.Name, 3, 1)
			p := picture(224, 224)
			for b.Loop() {
				e.Apply(p, 224, 224)
			}
		})
	}
}
