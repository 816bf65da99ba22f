package checkpoint

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"lqa/quant/json"
)

// Ids of CLIP's byte-pair vocabulary: the 256 bytes, the same at a word's end,
// one for each merge, and two special tokens.
const (
	byteIDs      = 512
	specialIDs   = 2
	maxVocab     = 1 << 16
	maxTokenLen  = 256 // bytes; OpenAI's longest has 54
	endOfWord    = "</w>"
	startOfText  = "<|startoftext|>"
	endOfText    = "<|endoftext|>"
	mergesFile   = "merges.txt"
	tokenizeFile = "tokenizer.json"
	vocabFile    = "vocab.json"
)

// readMerges finds CLIP's merges, "a b" in a line each, for a vocabulary of
// rows ids: in merges.txt, else in tokenizer.json, else worked out from
// vocab.json. It is nil if the folder has none of them. Where there is a list
// of ids it must give each token the id that its merge has by its place, since
// that is the row of the token table.
func readMerges(f Folder, rows number, l Limits) ([]byte, error) {
	var ids map[string]int
	var merges []string
	var from string
	text, err := ReadText(f, mergesFile, l)
	if err != nil {
		return nil, err
	}
	if text != nil {
		from = mergesFile
		for i, line := range strings.Split(strings.TrimRight(string(text), "\r\n"), "\n") {
			if line = strings.TrimSuffix(line, "\r"); i > 0 || !strings.HasPrefix(line, "#version") {
				merges = append(merges, line)
			}
		}
	}
	if merges == nil {
		if text, err = ReadText(f, tokenizeFile, l); err != nil {
			return nil, err
		}
		if text != nil {
			from = tokenizeFile
			if merges, ids, err = readTokenizer(text); err != nil {
				return nil, err
			}
		}
	}
	if text, err = ReadText(f, vocabFile, l); err != nil {
		return nil, err
	}
	if text != nil && ids == nil {
		o, _ := readObject(vocabFile, []byte(`{}`))
		ids = o.ids(text)
		if *o.err != nil {
			return nil, *o.err
		}
		if merges == nil {
			from = vocabFile
			if merges, err = mergesOf(ids); err != nil {
				return nil, err
			}
		}
	}
	if merges == nil {
		return nil, nil
	}
	if want := rows.value - byteIDs - specialIDs; len(merges) != want {
		return nil, fmt.Errorf("%w: %s has %d merges, but %s, which needs %d", ErrContradicts, from, len(merges), rows, want)
	}
	if err := checkIDs(ids, merges); err != nil {
		return nil, err
	}
	return []byte(strings.Join(merges, "\n") + "\n"), nil
}

// readTokenizer reads the model of a tokenizer.json (huggingface/tokenizers).
func readTokenizer(text []byte) (merges []string, ids map[string]int, err error) {
	o, err := readObject(tokenizeFile, text)
	if err != nil {
		return nil, nil, err
	}
	model := o.object("model")
	if err := model.only("type", "BPE"); err != nil {
		return nil, nil, err
	}
	model.read("merges", func(r *json.Reader) {
		r.Array(func() {
			if len(merges) > maxVocab {
				return
			}
			if r.Next() == '[' { // since tokenizers 0.20
				merges = append(merges, strings.Join(r.Strings(), " "))
			} else {
				merges = append(merges, r.String())
			}
		})
	})
	ids = model.ids(model.members["vocab"])
	return merges, ids, *o.err
}

// ids reads an object of tokens and their ids.
func (o object) ids(text []byte) map[string]int {
	ids := map[string]int{}
	if text == nil {
		return ids
	}
	r := new(json.Reader)
	err := r.Read(text, func() {
		r.Object(func(key []byte) {
			if len(ids) <= maxVocab {
				ids[string(key)] = r.Int()
			}
		})
	})
	if err != nil {
		o.fail("vocab", err)
	}
	return ids
}

// checkIDs reports a token whose id is not the one of its place.
func checkIDs(ids map[string]int, merges []string) error {
	if len(ids) == 0 {
		return nil
	}
	check := func(token string, want int) error {
		if id, ok := ids[token]; !ok || id != want {
			return fmt.Errorf("%w: token %.60q should have id %d by its place among the merges, but has %d", ErrContradicts, token, want, id)
		}
		return nil
	}
	for i, token := range byteTokens() {
		if err := check(token, i); err != nil {
			return err
		}
	}
	for i, m := range merges {
		if err := check(strings.Replace(m, " ", "", 1), byteIDs+i); err != nil {
			return err
		}
	}
	if err := check(startOfText, byteIDs+len(merges)); err != nil {
		return err
	}
	return check(endOfText, byteIDs+len(merges)+1)
}

// byteTokens are the spellings of the first ids: those bytes first that
// Latin-1 prints, the others as letters from U+0100 on (GPT-2's
// bytes_to_unicode).
func byteTokens() []string {
	var first, rest []string
	for b := rune(0); b < 256; b++ {
		if b > ' ' && b < 0x7f || b > 0xa0 && b != 0xad {
			first = append(first, string(b))
		} else {
			rest = append(rest, string(256+rune(len(rest))))
		}
	}
	all := append(first, rest...)
	for _, t := range slices.Clone(all) {
		all = append(all, t+endOfWord)
	}
	return all
}

// mergesOf works a list of merges out from ids alone: merging a token's
// letters by the merges before its own leaves the two parts of its own.
func mergesOf(ids map[string]int) ([]string, error) {
	n := len(ids) - byteIDs - specialIDs
	if n < 0 || len(ids) > maxVocab {
		return nil, fmt.Errorf("%w: %s has %d tokens", ErrCorrupt, vocabFile, len(ids))
	}
	tokens := make([]string, len(ids))
	for token, id := range ids {
		if id < 0 || id >= len(ids) || tokens[id] != "" || token == "" || len(token) > maxTokenLen {
			return nil, fmt.Errorf("%w: %s: token %.60q has id %d, which is out of range or twice there", ErrCorrupt, vocabFile, token, id)
		}
		tokens[id] = token
	}
	known := map[[2]string]int{}
	merges := make([]string, n)
	for i := range merges {
		token := tokens[byteIDs+i]
		parts := bytePair(token, known)
		if len(parts) != 2 {
			return nil, fmt.Errorf("%w: %s: token %.60q, id %d, is no merge of two that come before it", ErrContradicts, vocabFile, token, byteIDs+i)
		}
		known[[2]string{parts[0], parts[1]}] = i
		merges[i] = parts[0] + " " + parts[1]
	}
	return merges, nil
}

// bytePair splits a token into letters and merges them, earliest merge first.
func bytePair(token string, known map[[2]string]int) []string {
	word, ended := strings.CutSuffix(token, endOfWord)
	parts := make([]string, 0, utf8.RuneCountInString(word))
	for _, r := range word {
		parts = append(parts, string(r))
	}
	if ended && len(parts) > 0 {
		parts[len(parts)-1] += endOfWord
	}
	for len(parts) > 1 {
		best, at := math.MaxInt, 0
		for i := range len(parts) - 1 {
			if rank, ok := known[[2]string{parts[i], parts[i+1]}]; ok && rank < best {
				best, at = rank, i
			}
		}
		if best == math.MaxInt {
			break
		}
		parts = slices.Replace(parts, at, at+2, parts[at]+parts[at+1])
	}
	return parts
}
