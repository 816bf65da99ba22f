package checkpoint

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// description is what configuration files say of a CLIP. Its numbers are
// compared with the tensors; the rest only they know.
type description struct {
	file  string // whose it is
	image tower
	text  tower

	size, patch    number   // pixels
	views          []number // how large pictures are made for it, the same
	context, vocab number
	embed          number
	eos            int

	mean, std [3]float32
	notes     []string
}

type tower struct {
	width, layers, heads, mlp number
	activation                string // "quick_gelu" or "gelu"
	eps                       float64
}

// wrongEOS as eos_token_id means that a text is pooled at its largest id: so
// configurations of OpenAI's CLIP say by a historic mistake
// (huggingface/transformers issue 24773), and so OpenCLIP does.
const wrongEOS = 2

// What CLIP's pictures are normalised with.
var (
	clipMean = [3]float32{0.48145466, 0.4578275, 0.40821073}
	clipStd  = [3]float32{0.26862954, 0.26130258, 0.27577711}
)

// refuse makes the error of a member that asks for what cannot run here.
func (o object) refuse(key string) error {
	return fmt.Errorf("%w: %s%s is %.60s", ErrArchitecture, o.path, key, o.members[key])
}

// describeTransformers reads transformers' config.json (CLIPConfig of version
// 5), whose files leave out what equals a default. processor is
// preprocessor_config.json, or the image_processor of processor_config.json.
func describeTransformers(o, processor object) (*description, error) {
	if t := o.text("model_type", "clip"); t != "clip" {
		return nil, o.refuse("model_type")
	}
	d := &description{mean: clipMean, std: clipStd}
	d.file, _, _ = strings.Cut(o.path, ":")
	vision, text := o.object("vision_config"), o.object("text_config")
	// Old files hold a second copy, which counts.
	vision.override(o.object("vision_config_dict"))
	text.override(o.object("text_config_dict"))

	d.embed = o.number("projection_dim", 512)
	d.size, d.patch = vision.number("image_size", 224), vision.number("patch_size", 32)
	d.vocab, d.context = text.number("vocab_size", 49408), text.number("max_position_embeddings", 77)
	eos := text.number("eos_token_id", 49407)
	d.eos = eos.value
	for _, t := range []struct {
		to *tower
		of object
		w  int // default width; the MLP is four times as wide
		h  int
	}{{&d.image, vision, 768, 12}, {&d.text, text, 512, 8}} {
		*t.to = tower{
			width: t.of.number("hidden_size", t.w), mlp: t.of.number("intermediate_size", 4*t.w),
			layers: t.of.number("num_hidden_layers", 12), heads: t.of.number("num_attention_heads", t.h),
			activation: t.of.text("hidden_act", "quick_gelu"), eps: t.of.float("layer_norm_eps", 1e-5),
		}
	}
	if *o.err != nil {
		return nil, *o.err
	}
	for i, a := range []string{d.image.activation, d.text.activation} {
		if a != "quick_gelu" && a != "gelu" {
			return nil, []object{vision, text}[i].refuse("hidden_act")
		}
	}
	return d, d.processor(processor)
}

// override replaces members by those of another object.
func (o object) override(by object) {
	for k, v := range by.members {
		o.members[k] = v
	}
}

// processor reads what transformers does to a picture (CLIPImageProcessor).
// The engine scales the short side to the view by Pillow's bicubic filter and
// takes the centre, so nothing else may be asked for.
func (d *description) processor(o object) error {
	if o.members == nil {
		d.notes = append(d.notes, "no preprocessor_config.json: pictures are prepared as OpenAI's CLIP does")
		return nil
	}
	for _, key := range []string{"do_resize", "do_center_crop", "do_rescale", "do_normalize"} {
		if !o.bool(key, true) {
			return o.refuse(key)
		}
	}
	const bicubic = 3
	if r := o.number("resample", bicubic); r.value != bicubic {
		return o.refuse("resample")
	}
	if f := o.float("rescale_factor", 1./255); !(f > 0.99999/255 && f < 1.00001/255) {
		return o.refuse("rescale_factor")
	}
	for _, c := range []struct {
		key  string
		want []string // of an object; old files have a number
	}{{"size", []string{"shortest_edge"}}, {"crop_size", []string{"height", "width"}}} {
		d.views = append(d.views, o.sides(c.key, c.want)...)
	}
	d.mean, d.std = o.rgb("image_mean", clipMean), o.rgb("image_std", clipStd)
	return *o.err
}

