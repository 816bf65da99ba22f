//go:build !js

package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"image"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"lqa/web/test/browser"
	"lqa/web/test/camera"
)

// things are the classes of sharp/flickr_cc that a stream may show: everyday
// things, animals and buildings with a plain English name, no two that mean
// nearly the same. The list was made from the names alone, before any picture
// or answer was looked at; a seed does the rest.
var things = strings.Fields(`
	acoustic_guitar airliner artichoke bagel balloon banana barrel basketball bee bell_pepper broccoli candle cannon canoe
	castle cauliflower cheeseburger coffee_mug daisy desk drum electric_fan espresso fire_engine flamingo folding_chair
	fountain goldfish goose gorilla grand_piano hippopotamus hummingbird ice_cream jellyfish ladybug lipstick llama mailbox
	mosque motor_scooter mountain_bike mountain_tent mushroom ostrich padlock parachute park_bench peacock pelican pizza
	refrigerator running_shoe school_bus shopping_cart snail soccer_ball sports_car starfish strawberry television toaster
	tractor traffic_light trombone umbrella vase volcano wall_clock wooden_spoon zebra`)

// movers are labels of streams/moving, chosen in the same way: no actions, no
// two of a kind.
var movers = []string{"black swan", "camel", "car", "cow", "dog", "goat", "horse", "kitesurfer", "motor scooter", "deer", "tennis player"}

// stream is five things in view and ten labels to choose from.
type stream struct {
	name   string
	shots  []camera.Shot
	labels []string
}

// streams are the five runs over photographs and one over clips, or two over
// the samples where the photographs are not here.
func streams(t *testing.T) []stream {
	data, ok := dataDir(t)
	if !ok {
		t.Log("no photographs beside the repository: the samples stand in")
		return sampleStreams(t)
	}
	rng := rand.New(rand.NewPCG(16, 2026))
	var out []stream

	file := filepath.Join(data, "sharp", "flickr_cc", "test.tar")
	have, err := camera.Classes(file)
	if err != nil {
		t.Fatal(err)
	}
	classes := slices.DeleteFunc(slices.Clone(things), func(c string) bool { return !slices.Contains(have, c) })
	rng.Shuffle(len(classes), func(i, j int) { classes[i], classes[j] = classes[j], classes[i] })
	photos, err := camera.Photos(file, classes)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		ten := classes[10*i : 10*i+10]
		s := stream{name: fmt.Sprintf("photographs-%d", i+1)}
		for k, c := range ten {
			label := strings.ReplaceAll(c, "_", " ")
			s.labels = append(s.labels, label)
			if k < 5 {
				s.shots = append(s.shots, camera.Shot{Label: label, Pictures: []image.Image{photos[c]}})
			}
		}
		out = append(out, s)
	}

	clips, err := camera.Clips(filepath.Join(data, "streams", "moving", "moving.tar"))
	if err != nil {
		t.Fatal(err)
	}
	rng.Shuffle(len(clips), func(i, j int) { clips[i], clips[j] = clips[j], clips[i] })
	s := stream{name: "clips"}
	for _, c := range clips {
		if len(s.labels) < 10 && slices.Contains(movers, c.Label) && !slices.Contains(s.labels, c.Label) {
			s.labels = append(s.labels, c.Label)
			if len(s.shots) < 5 {
				s.shots = append(s.shots, c)
			}
		}
	}
	return append(out, s)
}

type sample struct{ File, Label string }

