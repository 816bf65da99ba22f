package site

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// Go's linker writes a table that finds the function of a program counter
// (findfunctab, see cmd/link/internal/ld/pcln.go): a bucket for each 4096
// counters, of 20 bytes: the first function's number as u32, then 16 steps from
// it. In wasm a function has 65536 counters, so the number is the bucket's own
// by 16, and all steps are 0: 70,000 segments of two bytes that say nothing, 0.7 MB
// of the module and a tenth of the download. A start function of 40 bytes fills
// the table as well.
const (
	bucketBytes   = 20
	bucketsShift  = 4 // log2 of buckets a function
	fewestBuckets = 1 << 10
)

var errWasm = errors.New("site: not a WebAssembly module as Go links it")

// Sections of a module, by their ids (WebAssembly 2.0, 5.5.2).
const (
	typeSection   = 1
	importSection = 2
	funcSection   = 3
	startSection  = 8
	codeSection   = 10
	dataSection   = 11
	dataCount     = 12
)

type section struct {
	id   byte
	body []byte
}

// segment is what lies in memory at offset when the module starts.
type segment struct {
	offset int
	bytes  []byte
}

func (s segment) end() int { return s.offset + len(s.bytes) }

// thin returns the module without its findfunctab and with a start function that
// fills it: memory is the same before the first instruction of Go's. A module
// without such a table comes back as it is.
func thin(module []byte) ([]byte, error) {
	const preamble = 8 // magic and version
	if len(module) < preamble || !bytes.HasPrefix(module, []byte("\x00asm\x01\x00\x00\x00")) {
		return nil, fmt.Errorf("%w: no preamble", errWasm)
	}
	var sections []section
	found := map[byte]*wasmReader{}
	r := &wasmReader{b: module[preamble:]}
	for len(r.b) > 0 && r.err == nil {
		s := section{id: r.byte()}
		s.body = r.take(r.uint())
		sections = append(sections, s)
		found[s.id] = &wasmReader{b: s.body}
	}
	for _, id := range []byte{typeSection, importSection, funcSection, codeSection, dataSection} {
		if found[id] == nil {
			return nil, fmt.Errorf("%w: no section %d", errWasm, id)
		}
	}
	if found[startSection] != nil || found[dataCount] != nil {
		return nil, fmt.Errorf("%w: a start function or a count of data", errWasm)
	}
	segments := found[dataSection].segments()
	imported := found[importSection].functions()
	kinds, funcs := found[typeSection].uint(), found[funcSection].uint()
	for _, r := range append([]*wasmReader{r}, found[dataSection], found[importSection], found[typeSection], found[funcSection]) {
		if r.err != nil {
			return nil, r.err
		}
	}
	table, buckets := findTable(segments)
	if buckets < fewestBuckets {
		return module, nil
	}

	out := append([]byte(nil), module[:preamble]...)
	add := func(id byte, body []byte) {
		out = binary.AppendUvarint(append(out, id), uint64(len(body)))
		out = append(out, body...)
	}
	code, started := found[codeSection], false
	if n := code.uint(); n != funcs {
		return nil, fmt.Errorf("%w: code of %d functions, not %d", errWasm, n, funcs)
	}
	for _, s := range sections {
		if s.id > startSection && !started { // sections stand in the order of their ids
			add(startSection, binary.AppendUvarint(nil, uint64(imported+funcs)))
			started = true
		}
		switch s.id {
		case typeSection: // one more: ()→()
			s.body = append(counted(kinds+1, found[typeSection].b), 0x60, 0, 0)
		case funcSection:
			s.body = binary.AppendUvarint(counted(funcs+1, found[funcSection].b), uint64(kinds))
		case codeSection:
			fill := filler(table, buckets)
			s.body = append(binary.AppendUvarint(counted(funcs+1, code.b), uint64(len(fill))), fill...)
		case dataSection:
			s.body = without(segments, table, table+buckets*bucketBytes)
		}
		add(s.id, s.body)
	}
	return out, nil
}

func thinFile(path string) error {
	module, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("site: %w", err)
	}
	if module, err = thin(module); err != nil {
		return err
	}
	if err := os.WriteFile(path, module, 0o644); err != nil {
		return fmt.Errorf("site: %w", err)
	}
	return nil
}

