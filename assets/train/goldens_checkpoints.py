"""Small random CLIPs as the libraries' own files, into quant/checkpoint/testdata.

Each folder is a checkpoint as transformers or OpenCLIP writes it, with golden.json and golden.safetensors as goldens_clip.py
makes them: the names of files, keys and tensors are the libraries', none is ours. Needs open_clip_torch==3.3.0 and
timm==1.0.31 besides requirements.txt. About ten seconds.
"""
import json
import shutil

import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import goldens_clip
from goldens_clip import TEXTS, pixels, vocabulary
from paths import ROOT

OUT = ROOT / "quant/checkpoint/testdata"
SIZE = 48
PICTURES = [(48, 48), (96, 72), (71, 120)]
goldens_clip.MERGES = 8


def randomise(model, dtype=torch.half):
    """As goldens_clip.randomise, for both libraries' names; what is stored here is what the .shq holds."""
    for name, p in model.named_parameters():
        if p.numel() == 1:
            p.data.fill_(2.6)
        elif name.endswith("bias") or "norm" in name or "ln_" in name:
            p.data.add_(torch.randn_like(p) * 0.1)
        else:
            p.data.normal_(0, 0.15)
        p.data = p.data.to(dtype).half().float()
    return model.eval()


def golden(folder, size, context, tokenizer, image, text):
    """The inputs and what the model makes of them."""
    short = [tokenizer(t, truncation=True, max_length=context)["input_ids"] for t in TEXTS]
    padded = tokenizer(TEXTS, truncation=True, padding="max_length", max_length=context, return_tensors="pt")["input_ids"]
    unit = torch.nn.functional.normalize
    with torch.no_grad():
        images = torch.cat([image(pixels(*p, size)) for p in PICTURES])
        save_file({"images": unit(images), "texts": unit(text(padded))}, folder / "golden.safetensors")
    rows = [json.dumps({"text": t, "ids": i}) for t, i in zip(TEXTS, short)]
    (folder / "golden.json").write_text('{"pictures": %s,\n "texts": [\n  %s\n ]}\n' % (json.dumps(PICTURES), ",\n  ".join(rows)))


def fresh(name):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def words():
    tokens, merges = vocabulary()
    return tokens, merges, CLIPTokenizer(vocab=tokens, merges=[tuple(m.split()) for m in merges])


def write_words(folder, tokens, merges):
    """merges.txt and vocab.json, as the hub's old files are."""
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (folder / "vocab.json").write_text(json.dumps(tokens))


def transformers_model(context=77, **both):
    torch.manual_seed(18)
    tokens, merges, tokenizer = words()
    eos = both.pop("eos_token_id", len(tokens) - 1)
    model = randomise(CLIPModel(CLIPConfig(
        projection_dim=24,
        vision_config=dict(image_size=SIZE, patch_size=8, hidden_size=32, num_attention_heads=4, intermediate_size=96, num_hidden_layers=2, **both),
        text_config=dict(vocab_size=len(tokens), max_position_embeddings=context, hidden_size=24, num_attention_heads=3, intermediate_size=72,
                         num_hidden_layers=2, bos_token_id=len(tokens) - 2, eos_token_id=eos, pad_token_id=1, **both))))
    image = lambda x: model.get_image_features(pixel_values=x).pooler_output
    text = lambda ids: model.get_text_features(input_ids=ids).pooler_output
    return model, (tokens, merges, tokenizer), lambda folder: golden(folder, SIZE, context, tokenizer, image, text)


def openai():
    """As OpenAI's on the hub: quick_gelu and its historic eos_token_id, both by leaving things out; safetensors."""
    folder = fresh("transformers-quick")
    model, (tokens, merges, _), finish = transformers_model(eos_token_id=2, hidden_act="quick_gelu")
    model.save_pretrained(folder)
    c = json.loads((folder / "config.json").read_text())
    for tower in "text_config", "vision_config":
        c[tower] = {k: v for k, v in c[tower].items() if k not in ("hidden_act", "layer_norm_eps", "attention_dropout", "initializer_factor", "projection_dim")}
    (folder / "config.json").write_text(json.dumps(c, indent=2))
    CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=SIZE).save_pretrained(folder)
    write_words(folder, tokens, merges)
    finish(folder)


def laion():
    """As LAION's: erf GELU; a torch archive with position_ids and with tensors that are views."""
    folder = fresh("transformers-gelu")
    model, (_, _, tokenizer), finish = transformers_model(context=16, hidden_act="gelu", layer_norm_eps=1e-6)
    model.config.save_pretrained(folder)
    state = model.state_dict()
    for key in list(state):
        if key.endswith("fc2.weight"):
            state[key] = state[key].t().contiguous().t()  # transposed in its storage
    row = torch.cat([state["logit_scale"].reshape(1), state["text_model.final_layer_norm.bias"]])
    state["text_model.final_layer_norm.bias"] = row[1:]  # a slice of one
    state["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    state["vision_model.embeddings.position_ids"] = torch.arange(37)[None]
    torch.save(state, folder / "pytorch_model.bin")
    CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=SIZE).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    finish(folder)


def tiny():
    """As TinyCLIP's: half precision, here in two files; a processor as transformers 5 writes it."""
    folder = fresh("transformers-half")
    model, (_, _, tokenizer), finish = transformers_model(context=16, hidden_act="gelu")
    CLIPProcessor(CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=SIZE), tokenizer).save_pretrained(folder)
    finish(folder)
    model.half().save_pretrained(folder, max_shard_size="80KB")


def open_clip(name, save, quick_gelu, dtype=torch.half):
    folder = fresh(name)
    torch.manual_seed(19)
    tokens, merges, tokenizer = words()
    cfg = dict(
        embed_dim=20, quick_gelu=quick_gelu,
        vision_cfg=dict(layers=2, width=32, head_width=8, patch_size=8, image_size=SIZE, mlp_ratio=3.0),
        text_cfg=dict(context_length=16, vocab_size=len(tokens), width=24, heads=3, layers=2))
    model = randomise(CLIP(**cfg), dtype)
    p = CLIPImageProcessorPil()
    if not quick_gelu:
        del cfg["quick_gelu"]
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg, "preprocess_cfg": {"mean": p.image_mean, "std": p.image_std}}, indent=2))
    write_words(folder, tokens, merges)
    pad = lambda ids: torch.where(torch.arange(16)[None] > ids.argmax(1)[:, None], 0, ids)  # OpenCLIP pads with 0
    golden(folder, SIZE, 16, tokenizer, model.encode_image, lambda ids: model.encode_text(pad(ids)))
    save(model, folder)


def wrapped(model, folder):
    """As a training run leaves it, before torch 1.6: all in one dict, every name behind "module."."""
    state = {"module." + k: v.bfloat16() for k, v in model.state_dict().items()}
    torch.save({"epoch": 32, "name": "run", "state_dict": state, "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 1e-3, "params": [0, 1]}]}},
               folder / "epoch_32.pt", _use_new_zipfile_serialization=False)


def main():
    openai()
    laion()
    tiny()
    open_clip("openclip-gelu", lambda m, f: torch.save(m.state_dict(), f / "open_clip_pytorch_model.bin"), False)
    open_clip("openclip-quick", wrapped, True, torch.bfloat16)


if __name__ == "__main__":
    main()
