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
	b, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxText {
		return nil, fmt.Errorf("%w: prompts have over %d bytes", ErrLayout, maxText)
	}
	p := make(Prompts)
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		label, wording, ok := strings.Cut(line, "\t")
		label, wording = strings.ToLower(strings.TrimSpace(label)), strings.TrimSpace(wording)
		if !ok || label == "" || wording == "" || strings.Contains(wording, "\t") {
			return nil, fmt.Errorf("%w: prompts, line %d: want label, tab, wording", ErrLayout, n)
		}
		if _, twice := p[label]; twice {
			return nil, fmt.Errorf("%w: prompts, line %d: %q stands twice", ErrLayout, n, label)
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
