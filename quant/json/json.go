// Package json reads and writes JSON (RFC 8259) without reflection: a strict
// cursor over text from outside, and a writer that appends. Both work in
// memory that the caller reuses, and are a tenth of encoding/json's download.
package json

import (
	"errors"
	"math"
	"slices"
	"sort"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth bounds how deep objects and lists nest.
const MaxDepth = 64

// Error is the first fault of a text, and where it is. It prints as
//
//	json: a number is expected, at byte 17
type Error struct {
	Offset int // in bytes
	Reason string
}

func (e *Error) Error() string { return "json: " + e.Reason + ", at byte " + strconv.Itoa(e.Offset) }

// Raw is the text of one value. The methods make encoding/json, which tools
// use, keep it as it is.
type Raw []byte

var errRaw = errors.New("json: Raw without a value")

// MarshalJSON returns r.
func (r Raw) MarshalJSON() ([]byte, error) {
	if len(r) == 0 {
		return nil, errRaw
	}
	return r, nil
}

// UnmarshalJSON keeps a copy of b.
func (r *Raw) UnmarshalJSON(b []byte) error {
	*r = slices.Clone(b)
	return nil
}

// Reader is a cursor over one JSON text. A value of another type than the one
// that is asked for reads as zero and is the text's Error, but reading goes on;
// behind a fault of syntax there is nothing more to read. It is never put back:
// what was read before a fault may be used to say whose text it was, and for
// nothing else.
//
// Besides the grammar it refuses keys that are used twice, UTF-8 that is not
// valid, and nesting beyond MaxDepth. Half a surrogate pair, which JavaScript
// can write, reads as U+FFFD.
type Reader struct {
	text  []byte
	at    int
	depth int
	ended bool // nothing more is read
	err   error
	keys  [][]byte // of the objects that are being read
	buf   []byte   // a string with escapes in it
}

// Read calls value to read the one value of text, and returns the first error:
// an *Error, or what Stop was given. The Reader keeps its buffers for the next
// text.
func (r *Reader) Read(text []byte, value func()) error {
	*r = Reader{text: text, keys: r.keys[:0], buf: r.buf[:0]}
	r.value(value)
	if r.space(); !r.ended && r.at < len(text) {
		r.syntax("something follows the value")
	}
	r.text = nil
	return r.err
}

// Stop ends reading with an error of the caller's, unless there is one already.
func (r *Reader) Stop(err error) {
	if r.err == nil {
		r.err = err
	}
	r.ended = true
}

func (r *Reader) syntax(reason string) {
	if !r.ended { // it outranks a mismatch before it
		r.err = &Error{r.at, reason}
	}
	r.ended = true
}

// mismatch notes a value of the wrong type and passes over it.
func (r *Reader) mismatch(want string) {
	if r.err == nil {
		r.err = &Error{r.at, want + " is expected"}
	}
	r.Skip()
}

// value runs read at a value, and passes over the value if read does not.
func (r *Reader) value(read func()) {
	r.space()
	start := r.at
	read()
	if r.at == start {
		r.Skip()
	}
}

func (r *Reader) space() {
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// Next is the first byte of the value at the cursor: one of { [ " t f n, a
// minus or a digit where the text is right, 0 at its end.
func (r *Reader) Next() byte {
	if r.ended || r.at >= len(r.text) {
		return 0
	}
	return r.text[r.at]
}

// take passes over c, if it is next but for space.
func (r *Reader) take(c byte) bool {
	r.space()
	if r.Next() != c {
		return false
	}
	r.at++
	return true
}

// Object reads an object: each is called at the value of each key, in the
// text's order, and reads it or leaves it. A null is as if its key were not
// there. key is valid during the call only.
func (r *Reader) Object(each func(key []byte)) {
	if r.Next() != '{' {
		r.mismatch("an object")
		return
	}
	if !r.enter() {
		return
	}
	first := len(r.keys)
	for more := !r.take('}'); more && !r.ended; {
		r.space()
		key, escaped := r.string()
		if escaped {
			key = slices.Clone(key)
		}
		r.keys = append(r.keys, key)
		if !r.take(':') {
			r.syntax("a colon is expected")
			break
		}
		r.space()
		if r.Next() == 'n' {
			r.Skip()
		} else {
			r.value(func() { each(key) })
		}
		more = r.more('}')
	}
	if !r.ended && double(r.keys[first:]) {
		r.syntax("a key is used twice in the object that ends here")
	}
	r.keys = r.keys[:first]
	r.depth--
}

// double reports whether two keys are equal. It changes their order.
func double(keys [][]byte) bool {
	if len(keys) > 16 { // many: from outside
		sort.Slice(keys, func(i, j int) bool { return string(keys[i]) < string(keys[j]) }) // not slices': each of its kinds is 13 kB
		for i := 1; i < len(keys); i++ {
			if string(keys[i]) == string(keys[i-1]) {
				return true
			}
		}
		return false
	}
	for i := range keys {
		for _, k := range keys[:i] {
			if string(k) == string(keys[i]) {
				return true
			}
		}
	}
	return false
}

// Array reads a list: each is called at each element, and reads it or leaves
// it.
func (r *Reader) Array(each func()) {
	if r.Next() != '[' {
		r.mismatch("a list")
		return
	}
	if !r.enter() {
		return
	}
	for more := !r.take(']'); more && !r.ended; more = r.more(']') {
		r.value(each)
	}
	r.depth--
}

// enter passes over the first bracket.
func (r *Reader) enter() bool {
	if r.depth == MaxDepth {
		r.syntax("nested too deep")
		return false
	}
	r.depth++
	r.at++
	return true
}

// more reads what follows an element, and reports whether another one does.
func (r *Reader) more(end byte) bool {
	if r.take(',') {
		return true
	}
	if !r.take(end) {
		r.syntax("a comma or the end is expected")
	}
	return false
}

// Skip passes over a value, which is checked all the same.
func (r *Reader) Skip() {
	switch c := r.Next(); {
	case c == '{':
		r.Object(func([]byte) {})
	case c == '[':
		r.Array(func() {})
	case c == '"':
		r.string()
	case c == 't':
		r.word("true")
	case c == 'f':
		r.word("false")
	case c == 'n':
		r.word("null")
	default:
		r.number()
	}
}

func (r *Reader) word(w string) {
	if len(r.text)-r.at < len(w) || string(r.text[r.at:r.at+len(w)]) != w {
		r.syntax("a value is expected")
		return
	}
	r.at += len(w)
}

// Raw reads any value and returns its text, which is part of what Read was
// given.
func (r *Reader) Raw() Raw {
	start := r.at
	if r.Skip(); r.ended {
		return nil
	}
	return Raw(r.text[start:r.at:r.at])
}

// Bool reads true or false.
func (r *Reader) Bool() bool {
	c := r.Next()
	if c != 't' && c != 'f' {
		r.mismatch("true or false")
		return false
	}
	r.Skip()
	return c == 't' && !r.ended
}

// number passes over a number and returns its text.
func (r *Reader) number() []byte {
	start := r.at
	if r.Next() == '-' {
		r.at++
	}
	switch c := r.Next(); {
	case c == '0':
		r.at++
	case !r.digits():
		r.at = start
		r.syntax("a value is expected")
		return nil
	}
	if r.Next() == '.' {
		if r.at++; !r.digits() {
			r.syntax("a digit is expected")
			return nil
		}
	}
	if c := r.Next(); c == 'e' || c == 'E' {
		r.at++
		if c := r.Next(); c == '+' || c == '-' {
			r.at++
		}
		if !r.digits() {
			r.syntax("a digit is expected")
			return nil
		}
	}
	return r.text[start:r.at]
}

// digits passes over digits, and reports whether there are any.
func (r *Reader) digits() bool {
	start := r.at
	for c := r.Next(); '0' <= c && c <= '9'; c = r.Next() {
		r.at++
	}
	return r.at > start
}

// numeric reports whether a number is next; anything else is passed over.
func (r *Reader) numeric(want string) bool {
	if c := r.Next(); c == '-' || '0' <= c && c <= '9' {
		return true
	}
	r.mismatch(want)
	return false
}

// Int reads a number without fraction and exponent.
func (r *Reader) Int() int { return int(r.whole(strconv.IntSize)) }

// Int64 reads a number without fraction and exponent.
func (r *Reader) Int64() int64 { return r.whole(64) }

func (r *Reader) whole(bits int) int64 {
	if !r.numeric("a whole number") {
		return 0
	}
	start := r.at
	v, err := strconv.ParseInt(string(r.number()), 10, bits)
	return checked(r, v, err, start, "not a whole number of this machine")
}

// Float64 reads a number; one that has no finite float64 is an error.
func (r *Reader) Float64() float64 { return r.float(64) }

// Float32 reads a number; one that has no finite float32 is an error.
func (r *Reader) Float32() float32 { return float32(r.float(32)) }

func (r *Reader) float(bits int) float64 {
	if !r.numeric("a number") {
		return 0
	}
	start := r.at
	v, err := strconv.ParseFloat(string(r.number()), bits)
	return checked(r, v, err, start, "too large a number")
}

// checked is v, or 0 and an error where strconv has one.
func checked[T int64 | float64](r *Reader, v T, err error, at int, reason string) T {
	if err == nil {
		return v
	}
	if r.err == nil {
		r.err = &Error{at, reason}
	}
	return 0
}

// String reads a string.
func (r *Reader) String() string {
	if r.Next() != '"' {
		r.mismatch("a string")
		return ""
	}
	s, _ := r.string()
	return string(s)
}

// Strings reads a list of strings.
func (r *Reader) Strings() []string {
	list := []string{}
	r.Array(func() { list = append(list, r.String()) })
	return list
}

// string returns a string that is valid until the next one is read, and
// whether it has escapes in it: else it is part of the text.
func (r *Reader) string() (s []byte, escaped bool) {
	if r.Next() != '"' {
		r.syntax("a string is expected")
		return nil, false
	}
	r.at++
	start := r.at // of what is not in buf yet
	r.buf = r.buf[:0]
	for !r.ended {
		switch c := r.Next(); {
		case c == '"':
			s = r.text[start:r.at]
			r.at++
			if escaped {
				r.buf = append(r.buf, s...)
				s = r.buf
			}
			return s, escaped
		case c == '\\':
			r.buf = append(r.buf, r.text[start:r.at]...)
			r.escape()
			start, escaped = r.at, true
		case c < ' ': // at the end of the text too
			r.syntax("a string has no end, or a control character in it")
		case c < utf8.RuneSelf:
			r.at++
		default:
			v, n := utf8.DecodeRune(r.text[r.at:])
			if v == utf8.RuneError && n == 1 {
				r.syntax("a string is not UTF-8")
				break
			}
			r.at += n
		}
	}
	return nil, false
}

// escape reads a backslash and what belongs to it, into buf.
func (r *Reader) escape() {
	r.at++
	c := r.Next()
	r.at++
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		v := r.hex()
		if utf16.IsSurrogate(v) {
			high, second := v, r.at
			v = utf8.RuneError
			if len(r.text)-r.at >= 2 && r.text[r.at] == '\\' && r.text[r.at+1] == 'u' {
				r.at += 2
				if v = utf16.DecodeRune(high, r.hex()); v == utf8.RuneError {
					r.at = second // a character of its own
				}
			}
		}
		r.buf = utf8.AppendRune(r.buf, v)
		return
	default:
		r.at -= 2
		r.syntax("an escape is unknown")
		return
	}
	r.buf = append(r.buf, c)
}

// hex reads four hexadecimal digits.
func (r *Reader) hex() (v rune) {
	for range 4 {
		c := r.Next()
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			r.syntax("four hexadecimal digits are expected")
			return 0
		}
		v = v<<4 | rune(c)
		r.at++
	}
	return v
}

