package calibrate

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"lqa/quant/qtype"
)

// layersAt are layers with drifts that fall by about four a bit.
func layersAt(seed uint64, n int) (l []Measured) {
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range n {
		size, worst := 100*(1+rng.IntN(20)), rng.ExpFloat64()
		m := Measured{Name: fmt.Sprintf("image.layer.%02d.weight", i)}
		for j, k := range []qtype.Kind{qtype.Q4, qtype.Q5, qtype.Q6, qtype.Q8C, qtype.F16} {
			bits := []int{4, 5, 6, 8, 16}[j]
			t := Tried{Kind: k, Bytes: size * bits, Error: 1 / float64(int(1)<<bits)}
			if k != qtype.F16 {
				t.Drift = worst * math.Ldexp(0.5+rng.Float64(), -2*bits)
			}
			m.Tried = append(m.Tried, t)
		}
		l = append(l, m)
	}
	return l
}

// least is the least drift within bytes and the fewest bytes within drift, by
// trying everything.
func least(l []Measured, bytes int64, drift float64) (float64, int64) {
	if len(l) == 0 {
		return 0, 0
	}
	best, fewest := math.Inf(1), int64(math.MaxInt64)
	for _, t := range l[0].Tried {
		d, n := least(l[1:], bytes-int64(t.Bytes), drift-t.Drift)
		if n := int64(t.Bytes); n <= bytes {
			best = min(best, d+t.Drift)
		}
		if t.Drift <= drift && n < math.MaxInt64 {
			fewest = min(fewest, n+int64(t.Bytes))
		}
	}
	return best, fewest
}

func TestAllocate(t *testing.T) {
	for seed := range uint64(30) {
		l := layersAt(seed, 6)
		var all int64
		for _, m := range l {
			all += int64(m.Tried[0].Bytes)
		}
		budget := all * 13 / 8
		p, err := Allocate(l, Budget{Bytes: budget})
		if err != nil {
			t.Fatal(err)
		}
		if p.Bytes() > budget {
			t.Errorf("%d bytes, %d are allowed", p.Bytes(), budget)
		}
		// The hull's steps leave less than one of them unspent.
		want, _ := least(l, budget, 0)
		step := 0.0
		for _, m := range l {
			step = max(step, m.Tried[0].Drift)
		}
		if d := p.Drift(); !(d >= want-1e-12 && d <= want+step/4) {
			t.Errorf("seed %d: drift %.4g, the least is %.4g", seed, d, want)
		}
		q, err := Allocate(l, Budget{Drift: p.Drift()})
		if err != nil {
			t.Fatal(err)
		}
		if q.Drift() > p.Drift() {
			t.Errorf("seed %d: drift %.4g, %.4g is allowed", seed, q.Drift(), p.Drift())
		}
		if _, fewest := least(l, 0, p.Drift()); float64(q.Bytes()) > 1.1*float64(fewest) {
			t.Errorf("seed %d: %d bytes, %d are enough", seed, q.Bytes(), fewest)
		}
		for i, c := range p {
			if c.Name != l[i].Name || c.Why == "" {
				t.Errorf("%+v", c)
			}
		}
	}
}

