package tta

import (
	"encoding/binary"
	"errors"
	"math"

	"lqa/quant/numeric"
)

// Constants of shots. A distance is 1 - cosine; logarithms are natural; a step
// is a fifth of a second. Chosen as stream's are, shotLeast on the browser's films.
const (
	shotRecent = 8    // frames that are kept
	shotNear   = 5    // of which the nearest counts
	shotPast   = 5    // frames of longer ago that are kept,
	shotEvery  = 12   // one every 2.4 seconds; the youngest is as old at least
	shotLeast  = 2e-2 // distances below count as this: the same picture comes twice where a page is faster than its camera
	shotAfter  = 3    // frames after which a cut may still be made or taken back

	shotStart = 0.4   // X before anything was seen
	shotRise  = 0.5   // X follows larger distances by this part
	shotFade  = 0.005 // and smaller ones by this part a second
	shotLevel = 0.2   // M follows by this part a step

	shotGapStart = 0.5  // distance of frames of longer ago before there are any
	shotGapLevel = 0.05 // the gap follows by this part
	shotVideo    = 0.75 // gap from which frames follow each other as video
	shotVideoW   = 0.07

	// Where between M and log X a frame belongs to what was before.
	shotMiddle = 0.63 // to the frames before: else it is a cut
	shotBack   = 0.5  // to those before the cut: it was none
	shotLate   = 0.6  // frames before and behind, to each other: there was one
	shotWidth  = 0.07
)

// shots finds the cuts of a camera's stream.
//
// Frames follow each other as video where each is far nearer to the one before
// than to those of some seconds ago: their mean difference in log distance, the
// gap, is 0 in any order of pictures that does not matter, whatever light or
// noise do to distances, and 1 to 2 before a camera. In video, a frame that is
// not near to any of the last five begins a new shot. Near lies between M, what
// that distance is usually, and X, what it is at cuts. For three frames more a
// cut may be taken back, where a frame is near to those before it (a hand went
// by), or be made late, where four frames are far from the five before them.
//
// Time is 13·D a frame; the state takes at most 13·(D + 2) + 118 bytes.
type shots struct {
	once bool // cuts are neither taken back nor made late

	// State.
	recent *cache                         // frames, a ring
	past   *cache                         // a ring, too
	seen   int                            // frames so far, at most shotSeen
	next   int                            // place of the next one in recent
	older  int                            // and in past
	count  int                            // frames in past
	since  int                            // frames since the last cut, at most shotRecent
	age    float32                        // steps since a frame went into past
	x, m   float32                        // X, a distance; M, a log distance
	gap    float32                        // in log distance
	before [shotAfter][shotRecent]float32 // distances of the last frames to those before each, the last first

	// Of the last frame; not part of the state.
	video float32 // how far frames follow each other as video, 0..1
	same  float32 // how far the frame belongs to the shot before, 0..1
	back  bool    // it belongs to the shot before the last cut
	late  bool    // it is the fourth frame of a shot, and not, as it was said, of the one before
}

const shotSeen = 1 << 20 // frames are not counted beyond

func newShots(d int, floats bool) shots {
	s := shots{recent: newCache(1, shotRecent, d, floats), past: newCache(1, shotPast, d, floats)}
	s.reset()
	return s
}

func (s *shots) reset() {
	s.seen, s.next, s.older, s.count, s.since = 0, 0, 0, 0, shotRecent
	s.age, s.x, s.m, s.gap = 0, shotStart, numeric.Log(shotStart), 0
	s.before = [shotAfter][shotRecent]float32{}
	s.rest()
}

// rest forgets what was said of the last frame.
func (s *shots) rest() { s.video, s.same, s.back, s.late = 0, 0, false, false }

// look compares a frame, step steps after the one before, with those of before.
func (s *shots) look(f *exemplar, step float32) {
	s.rest()
	var near [shotRecent]float32
	n := min(s.seen, shotRecent)
	for i := range n {
		near[i] = max(1-s.recent.dot((s.next-1-i+2*shotRecent)%shotRecent, f), shotLeast)
	}
	s.age += step
	if n > 0 {
		s.compare(&near, n, f, step)
	}
	copy(s.before[1:], s.before[:])
	s.before[0] = near
	s.recent.set(s.next, 0, f)
	s.next = (s.next + 1) % shotRecent
	if n == 0 || s.age >= shotEvery {
		s.past.set(s.older, 0, f)
		s.older, s.count, s.age = (s.older+1)%shotPast, min(s.count+1, shotPast), 0
	}
	s.seen = min(s.seen+1, shotSeen)
}