// sides reads a size: a number, or an object of the wanted members and no
// other, which would scale in another way.
func (o object) sides(key string, want []string) []number {
	if raw := o.members[key]; raw == nil || raw[0] != '{' {
		return []number{o.number(key, 224)}
	}
	inner := o.object(key)
	if err := inner.onlyKnown(want...); err != nil && *o.err == nil {
		*o.err = err
	}
	var sides []number
	for _, w := range want {
		sides = append(sides, inner.number(w, 0))
	}
	return sides
}

// The keys of OpenCLIP's vision_cfg and text_cfg (open_clip/model.py,
// CLIPVisionCfg and CLIPTextCfg) that are read, or do not change what a
// trained tower computes. Others must say nothing.
var (
	visionKnown = []string{"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "pool_type", "norm_kwargs",
		"pos_embed_type", "patch_dropout", "attn_pooler_queries", "attn_pooler_heads"}
	textKnown = []string{"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "pool_type", "proj_type", "norm_kwargs",
		"tokenizer_kwargs", "pad_id", "eos_id"}
)

// describeOpenCLIP reads open_clip_config.json, {"model_cfg", "preprocess_cfg"},
// or a file of OpenCLIP's model_configs, which is a model_cfg alone.
func describeOpenCLIP(o object) (*description, error) {
	d := &description{eos: wrongEOS}
	d.file, _, _ = strings.Cut(o.path, ":")
	model := o
	if o.has("model_cfg") {
		model = o.object("model_cfg")
	}
	for _, key := range []string{"init_logit_bias", "nonscalar_logit_scale", "multimodal_cfg"} {
		if !model.idle(key) {
			return nil, model.refuse(key)
		}
	}
	activation := "gelu"
	if model.bool("quick_gelu", false) {
		activation = "quick_gelu"
	}
	d.embed = model.number("embed_dim", 0)
	vision, text := model.object("vision_cfg"), model.object("text_cfg")
	if raw := vision.members["layers"]; raw != nil && raw[0] == '[' { // four depths: a ResNet's
		return nil, vision.refuse("layers")
	}
	norm, textNorm, tokenizer, pre := vision.object("norm_kwargs"), text.object("norm_kwargs"), text.object("tokenizer_kwargs"), o.object("preprocess_cfg")
	err := errors.Join(
		vision.onlyKnown(visionKnown...), text.onlyKnown(textKnown...),
		norm.onlyKnown("eps"), textNorm.onlyKnown("eps"), tokenizer.onlyKnown("clean"),
		vision.only("pool_type", "tok"), vision.only("pos_embed_type", "learnable"),
		text.only("pool_type", "argmax"), text.only("proj_type", "linear"), tokenizer.only("clean", "lower"),
		pre.only("mode", "RGB"), pre.only("interpolation", "bicubic"), pre.only("resize_mode", "shortest"),
	)
	if err = errors.Join(*o.err, err); err != nil {
		return nil, err
	}

	d.size, d.patch = vision.number("image_size", 224), vision.number("patch_size", 16)
	d.vocab, d.context = text.number("vocab_size", 49408), text.number("context_length", 77)
	d.image = openCLIPTower(vision, 768)
	d.text = openCLIPTower(text, 512)
	d.image.activation, d.text.activation = activation, activation
	d.text.heads = text.number("heads", 8)
	head := vision.number("head_width", 64)
	if head.value == 0 || d.image.width.value%head.value != 0 {
		vision.fail("head_width", fmt.Sprintf("%d does not divide the width, %d", head.value, d.image.width.value))
	} else {
		d.image.heads = number{head.path, d.image.width.value / head.value, head.stated}
	}
	d.views = []number{pre.number("size", d.size.value)} // preprocess_cfg may be there in part
	d.mean, d.std = pre.rgb("mean", clipMean), pre.rgb("std", clipStd)
	return d, *o.err
}

func openCLIPTower(o object, width int) tower {
	t := tower{width: o.number("width", width), layers: o.number("layers", 12), eps: o.object("norm_kwargs").float("eps", 1e-5)}
	ratio := o.float("mlp_ratio", 4)
	if !(ratio >= 0 && ratio <= 64) {
		o.fail("mlp_ratio", ratio)
		ratio = 4
	}
	t.mlp = number{o.path + "mlp_ratio of width", int(float64(t.width.value) * ratio), o.has("mlp_ratio")}
	return t
}

// onlyKnown refuses members that say something and are not among the known.
func (o object) onlyKnown(known ...string) error {
	for _, k := range slices.Sorted(maps.Keys(o.members)) {
		if !slices.Contains(known, k) && !o.idle(k) {
			return o.refuse(k)
		}
	}
	return nil
}

// only refuses a member that says anything but what is its default.
func (o object) only(key, value string) error {
	if o.text(key, value) != value {
		return o.refuse(key)
	}
	return nil
}
