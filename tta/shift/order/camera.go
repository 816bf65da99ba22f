package order

import "lqa/tta/shift"

// FPS is the rate of streams of clips, in frames a second.
const FPS = 5

// Clip is consecutive frames of the pool, at FPS, that show one thing.
type Clip struct {
	Label  int // -1: nothing that is listed
	Start  int // the first frame in the pool
	Frames int
}

// CameraOptions say what happens in a Camera stream beside cuts.
type CameraOptions struct {
	Longest int  // frames a clip is cut to at most; 0: 10 s
	Gaps    bool // between clips, 1 to 3 s of what is not listed
	Domains int  // of light: beyond 1, it changes within every third clip or so and stays until the next change
	Dwell   int  // frames for which one label stays in view, in the midst; its clips run to and fro
	Frames  int  // the stream ends with the clip that reaches so many; 0: when every clip was shown
}

const (
	shortest = 3 * FPS
	longest  = 10 * FPS
)

// Camera is clips in random order, each cut to 3 to 10 s at a random place (or
// whole, where it is shorter), with hard cuts between. Frames of clips with label
// -1 fill the gaps and come nowhere else.
func Camera(clips []Clip, o CameraOptions, seed uint64) []Step {
	s := shift.NewSource(seed)
	if o.Longest == 0 {
		o.Longest = longest
	}
	var listed, others []Clip
	for _, c := range clips {
		switch {
		case c.Frames == 0:
		case c.Label < 0:
			others = append(others, c)
		default:
			listed = append(listed, c)
		}
	}
	var out []Step
	domain := 0
	show := func(c Clip, from, n int) {
		change := -1
		if o.Domains > 1 && s.N(3) == 0 {
			change = s.N(n)
		}
		for i := range n {
			if i == change {
				domain = (domain + 1 + s.N(o.Domains-1)) % o.Domains
			}
			out = append(out, Step{At: c.Start + from + i, Domain: domain, Cut: i == 0})
		}
	}
	part := func(c Clip, short, long int) {
		n := min(short+s.N(long-short+1), c.Frames)
		show(c, s.N(c.Frames-n+1), n)
	}
	dwellAt := -1
	if o.Dwell > 0 && len(listed) > 0 {
		dwellAt = len(listed)/4 + s.N(len(listed)/2+1) // behind a quarter, before the last one
	}
	for i, at := range permutation(len(listed), s) {
		if o.Frames > 0 && len(out) >= o.Frames {
			break
		}
		if i == dwellAt {
			out = append(out, dwell(listed, o.Dwell, domain, s)...)
		}
		if o.Gaps && len(others) > 0 && s.N(4) == 0 {
			part(others[s.N(len(others))], FPS, 3*FPS)
		}
		part(listed[at], min(shortest, o.Longest), o.Longest)
	}
	return out
}

// dwell shows one label's clips in random order, each to and fro, for n frames.
func dwell(clips []Clip, n, domain int, s *shift.Source) (out []Step) {
	label := clips[s.N(len(clips))].Label
	var same []Clip
	for _, c := range clips {
		if c.Label == label {
			same = append(same, c)
		}
	}
	for len(out) < n {
		for _, k := range permutation(len(same), s) {
			c := same[k]
			for i := range 2 * c.Frames {
				if len(out) == n {
					return out
				}
				out = append(out, Step{At: c.Start + min(i, 2*c.Frames-1-i), Domain: domain, Cut: i == 0})
			}
		}
	}
	return out
}

// Recover gives all steps from the first of index at on the domain: a camera
// that is clean for a while, then degraded.
func Recover(stream []Step, at, domain int) []Step {
	out := append([]Step(nil), stream...)
	for i := range out {
		if i >= at {
			out[i].Domain = domain
		}
	}
	return out
}
