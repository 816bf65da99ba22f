package device

import (
	"fmt"
	"hash/fnv"
	"sync/atomic"
	"time"

	"lqa/quant/kernel"
)

// Timing is what a path took for a model's costliest layers.
type Timing struct {
	Path kernel.Path
	MS   float64 // a run of them, the least of some means
}

// How long candidates are timed. JavaScript engines compile hot functions anew,
// better, while they run: warm is enough for that on layers of any size.
const (
	warm   = 8 * time.Millisecond
	look   = 2 * time.Millisecond // of one candidate, in one round
	rounds = 3
)

// choose tries the candidates on the shapes that the lists of spec spend most of
// their time in, in the memory that spec is for, which it leaves zero and at
// least as large as it was. It drops those that do not compute what SIMD128 does (a JavaScript engine
// may compile relaxed instructions wrongly; Node.js 20 does), times the others
// in turn, and returns the fastest. Chips and browsers differ by more than
// twice, and no name or version says which is which.
func choose(h Host, paths []kernel.Path, spec *kernel.Spec) (kernel.Path, []Timing, error) {
	trial := kernel.NewTrial(spec.Lists, kernel.ControlBytes)
	if !trial.Low && len(trial.List) > 0 {
		paths = plain(paths)
	}
	if len(trial.List) == 0 || len(paths) == 1 && !paths[0].Form.Relaxed() {
		return paths[0], nil, nil
	}
	sound, hosts, err := try(h, paths, trial, spec)
	defer func() {
		for _, h := range hosts {
			h.Close()
		}
	}()
	if err != nil {
		return paths[0], nil, err
	}
	timings := make([]Timing, len(sound))
	best := 0
	for i, p := range sound {
		timings[i].Path = p
	}
	for round := range rounds {
		for i := range timings {
			ms, err := run(hosts[i], trial, look)
			if err != nil {
				return paths[0], nil, err
			}
			if round == 0 || ms < timings[i].MS {
				timings[i].MS = ms
			}
			if round == rounds-1 && timings[i].MS < timings[best].MS {
				best = i
			}
		}
	}
	return timings[best].Path, timings, fill(hosts[0], trial, make([]byte, 4*stageWords))
}

// plain are the paths that need no relaxed SIMD, or all, where that is none.
func plain(paths []kernel.Path) []kernel.Path {
	var out []kernel.Path
	for _, p := range paths {
		if !p.Form.Relaxed() {
			out = append(out, p)
		}
	}
	if out == nil {
		return paths[:1]
	}
	return out
}

// Sound returns those of a host's paths that compute the commands of lists
// right.
func Sound(h Host, paths []kernel.Path, lists []kernel.List) ([]kernel.Path, error) {
	sound, hosts, err := try(h, paths, kernel.NewTrial(lists, kernel.ControlBytes), &kernel.Spec{Pages: 1, Shared: h.Threads() > 1})
	for _, h := range hosts {
		h.Close()
	}
	return sound, err
}

// try starts a host for each path and returns those whose results are those of
// plain SIMD128, bit for bit, at first and when the JavaScript engine has
// compiled them anew.
func try(h Host, paths []kernel.Path, trial *kernel.Trial, spec *kernel.Spec) (sound []kernel.Path, hosts []Host, err error) {
	spec.Pages = max(spec.Pages, pagesFor(trial.End+4*len(trial.List)))
	reference, err := start(h, kernel.Paths(false)[0], trial, *spec)
	if err != nil {
		return nil, nil, err
	}
	want, err := results(reference, trial, 0)
	reference.Close()
	if err != nil {
		return nil, nil, err
	}
	for _, p := range paths {
		one, err := start(h, p, trial, *spec)
		if err != nil {
			return nil, hosts, err
		}
		right := true
		for _, d := range []time.Duration{0, warm} {
			got, err := results(one, trial, d)
			if err != nil {
				return nil, hosts, err
			}
			right = right && got == want
		}
		if right {
			sound, hosts = append(sound, p), append(hosts, one)
		} else {
			one.Close()
		}
	}
	if len(sound) == 0 {
		err = fmt.Errorf("%w: the host computes wrongly with %v", ErrNoSIMD, paths)
	}
	return sound, hosts, err
}

// start starts a host of its own for the trial.
func start(h Host, p kernel.Path, trial *kernel.Trial, spec kernel.Spec) (Host, error) {
	words := make([]byte, 0, 4*len(trial.List))
	for _, w := range trial.List {
		words = append(words, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
	}
	spec.Path, spec.Lists = p, []kernel.List{trial.List}
	module, err := kernel.Module(spec)
	if err != nil {
		return nil, err
	}
	one := h.Alone()
	if err := one.Start(fresh(module), spec.Pages); err != nil {
		return nil, err
	}
	if err := fill(one, trial, trial.Fill()); err != nil {
		return nil, err
	}
	return one, one.Write(trial.End, words)
}

// tried counts the modules of fresh.
var tried atomic.Uint32

// fresh is the module with a section that nothing reads, another each time. V8
// keeps one machine code a module and process: a trial that ran before would be
// found optimized, while what Node.js 20 gets wrong is its first, quick code,
// which the module that is then chosen starts with.
func fresh(module []byte) []byte {
	id := fmt.Appendf([]byte{5}, "trial%d %d", time.Now().UnixNano(), tried.Add(1)) // a name's length, the name, text
	return append(append(module, 0, byte(len(id))), id...)
}

// fill writes b over the trial's buffers, again and again, and zero behind them.
func fill(h Host, trial *kernel.Trial, b []byte) error {
	for at := trial.From; at < trial.End; at += len(b) {
		if err := h.Write(at, b[:min(len(b), trial.End-at)]); err != nil {
			return err
		}
	}
	return h.Write(trial.End, make([]byte, 4*len(trial.List)))
}

// results runs the trial for at least d and returns a hash of what it made.
func results(h Host, trial *kernel.Trial, d time.Duration) (uint64, error) {
	if _, err := run(h, trial, d); err != nil {
		return 0, err
	}
	hash := fnv.New64a()
	b := make([]byte, 4*stageWords)
	for _, o := range trial.Outputs {
		for at, end := o[0], o[0]+o[1]; at < end; at += len(b) {
			part := b[:min(len(b), end-at)]
			if err := h.Read(at, part); err != nil {
				return 0, err
			}
			hash.Write(part)
		}
	}
	return hash.Sum64(), nil
}

// run runs the trial until d has passed, once at least, and returns the mean
// milliseconds.
func run(h Host, trial *kernel.Trial, d time.Duration) (float64, error) {
	begin, n := time.Now(), 0
	for n == 0 || time.Since(begin) < d {
		if err := h.Run(trial.End); err != nil {
			return 0, err
		}
		n++
	}
	return time.Since(begin).Seconds() * 1000 / float64(n), nil
}
