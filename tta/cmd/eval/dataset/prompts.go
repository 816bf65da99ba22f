package dataset

import (
	"fmt"
	"io"
	"strings"
)

// Prompts are better wordings of labels, keyed by label in lower case.
type Prompts map[string]string

// ReadPrompts reads lines of label, tab, wording; empty lines and those that
// begin with # are passed over.
func ReadPrompts(r io.Reader) (Prompts, error) {
	lines, err := readLines(r)
	if err != nil {
		return nil, err
	}
	p := make(Prompts)
	for _, l := range lines {
		label, wording, ok := strings.Cut(l.text, "\t")
		label, wording = strings.ToLower(strings.TrimSpace(label)), strings.TrimSpace(wording)
		if !ok || label == "" || wording == "" || strings.Contains(wording, "\t") {
			return nil, fmt.Errorf("%w: prompts, line %d: want label, tab, wording", ErrLayout, l.number)
		}
		if _, twice := p[label]; twice {
			return nil, fmt.Errorf("%w: prompts, line %d: %q stands twice", ErrLayout, l.number, label)
		}
		p[label] = wording
	}
	return p, nil
}

// Reword replaces names by their wordings and returns how many changed. A
// class is looked up by its chosen name, then by its first spelling.
func (p Prompts) Reword(classes []Class, names []string) (changed int) {
	for i, c := range classes {
		for _, key := range []string{names[i], c.Spellings[0]} {
			if w, ok := p[strings.ToLower(key)]; ok {
				names[i] = w
				changed++
				break
			}
		}
	}
	return changed
}
