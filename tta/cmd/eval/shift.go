package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"lqa/tta"
	"lqa/tta/cmd/eval/dataset"
	"lqa/tta/shift"
	"lqa/tta/shift/corrupt"
	"lqa/tta/shift/order"
)

// streamOptions are the flags of the suites on streams.
type streamOptions struct {
	pool, seeds int
	kinds       []string // of streams; none for all
	corruptions []string // none for the five
	adapters    []string // none for all
	ablations   bool
	plots       string // folder, or ""
}

// shiftSets are the picture sets of the suite shift.
var shiftSets = []struct {
	set, split string
	shifts     string // "corruptions", "camera" effects, or as they are
	shuffled   bool   // in no other order
	chosen     bool   // constants were chosen on it
	named      bool   // measured only where --sets names it
}{
	{set: "imagenette", split: "val", shifts: "corruptions"},
	{set: "cifar10", split: "test", shifts: "corruptions", chosen: true},
	{set: "caltech101", split: "test", shifts: "corruptions"},
	{set: "grocery", split: "test", shifts: "corruptions"},
	{set: "flickr_cc", split: "test", shifts: "corruptions", shuffled: true},
	{set: "pacs", split: "photo"},
	{set: "pacs", split: "cartoon"},
	{set: "sign_digits", split: "test", shifts: "camera"},
	{set: "tiny_imagenet", split: "val", shifts: "corruptions", chosen: true, named: true},
}

// shiftStreams are the sets of real video, all people or some.
var shiftStreams = []struct {
	set, part string
	instances []string // nil for all
	degraded  bool     // recover, too
	chosen    bool
	gaps      string // the set whose frames show nothing listed
	gapClass  string // of these the frames of this class alone; "" for all
}{
	{set: "hands", degraded: true, gaps: "objects"},
	{set: "hands", part: "_h1_h4", instances: []string{"person h1", "person h2", "person h3", "person h4"}, degraded: true, chosen: true, gaps: "objects"},
	{set: "hands", part: "_h5_h8", instances: []string{"person h5", "person h6", "person h7", "person h8"}, degraded: true, gaps: "objects"},
	{set: "objects", degraded: true, gaps: "hands", gapClass: "no hand"},
	{set: "moving", gaps: "hands", gapClass: "no hand"},
	{set: "actions", gaps: "hands", gapClass: "no hand"},
}

// What the suite does to them.
var (
	shiftCorruptions = []string{"gaussian_noise", "defocus_blur", "fog", "brightness", "jpeg"}
	shiftSeverities  = []int{3, 5}

	lights     = []condition{{}, {"dark", 2}, {"exposure", 2}, {"cast", 3}}
	degradings = []condition{{"dark", 3}, {"blur", 3}, {"noise", 3}}
)

const (
	videoViews   = 12 // of each photo
	blockRun     = 20
	fewLabels    = 3
	fewRun       = 40
	fewFrames    = 400
	imbalance    = 20 // first to last label
	recurringRun = 100

	poisonFrames = 10
	poisonAt     = 50
	poisonEvery  = 20  // spread
	poisonWatch  = 200 // frames after the first of them

	streamSeeds = 5   // random orders of real clips
	dwellFrames = 600 // one label for two minutes
	cleanFrames = 50  // before the camera degrades
	goneFrames  = 500 // with nothing listed in view
)

// shiftSuite measures adapters on shifted streams: as published, shuffled one by
// one, and as cameras see.
func shiftSuite(ctx context.Context, r *run) error {
	return r.withModel(ctx, nil, func(ctx context.Context, m *model, splits []dataset.Split) error {
		scenes, err := r.scenes(splits)
		if err != nil {
			return err
		}
		lines, err := r.shift(ctx, m, scenes)
		if err != nil {
			return err
		}
		r.tabulate(shiftTables(lines))
		return nil
	})
}

// methods are the adapters asked for.
func (r *run) methods() ([]tta.Method, error) {
	all := slices.Clone(tta.Methods)
	if r.ablations {
		all = append(all, tta.Ablations...)
	}
	if len(r.adapters) == 0 {
		return all, nil
	}
	var some []tta.Method
	for _, name := range r.adapters {
		at := slices.IndexFunc(all, func(m tta.Method) bool { return m.Name == name })
		if at < 0 {
			return nil, fmt.Errorf("%w: %q", tta.ErrAdapter, name)
		}
		some = append(some, all[at])
	}
	return some, nil
}