func TestAllocate_Fixed(t *testing.T) {
	l := layersAt(1, 4)
	l[3].Tried = l[3].Tried[3:4]
	l[2].Tried[0].Drift = 0
	p, err := Allocate(l, Budget{Drift: 1e9, Fixed: []Choice{{"image.layer.0[01].weight", qtype.Q6}, {"*.01.weight", qtype.F16}}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []qtype.Kind{qtype.Q6, qtype.F16, qtype.Q4, qtype.Q8C} {
		if p[i].Kind != want {
			t.Errorf("%s is %s, want %s: %s", p[i].Name, p[i].Kind, want, p[i].Why)
		}
	}
	for i, want := range []string{"fixed by image.layer.0[01].weight", "fixed by *.01.weight", "no other kind drifts less", "no other kind was tried"} {
		if p[i].Why != want {
			t.Errorf("%s: %s, want %s", p[i].Name, p[i].Why, want)
		}
	}
	if c := p.Kinds(); len(c) != 4 || c[1] != (Choice{p[1].Name, qtype.F16}) {
		t.Errorf("choices %v", c)
	}
}

func TestAllocate_Refused(t *testing.T) {
	l := layersAt(2, 3)
	broken := layersAt(2, 3)
	broken[1].Tried[2].Drift = math.NaN()
	none := slices.Clone(l)
	none[2].Tried = nil
	for name, c := range map[string]struct {
		l    []Measured
		b    Budget
		want error
	}{
		"no budget":   {l, Budget{}, ErrBudget},
		"few bytes":   {l, Budget{Bytes: 10}, ErrBudget},
		"both":        {l, Budget{Bytes: int64(l[0].Tried[0].Bytes + l[1].Tried[0].Bytes + l[2].Tried[0].Bytes), Drift: 1e-9}, ErrBudget},
		"not tried":   {l, Budget{Bytes: 1 << 40, Fixed: []Choice{{"*", qtype.Q7}}}, ErrInput},
		"pattern":     {l, Budget{Bytes: 1 << 40, Fixed: []Choice{{"[", qtype.Q4}}}, ErrInput},
		"NaN":         {broken, Budget{Bytes: 1 << 40}, ErrInput},
		"no kind":     {none, Budget{Bytes: 1 << 40}, ErrInput},
		"fixed large": {l, Budget{Bytes: int64(l[0].Tried[4].Bytes), Fixed: []Choice{{"*", qtype.F16}}}, ErrBudget},
	} {
		if _, err := Allocate(c.l, c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestHull: a kind that costs more than a mix of its neighbours is never chosen
// on the way.
func TestHull(t *testing.T) {
	h := hull([]Tried{{Kind: "f", Bytes: 9, Drift: 0}, {Kind: "a", Bytes: 1, Drift: 8}, {Kind: "b", Bytes: 2, Drift: 7}, {Kind: "d", Bytes: 3, Drift: 1}, {Kind: "e", Bytes: 4, Drift: 1}, {Kind: "c", Bytes: 3, Drift: 2}})
	var got string
	for _, c := range h {
		got += string(c.Kind)
	}
	if got != "adf" {
		t.Errorf("hull %s, want adf", got)
	}
}

func TestPlan_JSON(t *testing.T) {
	p, err := Allocate(layersAt(3, 2)[:1], Budget{Bytes: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	p[0].Error, p[0].Why = 0.0123456, `a "why"`
	p[0].Tried = []Tried{{Kind: qtype.Q4, Drift: 0.00123456}, {Kind: qtype.F16}}
	b, err := p.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`[{"name":"image.layer.00.weight","kind":"f16","bytes":%d,"error":0.0123,"drift":0,"why":"a \"why\"","tried":{"q4":0.00123,"f16":0}}]`, p[0].Bytes)
	if string(b) != want {
		t.Errorf("plan is %s, want %s", b, want)
	}
	q, err := ReadPlan(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := q.AppendJSON(nil)
	if err != nil || string(again) != want {
		t.Errorf("read and written, the plan is %s, %v", again, err)
	}
	p[0].Error = math.NaN()
	if _, err := p.AppendJSON(nil); err == nil {
		t.Error("a plan with NaN was written")
	}
}

func FuzzReadPlan(f *testing.F) {
	p, err := Allocate(layersAt(3, 2), Budget{Bytes: 1 << 40})
	if err != nil {
		f.Fatal(err)
	}
	b, err := p.AppendJSON(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`[{"tried":{"q4":1e999}}]`))
	f.Add([]byte(`[{"tried":{"q4\"":1}}]`))
	f.Add([]byte(`[{"name":3,"bytes":-1,"tried":[]},4]`))
	f.Add([]byte("[" + strings.Repeat("{},", maxPlanned) + "{}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ReadPlan(b)
		if err != nil {
			if !errors.Is(err, ErrPlan) {
				t.Errorf("%v", err)
			}
			return
		}
		if len(p) > maxPlanned {
			t.Errorf("%d layers", len(p))
		}
		text, err := p.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPlan(text); err != nil {
			t.Errorf("%s is written as %s: %v", b, text, err)
		}
	})
}
