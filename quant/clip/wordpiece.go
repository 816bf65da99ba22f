package clip

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// WordPiece is BERT's uncased tokenizer (Devlin et al., 2018; tokenization.py
// of google-research/bert): text is lower-cased, stripped of accents and split
// at spaces, punctuation and CJK characters; each word becomes the longest
// pieces of the vocabulary, those after the first marked "##".
//
// It differs from BERT in what it does not decompose: Hangul syllables stay
// whole, and of accented letters only those below U+2000 lose their accents.
type WordPiece struct {
	ids     map[string]int32
	unknown int32
	longest int // bytes of the longest piece
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
	start := len(dst)
	var word []rune
	flush := func() {
		if len(word) > 0 {
			dst = w.appendWord(dst, word)
			word = word[:0]
		}
	}
	for _, r := range text {
		if len(dst)-start >= limit {
			break
		}
		switch {
		case r == 0 || r == utf8.RuneError || isControl(r):
		case unicode.IsSpace(r):
			flush()
		case isPunctuation(r) || isCJK(r):
			flush()
			dst = w.appendWord(dst, []rune{r})
		case unicode.Is(unicode.Mn, r): // a combining accent
		default:
			word = append(word, fold(r))
		}
	}
	flush()
	return dst[:min(len(dst), start+limit)]
}

// appendWord splits one word, longest piece first.
func (w *WordPiece) appendWord(dst []int32, word []rune) []int32 {
	if len(word) > maxWordRunes {
		return append(dst, w.unknown)
	}
	start := len(dst)
	rest, prefix := string(word), ""
	for rest != "" {
		n := min(len(rest), w.longest)
		id, ok := int32(0), false
		for ; n > 0; n-- {
			if n < len(rest) && !utf8.RuneStart(rest[n]) {
				continue
			}
			if id, ok = w.ids[prefix+rest[:n]]; ok {
				break
			}
		}
		if !ok {
			return append(dst[:start], w.unknown)
		}
		dst = append(dst, id)
		rest, prefix = rest[n:], "##"
	}
	return dst
}

// fold lower-cases r and takes its accent off.
func fold(r rune) rune {
	if r < utf8.RuneSelf {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}
	r = unicode.ToLower(r)
	if base, ok := unaccented[r]; ok {
		return base
	}
	return r
}

var unaccented = func() map[rune]rune {
	r := []rune(accented)
	m := make(map[rune]rune, len(r)/2)
	for i := 0; i < len(r); i += 2 {
		m[r[i]] = r[i+1]
	}
	return m
}()

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
