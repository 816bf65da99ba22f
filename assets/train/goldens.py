"""Goldens of quant/engine's tests, into quant/engine/testdata.

tiny/: a small random model as a float model directory, with views.bin (RGBA views), texts.json (texts and token ids) and
golden.safetensors (embeddings of both). tiny-posterior/: the same with a GELU branch and a classifier beside
the projection. resize.json: what Pillow makes of synthetic pictures. photos200.f16 (after
"photos"): embeddings of the photographs in photos200.tsv by the float model in MODEL.
"""
import hashlib
import json
import sys

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import data
from backbone import SIZE
from paths import MODEL, ROOT
from reference import Reference, view

TESTDATA = ROOT / "quant/engine/testdata"


def bert(vocab):
    """huggingface/tokenizers on a vocabulary -> function from text to ids, without [CLS] and [SEP]."""
    t = Tokenizer(models.WordPiece({v: i for i, v in enumerate(vocab)}, unk_token="[UNK]", max_input_chars_per_word=100))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return lambda text: t.encode(text, add_special_tokens=False).ids


def tiny(hidden_image=0, posterior=0):
    rng = np.random.default_rng(64)
    blocks = [(3, 1, 1, 8, 12), (5, 2, 6, 12, 20), (3, 1, 4, 20, 20), (3, 2, 2, 20, 28), (5, 1, 3, 28, 28)]
    vocab = "[PAD] [UNK] a photo of ##s mug banana key ##board dog cat red blue , !".split()
    embed, features, width, hidden = 24, 40, 12, 20
    config = {
        "embed": embed, "logit_scale": 20, "temperature": 1,
        "image": {"kind": "efficientnet-lite", "size": 64, "mean": [127 / 255] * 3, "std": [128 / 255] * 3, "stem": 8,
                  "blocks": [dict(zip(("k", "s", "e", "in", "out"), b)) for b in blocks], "features": features},
        "text": {"kind": "bag", "vocab": len(vocab), "width": width, "hidden": hidden, "context": 8, "templates": ["{}"],
                 "defaults": ["mug"], "ready": 1},
    }
    t = {}

    def put(name, rows, cols, gain=1.0, bias=0.3):
        t[name + ".weight"] = rng.normal(0, gain / np.sqrt(cols), (rows, cols))
        if bias:
            t[name + ".bias"] = rng.normal(bias, bias, rows)

    put("image.stem", 8, 27, 2)
    for i, (k, s, e, cin, cout) in enumerate(blocks):
        name = f"image.block.{i:02d}."
        if e != 1:
            put(name + "expand", cin * e, cin, 2)
        put(name + "depthwise", cin * e, k * k, 2)
        put(name + "project", cout, cin * e)
    put("image.features", features, blocks[-1][-1], 2)
    put("image.project", embed + (posterior > 0), features, 1, 0.05)
    if posterior:
        config["image"] |= {"hidden": hidden_image, "posterior": posterior}
        put("image.hidden", hidden_image, features, 2)
        put("image.widen", embed, hidden_image, 1, 0)
        put("image.posterior", posterior, features, 3)
        put("image.names", embed, posterior, np.sqrt(posterior / embed), 0)
    for name in "label.default", "label.ready":
        put(name, 1, embed, 1, 0)
    put("text.token", len(vocab), width, 3, 0)
    put("text.pool", 1, width, 3, 0)
    put("text.fc1", hidden, width, 2, 0.2)
    put("text.fc2", embed, hidden, 2, 0.1)
    t = {k: v.astype("f2").astype("f4") for k, v in t.items()}  # what a .shq with float16 weights holds
    d = TESTDATA / ("tiny-posterior" if posterior else "tiny")
    d.mkdir(parents=True, exist_ok=True)
    save_file(t, d / "model.safetensors")
    (d / "model.json").write_text(json.dumps(config, indent=1) + "\n")
    (d / "vocab.txt").write_text("\n".join(vocab) + "\n")
    (d / "ready_names.txt").write_text("mug\n")

    texts = ["a photo of a red mug", "mugs", "keyboard!", "zebra", "Blue, RED dog cat banana a a a a"]
    r, tokenize = Reference.load(d), bert(vocab)
    ids = [tokenize(s)[:8] for s in texts]
    if not posterior:  # else tiny/'s are taken
        noise = rng.integers(0, 256, (3, 64, 64, 4), dtype=np.uint8)
        y, x = np.mgrid[:64, :64]
        noise[1, ..., 0], noise[1, ..., 1], noise[1, ..., 2] = 4 * x, 4 * y, 2 * (x + y)  # one smooth
        noise[2] = noise[2] // 16 + 200  # one bright and flat
        noise[..., 3] = 255
        noise.tofile(d / "views.bin")
        (d / "texts.json").write_text(json.dumps([{"text": s, "ids": i} for s, i in zip(texts, ids)], indent=1) + "\n")
    views = np.fromfile(TESTDATA / "tiny/views.bin", np.uint8).reshape(3, 64, 64, 4)
    with torch.no_grad():
        towers = np.stack([r.token_text(i).numpy() for i in ids])
    save_file({"embeddings": r.image(views[..., :3]), "texts": towers}, d / "golden.safetensors")


def synthetic(w, h):
    """RGB [h, w, 3]: ramps and a hash of the place, by integer arithmetic that Go repeats."""
    y, x = np.mgrid[:h, :w].astype(np.uint32)
    n = x * np.uint32(2654435761) ^ y * np.uint32(2246822519)
    n = (n ^ n >> np.uint32(15)) * np.uint32(3266489917)
    c = [(n >> np.uint32(8 * c)) % 96 + (x * (c + 1) + y * 2) % 160 for c in range(3)]
    return np.stack(c, -1).astype(np.uint8)


def resize():
    sizes = [(r["width"], r["height"]) for r in json.loads((TESTDATA / "resize.json").read_text())]
    lines = []
    for w, h in sizes:
        v = view(Image.fromarray(synthetic(w, h)), SIZE)
        middle = [int(c) for c in v[SIZE // 2, SIZE // 2]]
        lines.append(json.dumps({"width": w, "height": h, "sha256": hashlib.sha256(v.tobytes()).hexdigest(), "middle": middle}))
    (TESTDATA / "resize.json").write_text("[\n " + ",\n ".join(lines) + "\n]\n")


def photos(to=TESTDATA / "photos200.f16"):
    path, r = TESTDATA / "photos200.tsv", Reference.load(MODEL)
    size = r.config["image"]["size"]
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    of = {}
    for tar in dict.fromkeys(t for t, _ in rows):
        wanted = {m for t, m in rows if t == tar}
        of |= {(tar, n): view(p, size) for n, p in data.pictures(data.DATA / tar) if n in wanted}
    out = [r.image(np.stack([of[tuple(k)] for k in rows[i : i + 8]])) for i in range(0, len(rows), 8)]
    np.concatenate(out).astype("<f2").tofile(to)


if __name__ == "__main__":
    if "photos" in sys.argv:
        photos(*sys.argv[2:])
    else:
        tiny()
        tiny(17, 29)
        resize()
