// Package dataset finds picture sets and streams in a folder by their layout
// and reads them. It knows no set by name.
//
// A picture set is a folder with classes.txt and tars, one below the root or
// two. A tar is a test split if it is not train.tar and each of its pictures
// lies in a folder that classes.txt names. A stream is
// streams/<set>/<set>.tar whose first member is clips.tsv.
//
// Tars come from outside. Nothing is unpacked to disk, so a member's name can
// do no harm; members that are no regular files are passed over, and sizes are
// checked before anything is allocated.
package dataset

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Limits, far above real sets.
const (
	maxText     = 4 << 20  // bytes of classes.txt and clips.tsv
	maxClasses  = 4096     // lines of classes.txt
	maxPicture  = 32 << 20 // bytes of one picture's file
	maxPictures = 1 << 20  // pictures of a tar
)

// ClipsFile is the first member of a stream's tar.
const ClipsFile = "clips.tsv"

// ErrLayout means a folder or tar that looks like a set but breaks its rules.
var ErrLayout = errors.New("dataset: bad layout")

// Split is a part of a set on which a model is measured.
type Split struct {
	Set      string // name of the set's folder
	Name     string // the tar's name without .tar; "clips" for a stream
	Tar      string // path
	Stream   bool   // pictures are frames in order
	Classes  []Class
	Pictures int
	Clips    []Clip // of a stream, in the tar's order

	class map[string]int // folder or clip to index into Classes
	only  []int          // ascending; nil for all pictures
}

// Find returns the splits below root in the order of their paths, and what was
// passed over though it looked like one, in words.
func Find(root string) (splits []Split, notes []string, err error) {
	if _, err := os.Stat(root); err != nil {
		return nil, nil, fmt.Errorf("dataset: %w", err)
	}
	var lists []string
	for _, depth := range []string{"*", "*/*"} {
		found, err := filepath.Glob(filepath.Join(escapeGlob(root), depth, "classes.txt"))
		if err != nil {
			return nil, nil, err
		}
		lists = append(lists, found...)
	}
	slices.Sort(lists)
	for _, list := range lists {
		found, said, err := findIn(filepath.Dir(list))
		notes = append(notes, said...)
		if err != nil {
			notes = append(notes, fmt.Sprintf("%s: %v", list, err))
		}
		splits = append(splits, found...)
	}
	return splits, notes, nil
}

func findIn(dir string) (splits []Split, notes []string, err error) {
	classes, err := readClasses(filepath.Join(dir, "classes.txt"))
	if err != nil {
		return nil, nil, err
	}
	tars, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.tar"))
	if err != nil {
		return nil, nil, err
	}
	for _, p := range tars {
		name := strings.TrimSuffix(filepath.Base(p), ".tar")
		if name == "train" {
			continue
		}
		s := Split{Set: filepath.Base(dir), Name: name, Tar: p, Classes: classes}
		why, err := s.examine(filepath.Base(filepath.Dir(dir)) == "streams" && name == s.Set)
		switch {
		case err != nil:
			notes = append(notes, fmt.Sprintf("%s: %v", p, err))
		case why != "":
			notes = append(notes, fmt.Sprintf("%s: no test split: %s", p, why))
		default:
			splits = append(splits, s)
		}
	}
	return splits, notes, nil
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// examine reads the tar's directory: it counts the pictures and checks that
// each belongs to a class. why says what keeps the tar from being a split.
func (s *Split) examine(mayStream bool) (why string, err error) {
	s.class = make(map[string]int)
	for i, c := range s.Classes {
		s.class[c.Folder] = i
	}
	first := true
	err = s.walk(func(h *tar.Header, r io.Reader) error {
		if first && h.Name == ClipsFile && mayStream {
			s.Stream, s.Name = true, "clips"
			if err := s.readClips(r, h.Size); err != nil {
				return err
			}
		}
		first = false
		folder, ok := pictureFolder(h.Name)
		if !ok {
			return nil
		}
		if _, ok := s.class[folder]; !ok {
			if s.Stream {
				return fmt.Errorf("%w: %q is in no clip of %s", ErrLayout, h.Name, ClipsFile)
			}
			why = fmt.Sprintf("%q is not in classes.txt", folder)
			return io.EOF
		}
		if s.Pictures++; s.Pictures > maxPictures {
			return fmt.Errorf("%w: over %d pictures", ErrLayout, maxPictures)
		}
		if s.Stream {
			return s.countFrame(folder)
		}
		return nil
	})
	s.Clips = slices.DeleteFunc(s.Clips, func(c Clip) bool { return c.Frames == 0 })
	if err == nil && why == "" && s.Pictures == 0 {
		why = "no pictures"
	}
	return why, err
}

// walk calls f for each regular member until f returns an error; io.EOF ends
// it without one.
func (s *Split) walk(f func(*tar.Header, io.Reader) error) error {
	file, err := os.Open(s.Tar)
	if err != nil {
		return err
	}
	defer file.Close()
	r := tar.NewReader(file) // not buffered: it seeks over what nobody reads
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return fmt.Errorf("%w: %w", ErrLayout, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := f(h, r); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// pictureFolder returns the folder of a picture's name; ok is false for members
// that are no pictures.
func pictureFolder(name string) (folder string, ok bool) {
	switch strings.ToLower(path.Ext(name)) {
	case ".jpg", ".jpeg", ".png":
	default:
		return "", false
	}
	return strings.TrimPrefix(path.Dir(name), "./"), true
}

// Only returns the split with these of its pictures alone, ascending.
func (s *Split) Only(pictures []int) *Split {
	some := *s
	some.only, some.Pictures = pictures, len(pictures)
	return &some
}

// Selection tells splits apart that Only made of one: "" for all pictures.
func (s *Split) Selection() string {
	if s.only == nil {
		return ""
	}
	return fmt.Sprint(s.only)
}

// Picture is one member of a split.
type Picture struct {
	Name  string
	Class int    // index into Classes
	Data  []byte // the file; the receiver may keep it
	Err   error  // why there is no Data; the picture counts all the same
}

// Each calls f for every step-th picture in the tar's order, the first
// included, until f returns an error, which it returns.
func (s *Split) Each(step int, f func(Picture) error) error {
	n, all := -1, -1
	return s.walk(func(h *tar.Header, r io.Reader) error {
		folder, ok := pictureFolder(h.Name)
		if !ok {
			return nil
		}
		class, ok := s.class[folder]
		if !ok {
			return fmt.Errorf("%w: %q was not there before", ErrLayout, h.Name)
		}
		if all++; s.only != nil {
			if n+1 == len(s.only) {
				return io.EOF
			}
			if all != s.only[n+1] {
				return nil
			}
		}
		if n++; n%step != 0 {
			return nil
		}
		p := Picture{Name: h.Name, Class: class}
		if h.Size > maxPicture {
			p.Err = fmt.Errorf("%d bytes, at most %d", h.Size, maxPicture)
		} else {
			p.Data = make([]byte, h.Size)
			if _, err := io.ReadFull(r, p.Data); err != nil {
				return fmt.Errorf("%w: %s: %w", ErrLayout, h.Name, err)
			}
		}
		return f(p)
	})
}
