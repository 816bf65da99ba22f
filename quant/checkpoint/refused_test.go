package checkpoint_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"lqa/quant/checkpoint"
	"lqa/quant/checkpoint/checkpointtest"
)

type jsonObject = map[string]any

// withJSON changes a file of JSON.
func withJSON(t testing.TB, f checkpointtest.Files, name string, change func(o jsonObject)) {
	t.Helper()
	o := jsonObject{}
	if f[name] != nil {
		if err := json.Unmarshal(f[name], &o); err != nil {
			t.Fatal(err)
		}
	}
	change(o)
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	f[name] = text
}

// set puts a value where a path leads.
func set(path string, v any) func(o jsonObject) {
	return func(o jsonObject) {
		keys := strings.Split(path, ".")
		for _, k := range keys[:len(keys)-1] {
			if o[k] == nil {
				o[k] = jsonObject{}
			}
			o = o[k].(jsonObject)
		}
		o[keys[len(keys)-1]] = v
	}
}

const (
	hfConfig  = "config.json"
	ocConfig  = "open_clip_config.json"
	processor = "preprocessor_config.json"
)

// TestOpenCLIP_Config: values that mean the same, or something else that can
// run.
func TestOpenCLIP_Config(t *testing.T) {
	for _, c := range []struct {
		what, file, path string
		v                any
		want             string // in the configuration
	}{
		{"list of sides", hfConfig, "vision_config.image_size", []int{64, 64}, `"size":64`},
		{"list of sides", hfConfig, "vision_config.patch_size", []int{32}, `"patch":32`},
		{"old copy counts", hfConfig, "vision_config_dict.hidden_act", "gelu", `"activation":"gelu"`},
		{"old copy of nothing", hfConfig, "vision_config_dict", nil, `"activation":"quick_gelu"`},
		{"null is absent", hfConfig, "text_config.hidden_act", nil, `"activation":"quick_gelu"`},
		{"eps", hfConfig, "vision_config.layer_norm_eps", 1e-6, `"eps":0.000001`},
		{"eos", hfConfig, "text_config.eos_token_id", 2, `"eos_token_id":2`},
		{"sizes as numbers", processor, "size", 64, `"size":64`},
		{"sizes as numbers", processor, "crop_size", 64, `"size":64`},
		{"other mean", processor, "image_mean", []float64{0.5, 0.25, 0.125}, `"mean":[0.5,0.25,0.125]`},
		{"unknown key", hfConfig, "transformers_version", "5.0", `"size":64`},
		{"erf GELU", ocConfig, "model_cfg.quick_gelu", false, `"activation":"gelu"`},
		{"erf GELU by default", ocConfig, "model_cfg.quick_gelu", nil, `"activation":"gelu"`},
		{"custom text", ocConfig, "model_cfg.custom_text", true, `"size":64`},
		{"eps", ocConfig, "model_cfg.text_cfg.norm_kwargs", jsonObject{"eps": 1e-6}, `"eps":0.000001`},
		{"idle keys", ocConfig, "model_cfg.vision_cfg.timm_model_name", nil, `"size":64`},
		{"idle keys", ocConfig, "model_cfg.text_cfg.no_causal_mask", false, `"size":64`},
		{"training only", ocConfig, "model_cfg.vision_cfg.patch_dropout", 0.5, `"size":64`},
		{"mean alone", ocConfig, "preprocess_cfg", jsonObject{"mean": []int{0, 0, 0}}, `"mean":[0,0,0],"std":[0.268629`},
		{"size", ocConfig, "preprocess_cfg.size", []int{64, 64}, `"size":64`},
		{"head width", ocConfig, "model_cfg.vision_cfg.head_width", 16, `"heads":2`},
	} {
		layout := checkpointtest.Transformers
		if c.file == ocConfig {
			layout = checkpointtest.OpenCLIP
		}
		f := makeFiles(t, checkpointtest.Options{Arch: small, Layout: layout, Zeros: true})
		withJSON(t, f, c.file, set(c.path, c.v))
		got := openCLIP(t, f)
		if fits(t, got); !strings.Contains(string(got.Config), c.want) {
			t.Errorf("%s: %s is %v: no %s in %s", c.what, c.path, c.v, c.want, got.Config)
		}
	}
}

