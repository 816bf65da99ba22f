package proto

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	lean "lqa/quant/json"
)

var update = flag.Bool("update", false, "write web/protocol.d.ts anew")

const twin = "../../web/protocol.d.ts"

// payloads says which part of Reply comes with each kind of reply.
var payloads = []struct {
	kind  Kind
	parts []string
}{
	{Hello, []string{"version: number"}},
	{Progress, []string{"ProgressInfo"}},
	{Loaded, []string{"ModelInfo", "memory: Memory"}},
	{Opened, []string{"SessionInfo"}},
	{Result, []string{"Answer", "memory: Memory; view?: ImageData"}},
	{Dropped, nil},
	{Done, nil},
	{Taught, []string{"Lessons", "view?: ImageData"}},
	{Saved, []string{"state: Uint8Array"}},
	{Restored, []string{"Lessons"}},
	{Failed, []string{"Error"}},
}

// TestTwin holds proto.go and web/protocol.d.ts together: the declarations are
// written from the Go source, comments included.
func TestTwin(t *testing.T) {
	want := declarations(t)
	if *update {
		if err := os.WriteFile(twin, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(twin)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("web/protocol.d.ts is not what proto.go says; go test ./wasm/proto -update writes it")
	}
}

func declarations(t *testing.T) []byte {
	file, err := parser.ParseFile(token.NewFileSet(), "proto.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	b.WriteString("// The page ⇄ engine contract, twin of wasm/proto. Written from it: go test ./wasm/proto -update\n\n")
	fmt.Fprintf(&b, "/** Version of the protocol. */\nexport type Version = %d;\n\n", Version)
	values := map[string][]string{} // by type
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			if v.Type == nil {
				continue
			}
			name, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			line := "  | '" + name + "'"
			if c := comment(v.Comment); c != "" {
				line += " // " + c
			}
			typ := v.Type.(*ast.Ident).Name
			values[typ] = append(values[typ], line)
		}
	}
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		spec := g.Specs[0].(*ast.TypeSpec)
		name := spec.Name.Name
		fmt.Fprintf(&b, "/** %s */\n", strings.ReplaceAll(strings.TrimSpace(g.Doc.Text()), "\n", " "))
		st, ok := spec.Type.(*ast.StructType)
		switch {
		case !ok:
			fmt.Fprintf(&b, "export type %s =\n%s;\n\n", name, strings.Join(values[name], "\n"))
		case name == "Reply":
			b.WriteString("export type Reply =\n")
			for i, p := range payloads {
				parts := ""
				for _, part := range p.parts {
					if strings.Contains(part, ":") {
						part = "{" + part + "}"
					}
					parts += " & " + part
				}
				end := "\n"
				if i == len(payloads)-1 {
					end = ";\n\n"
				}
				fmt.Fprintf(&b, "  | {kind: '%s'; id: number; session?: string}%s%s", p.kind, parts, end)
			}
		default:
			fmt.Fprintf(&b, "export interface %s {\n", name)
			for _, f := range st.Fields.List {
				tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json")
				key, options, _ := strings.Cut(tag, ",")
				if options == "omitempty" {
					key += "?"
				}
				line := "  " + key + ": " + tsType(t, f.Type) + ";"
				if c := comment(f.Comment); c != "" {
					line += " // " + c
				}
				b.WriteString(line + "\n")
			}
			b.WriteString("}\n\n")
		}
	}
	b.WriteString("/** What travels as the image of a frame: transferred, and closed by the engine. */\nexport type Picture = VideoFrame | ImageBitmap | ImageData;\n")
	return b.Bytes()
}

func comment(c *ast.CommentGroup) string { return strings.TrimSpace(c.Text()) }

func tsType(t *testing.T, e ast.Expr) string {
	switch e := e.(type) {
	case *ast.ArrayType:
		return tsType(t, e.Elt) + "[]"
	case *ast.StarExpr:
		return tsType(t, e.X)
	case *ast.Ident:
		switch e.Name {
		case "string":
			return "string"
		case "bool":
			return "boolean"
		case "int", "int64", "float32", "float64":
			return "number"
		}
		return e.Name
	}
	t.Fatalf("no TypeScript for %T", e)
	return ""
}

// TestReplyKeys finds fields of Reply's parts that encoding/json would drop
// because two of them share a name.
func TestReplyKeys(t *testing.T) {
	full := Reply{Kind: Result, Memory: &Memory{}, ProgressInfo: &ProgressInfo{}, ModelInfo: &ModelInfo{},
		SessionInfo: &SessionInfo{}, Lessons: &Lessons{}, Answer: &Answer{}, Error: &Error{}}
	b, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]any
	if err := json.Unmarshal(b, &keys); err != nil {
		t.Fatal(err)
	}
	for _, part := range []any{ProgressInfo{}, ModelInfo{}, SessionInfo{}, Lessons{}, Answer{}, Error{}} {
		typ := reflect.TypeOf(part)
		for i := range typ.NumField() {
			key, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if _, ok := keys[key]; !ok {
				t.Errorf("%s.%s does not reach the wire", typ.Name(), typ.Field(i).Name)
			}
		}
	}
}

