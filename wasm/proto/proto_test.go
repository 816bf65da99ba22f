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
	{Result, []string{"Answer", "memory: Memory"}},
	{Dropped, nil},
	{Done, nil},
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
		SessionInfo: &SessionInfo{}, Answer: &Answer{}, Error: &Error{}}
	b, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]any
	if err := json.Unmarshal(b, &keys); err != nil {
		t.Fatal(err)
	}
	for _, part := range []any{ProgressInfo{}, ModelInfo{}, SessionInfo{}, Answer{}, Error{}} {
		typ := reflect.TypeOf(part)
		for i := range typ.NumField() {
			key, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if _, ok := keys[key]; !ok {
				t.Errorf("%s.%s does not reach the wire", typ.Name(), typ.Field(i).Name)
			}
		}
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
		`{"id":1e99}`, `[]`, `null`, `{`, "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again Request
		if json.Unmarshal(b, &r) != nil {
			return
		}
		out, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if err := json.Unmarshal(out, &again); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if len(r.Labels) == 0 {
			r.Labels = nil // omitted when empty
		}
		if !reflect.DeepEqual(r, again) {
			t.Fatalf("%+v became %+v", r, again)
		}
	})
}