// findTable returns where the longest findfunctab starts and how many buckets
// it has.
func findTable(segments []segment) (offset, buckets int) {
	top := 0
	for _, s := range segments {
		top = max(top, s.end())
	}
	memory := make([]byte, top)
	for _, s := range segments {
		copy(memory[s.offset:], s.bytes)
	}
	bucket := func(n int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n>>bucketsShift)) }
	zero := make([]byte, bucketBytes-4)
	for _, s := range segments {
		// The first bytes that are not 0 are the second function's.
		from := s.offset - bucketBytes<<bucketsShift
		if from < 0 || s.bytes[0] != 1 {
			continue
		}
		n := 0
		for at := from; at+bucketBytes <= top && bytes.Equal(memory[at:at+4], bucket(n)) && bytes.Equal(memory[at+4:at+bucketBytes], zero); at += bucketBytes {
			n++
		}
		if n > buckets {
			offset, buckets = from, n
		}
	}
	return offset, buckets
}

// filler is the body of a function that writes the table at offset.
func filler(offset, buckets int) []byte {
	b := []byte{
		1, 1, 0x7f, // one local: n i32
		0x03, 0x40, // loop
		0x20, 0, 0x41, bucketBytes, 0x6c, // n·20
		0x20, 0, 0x41, bucketsShift, 0x76, // n>>4
		0x36, 2, // i32.store, aligned
	}
	b = binary.AppendUvarint(b, uint64(offset))
	b = append(b, 0x20, 0, 0x41, 1, 0x6a, 0x22, 0, 0x41) // n += 1
	b = appendSigned(b, buckets)
	return append(b, 0x49, 0x0d, 0, 0x0b, 0x0b) // again while n < buckets, unsigned
}

// without is the data section with nothing between from and to.
func without(segments []segment, from, to int) []byte {
	var kept []segment
	for _, s := range segments {
		if head := min(s.end(), from) - s.offset; head > 0 {
			kept = append(kept, segment{s.offset, s.bytes[:head]})
		}
		if tail := s.end() - max(s.offset, to); tail > 0 {
			kept = append(kept, segment{s.end() - tail, s.bytes[len(s.bytes)-tail:]})
		}
	}
	b := binary.AppendUvarint(nil, uint64(len(kept)))
	for _, s := range kept {
		b = appendSigned(append(b, 0, 0x41), s.offset) // memory 0, i32.const
		b = binary.AppendUvarint(append(b, 0x0b), uint64(len(s.bytes)))
		b = append(b, s.bytes...)
	}
	return b
}

func counted(n int, rest []byte) []byte {
	return append(binary.AppendUvarint(nil, uint64(n)), rest...)
}

// appendSigned appends v ≥ 0 as signed LEB128: the sixth bit of its last byte
// is its sign.
func appendSigned(b []byte, v int) []byte {
	for v >= 1<<6 {
		b, v = append(b, byte(v)|0x80), v>>7
	}
	return append(b, byte(v))
}

// wasmReader takes a module apart; its error sticks.
type wasmReader struct {
	b   []byte
	err error
}

func (r *wasmReader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errWasm, what)
	}
	r.b = nil
}

func (r *wasmReader) take(n int) []byte {
	if n > len(r.b) {
		r.fail("it ends too early")
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *wasmReader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *wasmReader) uint() int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > 1<<32-1 {
		r.fail("a number is cut off or too large")
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

// signed reads a number that is signed, but may not be below 0.
func (r *wasmReader) signed() int {
	b := r.b
	v := r.uint()
	if r.err == nil && b[len(b)-len(r.b)-1]&0x40 != 0 {
		r.fail("a place below 0")
	}
	return v
}

// functions counts those among the imports.
func (r *wasmReader) functions() (n int) {
	for left := r.uint(); left > 0 && r.err == nil; left-- {
		r.take(r.uint()) // module
		r.take(r.uint()) // name
		if kind := r.byte(); kind != 0 {
			r.fail("an import that is no function")
		}
		r.uint()
		n++
	}
	return n
}

// segments reads the data section: segments at constants in memory 0.
func (r *wasmReader) segments() (list []segment) {
	for left := r.uint(); left > 0 && r.err == nil; left-- {
		if r.byte() != 0 || r.byte() != 0x41 { // i32.const
			r.fail("a segment without a place")
		}
		s := segment{offset: r.signed()}
		if r.byte() != 0x0b {
			r.fail("a segment without a place")
		}
		s.bytes = r.take(r.uint())
		if s.end() >= 1<<30 {
			r.fail("a segment far away")
		}
		if len(s.bytes) > 0 {
			list = append(list, s)
		}
	}
	return list
}
