"""Goldens of CLIP's transformer towers, into quant/engine/testdata/clip-*.

Each is a small random CLIPModel of transformers as a float model directory (model.json, model.safetensors in half
precision, merges.txt) with golden.json (sizes of synthetic pictures, texts and their token ids) and golden.safetensors
(embeddings of both, L2 norm 1). Vocabulary: the first merges of OpenAI's list. About five seconds.
"""
import gzip
import json

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from goldens import TESTDATA, synthetic
from paths import ROOT

MERGES = 86
SPECIALS = ["<|startoftext|>", "<|endoftext|>"]
TEXTS = ["a photo of a cat.", "", "The QUICK brown fox's 42 legs!", "café, naïve 🙂 日本語", "another " * 12]

# eos_token_id 2 stands in old configurations: pooled at the largest id. 257 tokens and 588 columns a patch are CLIP's of ViT-L/14.
CASES = {
    "clip-quick": dict(
        projection_dim=24,
        vision=dict(image_size=64, patch_size=8, hidden_size=40, num_attention_heads=5, intermediate_size=72, num_hidden_layers=2, hidden_act="quick_gelu"),
        text=dict(max_position_embeddings=77, hidden_size=24, num_attention_heads=3, intermediate_size=60, num_hidden_layers=2, hidden_act="quick_gelu", eos_token_id=512 + MERGES + 1),
        pictures=[(64, 64), (640, 480), (480, 640), (227, 224)],
    ),
    "clip-gelu": dict(
        projection_dim=20,
        vision=dict(image_size=224, patch_size=14, hidden_size=32, num_attention_heads=2, intermediate_size=64, num_hidden_layers=2, hidden_act="gelu", layer_norm_eps=1e-6),
        text=dict(max_position_embeddings=16, hidden_size=24, num_attention_heads=1, intermediate_size=40, num_hidden_layers=2, hidden_act="gelu", eos_token_id=2),
        pictures=[(224, 224), (640, 480), (480, 640), (227, 224)],
    ),
}


def vocabulary():
    """-> (id of each token, merges as lines)"""
    lines = gzip.open(ROOT / "quant/clip/testdata/merges.txt.gz", "rt").read().splitlines()
    merges = [line for line in lines if not line.startswith("#version")][:MERGES]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    tokens = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    tokens += [t + "</w>" for t in tokens] + [m.replace(" ", "") for m in merges] + SPECIALS
    return {t: i for i, t in enumerate(tokens)}, merges


def randomise(model):
    """Default initialisation hides mistakes: biases are 0 there, gains 1. Weights become halves, as the file holds them."""
    for name, p in model.named_parameters():
        if p.numel() == 1:
            p.data.fill_(2.6)
        elif name.endswith("bias") or "norm" in name:  # pre_layrnorm is spelt so
            p.data.add_(torch.randn_like(p) * 0.1)
        else:
            p.data.normal_(0, 0.15)
        p.data = p.data.half().float()
    return model.eval()


def export(model):
    """A CLIPModel's tensors under our names."""
    s = {k: v.numpy() for k, v in model.state_dict().items()}
    t = {}

    def layer(ours, *theirs):
        t[ours + ".weight"] = np.concatenate([s[n + ".weight"] for n in theirs])
        biases = [s.get(n + ".bias", np.zeros(len(s[n + ".weight"]), "f4")) for n in theirs]
        t[ours + ".bias"] = np.concatenate(biases)

    for ours, theirs in ("image", "vision_model"), ("text", "text_model"):
        n = 1 + max(int(k.split(".")[3]) for k in s if k.startswith(theirs + ".encoder.layers."))
        for i in range(n):
            to, of = f"{ours}.layer.{i:02d}.", f"{theirs}.encoder.layers.{i}."
            layer(to + "norm1", of + "layer_norm1")
            layer(to + "attn.in", *(of + f"self_attn.{p}_proj" for p in "qkv"))
            layer(to + "attn.out", of + "self_attn.out_proj")
            layer(to + "norm2", of + "layer_norm2")
            layer(to + "mlp.in", of + "mlp.fc1")
            layer(to + "mlp.out", of + "mlp.fc2")
        t[ours + ".position.weight"] = s[theirs + ".embeddings.position_embedding.weight"]
    v = "vision_model."
    patch = s[v + "embeddings.patch_embedding.weight"]
    t["image.patch.weight"] = patch.transpose(0, 2, 3, 1).reshape(len(patch), -1)  # (ky, kx, rgb)
    t["image.patch.bias"] = np.zeros(len(patch), "f4")
    t["image.class.weight"] = s[v + "embeddings.class_embedding"][None]
    layer("image.pre", v + "pre_layrnorm")
    layer("image.post", v + "post_layernorm")
    layer("image.project", "visual_projection")
    t["text.token.weight"] = s["text_model.embeddings.token_embedding.weight"]
    layer("text.final", "text_model.final_layer_norm")
    layer("text.project", "text_projection")
    return {k: np.ascontiguousarray(w, "f2") for k, w in t.items()}