func samples(t *testing.T) []sample {
	b, err := os.ReadFile(filepath.Join(root(t), "assets", "samples", "samples.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []sample
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func sampleStreams(t *testing.T) []stream {
	var out []stream
	all := samples(t)
	for i := range 2 {
		s := stream{name: fmt.Sprintf("samples-%d", i+1)}
		for k, p := range all[10*i : 10*i+10] {
			s.labels = append(s.labels, p.Label)
			if k >= 5 {
				continue
			}
			b, err := os.ReadFile(filepath.Join(root(t), "assets", "samples", p.File))
			if err != nil {
				t.Fatal(err)
			}
			img, err := camera.Picture(b)
			if err != nil {
				t.Fatal(err)
			}
			s.shots = append(s.shots, camera.Shot{Label: p.Label, Pictures: []image.Image{img}})
		}
		out = append(out, s)
	}
	return out
}

// film writes the stream as a camera file.
func film(t *testing.T, s stream, effect camera.Effect) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "camera.y4m")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	err = camera.Write(f, s.shots, effect)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// recorder notes, at each result, which shot is in view, for how long it has
// been (ms), and what the page answers. An answer "" is "none of these".
const recorder = `
globalThis.recorder = (() => {
	const video = document.getElementById('video');
	const read = ` + camera.ReadNumber + `;
	const looks = [];
	const seen = []; // shots in the order in which they came
	let shot = 0, since = performance.now();
	const watch = () => {
		const n = read(video);
		if (n !== shot) {
			shot = n;
			since = performance.now();
			if (n) seen.push(n);
		}
		video.requestVideoFrameCallback(watch);
	};
	video.requestVideoFrameCallback(watch);
	const best = (s) => s.none > s.scores[0].score ? '' : s.scores[0].label;
	document.addEventListener('lqa-result', ({detail}) => looks.push({
		shot, held: performance.now() - since, labels: detail.zeroShot.scores.length,
		zeroShot: best(detail.zeroShot), adapted: best(detail.adapted), likeliest: detail.adapted.scores[0].label, zeroLikeliest: detail.zeroShot.scores[0].label,
	}));
	return {looks, seen};
})();
0`

// look is a line of the recorder's book.
type look struct {
	Shot      int     `json:"shot"`
	Held      float64 `json:"held"`
	Labels    int     `json:"labels"`
	ZeroShot  string  `json:"zeroShot"`
	Adapted   string  `json:"adapted"`
	Likeliest string  `json:"likeliest"` // adapted, "none of these" left out

	ZeroLikeliest string `json:"zeroLikeliest"` // zero-shot, likewise
}

// settle is how long after a switch results are not counted: their frame may
// have been the one before.
const settle = 400

// watch plays the stream to the page and returns what it answered while each
// shot was in view once, from its first frame to its last.
func (w *world) watch(s stream) []look {
	w.t.Helper()
	w.open("/#labels=" + strings.ReplaceAll(strings.Join(s.labels, ","), " ", "%20"))
	w.wait(`document.querySelectorAll("#chips > li").length === ` + fmt.Sprint(len(s.labels)))
	w.eval(recorder, nil)
	w.click("#camera-start")
	w.wait(`document.querySelector("#stage").dataset.source === "camera"`)
	// The first shot may have begun before the page looked; the one after the
	// last ends it.
	w.wait(fmt.Sprintf("recorder.seen.length >= %d", len(s.shots)+2))
	var book struct {
		Looks []look `json:"looks"`
		Seen  []int  `json:"seen"`
	}
	w.eval("recorder", &book)
	w.t.Logf("%d results; shots in the order %v", len(book.Looks), book.Seen)

	var kept []look
	change, last := 0, 0
	for _, l := range book.Looks {
		if l.Shot != 0 && l.Shot != last {
			last = l.Shot
			change++
		}
		if change >= 2 && change <= len(s.shots)+1 && l.Shot != 0 && l.Held > settle {
			if l.Labels != len(s.labels) {
				w.t.Fatalf("a result has %d labels, want %d", l.Labels, len(s.labels))
			}
			kept = append(kept, l)
		}
	}
	return kept
}

// score is how often each answer was right, and which shots the page's answer
// named in more than half of its results.
type score struct {
	n, zeroShot, adapted int
	named                []string
	missed               []string
}

func (s stream) score(looks []look) score {
	var out score
	for i, shot := range s.shots {
		n, right := 0, 0
		answers, likeliest := map[string]int{}, map[string]int{}
		for _, l := range looks {
			if l.Shot != i+1 {
				continue
			}
			n++
			answers[l.Adapted]++
			likeliest[l.Likeliest]++
			if l.Adapted == shot.Label {
				right++
			}
			if l.ZeroShot == shot.Label {
				out.zeroShot++
			}
		}
		out.n += n
		out.adapted += right
		if 2*right > n {
			out.named = append(out.named, shot.Label)
		} else {
			out.missed = append(out.missed, fmt.Sprintf("%s: %v, without none %v", shot.Label, answers, likeliest))
		}
	}
	return out
}

// TestCamera plays things to the page's camera: it must name four of five; and
// in the dark and out of focus adaptation must not make it worse. Both curves
// are left in build/test/curves.jsonl.
func TestCamera(t *testing.T) {
	var mu sync.Mutex
	dim := score{}
	curves := map[string][]look{}
	all := streams(t)
	t.Run("streams", func(t *testing.T) {
		for _, s := range all {
			for _, c := range []struct {
				name   string
				effect camera.Effect
			}{{"clean", nil}, {"dim", camera.Dim}} {
				t.Run(s.name+"/"+c.name, func(t *testing.T) {
					t.Parallel()
					w := start(t, browser.Options{Camera: film(t, s, c.effect)})
					looks := w.watch(s)
					got := s.score(looks)
					if got.n < 10*len(s.shots) {
						t.Errorf("only %d results", got.n)
					}
					t.Logf("%s, %s: named %d of %d; right: zero-shot %d, adapted %d of %d results; missed %v",
						s.name, c.name, len(got.named), len(s.shots), got.zeroShot, got.adapted, got.n, got.missed)
					mu.Lock()
					defer mu.Unlock()
					curves[s.name+"/"+c.name] = looks
					if c.effect == nil {
						if len(got.named) < 4 {
							t.Errorf("named %v; missed %v", got.named, got.missed)
						}
						return
					}
					dim.n += got.n
					dim.zeroShot += got.zeroShot
					dim.adapted += got.adapted
				})
			}
		}
	})
	writeCurves(t, all, curves)
	if dim.n == 0 {
		t.Skip("nothing was played")
	}
	zero, adapted := float64(dim.zeroShot)/float64(dim.n), float64(dim.adapted)/float64(dim.n)
	t.Logf("dark and blurred, %d results: zero-shot %.1f%%, adapted %.1f%%", dim.n, 100*zero, 100*adapted)
	if adapted < zero-0.01 {
		t.Errorf("adaptation loses %.1f points in the dark", 100*(zero-adapted))
	}
}

// writeCurves writes a line a result, with the accuracies so far.
func writeCurves(t *testing.T, all []stream, curves map[string][]look) {
	f, err := os.Create(artifact(t, "curves.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	defer w.Flush()
	enc := json.NewEncoder(w)
	for _, s := range all {
		for _, condition := range []string{"clean", "dim"} {
			n, zero, adapted := 0, 0, 0
			for _, l := range curves[s.name+"/"+condition] {
				truth := s.shots[l.Shot-1].Label
				n++
				if l.ZeroShot == truth {
					zero++
				}
				if l.Adapted == truth {
					adapted++
				}
				enc.Encode(map[string]any{
					"stream": s.name, "condition": condition, "result": n, "truth": truth,
					"zero_shot": l.ZeroShot, "adapted": l.Adapted,
					"zero_shot_accuracy": float64(zero) / float64(n), "adapted_accuracy": float64(adapted) / float64(n),
				})
			}
		}
	}
	t.Logf("curves: %s", f.Name())
}
