package clip

import (
	"fmt"
	"slices"

	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/qtype"
)

// textTower holds the text side's tokens and its list, which is recorded anew
// for each number of tokens.
type textTower struct {
	ids     uint32 // [Context] uint32; none if there are shards
	offsets map[string]uint32
	list    uint32
	tokens  int // what list is recorded for; 0: nothing

	shards []shard   // of the token table, those that have come
	rows   []float32 // room for a text's
}

// shard is a piece of a token table that is cut. It stays here, not on the
// device: a text needs few rows of few shards.
type shard struct {
	kind qtype.Kind
	rows int
	b    []byte // nil: not here
}

func (m *Model) layoutText(l *device.Layout) {
	tx := &m.cfg.Text
	if m.text.shards = make([]shard, tx.Shards()); len(m.text.shards) == 0 {
		m.text.ids = l.Alloc(device.Activations, 4*tx.Context)
	}
	t, at := m.record(l, func(t *tower) { t.text(tx, tx.Context) })
	m.text.offsets, m.text.list = t.offsets, at
	m.text.tokens = tx.Context
}

// text records the text tower for n tokens.
func (t *tower) text(tx *Text, n int) {
	if tx.Kind == textTransformer {
		t.textTransformer(tx, n)
	} else {
		t.bag(tx, n)
	}
}

// bag gathers n tokens, pools them with one learned query, and maps the mean
// by linear, GELU, linear.
func (t *tower) bag(tx *Text, n int) {
	tokens := t.buf("tokens", 4*n*stride(tx.Width))
	mean := t.buf("mean", 4*stride(tx.Width))
	hidden := t.buf("hidden", 4*stride(tx.Hidden))
	t.add(t.m.tables["text.token"].gather(t.m.text.ids, tokens, n))
	t.add(kernel.SoftmaxPool{X: tokens, U: t.m.values["text.pool.weight"].at, Y: mean, Scratch: t.buf("attention", 4*n), T: n, D: tx.Width})
	t.linear("text.fc1", mean, hidden, 1, -kernel.Inf, kernel.Inf)
	t.add(kernel.GELU{X: hidden, N: stride(tx.Hidden)})
	t.embed("text.fc2", hidden)
}

// pooled is the token that stands for a transformer's text; -1 if there is
// none.
func (tx *Text) pooled(ids []int32) int {
	if tx.EOS == wrongEOS {
		return slices.Index(ids, slices.Max(ids))
	}
	return slices.Index(ids, int32(tx.EOS))
}

// EncodeText embeds one text given by its token ids, 1 to Context of them: dst
// becomes [D], L2 norm 1.
func (m *Model) EncodeText(dst []float32, ids []int32) error {
	if err := m.putText(ids); err != nil {
		return err
	}
	if err := m.dev.Run(m.text.list); err != nil {
		return err
	}
	return m.dev.ReadF32(m.text.offsets[embedding], dst)
}

// putText makes ids what the text tower's list embeds.
func (m *Model) putText(ids []int32) error {
	tx := &m.cfg.Text
	if len(ids) < 1 || len(ids) > tx.Context {
		return fmt.Errorf("%w: %d tokens, not 1..%d", ErrConfig, len(ids), tx.Context)
	}
	if tx.Kind == textTransformer {
		last := tx.pooled(ids)
		if last < 0 {
			return fmt.Errorf("%w: no token %d among %d", ErrConfig, tx.EOS, len(ids))
		}
		ids = ids[:last+1]
	}
	for _, id := range ids {
		if id < 0 || int(id) >= tx.Vocab {
			return fmt.Errorf("%w: token %d of %d", ErrConfig, id, tx.Vocab)
		}
	}
	if err := m.putTokens(ids); err != nil {
		return err
	}
	if n := len(ids); n != m.text.tokens {
		t := &tower{m: m, sizes: map[string]int{}, offsets: m.text.offsets}
		t.text(tx, n)
		m.text.tokens = 0
		if err := m.dev.WriteU32(m.text.list, t.list.End()); err != nil {
			return err
		}
		m.text.tokens = n
	}
	return nil
}

// putTokens gives the device a text's ids or, where the token table is cut, the
// rows themselves: the bits that gathering them there would give.
func (m *Model) putTokens(ids []int32) error {
	if len(m.text.shards) == 0 {
		words := make([]uint32, len(ids))
		for i, id := range ids {
			words[i] = uint32(id)
		}
		return m.dev.WriteU32(m.text.ids, words)
	}
	if missing := m.MissingShards(nil, ids); len(missing) > 0 {
		return fmt.Errorf("%w: %s", ErrOrder, ShardName(missing[0]))
	}
	w, each := m.cfg.Text.Width, m.cfg.Text.TokenShards
	m.text.rows = slices.Grow(m.text.rows[:0], len(ids)*w)[:len(ids)*w]
	for i, id := range ids {
		s := &m.text.shards[int(id)/each]
		s.kind.Row(m.text.rows[i*w:(i+1)*w], s.b, s.rows, int(id)%each)
	}
	return m.dev.WriteF32(m.text.offsets["x"], m.text.rows)
}

// MissingShards adds to list, which stays sorted and without doubles, the
// numbers of the shards that EncodeText needs for ids and that have not come.
func (m *Model) MissingShards(list []int, ids []int32) []int {
	for _, id := range ids {
		if len(m.text.shards) == 0 || id < 0 || int(id) >= m.cfg.Text.Vocab {
			continue
		}
		n := int(id) / m.cfg.Text.TokenShards
		if at, there := slices.BinarySearch(list, n); !there && m.text.shards[n].b == nil {
			list = slices.Insert(list, at, n)
		}
	}
	return list
}
