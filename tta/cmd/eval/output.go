package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// print writes a JSON line, a struct, and keeps it for the table of finish.
func (r *run) print(line any) error {
	r.progress.End()
	r.lines = append(r.lines, line)
	return json.NewEncoder(r.stdout).Encode(line)
}

// tabulate says what a suite's table is, where its lines alone make none: it is
// shown where no --markdown takes it.
func (r *run) tabulate(table string) {
	r.table = table
	if r.markdown == "" {
		r.progress.End()
		fmt.Fprint(r.stderr, table)
	}
}

// finish writes the table where --markdown says.
func (r *run) finish() error {
	if r.table == "" {
		r.table = markdown(r.lines)
	}
	return r.writeMarkdown(r.table)
}

// writeMarkdown writes a table where --markdown says.
func (r *run) writeMarkdown(table string) error {
	if r.markdown == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(r.markdown), 0o777); err != nil {
		return err
	}
	return os.WriteFile(r.markdown, []byte(table), 0o666)
}

// markdown is a table of lines, structs with JSON names: a column a name in the
// order in which they come up, without suite and model. What JSON would omit
// stays empty.
func markdown(lines []any) string {
	var names []string
	rows := make([]map[string]string, len(lines))
	for i, line := range lines {
		rows[i] = make(map[string]string)
		v := reflect.ValueOf(line)
		for _, f := range reflect.VisibleFields(v.Type()) {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || name == "suite" || name == "model" {
				continue
			}
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
			if x := v.FieldByIndex(f.Index); options != "omitempty" || !x.IsZero() {
				rows[i][name] = strings.ReplaceAll(fmt.Sprint(x.Interface()), "|", `\|`)
			}
		}
	}
	var b strings.Builder
	row := func(cell func(name string) string) {
		for _, n := range names {
			b.WriteString("| " + cell(n) + " ")
		}
		b.WriteString("|\n")
	}
	row(func(name string) string { return name })
	row(func(string) string { return "---" })
	for _, cells := range rows {
		row(func(name string) string { return cells[name] })
	}
	return b.String()
}
