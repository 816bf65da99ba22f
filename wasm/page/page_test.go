package page

import (
	"reflect"
	"testing"

	"lqa/wasm/proto"
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
		{BytesOf(2_100_000, 7_400_000), "2.1 of 7.4 MB"},
		{BytesOf(3_300, 7_400_000), "3.3 kB of 7.4 MB"},
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

func TestSettle(t *testing.T) {
	scores := func(v ...any) (s []proto.Score) {
		for i := 0; i < len(v); i += 2 {
			s = append(s, proto.Score{Label: v[i].(string), Score: float32(v[i+1].(float64))})
		}
		return s
	}
	for _, c := range []struct {
		name   string
		order  []string
		scores []proto.Score
		want   []string
	}{
		{"nothing", nil, nil, nil},
		{"from nothing", nil, scores("a", 0.6, "b", 0.3, "c", 0.1), []string{"a", "b", "c"}},
		{"noise moves nothing", []string{"a", "b", "c"}, scores("a", 0.97, "c", 0.02, "b", 0.01), []string{"a", "b", "c"}},
		{"clearly better", []string{"a", "b", "c"}, scores("a", 0.5, "c", 0.4, "b", 0.1), []string{"a", "c", "b"}},
		{"the best is first by any margin", []string{"a", "b", "c"}, scores("c", 0.34, "b", 0.335, "a", 0.325), []string{"c", "a", "b"}},
		{"gone and new", []string{"a", "b"}, scores("c", 0.9, "b", 0.1), []string{"c", "b"}},
	} {
		if got := Settle(c.order, c.scores); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