// TestOpenCLIP_BadConfig: what cannot run is refused by its key, what is wrong
// by both sides.
func TestOpenCLIP_BadConfig(t *testing.T) {
	arch, contradicts, bad := checkpoint.ErrArchitecture, checkpoint.ErrContradicts, checkpoint.ErrConfig
	for _, c := range []struct {
		file, path string
		v          any
		want       error
		says       []string
	}{
		{hfConfig, "model_type", "siglip", arch, []string{`model_type is "siglip"`}},
		{hfConfig, "text_config.hidden_act", "gelu_pytorch_tanh", arch, []string{"text_config.hidden_act", "tanh"}},
		{hfConfig, "vision_config.hidden_act", "relu", arch, []string{"vision_config.hidden_act"}},
		{hfConfig, "vision_config.hidden_act", 3, bad, []string{"vision_config.hidden_act", "string"}},
		{hfConfig, "vision_config.hidden_size", 48, contradicts, []string{"vision_config.hidden_size is 48", "vision_model.embeddings.patch_embedding.weight is [32 3 32 32]"}},
		{hfConfig, "vision_config.hidden_size", nil, contradicts, []string{"vision_config.hidden_size is not there, which means 768", "patch_embedding"}},
		{hfConfig, "vision_config.patch_size", 16, contradicts, []string{"vision_config.patch_size is 16", "patch_embedding.weight is [32 3 32 32]"}},
		{hfConfig, "vision_config.image_size", 96, contradicts, []string{"vision_config.image_size is 96", "10 tokens", "position_embedding.weight is [5 32]"}},
		{hfConfig, "vision_config.image_size", []int{64, 32}, bad, []string{"vision_config.image_size", "square"}},
		{hfConfig, "vision_config.num_hidden_layers", 3, contradicts, []string{"num_hidden_layers is 3", "vision_model.encoder.layers.N.* have 2"}},
		{hfConfig, "vision_config.intermediate_size", 100, contradicts, []string{"intermediate_size is 100", "mlp.fc1.weight is [128 32]"}},
		{hfConfig, "text_config.vocab_size", 49408, contradicts, []string{"vocab_size is 49408", "token_embedding.weight is [522 24]"}},
		{hfConfig, "text_config.max_position_embeddings", 64, contradicts, []string{"max_position_embeddings is 64", "[77 24]"}},
		{hfConfig, "text_config.hidden_size", -1, bad, []string{"text_config.hidden_size"}},
		{hfConfig, "vision_config.patch_size", 0, contradicts, []string{"patch_size is 0"}},
		{hfConfig, "text_config.num_hidden_layers", 1 << 30, bad, []string{"num_hidden_layers"}},
		{hfConfig, "text_config", []int{1}, bad, []string{"text_config", "object"}},
		{hfConfig, "text_config_dict.vocab_size", 100, contradicts, []string{"vocab_size is 100"}},
		{processor, "resample", 2, arch, []string{"resample is 2"}},
		{processor, "do_resize", false, arch, []string{"do_resize is false"}},
		{processor, "do_center_crop", false, arch, []string{"do_center_crop"}},
		{processor, "do_normalize", false, arch, []string{"do_normalize"}},
		{processor, "do_rescale", false, arch, []string{"do_rescale"}},
		{processor, "rescale_factor", 1. / 127.5, arch, []string{"rescale_factor"}},
		{processor, "size", jsonObject{"height": 64, "width": 64}, arch, []string{"size.height is 64"}},
		{processor, "size", jsonObject{"shortest_edge": 72}, contradicts, []string{"size.shortest_edge is 72", "image_size is 64"}},
		{processor, "crop_size", jsonObject{"height": 64, "width": 32}, contradicts, []string{"crop_size.width is 32", "image_size is 64"}},
		{processor, "crop_size", nil, contradicts, []string{"crop_size is not there, which means 224"}},
		{processor, "image_mean", []int{0, 0}, bad, []string{"image_mean"}},

		{ocConfig, "model_cfg.init_logit_bias", -10, arch, []string{"model_cfg.init_logit_bias is -10"}},
		{ocConfig, "model_cfg.vision_cfg.timm_model_name", "fastvit_mci0", arch, []string{"vision_cfg.timm_model_name", "fastvit_mci0"}},
		{ocConfig, "model_cfg.vision_cfg.layers", []int{3, 4, 6, 3}, arch, []string{"vision_cfg.layers is [3,4,6,3]"}},
		{ocConfig, "model_cfg.vision_cfg.pool_type", "avg", arch, []string{"vision_cfg.pool_type"}},
		{ocConfig, "model_cfg.vision_cfg.no_ln_pre", true, arch, []string{"vision_cfg.no_ln_pre"}},
		{ocConfig, "model_cfg.vision_cfg.final_ln_after_pool", true, arch, []string{"final_ln_after_pool"}},
		{ocConfig, "model_cfg.vision_cfg.act_kwargs", jsonObject{"approximate": "tanh"}, arch, []string{"vision_cfg.act_kwargs"}},
		{ocConfig, "model_cfg.vision_cfg.attentional_pool", true, arch, []string{"attentional_pool"}},
		{ocConfig, "model_cfg.vision_cfg.something_new", 1, arch, []string{"something_new"}},
		{ocConfig, "model_cfg.vision_cfg.norm_kwargs", jsonObject{"bias": true}, arch, []string{"norm_kwargs.bias"}},
		{ocConfig, "model_cfg.text_cfg.hf_model_name", "roberta-base", arch, []string{"text_cfg.hf_model_name", "roberta-base"}},
		{ocConfig, "model_cfg.text_cfg.hf_tokenizer_name", "bert-base-uncased", arch, []string{"hf_tokenizer_name"}},
		{ocConfig, "model_cfg.text_cfg.tokenizer_kwargs", jsonObject{"clean": "canonicalize"}, arch, []string{"tokenizer_kwargs.clean"}},
		{ocConfig, "model_cfg.text_cfg.no_causal_mask", true, arch, []string{"text_cfg.no_causal_mask is true"}},
		{ocConfig, "model_cfg.text_cfg.pool_type", "last", arch, []string{"text_cfg.pool_type"}},
		{ocConfig, "model_cfg.text_cfg.embed_cls", true, arch, []string{"embed_cls"}},
		{ocConfig, "model_cfg.text_cfg.proj_bias", true, arch, []string{"proj_bias"}},
		{ocConfig, "model_cfg.text_cfg.proj_type", "none", arch, []string{"proj_type"}},
		{ocConfig, "model_cfg.vision_cfg.head_width", 5, bad, []string{"head_width", "does not divide"}},
		{ocConfig, "model_cfg.vision_cfg.patch_size", nil, contradicts, []string{"vision_cfg.patch_size is not there, which means 16", "visual.conv1.weight is [32 3 32 32]"}},
		{ocConfig, "model_cfg.vision_cfg.mlp_ratio", 2, contradicts, []string{"mlp_ratio", "64", "mlp.c_fc.weight is [128 32]"}},
		{ocConfig, "model_cfg.vision_cfg.mlp_ratio", 1e30, bad, []string{"mlp_ratio"}},
		{ocConfig, "model_cfg.embed_dim", 24, contradicts, []string{"embed_dim is 24", "visual.proj is [32 20]"}},
		{ocConfig, "model_cfg.text_cfg.width", 32, contradicts, []string{"text_cfg.width is 32", "token_embedding.weight is [522 24]"}},
		{ocConfig, "preprocess_cfg.interpolation", "bilinear", arch, []string{"preprocess_cfg.interpolation"}},
		{ocConfig, "preprocess_cfg.resize_mode", "squash", arch, []string{"preprocess_cfg.resize_mode"}},
		{ocConfig, "preprocess_cfg.size", 96, contradicts, []string{"preprocess_cfg.size is 96", "image_size is 64"}},
	} {
		layout := checkpointtest.Transformers
		if c.file == ocConfig {
			layout = checkpointtest.OpenCLIP
		}
		f := makeFiles(t, checkpointtest.Options{Arch: small, Layout: layout, Zeros: true})
		withJSON(t, f, c.file, set(c.path, c.v))
		refused(t, c.path, f, c.want, c.says...)
	}

	f := makeFiles(t, checkpointtest.Options{Arch: small, Zeros: true})
	edit(t, f, hfConfig, `"model_type": "clip",`, `"model_type": "clip", "model_type": "clip",`)
	refused(t, "a key twice", f, bad, "config.json", "twice")
	f[hfConfig] = []byte(`{"model_type":`)
	refused(t, "cut JSON", f, bad, "config.json")
	f[hfConfig] = []byte("<html>")
	refused(t, "a page", f, bad, "config.json")
}

