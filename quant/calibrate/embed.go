package calibrate

import (
	"fmt"

	"lqa/quant/numeric"
)

// Embed is a label's embedding [D], of length 1: the mean over its prompts,
// given as token ids.
func (m *Model) Embed(prompts [][]int32) ([]float32, error) {
	sum, one := make([]float32, m.cfg.Embed), make([]float32, m.cfg.Embed)
	for i, ids := range prompts {
		if err := m.workers[0].model.EncodeText(one, ids); err != nil {
			return nil, fmt.Errorf("text %d: %w", i, err)
		}
		for j, v := range one {
			sum[j] += v
		}
	}
	if numeric.Normalize(sum) == 0 {
		return nil, fmt.Errorf("%w: %d prompts cancel out", ErrInput, len(prompts))
	}
	return sum, nil
}
