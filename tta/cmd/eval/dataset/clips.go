package dataset

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Clip is a line of clips.tsv and where its frames are.
type Clip struct {
	Name      string
	Class     int    // index into Classes
	Instance  string // which person or thing
	Condition string // which room or session
	FPS       float64
	Start     int // its first frame among the split's pictures
	Frames    int
}

// defaultFPS is taken where clips.tsv has none.
const defaultFPS = 5

// readClips reads clips.tsv: clip, label, instance, condition, frames a second;
// what stands behind is not needed, and all behind the label may be missing.
func (s *Split) readClips(r io.Reader, size int64) error {
	if size > maxText {
		return fmt.Errorf("%w: %s has %d bytes", ErrLayout, ClipsFile, size)
	}
	index := make(map[string]int)
	for i, c := range s.Classes {
		for _, name := range slices.Backward(append([]string{c.Folder}, c.Spellings...)) {
			if _, taken := index[name]; !taken {
				index[name] = i
			}
		}
	}
	s.class, s.Clips = make(map[string]int), nil
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Split(strings.TrimRight(lines.Text(), "\r"), "\t")
		if len(f) < 2 {
			return fmt.Errorf("%w: line %q of %s", ErrLayout, lines.Text(), ClipsFile)
		}
		i, ok := index[f[1]]
		if !ok {
			return fmt.Errorf("%w: label %q of %s is not in classes.txt", ErrLayout, f[1], ClipsFile)
		}
		if _, twice := s.class[f[0]]; twice {
			return fmt.Errorf("%w: clip %q stands twice in %s", ErrLayout, f[0], ClipsFile)
		}
		s.class[f[0]] = i
		c := Clip{Name: f[0], Class: i, FPS: defaultFPS}
		if len(f) > 2 {
			c.Instance = f[2]
		}
		if len(f) > 3 {
			c.Condition = f[3]
		}
		if len(f) > 4 {
			fps, err := strconv.ParseFloat(f[4], 64)
			if err != nil || !(fps > 0) || math.IsInf(fps, 0) {
				return fmt.Errorf("%w: clip %q of %s has %q frames a second", ErrLayout, f[0], ClipsFile, f[4])
			}
			c.FPS = fps
		}
		s.Clips = append(s.Clips, c)
	}
	return lines.Err()
}

// countFrame takes note of the next frame, of the clip of this name. A clip's
// frames follow one another.
func (s *Split) countFrame(name string) error {
	at := slices.IndexFunc(s.Clips, func(c Clip) bool { return c.Name == name })
	c := &s.Clips[at]
	if c.Frames == 0 {
		c.Start = s.Pictures - 1
	}
	if c.Frames++; c.Start+c.Frames != s.Pictures {
		return fmt.Errorf("%w: other frames between those of clip %q", ErrLayout, name)
	}
	return nil
}
