package clip

import "fmt"

// Tokenizer turns text into token ids.
type Tokenizer interface {
	// Encode appends the ids of text to dst, one at least and limit at most.
	Encode(dst []int32, text string, limit int) []int32
}

// VocabTensor is the name of the tensor that holds the text side's vocabulary.
func (tx *Text) VocabTensor() string {
	if tx.Kind == textTransformer {
		return "text.merges"
	}
	return "text.vocab"
}

// NewTokenizer reads the text side's vocabulary.
func NewTokenizer(tx *Text, vocab []byte) (Tokenizer, error) {
	if tx.Kind == textTransformer {
		b, err := NewBPE(vocab, tx.Vocab)
		if err != nil {
			return nil, err
		}
		if tx.EOS != wrongEOS && tx.EOS != int(b.EOT()) {
			return nil, fmt.Errorf("%w: texts end with token %d, the configuration pools at %d", ErrVocab, b.EOT(), tx.EOS)
		}
		return b, nil
	}
	w, err := NewWordPiece(vocab)
	if err != nil {
		return nil, err
	}
	if n := w.Len(); n != tx.Vocab {
		return nil, fmt.Errorf("%w: %d pieces, the configuration says %d", ErrVocab, n, tx.Vocab)
	}
	return bagTokens{w}, nil
}

// bagTokens gives a text without any word the unknown token: no bag is empty.
type bagTokens struct{ *WordPiece }

func (b bagTokens) Encode(dst []int32, text string, limit int) []int32 {
	ids := b.WordPiece.Encode(dst, text, limit)
	if len(ids) == len(dst) {
		return append(ids, b.Unknown())
	}
	return ids
}