// TestOpenCLIP_Width: transformers' files give the common width in three
// places; the tensor has it.
func TestOpenCLIP_Width(t *testing.T) {
	f := makeFiles(t, checkpointtest.Options{Arch: small, Zeros: true})
	withJSON(t, f, hfConfig, set("projection_dim", 512))
	c := openCLIP(t, f)
	if cfg := fits(t, c); cfg.Embed != 20 {
		t.Errorf("width %d", cfg.Embed)
	}
	if !slices.ContainsFunc(c.Notes, func(n string) bool {
		return strings.Contains(n, "projection_dim is 512") && strings.Contains(n, "visual_projection.weight is [20 32]")
	}) {
		t.Errorf("notes %q", c.Notes)
	}
}

// TestOpenCLIP_Tensors: files of other models are refused by a tensor's name,
// and those with tensors too many, too few or of another shape by all of them.
func TestOpenCLIP_Tensors(t *testing.T) {
	rename := func(from, to string) func(f checkpointtest.Files) {
		return func(f checkpointtest.Files) {
			for name, b := range f {
				if strings.HasSuffix(name, ".safetensors") {
					// The header keeps its length: names of one are.
					if len(from) != len(to) || !bytes.Contains(b, []byte(from)) {
						t.Fatalf("%q for %q", to, from)
					}
					f[name] = bytes.ReplaceAll(b, []byte(from), []byte(to))
				}
			}
		}
	}
	for _, c := range []struct {
		what, layout string
		change       func(f checkpointtest.Files)
		want         error
		says         []string
	}{
		{"a tensor is missing", checkpointtest.Transformers, rename("vision_model.post_layernorm.bias", "vision_model.post_layernorm.gain"), checkpoint.ErrContradicts,
			[]string{`"vision_model.post_layernorm.bias" [32] is missing`, `"vision_model.post_layernorm.gain" is none of CLIP's`}},
		{"a gap between layers", checkpointtest.OpenCLIP, rename("visual.transformer.resblocks.1.", "visual.transformer.resblocks.7."), checkpoint.ErrContradicts,
			[]string{"visual.transformer.resblocks.1.ln_1.weight", "and "}},
		{"a ResNet", checkpointtest.OpenCLIP, rename("visual.ln_post.weight", "visual.attnpool.q.wei"), checkpoint.ErrArchitecture, []string{"visual.attnpool.q.wei", "ResNet"}},
		{"timm's tower", checkpointtest.OpenCLIP, rename("visual.ln_post.weight", "visual.trunk.norm.wei"), checkpoint.ErrArchitecture, []string{"visual.trunk.norm.wei", "timm"}},
		{"SigLIP", checkpointtest.Transformers, rename("vision_model.post_layernorm.bias", "vision_model.head.layernorm.bias"), checkpoint.ErrArchitecture, []string{"vision_model.head.", "SigLIP"}},
		{"SigLIP in OpenCLIP", checkpointtest.OpenCLIP, rename("ln_final.b", "logit_bias"), checkpoint.ErrArchitecture, []string{"logit_bias"}},
		{"MobileCLIP", checkpointtest.OpenCLIP, rename("visual.ln_post.weight", "image_encoder.model.w"), checkpoint.ErrArchitecture, []string{"image_encoder.model.w", "MobileCLIP"}},
		{"TinyCLIP-auto", checkpointtest.OpenCLIP, rename("visual.transformer.resblocks.0.ln_1.weight", "image_encoder_without_ddp.visual.ln_1.wght"), checkpoint.ErrArchitecture,
			[]string{"image_encoder_without_ddp", "TinyCLIP-auto"}},
		{"timm's tower alone", checkpointtest.OpenCLIP, rename("token_embedding.weight", "blocks.0.attn.qkv.wght"), checkpoint.ErrArchitecture, []string{"blocks.0.attn.qkv.", "alone"}},
		{"no text tower", checkpointtest.Transformers, rename("text_model.embeddings.token_embedding.weight", "text_model.embeddings.token_embedding.wheigt"), checkpoint.ErrArchitecture,
			[]string{"image tower alone", "vision_model.embeddings.patch_embedding.weight"}},
		{"no image tower", checkpointtest.OpenCLIP, rename("visual.conv1.weight", "visual.conv9.weight"), checkpoint.ErrArchitecture, []string{"text tower alone", "token_embedding.weight"}},
	} {
		f := makeFiles(t, checkpointtest.Options{Arch: small, Layout: c.layout, Zeros: true})
		c.change(f)
		refused(t, c.what, f, c.want, c.says...)
	}
	// Each layer of TinyCLIP-auto has an MLP of its own.
	f := makeFiles(t, checkpointtest.Options{Arch: small, Layout: checkpointtest.OpenCLIP, Zeros: true})
	name := "open_clip_model.safetensors"
	edit(t, f, name, `"shape":[128,32]`, `"shape":[64, 64]`)
	refused(t, "another shape", f, checkpoint.ErrContradicts, "mlp_ratio", "mlp.c_fc.weight is [64 64]")
	// Buffers of OpenAI's archives, and counters, are no weights.
	instead := func(name string) checkpointtest.Files {
		f := makeFiles(t, checkpointtest.Options{Arch: small, PositionIDs: true, Zeros: true})
		rename("text_model.embeddings.position_ids", name)(f)
		return f
	}
	for _, buffer := range []string{"attn_mask", "num_batches_tracked", "input_resolution", "vocab_size", "context_length"} {
		fits(t, openCLIP(t, instead(strings.Repeat("x", 33-len(buffer))+"."+buffer)))
	}
	refused(t, "a name twice, once stripped", instead("module.model.text.text.logit_scale"), checkpoint.ErrCorrupt, "same tensor", "module.model.")
	refused(t, "a tensor too many", instead("text_model.embeddings.position_idx"), checkpoint.ErrContradicts, `"text_model.embeddings.position_idx" is none of CLIP's`)
}

