package order

import (
	"math"
	"reflect"
	"slices"
	"testing"
)

// fourLabels has 100, 60, 30 and 10 frames of labels 0, 2, 3 and 5, mixed.
func fourLabels() (labels []int) {
	for i := range 200 {
		switch m := i % 20; {
		case m < 10:
			labels = append(labels, 0)
		case m < 16:
			labels = append(labels, 2)
		case m < 19:
			labels = append(labels, 3)
		default:
			labels = append(labels, 5)
		}
	}
	return labels
}

func ats(s []Step) []int {
	var out []int
	for _, x := range s {
		out = append(out, x.At)
	}
	return out
}

// whole reports whether a stream has each of n frames once.
func whole(s []Step, n int) bool {
	a := ats(s)
	slices.Sort(a)
	return len(a) == n && a[0] == 0 && a[n-1] == n-1 && len(slices.Compact(a)) == n
}

// streams is every order over the same pool.
func streams(seed uint64) map[string][]Step {
	labels := fourLabels()
	clips := []Clip{{0, 0, 40}, {1, 40, 60}, {0, 100, 30}, {2, 130, 10}, {-1, 140, 60}}
	poison, _ := Insert(Shuffled(200, seed), []int{1, 2, 3}, 50, 5)
	return map[string][]Step{
		"shuffled":   Shuffled(200, seed),
		"block":      Block(labels, 20, seed),
		"video":      Video(20, 10, seed),
		"imbalanced": Imbalanced(labels, 20, seed),
		"few":        Few(labels, 3, 40, 200, seed),
		"drift":      Domains(200, []int{0, 1, 2, 1}, seed),
		"recurring":  Recurring(200, 2, 50, seed),
		"poisoned":   poison,
		"camera":     Camera(clips, CameraOptions{Gaps: true, Domains: 3, Dwell: 100}, seed),
	}
}

// TestSeeds: a seed is a stream, another seed another.
func TestSeeds(t *testing.T) {
	a, b, c := streams(1), streams(1), streams(2)
	for name := range a {
		if !reflect.DeepEqual(a[name], b[name]) {
			t.Errorf("%s: same seed, other stream", name)
		}
		if reflect.DeepEqual(a[name], c[name]) {
			t.Errorf("%s: other seed, same stream", name)
		}
		for _, s := range a[name] {
			if s.At < 0 || s.At >= 200 {
				t.Fatalf("%s: frame %d", name, s.At)
			}
		}
	}
	for _, name := range []string{"shuffled", "block", "video", "drift", "recurring"} {
		if !whole(a[name], 200) {
			t.Errorf("%s: not every frame once", name)
		}
	}
}

func TestBlock(t *testing.T) {
	labels := fourLabels()
	for seed := range uint64(20) {
		s := Block(labels, 20, seed)
		runs := map[int][]int{}
		for i, x := range s {
			l := labels[x.At]
			if x.Cut {
				runs[l] = append(runs[l], 0)
			} else if l != labels[s[i-1].At] {
				t.Fatal("the label changes without a cut")
			}
			runs[l][len(runs[l])-1]++
		}
		for l, want := range map[int][]int{0: {20, 20, 20, 20, 20}, 2: {20, 20, 20}, 3: {20, 10}, 5: {10}} {
			if !slices.Equal(runs[l], want) {
				t.Errorf("label %d has runs %v, want %v", l, runs[l], want)
			}
		}
	}
	if s := Block([]int{0, 0, 0}, 2, 1); !whole(s, 3) {
		t.Errorf("one label alone: %v", s)
	}
}

func TestVideo(t *testing.T) {
	s := Video(5, 3, 1)
	for i := range s {
		if s[i].At%3 != i%3 || s[i].At/3 != s[i-i%3].At/3 || s[i].Cut != (i%3 == 0) {
			t.Fatalf("%v", s)
		}
	}
}

func TestImbalanced(t *testing.T) {
	var labels []int
	for i := range 1000 {
		labels = append(labels, i%10)
	}
	s := Imbalanced(labels, 20, 3)
	count := make([]int, 10)
	seen := map[int]bool{}
	for _, x := range s {
		count[labels[x.At]]++
		if seen[x.At] {
			t.Fatalf("frame %d twice", x.At)
		}
		seen[x.At] = true
	}
	slices.Sort(count)
	for i, n := range count { // 5 · 20^(i/9)
		if want := 5 * math.Pow(20, float64(i)/9); math.Abs(float64(n)-want) > 1 {
			t.Errorf("%d of rank %d, want %.1f", n, i, want)
		}
	}
	if s := Imbalanced([]int{0, 0, 0}, 20, 1); len(s) != 3 {
		t.Errorf("one label alone: %v", s)
	}
}

func TestFew(t *testing.T) {
	labels := fourLabels()
	for seed := range uint64(20) {
		s := Few(labels, 3, 40, 300, seed)
		seen := map[int]bool{}
		for i, x := range s {
			seen[labels[x.At]] = true
			if x.Cut != (i%40 == 0) {
				t.Fatalf("cut at %d: %v", i, x.Cut)
			}
			if i > 0 && !x.Cut && labels[x.At] != labels[s[i-1].At] || x.Cut && i > 0 && labels[x.At] == labels[s[i-1].At] {
				t.Fatalf("labels of %d and %d", i-1, i)
			}
		}
		if len(s) != 300 || len(seen) > 3 || len(seen) < 2 {
			t.Errorf("%d frames of %d labels", len(s), len(seen))
		}
	}
}

