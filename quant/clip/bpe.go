package clip

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// BPE is CLIP's tokenizer (Radford et al., 2021; code: CLIPTokenizer of
// huggingface/transformers). Text goes to NFC, blanks collapse, letters become
// small; it is split into 's 't 're 've 'm 'll 'd, runs of letters, single
// digits and runs of the rest; and the bytes of each word, the last one marked
// as such, are merged pair by pair, those first that stand first in the list
// of merges.
//
// Ids: the 256 bytes in the order of byteID, the same with the mark, the
// merges, <|startoftext|>, <|endoftext|>.
//
// It differs from CLIPTokenizer in four things: the names of the two special
// tokens have no meaning in text; what stands after maxText bytes is not read;
// letters and digits newer than Go's Unicode tables are neither; and U+11938,
// taken apart in text, is put together.
type BPE struct {
	merges []uint64 // first id, second id, id of both: 16 bits each; sorted
}

const (
	bpeBytes   = 512 // ids of single bytes
	bpeSpecial = 2   // ids after the merges
	maxBPE     = 1 << 16

	// maxText is how many bytes of a text are read, runs of blanks as one. The
	// longest token of OpenAI's vocabulary has 32, so it fills any context up to
	// 250; it bounds what a single word of that length costs.
	maxText = 8 << 10
)

// NewBPE reads the vocabulary of a text tower, vocab ids in all: what
// [PackMerges] wrote. It keeps nothing of merges. Errors wrap [ErrVocab].
func NewBPE(merges []byte, vocab int) (*BPE, error) {
	n := vocab - bpeBytes - bpeSpecial
	if n < 0 || vocab > maxBPE || len(merges) != 4*n {
		return nil, fmt.Errorf("%w: %d bytes of merges for %d ids", ErrVocab, len(merges), vocab)
	}
	t := &BPE{merges: make([]uint64, n)}
	for i := range t.merges {
		a, b := binary.LittleEndian.Uint16(merges[4*i:]), binary.LittleEndian.Uint16(merges[4*i+2:])
		id := bpeBytes + i
		if int(a) >= id || int(b) >= id {
			return nil, fmt.Errorf("%w: merge %d is of ids %d and %d, which come later", ErrVocab, i, a, b)
		}
		t.merges[i] = bpePair(a, b)<<16 | uint64(id)
	}
	ascend(t.merges)
	for i := 1; i < n; i++ {
		if t.merges[i-1]>>16 == t.merges[i]>>16 {
			return nil, fmt.Errorf("%w: ids %d and %d merge twice", ErrVocab, t.merges[i]>>32, t.merges[i]>>16&0xffff)
		}
	}
	return t, nil
}

// PackMerges turns the lines of a merges.txt, "a b" each, into what [NewBPE]
// reads and a model file keeps: the ids of a and b as little-endian uint16. A
// first line with "#version" is skipped. The vocabulary has 514 more ids than
// the list has merges. Errors wrap [ErrVocab].
func PackMerges(lines []string) ([]byte, error) {
	if len(lines) > 0 && strings.Contains(lines[0], "#version") {
		lines = lines[1:]
	}
	if len(lines) > maxBPE-bpeBytes-bpeSpecial {
		return nil, fmt.Errorf("%w: %d merges", ErrVocab, len(lines))
	}
	const last = "</w>"
	ids := make(map[string]int, bpeBytes+len(lines))
	for b := range 256 {
		// A printable byte is spelt as itself in Latin-1, others from U+0100.
		id := int(byteID(byte(b)))
		s := string(rune(b))
		if id >= bpePrintable {
			s = string(rune(256 + id - bpePrintable))
		}
		ids[s], ids[s+last] = id, id+256
	}
	out := make([]byte, 0, 4*len(lines))
	for i, line := range lines {
		first, second, _ := strings.Cut(line, " ")
		a, okA := ids[first]
		b, okB := ids[second]
		if _, double := ids[first+second]; !okA || !okB || double {
			return nil, fmt.Errorf("%w: merge %d, %.50q, has no such parts or stands twice", ErrVocab, i, line)
		}
		ids[first+second] = bpeBytes + i
		out = binary.LittleEndian.AppendUint16(out, uint16(a))
		out = binary.LittleEndian.AppendUint16(out, uint16(b))
	}
	return out, nil
}

// Len is the number of ids, special ones included.
func (t *BPE) Len() int { return bpeBytes + len(t.merges) + bpeSpecial }

// SOT is the id of <|startoftext|>.
func (t *BPE) SOT() int32 { return int32(t.Len() - 2) }

// EOT is the id of <|endoftext|>.
func (t *BPE) EOT() int32 { return int32(t.Len() - 1) }

