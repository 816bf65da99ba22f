package json

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// tree reads any value the way encoding/json does.
func tree(r *Reader) any {
	switch r.Next() {
	case '{':
		m := map[string]any{}
		r.Object(func(key []byte) { m[string(key)] = tree(r) })
		return m
	case '[':
		l := []any{}
		r.Array(func() { l = append(l, tree(r)) })
		return l
	case '"':
		return r.String()
	case 't', 'f':
		return r.Bool()
	case 'n':
		r.Skip()
		return nil
	}
	return r.Float64()
}

func parse(text string) (v any, err error) {
	r := new(Reader)
	err = r.Read([]byte(text), func() { v = tree(r) })
	return v, err
}

func TestRead(t *testing.T) {
	for _, text := range []string{
		`{}`, `[]`, ` [ ] `, "\t{\r\n}", `""`, `0`, `-0`, `-0.5e+10`, `1E9`, `true`, `false`, `null`, `[null]`,
		`{"a":{"b":[1,2,{"c":"d"}]},"e":-1}`, `"\"\\\/\b\f\n\r\t\u0041\u00e9\u20ac\ud83d\ude00"`, `"é€😀"`,
		`"\ud83dx"`, `"\ude00"`, `"\ud83d\u0041"`, `"\ud83d\ud83d\ude00"`, `{"\u0061b":1}`, "\"\u007f\u2028\"",
		strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth),
	} {
		got, err := parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var want any
		if err := stdjson.Unmarshal([]byte(text), &want); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v, want %#v", text, got, want)
		}
	}
}

func TestRead_Refuses(t *testing.T) {
	many := make([]string, 40)
	for i := range many {
		many[i] = fmt.Sprintf("%q:%d", fmt.Sprint("k", i%39), i)
	}
	for text, at := range map[string]int{
		"": 0, " ": 1, "{": 1, "[": 1, "[1": 2, "[1,": 3, "[1,]": 3, "[,1]": 1, "[1 2]": 3, "{,}": 1, `{"a"}`: 4, `{"a":}`: 5,
		`{"a":1,}`: 7, `{a:1}`: 1, `{1:1}`: 1, `{"a":1 "b":2}`: 7, "]": 0, "[}": 1, "{]": 1, "{}{}": 2, "1 1": 2, "\ufeff{}": 0,
		"01": 1, "-": 0, "+1": 0, ".5": 0, "1.": 2, "1.e1": 2, "1e": 2, "1e+": 3, "0x1": 1, "NaN": 0, "Infinity": 0, "-Infinity": 0,
		"tru": 0, "trua": 0, "True": 0, "nul": 0, `"`: 1, `"a`: 2, "\"\n\"": 1, `"\`: 1, `"\x"`: 1, `"\u12"`: 5, `"\u12g4"`: 5, `"\` + "\x00\"": 1,
		"\"\xff\"": 1, "\"\xc0\x80\"": 1, "\"\xed\xa0\x80\"": 1, "{\"\xff\":1}": 2, "'a'": 0, "[1]//": 3, "\f1": 0, "1e999": 0, "-1e999": 0,
		`{"a":1,"a":1}`: 13, `{"a":null,"a":1}`: 16, `{"a":1,"\u0061":2}`: 18, `{"x":[{"b":1,"b":2}]}`: 19,
		"{" + strings.Join(many, ",") + "}":                               len(strings.Join(many, ",")) + 2,
		strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1): MaxDepth,
		strings.Repeat("[", 1<<20):                                        MaxDepth,
		strings.Repeat(`{"":`, 1<<20):                                     4 * MaxDepth,
	} {
		_, err := parse(text)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.40q: %v", text, err)
		} else if e.Offset != at {
			t.Errorf("%.40q: %v, want byte %d", text, err, at)
		}
		r := new(Reader)
		if err := r.Read([]byte(text), r.Skip); err == nil && !strings.Contains(text, "999") {
			t.Errorf("%.40q was skipped without an error", text)
		}
	}
}

// TestRead_Types: a wrong type is the error, and what stands elsewhere is read
// all the same.
func TestRead_Types(t *testing.T) {
	for _, text := range []string{
		`{"int":1.5,"id":7}`, `{"int":1e3,"id":7}`, `{"int":9223372036854775808,"id":7}`, `{"int":"1","id":7}`, `{"int":[1],"id":7}`,
		`{"float":"1","id":7}`, `{"float":true,"id":7}`, `{"float":1e39,"id":7}`, `{"bool":0,"id":7}`, `{"bool":"true","id":7}`,
		`{"string":1,"id":7}`, `{"string":{"id":8},"id":7}`, `{"strings":"a","id":7}`, `{"strings":["a",null],"id":7}`, `{"object":[],"id":7}`,
	} {
		r, id := new(Reader), 0
		err := r.Read([]byte(text), func() {
			r.Object(func(key []byte) {
				switch string(key) {
				case "int":
					r.Int()
				case "float":
					r.Float32()
				case "bool":
					r.Bool()
				case "string":
					_ = r.String()
				case "strings":
					r.Strings()
				case "object":
					r.Object(func([]byte) {})
				case "id":
					id = r.Int()
				}
			})
		})
		var e *Error
		if !errors.As(err, &e) || id != 7 {
			t.Errorf("%s: id %d, %v", text, id, err)
		}
	}
}