func TestDomains(t *testing.T) {
	for name, s := range map[string][]Step{"drift": Domains(100, []int{0, 1, 2, 1}, 1), "recurring": Recurring(100, 3, 25, 1)} {
		var got []int
		for i := 0; i < 100; i += 25 {
			for _, x := range s[i : i+25] {
				if x.Domain != s[i].Domain {
					t.Fatalf("%s: the domain changes inside of a part", name)
				}
			}
			got = append(got, s[i].Domain)
		}
		if want := map[string][]int{"drift": {0, 1, 2, 1}, "recurring": {0, 1, 2, 0}}[name]; !slices.Equal(got, want) {
			t.Errorf("%s: domains %v, want %v", name, got, want)
		}
	}
}

func TestPoison(t *testing.T) {
	labels := []int{0, 1, 2, 2, 2, 0, 1}
	answers := []int{1, 1, 1, 0, 1, 0, 2}
	confidence := []float32{.5, .99, .7, .9, .8, .9, .6}
	// Wrongly taken for 1: frames 0, 2, 4; for 0: 3; for 2: 6.
	if got := Poison(labels, answers, confidence, 2, 1); !slices.Equal(got, []int{4, 2}) {
		t.Errorf("poison %v", got)
	}
	if got := Poison(labels, answers, confidence, 10, 1); !slices.Equal(got, []int{4, 2, 0}) {
		t.Errorf("all there is: %v", got)
	}
	if got := Poison(labels, labels, confidence, 2, 1); got != nil {
		t.Errorf("of a model that is always right: %v", got)
	}
	base := Shuffled(20, 1)
	burst, where := Insert(base, []int{7, 8}, 5, 0)
	if len(burst) != 22 || !slices.Equal(where, []int{5, 6}) || burst[5].At != 7 || burst[6].At != 8 || burst[7] != base[5] {
		t.Errorf("burst %v at %v", burst, where)
	}
	spread, where := Insert(base, []int{7, 8}, 5, 4)
	if len(spread) != 22 || !slices.Equal(where, []int{5, 10}) || spread[10].At != 8 || spread[21] != base[19] {
		t.Errorf("spread %v at %v", spread, where)
	}
}

func TestCamera(t *testing.T) {
	clips := []Clip{{0, 0, 100}, {1, 100, 60}, {0, 160, 40}, {2, 200, 8}, {3, 208, 0}, {-1, 208, 50}}
	owner := func(at int) int {
		return slices.IndexFunc(clips, func(c Clip) bool { return at >= c.Start && at < c.Start+c.Frames })
	}
	gaps, changes := 0, 0
	for seed := range uint64(50) {
		s := Camera(clips, CameraOptions{Gaps: true, Domains: 3}, seed)
		shown := map[int]int{}
		for i, x := range s {
			o := owner(x.At)
			if x.Cut {
				shown[o]++
				n := 1
				for i+n < len(s) && !s[i+n].Cut {
					n++
				}
				switch {
				case clips[o].Label < 0:
					gaps++
					if n < FPS || n > 3*FPS {
						t.Fatalf("a gap of %d frames", n)
					}
				case n < min(3*FPS, clips[o].Frames) || n > 10*FPS:
					t.Fatalf("%d frames of clip %d", n, o)
				}
			} else if x.At != s[i-1].At+1 {
				t.Fatalf("from frame %d to %d without a cut", s[i-1].At, x.At)
			}
			if i > 0 && x.Domain != s[i-1].Domain {
				changes++
			}
		}
		for i := range 4 {
			if shown[i] != 1 {
				t.Fatalf("clip %d is shown %d times", i, shown[i])
			}
		}
	}
	if gaps < 20 || changes < 20 {
		t.Errorf("%d gaps, %d changes of light in 50 streams", gaps, changes)
	}

	plain := Camera(clips, CameraOptions{}, 1)
	long := Camera(clips, CameraOptions{Dwell: 300}, 1)
	run, best := 0, 0
	for i, x := range long {
		if i > 0 && clips[owner(x.At)].Label == clips[owner(long[i-1].At)].Label {
			run++
		} else {
			run = 1
		}
		best = max(best, run)
	}
	if best < 300 || len(long) < 300+len(clips)*3 {
		t.Errorf("one label stays for %d of %d frames", best, len(long))
	}
	for _, x := range plain {
		if x.Domain != 0 || clips[owner(x.At)].Label < 0 {
			t.Fatalf("plain stream has %+v", x)
		}
	}
	if s := Camera(clips, CameraOptions{Frames: 1}, 1); len(s) > 50 {
		t.Errorf("%d frames after the end", len(s))
	}
	if s := Camera(nil, CameraOptions{Dwell: 9}, 1); len(s) != 0 {
		t.Errorf("no clips give %v", s)
	}
	degraded := Recover(plain, 50, 2)
	for i, x := range degraded {
		if x.At != plain[i].At || (x.Domain == 2) != (i >= 50) || plain[i].Domain != 0 {
			t.Fatalf("step %d: %+v", i, x)
		}
	}
}