// TestOpenCLIP_Folder: which file is taken.
func TestOpenCLIP_Folder(t *testing.T) {
	hf := makeFiles(t, checkpointtest.Options{Arch: small, Zeros: true})
	oc := makeFiles(t, checkpointtest.Options{Arch: small, Layout: checkpointtest.OpenCLIP, Zeros: true})
	bin := makeFiles(t, checkpointtest.Options{Arch: small, Format: checkpointtest.Torch, Zeros: true})
	ocBin := makeFiles(t, checkpointtest.Options{Arch: small, Layout: checkpointtest.OpenCLIP, Format: checkpointtest.Torch, Zeros: true})
	union := func(folders ...checkpointtest.Files) checkpointtest.Files {
		all := checkpointtest.Files{}
		for _, f := range folders {
			for name, b := range f {
				all[name] = b
			}
		}
		return all
	}
	without := func(f checkpointtest.Files, names ...string) checkpointtest.Files {
		f = union(f)
		for _, n := range names {
			delete(f, n)
		}
		return f
	}
	renamed := func(f checkpointtest.Files, from, to string) checkpointtest.Files {
		f = union(f)
		f[to] = f[from]
		delete(f, from)
		return f
	}
	timm := union(oc, checkpointtest.Files{"model.safetensors": []byte("broken, and not looked at"), "config.json": []byte(`{"architecture":"vit_base_patch32_clip_224"}`)})
	for _, c := range []struct {
		what    string
		f       checkpointtest.Files
		weights string
	}{
		{"all four, as LAION's", union(hf, oc, bin, ocBin), "open_clip_model.safetensors"},
		{"OpenCLIP's pickle before transformers'", union(hf, bin, ocBin), "open_clip_pytorch_model.bin"},
		{"safetensors before a pickle", union(hf, bin), "model.safetensors"},
		{"a pickle alone, as OpenAI's B/32", bin, "pytorch_model.bin"},
		{"OpenCLIP's tensors without its configuration", without(union(hf, oc), ocConfig), "model.safetensors"},
		{"transformers' tensors without its configuration", without(union(hf, ocBin), hfConfig), "open_clip_pytorch_model.bin"},
		{"timm's copy, with an image tower beside", timm, "open_clip_model.safetensors"},
		{"OpenCLIP's configuration renamed", renamed(oc, ocConfig, hfConfig), "open_clip_model.safetensors"},
		{"OpenCLIP's layout under transformers' name", renamed(oc, "open_clip_model.safetensors", "model.safetensors"), "model.safetensors"},
		{"another name", renamed(ocBin, "open_clip_pytorch_model.bin", "epoch_32.pt"), "epoch_32.pt"},
	} {
		got, err := checkpoint.OpenCLIP(c.f, checkpoint.Limits{})
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if got.Weights != c.weights {
			t.Errorf("%s: %s was read, want %s", c.what, got.Weights, c.weights)
		}
		got.Close()
	}
	bare := union(oc)
	withJSON(t, bare, ocConfig, func(o jsonObject) {
		model := o["model_cfg"].(jsonObject)
		delete(o, "model_cfg")
		for k, v := range model {
			o[k] = v
		}
	})
	fits(t, openCLIP(t, bare))

	// Both configurations, of two minds about what no tensor says.
	gelu := makeFiles(t, checkpointtest.Options{Arch: small, GELU: true, Zeros: true})
	c := openCLIP(t, union(gelu, oc))
	if !strings.Contains(string(c.Config), `"quick_gelu"`) || !slices.ContainsFunc(c.Notes, func(n string) bool {
		return strings.Contains(n, "open_clip_config.json says quick_gelu, config.json says gelu")
	}) {
		t.Errorf("notes %q, %s", c.Notes, c.Config)
	}

	lost := checkpoint.ErrFolder
	refused(t, "no configuration", without(hf, hfConfig), lost, "layout of transformers", "no config.json")
	refused(t, "no OpenCLIP configuration", without(oc, ocConfig), lost, "layout of openclip", "no open_clip_config.json")
	refused(t, "no weights", without(hf, "model.safetensors"), lost, "config.json, preprocessor_config.json")
	refused(t, "two unknown weights", union(checkpointtest.Files{"a.pt": nil, "b.pt": nil}, without(hf, "model.safetensors")), lost, "a.pt, b.pt")
	onnx := without(hf, "model.safetensors")
	withJSON(t, onnx, hfConfig, set("_name_or_path", "openai/clip-vit-base-patch32"))
	refused(t, "ONNX", onnx, lost, "ONNX", "openai/clip-vit-base-patch32")
	refused(t, "timm's tower alone", checkpointtest.Files{"model.safetensors": hf["model.safetensors"], "config.json": []byte(`{"architecture":"vit_base_patch32_clip_224"}`)},
		checkpoint.ErrArchitecture, "architecture", "vit_base_patch32_clip_224")
	for what, text := range map[string]string{"LFS pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "page": "<!doctype html>", "7z": "7z\xbc\xaf\x27\x1c", "GGUF": "GGUF\x03"} {
		refused(t, what, union(hf, checkpointtest.Files{"model.safetensors": []byte(text)}), checkpoint.ErrCorrupt, "model.safetensors", "it is ")
	}
	refused(t, "safetensors named .bin", union(without(hf, "model.safetensors"), checkpointtest.Files{"pytorch_model.bin": hf["model.safetensors"]}), checkpoint.ErrCorrupt, "pytorch_model.bin", "neither")
}

