package dataset

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Class is a line of classes.txt.
type Class struct {
	Folder    string   // first field: the folder's name, or a stream's label
	Spellings []string // all names for people, the folder's first; never empty
}

var (
	wordnet = regexp.MustCompile(`^n\d{8}$`)
	number  = regexp.MustCompile(`^\d+$`)
)

// readClasses reads classes.txt: a class a line, other names after tabs.
// WordNet ids are no names; underscores stand for spaces.
func readClasses(name string) ([]Class, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxText {
		return nil, fmt.Errorf("%w: classes.txt has %d bytes", ErrLayout, info.Size())
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(b) {
		return nil, fmt.Errorf("%w: classes.txt is not UTF-8", ErrLayout)
	}
	var classes []Class
	seen := make(map[string]bool)
	for line := range strings.Lines(string(b)) {
		fields := strings.Split(strings.TrimRight(line, "\r\n"), "\t")
		c := Class{Folder: fields[0]}
		if c.Folder == "" {
			continue
		}
		if seen[c.Folder] {
			return nil, fmt.Errorf("%w: class %q stands twice in classes.txt", ErrLayout, c.Folder)
		}
		seen[c.Folder] = true
		for _, f := range fields {
			f = strings.Join(strings.Fields(strings.ReplaceAll(f, "_", " ")), " ")
			if f != "" && !wordnet.MatchString(f) {
				c.Spellings = append(c.Spellings, f)
			}
		}
		if len(c.Spellings) == 0 {
			c.Spellings = []string{c.Folder}
		}
		if classes = append(classes, c); len(classes) > maxClasses {
			return nil, fmt.Errorf("%w: over %d classes", ErrLayout, maxClasses)
		}
	}
	if len(classes) == 0 {
		return nil, fmt.Errorf("%w: classes.txt is empty", ErrLayout)
	}
	return classes, nil
}

// Names chooses one name a class, by one rule for all sets:
//
//   - a class with a bare number among its spellings shows something that stands
//     for the number, and its last spelling says what ("zero, 0, hand sign for
//     zero");
//   - else the first spelling that stands in the model's ready table (known);
//   - else the first spelling.
func Names(classes []Class, known func([]string) []bool) []string {
	names := make([]string, len(classes))
	for i, c := range classes {
		names[i] = c.name(known)
	}
	return names
}

func (c Class) name(known func([]string) []bool) string {
	for _, s := range c.Spellings {
		if number.MatchString(s) {
			return c.Spellings[len(c.Spellings)-1]
		}
	}
	for i, ok := range known(c.Spellings) {
		if ok {
			return c.Spellings[i]
		}
	}
	return c.Spellings[0]
}
