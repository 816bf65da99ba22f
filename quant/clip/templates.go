package clip

import "strings"

// Expand puts label where a template has "{}".
func Expand(template, label string) string { return strings.ReplaceAll(template, "{}", label) }

// NormalizeLabel is the form in which labels are compared with the ready
// table: lower case, underscores as spaces, single spaces.
func NormalizeLabel(label string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(strings.ToLower(label), "_", " ")), " ")
}
