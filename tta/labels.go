package tta

import "strings"

// CleanLabels returns labels as a session uses them: valid UTF-8, white space
// trimmed and collapsed, without empty ones and without doubles (upper and
// lower case count as the same), in their order. It is the one place that does
// so: pages, messages and eval come through here.
func CleanLabels(labels []string) []string {
	out := make([]string, 0, len(labels))
	seen := make(map[string]bool, len(labels))
	for _, l := range labels {
		l = strings.Join(strings.Fields(strings.ToValidUTF8(l, "\uFFFD")), " ")
		key := strings.ToLower(l)
		if l == "" || seen[key] {
			continue
		}
		seen[key] = true
		out = append(out, l)
	}
	return out
}