// TestOpenCLIP_Shards: an index and its files must be of one mind.
func TestOpenCLIP_Shards(t *testing.T) {
	const index, first = "model.safetensors.index.json", "model-00001-of-00002.safetensors"
	whole := makeFiles(t, checkpointtest.Options{Arch: small, Zeros: true})
	for _, c := range []struct {
		what   string
		change func(f checkpointtest.Files)
		want   error
		says   string
	}{
		{"not JSON", func(f checkpointtest.Files) { f[index] = []byte("{") }, checkpoint.ErrCorrupt, index},
		{"no map", func(f checkpointtest.Files) { f[index] = []byte("{}") }, checkpoint.ErrCorrupt, "weight_map"},
		{"a file is missing", func(f checkpointtest.Files) { delete(f, first) }, nil, first},
		{"a path", func(f checkpointtest.Files) { edit(t, f, index, first, "../"+first) }, checkpoint.ErrCorrupt, "../"},
		{"a path of Windows", func(f checkpointtest.Files) { edit(t, f, index, first, `..\\`+first) }, checkpoint.ErrCorrupt, "no name"},
		{"another kind of file", func(f checkpointtest.Files) { edit(t, f, index, first, "pytorch_model-00001-of-00002.bin") }, checkpoint.ErrCorrupt, ".bin"},
		{"a tensor that no file has", func(f checkpointtest.Files) {
			edit(t, f, index, `"logit_scale"`, `"logit_scale2": "`+first+`", "logit_scale"`)
		}, checkpoint.ErrCorrupt, `no tensor "logit_scale2"`},
		{"a tensor in the other file", func(f checkpointtest.Files) {
			edit(t, f, index, `"logit_scale": "model-00001`, `"logit_scale": "model-00002`)
		}, checkpoint.ErrCorrupt, `"logit_scale"`},
		{"a tensor in both", func(f checkpointtest.Files) { f[first] = whole["model.safetensors"] }, checkpoint.ErrCorrupt, "which the index puts into"},
	} {
		f := makeFiles(t, checkpointtest.Options{Arch: small, Shards: 2, Zeros: true})
		c.change(f)
		if c.want == nil {
			if _, err := checkpoint.OpenCLIP(f, checkpoint.Limits{}); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", c.what, err)
			}
			continue
		}
		refused(t, c.what, f, c.want, c.says)
	}
}