func TestRead_Stop(t *testing.T) {
	r, n, enough := new(Reader), 0, errors.New("enough")
	err := r.Read([]byte(`[1,2,3,4,"`), func() {
		r.Array(func() {
			if n++; n == 3 {
				r.Stop(enough)
			}
		})
	})
	if err != enough || n != 3 {
		t.Errorf("%d elements, %v", n, err)
	}
}

func TestReader_Raw(t *testing.T) {
	r := new(Reader)
	err := r.Read([]byte(` {"a": {"b" : [1]} ,"c":2}`), func() {
		r.Object(func(key []byte) {
			if raw := r.Raw(); string(key) == "a" && string(raw) != `{"b" : [1]}` {
				t.Errorf("raw is %s", raw)
			}
		})
	})
	if err != nil {
		t.Error(err)
	}
}

func TestReader_NoAllocations(t *testing.T) {
	r, text := new(Reader), []byte(`{"kind":"frame","id":123456,"time":1234567.25,"still":true,"more":[{"x":"\n"}]}`)
	var sum float64
	read := func() {
		err := r.Read(text, func() {
			r.Object(func(key []byte) {
				switch string(key) {
				case "id":
					sum += float64(r.Int())
				case "time":
					sum += r.Float64()
				}
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(50, read); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestWriter(t *testing.T) {
	var w Writer
	w.Open('{')
	w.Key("a")
	w.Open('[')
	w.Int(-1)
	w.Open('[')
	w.Close(']')
	w.Bool(true)
	w.Open('{')
	w.Close('}')
	w.Close(']')
	w.Key("b")
	w.Strings([]string{"x", "[", "y"})
	w.Key("c")
	w.Raw([]byte("null"))
	w.Close('}')
	const want = `{"a":[-1,[],true,{}],"b":["x","[","y"],"c":null}`
	if string(w.Text) != want || w.Err() != nil {
		t.Errorf("%s, %v", w.Text, w.Err())
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		w.Reset()
		if w.Float64(v); w.Err() == nil || string(w.Text) != "null" {
			t.Errorf("%v: %s, %v", v, w.Text, w.Err())
		}
	}
	if w.Reset(); w.Err() != nil {
		t.Error("an error outlives Reset")
	}
}

// FuzzWriter: numbers and strings are spelt as encoding/json spells them.
func FuzzWriter(f *testing.F) {
	for _, v := range []float64{0, 1, 1e-6, 9.9e-7, 1e-7, 1e-10, 1e20, 1e21, 0.1, 123456789, math.MaxFloat64, 5e-324, math.MaxFloat32} {
		f.Add("", v)
		f.Add("", -v)
	}
	for _, s := range []string{"a", "\"\\/<>&\b\f\n\r\t\x00\x1f\x7f", "é€😀\u2028\u2029\ufffd", "\xff\xc0\x80", "\xed\xa0\x80", "\xe2\x80", "x\xe2\x80\xa8"} {
		f.Add(s, 1.)
	}
	f.Fuzz(func(t *testing.T, s string, v float64) {
		check := func(v any, write func(w *Writer)) {
			var w Writer
			write(&w)
			want, err := stdjson.Marshal(v)
			if (err != nil) != (w.Err() != nil) || err == nil && string(w.Text) != string(want) {
				t.Errorf("%#v: %s, want %s; %v, want %v", v, w.Text, want, w.Err(), err)
			}
		}
		check(s, func(w *Writer) { w.String(s) })
		check(v, func(w *Writer) { w.Float64(v) })
		check(float32(v), func(w *Writer) { w.Float32(float32(v)) })
	})
}

// FuzzRead: no text makes reading panic, and what is accepted encoding/json
// accepts too and reads alike; what only it accepts has one of the few faults
// that it forgives. Compact changes nothing but the spelling.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,2.5e-3,"x\u00e9\ud83d\ude00"],"b":{"c":true,"d":null}}`, `{"a":1,"a":2}`, `"\ud800"`, "\"\xff\"", `[1,]`, `1e999`, " \"<&>\u2028\" ",
		`"\u`, `{"`, `-`, `{"a" : [ ] }`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parse(s)
		var want any
		stdErr := stdjson.Unmarshal([]byte(s), &want)
		if err != nil {
			forgiven := !utf8.ValidString(s) || strings.Contains(err.Error(), "twice") || strings.Contains(err.Error(), "deep")
			if stdErr == nil && !forgiven {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if stdErr != nil {
			t.Fatalf("%q is read, encoding/json: %v", s, stdErr)
		}
		if !reflect.DeepEqual(got, prune(want)) {
			t.Fatalf("%q: %#v, want %#v", s, got, want)
		}
		b, err := Compact(nil, []byte(s))
		if err != nil {
			t.Fatal(err)
		}
		if b2, err := stdjson.Marshal(Raw(s)); err != nil || string(b2) != string(b) {
			t.Fatalf("%q: compact %s, want %s, %v", s, b, b2, err)
		}
	})
}

// prune takes out what Object does not show: keys whose value is null.
func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if v[k] = prune(e); e == nil {
				delete(v, k)
			}
		}
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
	}
	return v
}