// scenes lays out what is measured on the splits that are there.
func (r *run) scenes(splits []dataset.Split) ([]*scene, error) {
	corruptions := shiftCorruptions
	switch {
	case slices.Equal(r.corruptions, []string{"all"}):
		corruptions = nil
		for _, k := range corrupt.Kinds {
			corruptions = append(corruptions, strings.TrimSuffix(k.Name, "_compression"))
		}
	case len(r.corruptions) > 0:
		corruptions = r.corruptions
	}
	for _, c := range corruptions {
		if _, err := (condition{c, 1}).effect(nil); err != nil {
			return nil, err
		}
	}
	var effects []string
	for _, k := range shift.Kinds {
		effects = append(effects, k.Name)
	}
	split := func(set, name string) *dataset.Split {
		at := slices.IndexFunc(splits, func(s dataset.Split) bool { return s.Set == set && s.Name == name })
		if at < 0 {
			return nil
		}
		return &splits[at]
	}

	var scenes []*scene
	for _, t := range shiftSets {
		s := split(t.set, t.split)
		if s == nil || t.named && !slices.Contains(r.sets, t.set) {
			continue
		}
		shifts := map[string][]string{"corruptions": corruptions, "camera": effects}[t.shifts]
		name := t.set
		if t.set == "pacs" {
			name += "_" + t.split
		}
		photos := &scene{set: name, chosen: t.chosen, split: s, every: step(s.Pictures, r.pool)}
		photos.cells = r.stills(shifts, t.shuffled)
		scenes = append(scenes, photos)
		if !t.shuffled {
			video := &scene{set: name, chosen: t.chosen, split: s, every: step(s.Pictures, max(1, r.pool/videoViews)), views: videoViews}
			for _, c := range severities(shifts) {
				video.cells = append(video.cells, r.cell("video", "", c, func(w *world, _ []*look, seed uint64) plan {
					return plan{steps: order.Video(len(w.label)/videoViews, videoViews, seed)}
				}))
			}
			scenes = append(scenes, video)
		}
	}
	for _, t := range shiftStreams {
		s := split(t.set, "clips")
		if s == nil {
			continue
		}
		v := &scene{set: t.set + t.part, chosen: t.chosen, every: 1}
		var frames []int
		frames, v.clips = atRate(s.Clips, max(1, r.pool/len(s.Clips)))
		v.split, v.shown = s.Only(frames), v.clips
		if t.instances != nil { // some, of the same embeddings
			v.shown = slices.DeleteFunc(slices.Clone(v.clips), func(c dataset.Clip) bool { return !slices.Contains(t.instances, c.Instance) })
		}
		if len(v.shown) == 0 {
			continue
		}
		if g := split(t.gaps, "clips"); g != nil {
			others := slices.DeleteFunc(slices.Clone(g.Clips), func(c dataset.Clip) bool {
				return t.gapClass != "" && g.Classes[c.Class].Folder != t.gapClass
			})
			if frames, v.gapClip = atRate(others, 3*order.FPS); len(frames) > 0 {
				v.gaps = g.Only(frames)
			}
		}
		v.cells = r.clips(v, t.degraded)
		scenes = append(scenes, v)
	}
	if len(scenes) == 0 {
		return nil, fmt.Errorf("none of the suite's sets in %s", r.data)
	}
	if len(r.kinds) > 0 {
		for _, s := range scenes {
			s.cells = slices.DeleteFunc(s.cells, func(c cell) bool { return !slices.Contains(r.kinds, c.Stream) })
		}
		scenes = slices.DeleteFunc(scenes, func(s *scene) bool { return len(s.cells) == 0 })
	}
	return scenes, nil
}

// severities are none and each shift at each severity.
func severities(shifts []string) []condition {
	all := []condition{{}}
	for _, name := range shifts {
		for _, s := range shiftSeverities {
			all = append(all, condition{name, s})
		}
	}
	return all
}

// cell is a kind of stream under one condition.
func (r *run) cell(stream, detail string, c condition, f func(w *world, looks []*look, seed uint64) plan) cell {
	return cell{Shift: c.String(), Severity: c.severity, Stream: stream, Detail: detail, seeds: r.seeds, domains: []condition{c}, plan: f}
}

