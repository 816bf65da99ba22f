//go:build !js

package test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"lqa/web/test/browser"
	"lqa/web/test/camera"
)

// LQA_ADAPT=1 runs what takes minutes: real clips before the page's camera.
// LQA_ADAPT=300 is the same with that many frames a run.
func adaptFrames(t *testing.T) int {
	n, err := strconv.Atoi(cmp.Or(os.Getenv("LQA_ADAPT"), "0"))
	if err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		t.Skip("takes minutes: LQA_ADAPT=1")
	}
	return max(n, 300)
}

// clips are those of a set of real streams.
func clips(t *testing.T, set string) []camera.Shot {
	data, ok := dataDir(t)
	if !ok {
		t.Skip("no ../shared/data (or LQA_DATA): no real clips")
	}
	file := filepath.Join(data, "streams", set, set+".tar")
	if _, err := os.Stat(file); err != nil {
		t.Skipf("no real clips: %v", err)
	}
	all, err := camera.Clips(file)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// played opens the page with a stream's labels and its camera on.
func (w *world) played(labels []string, prepare func()) {
	w.t.Helper()
	w.open("/#labels=" + strings.ReplaceAll(strings.Join(labels, ","), " ", "%20"))
	w.wait(fmt.Sprintf(`document.querySelectorAll("#chips > li").length === %d && !document.querySelector("#text-side").textContent`, len(labels)))
	w.eval(recorder, nil)
	prepare()
	w.click("#camera-start")
	w.wait(`document.querySelector("#stage").dataset.source === "camera"`)
}

// looks are the results so far of frames whose shot is sure.
func (w *world) looks() (kept []look) {
	w.t.Helper()
	var book struct {
		Looks []look `json:"looks"`
	}
	w.eval("recorder", &book)
	for _, l := range book.Looks {
		if l.Shot != 0 && l.Held > settle {
			kept = append(kept, l)
		}
	}
	return kept
}

// tallied counts right answers: of all, "none of these" among them, and of the
// labels alone, as eval does.
type tallied struct{ n, zero, adapted, zeroAlone, adaptedAlone int }

func (c *tallied) add(l look, truth string) {
	c.n++
	for count, answer := range map[*int]string{&c.zero: l.ZeroShot, &c.adapted: l.Adapted, &c.zeroAlone: l.ZeroLikeliest, &c.adaptedAlone: l.Likeliest} {
		if answer == truth {
			*count++
		}
	}
}

func (c *tallied) join(o tallied) {
	*c = tallied{c.n + o.n, c.zero + o.zero, c.adapted + o.adapted, c.zeroAlone + o.zeroAlone, c.adaptedAlone + o.adaptedAlone}
}

// gain is in points, of the labels alone.
func (c *tallied) gain() float64 {
	return 100 * float64(c.adaptedAlone-c.zeroAlone) / float64(max(c.n, 1))
}

func (c *tallied) String() string {
	share := func(n int) float64 { return 100 * float64(n) / float64(max(c.n, 1)) }
	return fmt.Sprintf("%d frames; of the labels alone zero-shot %.1f %%, adapted %.1f %%; with none of these zero-shot %.1f %%, adapted %.1f %%",
		c.n, share(c.zeroAlone), share(c.adaptedAlone), share(c.zero), share(c.adapted))
}

// TestAdaptHard plays real clips, made hard at the page's default setting, in
// five seeded orders, and prints how often each answer was right.
func TestAdaptHard(t *testing.T) {
	frames := adaptFrames(t)
	for _, set := range []string{"hands", "objects"} {
		all := clips(t, set)
		var labels []string
		for _, c := range all {
			if !slices.Contains(labels, c.Label) {
				labels = append(labels, c.Label)
			}
		}
		var sum tallied
		for seed := range uint64(5) {
			t.Run(fmt.Sprintf("%s/%d", set, seed), func(t *testing.T) {
				shots := slices.Clone(all)
				rng := rand.New(rand.NewPCG(20, seed))
				rng.Shuffle(len(shots), func(i, j int) { shots[i], shots[j] = shots[j], shots[i] })
				shots = shots[:12]
				w := start(t, browser.Options{Camera: film(t, stream{shots: shots}, nil)})
				w.played(labels, func() { w.click("#hard") })
				for n := 50; n < frames+50; n += 50 { // a wait ends after a minute
					w.wait(fmt.Sprintf("recorder.looks.filter((l) => l.shot && l.held > %d).length >= %d", settle, min(n, frames)))
				}
				var got tallied
				for _, l := range w.looks()[:frames] {
					got.add(l, shots[l.Shot-1].Label)
				}
				t.Logf("%s, order %d, made hard: %v", set, seed, &got)
				sum.join(got)
			})
		}
		if sum.n == 0 {
			continue
		}
		t.Logf("%s, made hard: %v: %+.1f points (the bar is +3)", set, &sum, sum.gain())
		if sum.gain() < -1.5 {
			t.Errorf("%s: adapting loses %.1f points", set, -sum.gain())
		}
	}
}

// TestAdaptTaught teaches hands by three taps a label while the first quarter
// of a person's clips is in view, and looks at the last half of each.
func TestAdaptTaught(t *testing.T) {
	adaptFrames(t)
	data, ok := dataDir(t)
	if !ok {
		t.Skip("no ../shared/data (or LQA_DATA): no real clips")
	}
	file := filepath.Join(data, "streams", "hands", "hands.tar")
	if _, err := os.Stat(file); err != nil {
		t.Skipf("no real clips: %v", err)
	}
	var sum tallied
	for _, person := range []string{"h1", "h3", "h5", "h7"} {
		t.Run(person, func(t *testing.T) {
			early, err := camera.Parts(file, person+"_", 0, 0.25)
			if err != nil {
				t.Fatal(err)
			}
			late, err := camera.Parts(file, person+"_", 0.5, 1)
			if err != nil {
				t.Fatal(err)
			}
			var labels []string
			for _, c := range early {
				labels = append(labels, c.Label)
			}
			w := start(t, browser.Options{Camera: film(t, stream{shots: append(slices.Clone(early), late...)}, nil)})
			w.played(labels, func() {})
			for i, c := range early {
				for tap := range 3 {
					w.wait(fmt.Sprintf(`(() => { const l = recorder.looks.at(-1); return l && l.shot === %d && l.held > %d; })()`, i+1, settle+600*tap))
					w.eval(fmt.Sprintf(`document.querySelector('#chips > li[data-label=%q] button').click()`, c.Label), nil)
				}
			}
			w.eval("recorder.from = recorder.looks.length, 0", nil)
			w.wait("recorder.seen.at(-1) === 1 && recorder.looks.length > recorder.from + 20")
			var from int
			var got tallied
			w.eval("recorder.from", &from)
			var book struct {
				Looks []look `json:"looks"`
			}
			w.eval("recorder", &book)
			for _, l := range book.Looks[from:] {
				if l.Shot > len(early) && l.Held > settle {
					got.add(l, late[l.Shot-len(early)-1].Label)
				}
			}
			w.shot("taught-" + person)
			t.Logf("%s, %d labels taught by three taps each, the last halves: %v", person, len(labels), &got)
			sum.join(got)
		})
	}
	t.Logf("hands, taught: %v: %+.1f points (the bar is +40)", &sum, sum.gain())
	if sum.gain() < 20 {
		t.Errorf("three taps a label gain %.1f points", sum.gain())
	}
}
