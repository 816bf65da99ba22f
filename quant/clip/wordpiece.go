package clip

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// WordPiece is BERT's uncased tokenizer (Devlin et al., 2018; code: class
// BertNormalizer of huggingface/tokenizers): text is cleaned of control
// characters, stripped of accents (NFD without nonspacing marks), lower-cased
// and split at spaces, punctuation and CJK characters; each word becomes the
// longest pieces of the vocabulary, those after the first marked "##".
//
// It differs from BERT in two things: names of special tokens have no meaning
// in text ("[UNK]" is three words), and Unicode's tables are Go's.
type WordPiece struct {
	ids     map[string]int32
	unknown int32
	longest int // bytes of the longest piece, "##" included
}

// ErrVocab is wrapped by errors about a vocabulary.
var ErrVocab = errors.New("clip: bad vocabulary")

const (
	maxPieceBytes = 256
	maxWordRunes  = 100 // longer words are unknown, as in BERT
)

// NewWordPiece reads a vocabulary: one piece a line, in the order of ids. It
// must hold "[UNK]".
func NewWordPiece(vocab []byte) (*WordPiece, error) {
	n := bytes.Count(vocab, []byte("\n")) + 1
	if n > maxVocab+1 {
		return nil, fmt.Errorf("%w: %d pieces", ErrVocab, n)
	}
	w := &WordPiece{ids: make(map[string]int32, n), unknown: -1}
	rest := strings.TrimSuffix(string(vocab), "\n")
	for id := int32(0); ; id++ {
		piece, more, found := strings.Cut(rest, "\n")
		switch {
		case piece == "" || len(piece) > maxPieceBytes || !utf8.ValidString(piece):
			return nil, fmt.Errorf("%w: line %d", ErrVocab, id+1)
		case piece == "[UNK]":
			w.unknown = id
		}
		if _, double := w.ids[piece]; double {
			return nil, fmt.Errorf("%w: %q stands twice", ErrVocab, piece)
		}
		w.ids[piece] = id
		w.longest = max(w.longest, len(piece))
		if !found {
			break
		}
		rest = more
	}
	if w.unknown < 0 {
		return nil, fmt.Errorf("%w: no [UNK]", ErrVocab)
	}
	return w, nil
}

// Len is the number of pieces.
func (w *WordPiece) Len() int { return len(w.ids) }

// Unknown is the id of [UNK].
func (w *WordPiece) Unknown() int32 { return w.unknown }

// Encode appends the ids of text to dst, at most limit of them, without
// [CLS] and [SEP].
func (w *WordPiece) Encode(dst []int32, text string, limit int) []int32 {
	end := len(dst) + max(limit, 0)
	words(text, func(word []byte, runes int) bool {
		dst = w.appendWord(dst, word, runes)
		return len(dst) < end
	})
	return dst[:min(len(dst), end)]
}

const mark = "##" // before a piece that goes on

// words splits text and calls f with each word, after two bytes of room for
// the mark, and its length in runes; f may write to word. A word over
// maxWordRunes is cut there and one rune longer. It stops when f says false.
func words(text string, f func(word []byte, runes int) bool) {
	word, runes := make([]byte, len(mark), 64), 0
	more := true
	flush := func() {
		if runes > 0 && more {
			more = f(word, runes)
		}
		word, runes = word[:len(mark)], 0
	}
	add := func(r rune) {
		switch {
		case unicode.Is(unicode.Mn, r): // a combining accent
			return
		case isPunctuation(r):
			flush()
			word, runes = utf8.AppendRune(word, r), 1
			flush()
		case runes <= maxWordRunes:
			word, runes = utf8.AppendRune(word, unicode.ToLower(r)), runes+1
		}
	}
	var parts []rune
	addParts := func(r rune) {
		parts = decompose(parts[:0], r)
		for _, p := range parts {
			add(p)
		}
	}
	for _, r := range text {
		switch {
		case !more:
			return
		case r < utf8.RuneSelf && r > ' ' && r != 0x7f:
			add(r)
		case r == utf8.RuneError || isControl(r):
		case unicode.IsSpace(r):
			flush()
		case isCJK(r):
			flush()
			addParts(r)
			flush()
		default:
			addParts(r)
		}
	}
	flush()
}

// appendWord splits one word, longest piece first; word has room for the mark
// before it.
func (w *WordPiece) appendWord(dst []int32, word []byte, runes int) []int32 {
	if runes > maxWordRunes {
		return append(dst, w.unknown)
	}
	start := len(dst)
	piece := word[len(mark):]
	for first := true; len(word) > len(mark); first = false {
		if !first {
			copy(word, mark) // over bytes that are used up
			piece = word
		}
		n := min(len(piece), w.longest)
		id, ok := int32(0), false
		for ; n > 0; n-- {
			if n < len(piece) && !utf8.RuneStart(piece[n]) {
				continue
			}
			if id, ok = w.ids[string(piece[:n])]; ok && (first || n > len(mark)) {
				break
			}
			ok = false
		}
		if !ok {
			return append(dst[:start], w.unknown)
		}
		dst = append(dst, id)
		if first {
			word = word[n:]
		} else {
			word = word[n-len(mark):]
		}
	}
	return dst
}

func isControl(r rune) bool {
	return r != '\t' && r != '\n' && r != '\r' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs)
}

// isPunctuation: all of ASCII that is no letter, digit, space or control, and
// Unicode's punctuation.
func isPunctuation(r rune) bool {
	if r < utf8.RuneSelf {
		return r > ' ' && r < 0x7f && !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z')
	}
	return unicode.IsPunct(r)
}

func isCJK(r rune) bool {
	return 0x4e00 <= r && r <= 0x9fff || 0x3400 <= r && r <= 0x4dbf || 0x20000 <= r && r <= 0x2ceaf ||
		0xf900 <= r && r <= 0xfaff || 0x2f800 <= r && r <= 0x2fa1f
}
