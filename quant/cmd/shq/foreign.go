package main

import (
	"encoding/json"

	"lqa/quant/checkpoint"
	"lqa/quant/clip"
)

// openCheckpoint opens somebody's checkpoint of CLIP.
func openCheckpoint(f checkpoint.Folder) (*source, error) {
	model, err := checkpoint.OpenCLIP(f, checkpoint.Limits{})
	if err != nil {
		return nil, err
	}
	s := &source{notes: model.Notes, foreign: true, close: model.Close}
	s.Config, s.Tensors, s.Vocab = model.Config, model, model.Merges
	cfg, err := clip.ParseConfig(s.Config)
	if err != nil {
		model.Close()
		return nil, err
	}
	// A label needs a few rows of the token table: shards let them come alone.
	if cfg.Text.Vocab > clip.TokenShard {
		cfg.Text.TokenShards = clip.TokenShard
		if s.Config, err = json.Marshal(cfg); err != nil {
			model.Close()
			return nil, err
		}
	}
	return s, nil
}