// TestText holds text.go to the fields' tags: it writes what encoding/json
// writes and reads it back, for messages with every field set and with none,
// and each part of a reply alone.
func TestText(t *testing.T) {
	requests := []*Request{{}, {Labels: make([]string, 3)}}
	fill(reflect.ValueOf(requests[1]).Elem())
	for _, q := range requests {
		got := same(t, q, q.Write)
		again, r := new(Request), new(lean.Reader)
		if err := r.Read(got, func() { again.Read(r) }); err != nil || !reflect.DeepEqual(again, q) {
			t.Errorf("%s was read as %+v, %v", got, again, err)
		}
	}
	full := func() *Reply {
		scores := func() Scores { return Scores{Scores: make([]Score, 2)} }
		m := &Reply{Memory: &Memory{}, ProgressInfo: &ProgressInfo{},
			ModelInfo: &ModelInfo{Defaults: make([]string, 2), Templates: make([]string, 1), Adapters: make([]string, 3),
				Methods: make([]Method, 2), Effects: make([]string, 1)},
			SessionInfo: &SessionInfo{Labels: make([]string, 2), Known: make([]bool, 2)},
			Lessons:     &Lessons{Taught: make([]Example, 2)},
			Answer:      &Answer{ZeroShot: scores(), Adapted: scores(), Report: Report{Voted: make([]Vote, 2)}}, Error: &Error{}}
		fill(reflect.ValueOf(m).Elem())
		return m
	}
	replies := []*Reply{{}, full()}
	for i := range reflect.TypeFor[Reply]().NumField() {
		m := new(Reply)
		reflect.ValueOf(m).Elem().Field(i).Set(reflect.ValueOf(full()).Elem().Field(i))
		replies = append(replies, m)
	}
	for _, m := range replies {
		got := same(t, m, m.Write)
		again, r := new(Reply), new(lean.Reader)
		if m.Lessons = nil; m.ModelInfo != nil {
			m.Methods = nil
		}
		if m.Answer != nil {
			m.Report.Voted = nil
		}
		if err := r.Read(got, func() { again.Read(r) }); err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%s was read as %+v, %v", got, again, err)
		}
	}
}

// same returns a message as write writes it, which is as encoding/json does.
func same(t *testing.T, m any, write func(*lean.Writer)) []byte {
	t.Helper()
	want, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var w lean.Writer
	if write(&w); !bytes.Equal(w.Text, want) || w.Err() != nil {
		t.Errorf("%s, %v; want\n%s", w.Text, w.Err(), want)
	}
	return w.Text
}

// fill gives each field below v a value of its own, but for what is nil.
func fill(v reflect.Value) {
	n := 0
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		n++
		switch v.Kind() {
		case reflect.Pointer:
			walk(v.Elem())
		case reflect.Struct:
			for i := range v.NumField() {
				walk(v.Field(i))
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.String:
			v.SetString(fmt.Sprintf("<%d> é\n", n))
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Int, reflect.Int64:
			v.SetInt(int64(n))
		case reflect.Float32, reflect.Float64:
			v.SetFloat(float64(n) + 0.125)
		default:
			panic(v.Kind().String())
		}
	}
	walk(v)
}

// TestWrite_NoAllocations: writing an answer leaves nothing for the collector.
func TestWrite_NoAllocations(t *testing.T) {
	m := Reply{Kind: Result, ID: 1 << 20, Memory: &Memory{}, Answer: &Answer{ZeroShot: Scores{Scores: []Score{{"mug", 0.1}, {"cat", 1e-9}}}}}
	var w lean.Writer
	if n := testing.AllocsPerRun(50, func() {
		w.Reset()
		m.Write(&w)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzRequest: no bytes from outside make decoding panic, and what is decoded
// survives another round.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		`{"kind":"hello","id":1,"version":1}`,
		`{"kind":"load","id":2,"url":"model.shq","integrity":"00"}`,
		`{"kind":"open","id":3,"session":"a","labels":["mug","banana"],"template":"a {}","adapter":"lqa"}`,
		`{"kind":"frame","id":4,"session":"a","time":1e300,"still":true}`,
		`{"kind":"teach","id":5,"session":"a","label":"mug"}`,
		`{"kind":"unteach","id":6,"session":"a","example":-1}`,
		`{"kind":"effect","id":7,"session":"a","effect":"dark","strength":9}`,
		`{"id":1e99}`, `[]`, `null`, `{`, "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var q, again Request
		r := new(lean.Reader)
		if r.Read(b, func() { q.Read(r) }) != nil {
			return
		}
		var w lean.Writer
		q.Write(&w)
		if err := r.Read(w.Text, func() { again.Read(r) }); err != nil || w.Err() != nil {
			t.Fatalf("%s: %v, %v", w.Text, err, w.Err())
		}
		if len(q.Labels) == 0 {
			q.Labels = nil // omitted when empty
		}
		if !reflect.DeepEqual(q, again) {
			t.Fatalf("%+v became %+v", q, again)
		}
	})
}