// Writer appends JSON to Text, in encoding/json's spelling. Commas come of
// themselves; that brackets and keys make sense is the caller's matter.
type Writer struct {
	Text []byte
	bad  bool
}

// Reset empties the text and keeps its memory.
func (w *Writer) Reset() { w.Text, w.bad = w.Text[:0], false }

// Err tells of numbers that JSON has not: a NaN or infinity stands as null.
func (w *Writer) Err() error {
	if w.bad {
		return errFinite
	}
	return nil
}

var errFinite = errors.New("json: a number is not finite")

// comma separates from a value before.
func (w *Writer) comma() {
	if n := len(w.Text); n > 0 {
		switch w.Text[n-1] {
		case '{', '[', ':':
		default:
			w.Text = append(w.Text, ',')
		}
	}
}

// Open begins an object or a list: c is { or [.
func (w *Writer) Open(c byte) {
	w.comma()
	w.Text = append(w.Text, c)
}

// Close ends what Open began: c is } or ].
func (w *Writer) Close(c byte) { w.Text = append(w.Text, c) }

// Key begins a member of an object. name is a plain word.
func (w *Writer) Key(name string) {
	w.comma()
	w.Text = append(append(append(w.Text, '"'), name...), `":`...)
}

// Raw appends a value as it is.
func (w *Writer) Raw(text []byte) {
	w.comma()
	w.Text = append(w.Text, text...)
}

