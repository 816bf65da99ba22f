package dataset

import (
	"fmt"
	"io"
	"strings"
)

// Shows says which word the pictures of a class show.
type Shows struct {
	Split  string   // set, slash, split
	Folder string   // of classes.txt
	Words  []string // any of them is right; the first is the one that is meant
	Apart  bool     // printed, not pooled with others
}

// ReadShows reads lines of split, folder and word by tabs: words that are
// equally right stand between "|", and a fourth field "apart" is Shows.Apart.
// Empty lines and those that begin with # are passed over.
func ReadShows(r io.Reader) ([]Shows, error) {
	lines, err := readLines(r)
	if err != nil {
		return nil, err
	}
	var list []Shows
	seen := make(map[[2]string]bool)
	for _, l := range lines {
		f := strings.Split(l.text, "\t")
		if len(f) != 3 && (len(f) != 4 || f[3] != "apart") || f[0] == "" || f[1] == "" {
			return nil, fmt.Errorf("%w: line %d: want split, folder, word, by tabs", ErrLayout, l.number)
		}
		s := Shows{Split: f[0], Folder: f[1], Words: strings.Split(f[2], "|"), Apart: len(f) == 4}
		for _, w := range s.Words {
			if w == "" || w != strings.TrimSpace(w) {
				return nil, fmt.Errorf("%w: line %d: word %q", ErrLayout, l.number, w)
			}
		}
		if key := [2]string{f[0], f[1]}; seen[key] {
			return nil, fmt.Errorf("%w: line %d: %s of %s stands twice", ErrLayout, l.number, f[1], f[0])
		} else {
			seen[key] = true
		}
		list = append(list, s)
	}
	return list, nil
}

// ReadWords reads a word or phrase a line; empty lines and those that begin
// with # are passed over.
func ReadWords(r io.Reader) ([]string, error) {
	lines, err := readLines(r)
	if err != nil {
		return nil, err
	}
	words := make([]string, len(lines))
	for i, l := range lines {
		words[i] = l.text
	}
	return words, nil
}

// line is one that says something, without the space around it.
type line struct {
	number int
	text   string
}

func readLines(r io.Reader) ([]line, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxText {
		return nil, fmt.Errorf("%w: over %d bytes", ErrLayout, maxText)
	}
	var lines []line
	n := 0
	for text := range strings.Lines(string(b)) {
		n++
		if text = strings.TrimSpace(text); text != "" && !strings.HasPrefix(text, "#") {
			lines = append(lines, line{n, text})
		}
	}
	return lines, nil
}