// stills are the streams of photographs, each seen once.
func (r *run) stills(shifts []string, shuffledOnly bool) (cells []cell) {
	add := func(stream string, c condition, f func(labels []int, seed uint64) []order.Step) {
		cells = append(cells, r.cell(stream, "", c, func(w *world, _ []*look, seed uint64) plan {
			return plan{steps: f(w.label, seed)}
		}))
	}
	for _, c := range severities(shifts) {
		add("shuffled", c, func(labels []int, seed uint64) []order.Step { return order.Shuffled(len(labels), seed) })
		if shuffledOnly {
			continue
		}
		add("block", c, func(labels []int, seed uint64) []order.Step { return order.Block(labels, blockRun, seed) })
		add("imbalanced", c, func(labels []int, seed uint64) []order.Step { return order.Imbalanced(labels, imbalance, seed) })
		add("few", c, func(labels []int, seed uint64) []order.Step {
			return order.Few(labels, fewLabels, fewRun, fewFrames, seed)
		})
		cells = append(cells, r.cell("poisoned", "burst", c, func(w *world, looks []*look, seed uint64) plan { return w.poison(looks[0], 0, seed) }))
		cells = append(cells, r.cell("poisoned", "spread", c, func(w *world, looks []*look, seed uint64) plan {
			return w.poison(looks[0], poisonEvery, seed)
		}))
	}
	if shuffledOnly {
		return cells
	}
	low, high := shiftSeverities[0], shiftSeverities[len(shiftSeverities)-1]
	for _, name := range shifts {
		for _, d := range []struct {
			stream  string
			domains []condition
			steps   func(n int, seed uint64) []order.Step
		}{
			{"drift", []condition{{}, {name, low}, {name, high}}, func(n int, seed uint64) []order.Step { return order.Domains(n, []int{0, 1, 2, 1}, seed) }},
			{"sudden", []condition{{}, {name, high}}, func(n int, seed uint64) []order.Step { return order.Domains(n, []int{0, 1}, seed) }},
			{"recurring", []condition{{}, {name, high}}, func(n int, seed uint64) []order.Step { return order.Recurring(n, 2, recurringRun, seed) }},
		} {
			cells = append(cells, cell{Shift: name, Severity: high, Stream: d.stream, seeds: r.seeds, domains: d.domains,
				plan: func(w *world, _ []*look, seed uint64) plan { return plan{steps: d.steps(len(w.label), seed)} }})
		}
	}
	return cells
}

// poison is a shuffled stream into which the most confident wrong frames of one
// label are put, beside the stream without them. The frames after the first of
// them count.
func (w *world) poison(l *look, every int, seed uint64) plan {
	answers, confidence := make([]int, len(l.zero)), make([]float32, len(l.zero))
	for i, z := range l.zero {
		answers[i], confidence[i] = z.label, z.confidence
	}
	bad := order.Poison(w.label, answers, confidence, poisonFrames, seed)
	base := order.Shuffled(len(w.label), seed)
	if base = base[:min(len(base), poisonAt+poisonWatch)]; len(base) <= poisonAt || len(bad) == 0 {
		return plan{}
	}
	p := plan{control: base, controlCounted: make([]bool, len(base))}
	var where []int
	p.steps, where = order.Insert(base, bad, poisonAt, every)
	p.counted = make([]bool, len(p.steps))
	for i := range p.counted {
		p.counted[i] = i > poisonAt && !slices.Contains(where, i)
	}
	for i := range p.controlCounted {
		p.controlCounted[i] = i >= poisonAt
	}
	return p
}

// clips are the streams of real video.
func (r *run) clips(s *scene, degraded bool) (cells []cell) {
	seeds := min(r.seeds, streamSeeds)
	for _, c := range []struct {
		shift   string
		domains []condition
		options order.CameraOptions
	}{
		{"none", lights[:1], order.CameraOptions{Gaps: true}},
		{"light", lights, order.CameraOptions{Gaps: true, Domains: len(lights)}},
		{"long", lights[:1], order.CameraOptions{Gaps: true, Dwell: dwellFrames}},
	} {
		c.options.Frames = r.pool
		if c.options.Dwell > 0 {
			c.options.Frames += dwellFrames
		}
		cells = append(cells, cell{Shift: c.shift, Stream: "camera", seeds: seeds, domains: c.domains,
			plan: func(_ *world, _ []*look, seed uint64) plan {
				return plan{steps: order.Camera(s.orderClips(), c.options, seed)}
			}})
	}
	if s.gaps != nil {
		cells = append(cells, cell{Shift: "none", Stream: "absent", seeds: seeds, domains: lights[:1],
			plan: func(_ *world, _ []*look, seed uint64) plan { return s.absent(r.pool, seed) }})
	}
	if !degraded {
		return cells
	}
	for _, c := range degradings {
		cells = append(cells, cell{Shift: c.name, Severity: c.severity, Stream: "recover", seeds: seeds, domains: []condition{{}, c},
			plan: func(_ *world, _ []*look, seed uint64) plan {
				p := plan{steps: order.Recover(order.Camera(s.orderClips(), order.CameraOptions{Frames: r.pool}, seed), cleanFrames, 1)}
				p.counted = make([]bool, len(p.steps))
				for i := range p.counted {
					p.counted[i] = i >= cleanFrames
				}
				return p
			}})
	}
	return cells
}

