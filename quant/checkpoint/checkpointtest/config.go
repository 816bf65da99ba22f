package checkpointtest

import (
	"encoding/json"
	"fmt"
	"strings"
)

type object = map[string]any

// texts makes the files beside the weights.
func (o *Options) texts() map[string][]byte {
	files := map[string]any{}
	if o.Layout == OpenCLIP {
		files["open_clip_config.json"] = o.openCLIPConfig()
	} else {
		files["config.json"] = o.transformersConfig()
		files["preprocessor_config.json"] = o.processor()
	}
	out := map[string][]byte{}
	for name, v := range files {
		text, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			panic("checkpointtest: " + err.Error())
		}
		out[name] = text
	}
	if len(o.Merges) > 0 {
		out["merges.txt"] = []byte("#version: 0.2\n" + strings.Join(o.Merges, "\n") + "\n")
		out["vocab.json"] = vocabulary(o.Merges)
	}
	return out
}

// vocabulary is CLIP's vocab.json: bytes in GPT-2's order, the same at a
// word's end, merges, special tokens.
func vocabulary(merges []string) []byte {
	var tokens []string
	other := 0
	for pass := range 2 {
		for b := range 256 {
			printable := b > ' ' && b < 0x7f || b > 0xa0 && b != 0xad
			switch {
			case printable && pass == 0:
				tokens = append(tokens, string(rune(b)))
			case !printable && pass == 1:
				tokens = append(tokens, string(rune(256+other)))
				other++
			}
		}
	}
	for _, t := range tokens[:256] {
		tokens = append(tokens, t+"</w>")
	}
	for _, m := range merges {
		tokens = append(tokens, strings.Replace(m, " ", "", 1))
	}
	tokens = append(tokens, "<|startoftext|>", "<|endoftext|>")
	b := []byte{'{'}
	for i, t := range tokens {
		quoted, _ := json.Marshal(t)
		b = fmt.Appendf(b, "%s: %d, ", quoted, i)
	}
	return append(b[:len(b)-2], '}')
}

func (o *Options) activation() string {
	if o.GELU {
		return "gelu"
	}
	return "quick_gelu"
}

func (o *Options) transformersConfig() object {
	a := &o.Arch
	eos := a.Vocab - 1
	if o.WrongEOS {
		eos = 2
	}
	tower := func(t Tower, kind string, extra object) object {
		c := object{
			"hidden_size": t.Width, "intermediate_size": 4 * t.Width, "num_hidden_layers": t.Layers, "num_attention_heads": t.Heads,
			"hidden_act": o.activation(), "layer_norm_eps": 1e-5, "projection_dim": a.D, "dropout": 0.0, "model_type": kind,
		}
		for k, v := range extra {
			c[k] = v
		}
		return c
	}
	text := tower(a.Text, "clip_text_model", object{"vocab_size": a.Vocab, "max_position_embeddings": a.Context, "bos_token_id": 0, "eos_token_id": eos})
	vision := tower(a.Image, "clip_vision_model", object{"image_size": a.Size, "patch_size": a.Patch})
	c := object{"model_type": "clip", "architectures": []string{"CLIPModel"}, "projection_dim": a.D, "logit_scale_init_value": 2.6592, "text_config": text, "vision_config": vision}
	if o.Sparse {
		drop := func(c, defaults object) {
			for k, v := range defaults {
				if c[k] == v {
					delete(c, k)
				}
			}
		}
		common := object{"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": 512}
		drop(c, object{"projection_dim": 512, "logit_scale_init_value": 2.6592})
		drop(text, common)
		drop(text, object{"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407})
		drop(vision, common)
		drop(vision, object{"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "image_size": 224, "patch_size": 32})
	}
	return c
}

func (o *Options) processor() object {
	return object{
		"do_resize": true, "size": object{"shortest_edge": o.Arch.Size}, "resample": 3, "do_center_crop": true, "crop_size": object{"height": o.Arch.Size, "width": o.Arch.Size},
		"do_rescale": true, "rescale_factor": 0.00392156862745098, "do_normalize": true, "do_convert_rgb": nil,
		"image_mean": []float64{0.48145466, 0.4578275, 0.40821073}, "image_std": []float64{0.26862954, 0.26130258, 0.27577711},
		"image_processor_type": "CLIPImageProcessor",
	}
}

func (o *Options) openCLIPConfig() object {
	a := &o.Arch
	model := object{
		"embed_dim":  a.D,
		"vision_cfg": object{"image_size": a.Size, "layers": a.Image.Layers, "width": a.Image.Width, "patch_size": a.Patch},
		"text_cfg":   object{"context_length": a.Context, "vocab_size": a.Vocab, "width": a.Text.Width, "heads": a.Text.Heads, "layers": a.Text.Layers},
	}
	if head := a.Image.Width / a.Image.Heads; head != 64 {
		model["vision_cfg"].(object)["head_width"] = head
	}
	if !o.GELU {
		model["quick_gelu"] = true
	}
	// As LAION's B/16: in part.
	return object{"model_cfg": model, "preprocess_cfg": object{"mean": []float64{0.48145466, 0.4578275, 0.40821073}, "std": []float64{0.26862954, 0.26130258, 0.27577711}}}
}