def description(c, model, tokens):
    def tower(d):
        return dict(width=d.hidden_size, layers=d.num_hidden_layers, heads=d.num_attention_heads, mlp=d.intermediate_size, activation=d.hidden_act, eps=d.layer_norm_eps)

    p = CLIPImageProcessorPil()
    v, t = model.config.vision_config, model.config.text_config
    return {
        "embed": c["projection_dim"], "logit_scale": 13.5, "temperature": 1,
        "image": {"kind": "vit", "size": v.image_size, "mean": p.image_mean, "std": p.image_std, "patch": v.patch_size, **tower(v)},
        "text": {"kind": "transformer", "vocab": len(tokens), "context": t.max_position_embeddings, **tower(t),
                 "eos_token_id": t.eos_token_id, "templates": ["{}"], "defaults": [], "ready": 0},
    }


def pixels(w, h, size):
    """The pixel tensor by CLIP's processor, but for the crop of an odd rest: torchvision, hence OpenAI's CLIP and ours, rounds its
    half to even, transformers rounds it down."""
    picture = Image.fromarray(synthetic(w, h))
    resized = CLIPImageProcessorPil(size={"shortest_edge": size}, do_center_crop=False, do_rescale=False, do_normalize=False)
    a = resized(picture, return_tensors="np")["pixel_values"][0]
    top, left = (round((d - size) / 2) for d in a.shape[1:])
    a = a[:, top : top + size, left : left + size].transpose(1, 2, 0).astype("u1")
    whole = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size=size)
    x = whole(Image.fromarray(a), return_tensors="pt")["pixel_values"]
    theirs = whole(picture, return_tensors="pt")["pixel_values"]
    odd = any((d - size) % 4 == 3 for d in (resized(picture, return_tensors="np")["pixel_values"][0].shape[1:]))
    assert torch.equal(x, theirs) != odd, (w, h, size)
    return x


def main():
    tokens, merges = vocabulary()
    for name, c in CASES.items():
        torch.manual_seed(17)
        common = dict(vocab_size=len(tokens), bos_token_id=len(tokens) - 2, pad_token_id=1)
        model = randomise(CLIPModel(CLIPConfig(projection_dim=c["projection_dim"], text_config={**c["text"], **common}, vision_config=c["vision"])))
        d = TESTDATA / name
        d.mkdir(parents=True, exist_ok=True)
        save_file(export(model), d / "model.safetensors")
        (d / "model.json").write_text(json.dumps(description(c, model, tokens), indent=1) + "\n")
        (d / "merges.txt").write_text("\n".join(merges) + "\n")

        tokenizer = CLIPTokenizer(vocab=tokens, merges=[tuple(m.split()) for m in merges])
        context = c["text"]["max_position_embeddings"]
        ids = [tokenizer(t, truncation=True, max_length=context)["input_ids"] for t in TEXTS]
        padded = tokenizer(TEXTS, truncation=True, padding="max_length", max_length=context, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            images = torch.cat([model.get_image_features(pixel_values=pixels(*p, c["vision"]["image_size"])).pooler_output for p in c["pictures"]])
            texts = model.get_text_features(input_ids=padded).pooler_output
        unit = lambda x: torch.nn.functional.normalize(x).numpy()
        save_file({"images": unit(images), "texts": unit(texts)}, d / "golden.safetensors")
        rows = [json.dumps({"text": t, "ids": i}) for t, i in zip(TEXTS, ids)]
        (d / "golden.json").write_text('{"pictures": %s,\n "texts": [\n  %s\n ]}\n' % (json.dumps(c["pictures"]), ",\n  ".join(rows)))


if __name__ == "__main__":
    main()