// Encode appends the ids of text to dst, SOT first and EOT last, at most
// context of them: a text that is longer loses its end, but not EOT.
func (t *BPE) Encode(dst []int32, text string, context int) []int32 {
	if context <= 0 {
		return dst
	}
	end := len(dst) + context - 1 // where EOT stands at the latest
	dst = append(dst, t.SOT())
	var bytes []byte
	var ids, joined []uint16
	for rest := clipText(text); len(rest) > 0 && len(dst) < end; {
		n := clipWord(rest)
		bytes = bytes[:0]
		for _, r := range rest[:n] {
			bytes = utf8.AppendRune(bytes, r)
		}
		if rest[0] != ' ' {
			ids, joined = t.word(ids[:0], joined[:0], bytes)
			for _, id := range ids {
				dst = append(dst, int32(id))
			}
		}
		rest = rest[n:]
	}
	return append(dst[:min(len(dst), end)], t.EOT())
}

// clipText is the beginning of text in NFC and lower case, runs of blanks as
// one.
func clipText(text string) []rune {
	runes, bytes, plain := make([]rune, 0, min(len(text), maxText)+1), 0, true
	for _, r := range text {
		if unicode.IsSpace(r) {
			if r = ' '; len(runes) == 0 || runes[len(runes)-1] == ' ' {
				continue
			}
		}
		if bytes += utf8.RuneLen(r); bytes > maxText {
			break
		}
		runes = append(runes, r)
		plain = plain && r < firstMark
	}
	if !plain {
		runes = compose(runes)
	}
	lower := make([]rune, 0, len(runes)+1)
	for _, r := range runes {
		lower = append(lower, unicode.ToLower(r))
		if r == 'İ' { // the one letter that becomes two
			lower = append(lower, '\u0307')
		}
	}
	return lower
}

// clipWord is the length of the first word of text, or of the blank there.
func clipWord(text []rune) int {
	kind := bpeKind(text[0])
	if text[0] == '\'' && len(text) > 1 {
		switch text[1] {
		case 's', 't', 'm', 'd':
			return 2
		case 'r', 'v', 'l':
			if pair := string(text[1:min(3, len(text))]); pair == "re" || pair == "ve" || pair == "ll" {
				return 3
			}
		}
	}
	n := 1
	for kind > 0 && n < len(text) && bpeKind(text[n]) == kind {
		n++
	}
	return n
}

// bpeKind is 0 for what stands alone: blanks and digits.
func bpeKind(r rune) int {
	switch {
	case r == ' ' || unicode.Is(unicode.N, r):
		return 0
	case unicode.IsLetter(r):
		return 1
	}
	return 2
}

// word appends the ids of one word; joined is room to work in.
func (t *BPE) word(ids, joined []uint16, word []byte) ([]uint16, []uint16) {
	for _, b := range word {
		ids = append(ids, uint16(byteID(b)))
	}
	ids[len(ids)-1] += 256
	for i := range len(ids) - 1 {
		joined = append(joined, t.join(ids[i], ids[i+1]))
	}
	// A merge makes no pair that comes before it in the list, so all of the
	// first kind can be merged at once.
	for len(ids) > 1 {
		low := slices.Min(joined)
		if low == bpeNone {
			break
		}
		n := 0
		for i := 0; i < len(ids); i, n = i+1, n+1 {
			ids[n] = ids[i]
			if i < len(joined) {
				if joined[i] == low {
					i++
					ids[n] = low
				}
				if i < len(joined) {
					joined[n] = joined[i]
				}
			}
		}
		ids, joined = ids[:n], joined[:n-1]
		for i := range joined {
			if ids[i] == low || ids[i+1] == low {
				joined[i] = t.join(ids[i], ids[i+1])
			}
		}
	}
	return ids, joined
}

// bpeNone is no id of a merge: those of the special tokens come after them.
const bpeNone = maxBPE - 1

// join is the id of a and b as one.
func (t *BPE) join(a, b uint16) uint16 {
	if id, ok := lookup(t.merges, bpePair(a, b), 16); ok {
		return uint16(id)
	}
	return bpeNone
}

func bpePair(a, b uint16) uint64 { return uint64(a)<<16 | uint64(b) }

const bpePrintable = 188 // ids below are of bytes that Latin-1 prints

// byteID is GPT-2's order of bytes: first those that Latin-1 prints.
func byteID(b byte) byte {
	switch {
	case b <= ' ':
		return bpePrintable + b
	case b < 0x7f:
		return b - '!'
	case b <= 0xa0:
		return bpePrintable + 33 + b - 0x7f
	case b < 0xad:
		return 94 + b - 0xa1
	case b == 0xad:
		return 255
	}
	return 106 + b - 0xae
}
