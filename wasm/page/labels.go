package page

import "strings"

// SplitLabels takes apart what a person types: labels between commas or line
// ends, white space around them ignored, doubles (whatever their case) and
// empty ones left out.
func SplitLabels(text string) []string {
	var labels []string
	seen := map[string]bool{}
	for _, l := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' || r == ';' }) {
		l = strings.Join(strings.Fields(l), " ")
		if key := strings.ToLower(l); l != "" && !seen[key] {
			seen[key] = true
			labels = append(labels, l)
		}
	}
	return labels
}

// Subset reports whether every label stands in known, whatever its case.
func Subset(labels, known []string) bool {
	set := make(map[string]bool, len(known))
	for _, k := range known {
		set[strings.ToLower(k)] = true
	}
	for _, l := range labels {
		if !set[strings.ToLower(l)] {
			return false
		}
	}
	return true
}
