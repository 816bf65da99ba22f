package dataset

import (
	"archive/tar"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// CaptionsFile is the member of a captioned tar that has the captions: a
// picture's name, tab, a caption a line.
const CaptionsFile = "captions.tsv"

// Loose returns all pictures of a tar whatever classes.txt says: its folders
// are the classes, in the tar's order. It serves backgrounds and captioned
// pictures.
func Loose(name string) (Split, error) {
	s := Split{Set: filepath.Base(filepath.Dir(name)), Name: strings.TrimSuffix(filepath.Base(name), ".tar"), Tar: name, class: make(map[string]int)}
	err := s.walk(func(h *tar.Header, _ io.Reader) error {
		folder, ok := pictureFolder(h.Name)
		if !ok {
			return nil
		}
		if _, ok := s.class[folder]; !ok {
			s.class[folder] = len(s.Classes)
			if s.Classes = append(s.Classes, Class{Folder: folder, Spellings: []string{folder}}); len(s.Classes) > maxClasses {
				return fmt.Errorf("%w: over %d folders", ErrLayout, maxClasses)
			}
		}
		if s.Pictures++; s.Pictures > maxPictures {
			return fmt.Errorf("%w: over %d pictures", ErrLayout, maxPictures)
		}
		return nil
	})
	if err == nil && s.Pictures == 0 {
		err = fmt.Errorf("%w: no pictures", ErrLayout)
	}
	if err != nil {
		return Split{}, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// Captions returns the captions of every step-th picture, in the order of
// Each. A picture without one is an error.
func (s *Split) Captions(step int) ([][]string, error) {
	var names []string
	var of map[string][]string
	n := -1
	err := s.walk(func(h *tar.Header, r io.Reader) error {
		if _, ok := pictureFolder(h.Name); ok {
			if n++; n%step == 0 {
				names = append(names, h.Name)
			}
		}
		if h.Name != CaptionsFile {
			return nil
		}
		if h.Size > maxText {
			return fmt.Errorf("%w: %s has %d bytes", ErrLayout, CaptionsFile, h.Size)
		}
		b, err := io.ReadAll(r)
		if err == nil {
			of, err = parseCaptions(string(b))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Tar, err)
	}
	captions := make([][]string, len(names))
	for i, name := range names {
		if captions[i] = of[name]; len(captions[i]) == 0 {
			return nil, fmt.Errorf("%s: %w: %s has no caption", s.Tar, ErrLayout, name)
		}
	}
	return captions, nil
}

// parseCaptions returns the captions by picture.
func parseCaptions(text string) (map[string][]string, error) {
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("%w: %s is not UTF-8", ErrLayout, CaptionsFile)
	}
	of := make(map[string][]string)
	n := 0
	for line := range strings.Lines(text) {
		n++
		name, caption, _ := strings.Cut(line, "\t")
		if caption = strings.Join(strings.Fields(caption), " "); name == "" || caption == "" {
			return nil, fmt.Errorf("%w: %s, line %d: want name, tab, caption", ErrLayout, CaptionsFile, n)
		}
		of[name] = append(of[name], caption)
	}
	return of, nil
}