// FuzzConfig reads a configuration from outside, in either place, beside good
// tensors.
func FuzzConfig(f *testing.F) {
	for i, layout := range []string{checkpointtest.Transformers, checkpointtest.OpenCLIP} {
		files := makeFiles(f, checkpointtest.Options{Arch: toy, Layout: layout, Sparse: i == 0, Zeros: true})
		for _, name := range []string{hfConfig, ocConfig, processor} {
			if files[name] != nil {
				f.Add(i == 0, files[name], []byte(`{}`))
			}
		}
	}
	f.Add(true, []byte(`{"vision_config":{"image_size":[2,2],"patch_size":0},"text_config_dict":null}`), []byte(`{"size":{"shortest_edge":2},"crop_size":2}`))
	f.Add(false, []byte(`{"model_cfg":{"vision_cfg":{"head_width":0,"mlp_ratio":1e300}}}`), []byte(`{"image_processor":{}}`))
	hf := makeFiles(f, checkpointtest.Options{Arch: toy, Zeros: true})
	oc := makeFiles(f, checkpointtest.Options{Arch: toy, Layout: checkpointtest.OpenCLIP, Zeros: true})
	f.Fuzz(func(t *testing.T, transformers bool, config, more []byte) {
		files := checkpointtest.Files{"model.safetensors": hf["model.safetensors"], hfConfig: config, processor: more}
		if !transformers {
			files = checkpointtest.Files{"model.safetensors": oc["open_clip_model.safetensors"], ocConfig: config, "vocab.json": more}
		}
		c, err := checkpoint.OpenCLIP(files, checkpoint.Limits{TextBytes: 1 << 16})
		if err != nil {
			return
		}
		for _, name := range c.Names() {
			shape, _ := c.Shape(name)
			n := 1
			for _, d := range shape {
				n *= d
			}
			if x, err := c.Float32(name); err != nil || len(x) != n {
				t.Fatalf("%s %v: %d elements, %v", name, shape, len(x), err)
			}
		}
	})
}