// Bool appends true or false.
func (w *Writer) Bool(v bool) {
	w.comma()
	w.Text = strconv.AppendBool(w.Text, v)
}

// Int appends a whole number.
func (w *Writer) Int(v int64) {
	w.comma()
	w.Text = strconv.AppendInt(w.Text, v, 10)
}

// Float64 appends the shortest number that reads as v.
func (w *Writer) Float64(v float64) { w.float(v, 64) }

// Float32 appends the shortest number that reads as v in 32 bits.
func (w *Writer) Float32(v float32) { w.float(float64(v), 32) }

func (w *Writer) float(v float64, bits int) {
	w.comma()
	abs := math.Abs(v)
	if !(abs <= math.MaxFloat64) {
		w.bad = true
		w.Text = append(w.Text, "null"...)
		return
	}
	tiny := abs < 1e-6
	huge := abs >= 1e21
	if bits == 32 {
		tiny, huge = float32(abs) < 1e-6, float32(abs) >= 1e21
	}
	if abs == 0 || !tiny && !huge {
		w.Text = strconv.AppendFloat(w.Text, v, 'f', -1, bits)
		return
	}
	w.Text = strconv.AppendFloat(w.Text, v, 'e', -1, bits)
	// e-09 is written e-9, as JavaScript does.
	if n := len(w.Text); w.Text[n-4] == 'e' && w.Text[n-3] == '-' && w.Text[n-2] == '0' {
		w.Text = append(w.Text[:n-2], w.Text[n-1])
	}
}

