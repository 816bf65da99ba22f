package clip

import (
	"fmt"

	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/numeric"
)

const poolTensor = "text.pool.weight"

// textTower holds the bag's buffers: tokens are gathered, pooled with one
// learned query, and mapped by linear, GELU, linear.
type textTower struct {
	pool    uint32 // [Width8] float32, the query
	ids     uint32 // [Context] uint32
	offsets map[string]uint32
	list    uint32
	tokens  int // what list is recorded for; 0: nothing
}

var textBuffers = []string{"tokens", "attention", "mean", "hidden", "codes", "scales", "scratch", "embedding"}

func (m *Model) layoutText(l *device.Layout) {
	tx := &m.cfg.Text
	m.text.pool = l.Alloc(device.Weights, 4*stride(tx.Width))
	m.text.ids = l.Alloc(device.Activations, 4*tx.Context)
	measure, at := m.record(l, textBuffers, func(t *tower) { t.bag(tx, m.cfg.Embed, tx.Context) })
	m.text.offsets, m.text.list = measure.offsets, at
	m.text.tokens = tx.Context
}

// bag records the text tower for n tokens.
func (t *tower) bag(tx *Text, embed, n int) {
	tokens := t.buf("tokens", 4*n*stride(tx.Width))
	mean := t.buf("mean", 4*stride(tx.Width))
	hidden := t.buf("hidden", 4*stride(tx.Hidden))
	out := t.buf("embedding", 4*stride(embed))
	t.add(t.m.tables["text.token"].gather(t.m.text.ids, tokens, n))
	t.add(kernel.SoftmaxPool{X: tokens, U: t.m.text.pool, Y: mean, Scratch: t.buf("attention", 4*n), T: n, D: tx.Width})
	t.linear("text.fc1", mean, hidden, 1, -kernel.Inf, kernel.Inf)
	t.add(kernel.GELU{X: hidden, N: stride(tx.Hidden)})
	t.linear("text.fc2", hidden, out, 1, -kernel.Inf, kernel.Inf)
	t.add(kernel.Normalize{X: out, M: 1, N: stride(embed)})
}

func (m *Model) putPool(b []byte) error {
	u := make([]float32, m.cfg.Text.Width)
	numeric.FromFloat16(u, b)
	return m.dev.WriteF32(m.text.pool, u)
}

// EncodeText embeds one text given by its token ids, 1 to Context of them: dst
// becomes [D], L2 norm 1.
func (m *Model) EncodeText(dst []float32, ids []int32) error {
	tx := &m.cfg.Text
	if len(ids) < 1 || len(ids) > tx.Context {
		return fmt.Errorf("%w: %d tokens, not 1..%d", ErrConfig, len(ids), tx.Context)
	}
	words := make([]uint32, len(ids))
	for i, id := range ids {
		if id < 0 || int(id) >= tx.Vocab {
			return fmt.Errorf("%w: token %d of %d", ErrConfig, id, tx.Vocab)
		}
		words[i] = uint32(id)
	}
	if err := m.dev.WriteU32(m.text.ids, words); err != nil {
		return err
	}
	if n := len(ids); n != m.text.tokens {
		t := &tower{m: m, sizes: map[string]int{}, offsets: m.text.offsets}
		t.bag(tx, m.cfg.Embed, n)
		m.text.tokens = 0
		if err := m.dev.WriteU32(m.text.list, t.list.End()); err != nil {
			return err
		}
		m.text.tokens = n
	}
	if err := m.dev.Run(m.text.list); err != nil {
		return err
	}
	return m.dev.ReadF32(m.text.offsets["embedding"], dst)
}