// absent is a stream in whose midst nothing listed is in view for long, beside
// the stream without that. The frames behind it count.
func (s *scene) absent(frames int, seed uint64) (p plan) {
	p.control = order.Camera(s.orderClips(), order.CameraOptions{Frames: frames}, seed)
	half := len(p.control) / 2
	for half > 0 && !p.control[half].Cut {
		half--
	}
	if half == 0 {
		return plan{} // one clip
	}
	p.steps = slices.Clone(p.control[:half])
	for i := range goneFrames {
		n := s.gaps.Pictures // to and fro
		p.steps = append(p.steps, order.Step{At: s.split.Pictures + min(i%(2*n), 2*n-1-i%(2*n)), Cut: i == 0})
	}
	p.steps = append(p.steps, p.control[half:]...)
	p.counted, p.controlCounted = make([]bool, len(p.steps)), make([]bool, len(p.control))
	for i := half; i < len(p.control); i++ {
		p.controlCounted[i], p.counted[goneFrames+i] = true, true
	}
	return p
}

// shift runs the scenes: first all embeddings, then all streams.
func (r *run) shift(ctx context.Context, m *model, scenes []*scene) ([]shiftLine, error) {
	methods, err := r.methods()
	if err != nil {
		return nil, err
	}
	journal, err := openJournal(r)
	if err != nil {
		return nil, err
	}
	defer journal.close()
	var pictures, streams int
	var names []string
	for _, method := range methods {
		names = append(names, method.Name)
	}
	for _, s := range scenes {
		if s.question, err = r.ask(m, s.split, asking{byTable, r.prompts}); err != nil {
			return nil, fmt.Errorf("%s: %w", s.set, err)
		}
		pictures += len(s.conditions()) * s.pictures()
		for _, c := range s.cells {
			streams += c.seeds
		}
	}
	r.progress.Note("%s (%s): %d pools, %d embeddings, %d streams of %d adapters", r.modelFile, m.Name, len(scenes), pictures, streams, len(methods))

	r.progress.Begin("pictures", int64(pictures), "pictures")
	for _, s := range scenes {
		for _, c := range s.conditions() {
			r.progress.On(s.set + " " + c.String())
			if _, err := r.look(ctx, m, s, c, r.progress); err != nil {
				return nil, err
			}
		}
	}

	var all []shiftLine
	r.progress.Begin("streams", int64(streams), "streams")
	for _, s := range scenes {
		loaded := map[condition]*look{}
		kept := map[condition]string{}
		for i := range s.cells {
			c := &s.cells[i]
			r.progress.On(fmt.Sprintf("%s %s %s %d", s.set, c.Stream, c.Shift, c.Severity))
			key := sha256.New()
			fmt.Fprintln(key, s.set, c.Shift, c.Severity, c.Stream, c.Detail, c.seeds, r.pool, names, s.question.labels)
			for _, d := range c.domains {
				if kept[d] == "" {
					if kept[d], err = s.names(m, d); err != nil {
						return nil, err
					}
				}
				fmt.Fprintln(key, kept[d])
			}
			lines := journal.lines(key.Sum(nil))
			if lines == nil {
				var looks []*look
				for _, d := range c.domains {
					if loaded[d] == nil {
						if loaded[d], err = r.look(ctx, m, s, d, nil); err != nil {
							return nil, err
						}
					}
					looks = append(looks, loaded[d])
				}
				var t *trace
				if lines, t, err = c.run(ctx, s.world, looks, methods, r.jobs); err != nil {
					return nil, fmt.Errorf("%s, %s, %s: %w", s.set, c.Stream, c.Shift, err)
				}
				for i := range lines {
					lines[i].Suite, lines[i].ChosenOn, lines[i].Model = "shift", s.chosen, m.Name
				}
				if r.plots != "" && t != nil {
					if err := t.write(r.plots); err != nil {
						return nil, err
					}
				}
				if err := journal.add(key.Sum(nil), lines); err != nil {
					return nil, err
				}
			}
			for i := range lines {
				if err := r.print(lines[i]); err != nil {
					return nil, err
				}
			}
			all = append(all, lines...)
			r.progress.Add(int64(c.seeds))
		}
	}
	return all, nil
}
