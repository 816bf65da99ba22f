package page

import (
	"reflect"
	"testing"
)

func TestSplitLabels(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{" , ,\n;", nil},
		{"mug", []string{"mug"}},
		{"mug, banana ,  coffee   pot", []string{"mug", "banana", "coffee pot"}},
		{"Mug, mug, MUG", []string{"Mug"}},
		{"a\nb;c", []string{"a", "b", "c"}},
		{"Käse, 猫", []string{"Käse", "猫"}},
	} {
		if got := SplitLabels(c.in); !reflect.DeepEqual(got, c.want) {
			t.Errorf("SplitLabels(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestSubset(t *testing.T) {
	known := []string{"Mug", "banana"}
	for _, c := range []struct {
		labels []string
		want   bool
	}{
		{nil, true},
		{[]string{"mug"}, true},
		{[]string{"mug", "keyboard"}, false},
	} {
		if got := Subset(c.labels, known); got != c.want {
			t.Errorf("Subset(%q) = %v", c.labels, got)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Bytes(0), "0 bytes"},
		{Bytes(999), "999 bytes"},
		{Bytes(1000), "1.0 kB"},
		{Bytes(6_912_345), "6.9 MB"},
		{Percent(0), "0%"},
		{Percent(0.001), "<1%"},
		{Percent(0.5), "50%"},
		{Percent(0.999), ">99%"},
		{Percent(1), "100%"},
		{Milliseconds(8.44), "8.4"},
		{Milliseconds(23.4), "23"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestWindow(t *testing.T) {
	w := window{size: 4}
	if got := w.percentile(0.5); got != 0 {
		t.Errorf("empty: %v", got)
	}
	for _, v := range []float64{9, 9, 1, 2, 3, 4} { // the first two fall out
		w.add(v)
	}
	if got := w.percentile(0.5); got != 3 {
		t.Errorf("p50 = %v, want 3", got)
	}
	if got := w.percentile(0.95); got != 4 {
		t.Errorf("p95 = %v, want 4", got)
	}
}

func TestRate(t *testing.T) {
	var r rate
	for i := range 41 {
		r.add(float64(i) * 100)
	}
	if got := r.perSecond(4000); got != 10 {
		t.Errorf("rate = %v, want 10 a second", got)
	}
	if got := r.perSecond(9000); got != 0 {
		t.Errorf("rate = %v long after the last event", got)
	}
}