const hexDigits = "0123456789abcdef"

// String appends a string. What is not UTF-8 becomes U+FFFD; <, > and &, which
// could end a script element, are escaped, and so are JavaScript's line ends.
func (w *Writer) String(s string) {
	w.comma()
	b := append(w.Text, '"')
	start := 0 // of what is not in b yet
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&' {
			i++
			continue
		}
		v, n := rune(c), 1
		if c >= utf8.RuneSelf {
			v, n = utf8.DecodeRuneInString(s[i:])
			if v != '\u2028' && v != '\u2029' && (v != utf8.RuneError || n > 1) {
				i += n
				continue
			}
		}
		b = append(append(b, s[start:i]...), '\\')
		switch v {
		case '"', '\\':
			b = append(b, c)
		case '\b':
			b = append(b, 'b')
		case '\f':
			b = append(b, 'f')
		case '\n':
			b = append(b, 'n')
		case '\r':
			b = append(b, 'r')
		case '\t':
			b = append(b, 't')
		default:
			b = append(b, 'u', hexDigits[v>>12&15], hexDigits[v>>8&15], hexDigits[v>>4&15], hexDigits[v&15])
		}
		i += n
		start = i
	}
	w.Text = append(append(b, s[start:]...), '"')
}

// Strings appends a list of strings.
func (w *Writer) Strings(list []string) {
	w.Open('[')
	for _, s := range list {
		w.String(s)
	}
	w.Close(']')
}

// Compact appends a text to dst without its space. Errors are Read's.
func Compact(dst, text []byte) ([]byte, error) {
	r := new(Reader)
	if err := r.Read(text, r.Skip); err != nil {
		return dst, err
	}
	inside := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			inside = !inside
			dst = append(dst, c)
		case c == '\\':
			dst = append(dst, c, text[i+1])
			i++
		case inside && (c == '<' || c == '>' || c == '&'):
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		case inside && c == 0xe2 && text[i+1] == 0x80 && text[i+2]&^1 == 0xa8: // U+2028, U+2029
			dst = append(dst, '\\', 'u', '2', '0', '2', '8'|text[i+2]&1)
			i += 2
		case inside || c > ' ':
			dst = append(dst, c)
		}
	}
	return dst, nil
}