func (s *shots) compare(near *[shotRecent]float32, n int, f *exemplar, step float32) {
	x := least(near[:min(n, shotNear)])
	if x > s.x {
		s.x += float32(shotRise * (x - s.x))
	} else {
		s.x -= float32((s.x - x) * float32(shotFade/5*step))
	}
	lx := numeric.Log(x)
	s.m += float32(shotLevel * step * min(max(lx-s.m, -1), 1))
	s.gap += float32(max(shotGapLevel, 1/float32(s.seen+3)) * (s.ago(f) - numeric.Log(near[0]) - s.gap))
	s.video = numeric.Sigmoid((s.gap - shotVideo) / shotVideoW)
	s.same = float32(s.video * s.nearer(lx, shotMiddle))

	s.since = min(s.since+1, shotRecent)
	if !s.once && s.since <= shotAfter && s.since < n {
		lx := numeric.Log(least(near[s.since:min(n, s.since+shotNear)]))
		s.back = float32(s.video*s.nearer(lx, shotBack)) > 0.5
	}
	switch {
	case s.back:
		s.same, s.since = 1, shotRecent
	case s.same < 0.5:
		s.since = 0
	case !s.once && s.video > 0.5 && s.seen >= shotRecent && s.since > shotAfter:
		apart := least(near[shotAfter:])
		for i, d := range s.before {
			apart = min(apart, least(d[shotAfter-1-i:shotRecent-1-i]))
		}
		s.late = numeric.Log(apart) > s.m+float32(shotLate*(numeric.Log(s.x)-s.m))
	}
}

// nearer says how far a log distance lies below the point between M and log X.
func (s *shots) nearer(lx, at float32) float32 {
	return numeric.Sigmoid((s.m + float32(at*(numeric.Log(s.x)-s.m)) - lx) / shotWidth)
}

// ago is the mean log distance to frames of longer ago.
func (s *shots) ago(f *exemplar) float32 {
	var sum float32
	n := 0
	for i := range s.count {
		if i == 0 && s.age < shotEvery {
			continue // too young
		}
		d := 1 - s.past.dot((s.older-1-i+2*shotPast)%shotPast, f)
		sum += numeric.Log(max(d, shotLeast))
		n++
	}
	if n == 0 {
		return numeric.Log(shotGapStart)
	}
	return sum / float32(n)
}

func least(x []float32) float32 {
	low := float32(math.Inf(1))
	for _, v := range x {
		low = min(low, v)
	}
	return low
}

// The state, little-endian: frames seen u32, frames of longer ago u8, frames
// since the cut u8; age, X, M, gap and the distances before, f32 each; then the
// last frames and those of longer ago, the oldest first, each its scale f16 and
// codes [D] int8.
const shotHeader = 4 + 1 + 1 + 4*(4+shotAfter*shotRecent)

func (s *shots) size() int {
	return shotHeader + (min(s.seen, shotRecent)+s.count)*(keyBytes+s.recent.d)
}

func (s *shots) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(s.seen))
	b = append(b, byte(s.count), byte(s.since))
	b = appendFloats(b, []float32{s.age, s.x, s.m, s.gap})
	for _, d := range s.before {
		b = appendFloats(b, d[:])
	}
	for i := min(s.seen, shotRecent); i > 0; i-- {
		b = s.recent.appendKey(b, (s.next-i+shotRecent)%shotRecent)
	}
	for i := s.count; i > 0; i-- {
		b = s.past.appendKey(b, (s.older-i+shotPast)%shotPast)
	}
	return b
}

var errShots = errors.New("no such shots")

// read takes up what append wrote and returns the rest of b. s is new.
func (s *shots) read(b []byte) ([]byte, error) {
	if len(b) < shotHeader {
		return nil, errShort
	}
	seen := binary.LittleEndian.Uint32(b)
	s.count, s.since = int(b[4]), int(b[5])
	if seen > shotSeen || s.count > shotPast || s.count > int(seen) || (s.count == 0) != (seen == 0) || s.since > shotRecent {
		return nil, errShots
	}
	s.seen = int(seen)
	var numbers [4]float32
	takeFloats(numbers[:], b[6:])
	s.age, s.x, s.m, s.gap = numbers[0], numbers[1], numbers[2], numbers[3]
	ok := s.age >= 0 && s.age < shotEvery && s.x >= shotLeast && s.x < 3 && s.m > -8 && s.m < 2 && s.gap > -8 && s.gap < 8
	for i := range s.before {
		takeFloats(s.before[i][:], b[22+4*shotRecent*i:])
		for _, d := range s.before[i] {
			ok = ok && d >= 0 && d < 3
		}
	}
	if !ok {
		return nil, errShots
	}
	b = b[shotHeader:]
	var err error
	n := min(s.seen, shotRecent)
	for i := range n {
		if b, err = s.recent.readKey(b, i); err != nil {
			return nil, err
		}
	}
	for i := range s.count {
		if b, err = s.past.readKey(b, i); err != nil {
			return nil, err
		}
	}
	s.next, s.older = n%shotRecent, s.count%shotPast
	return b, nil
}
