"""The float model in MODEL on the evaluation splits, from features.py's features: a line of JSON a set, with the text
side as shipped (ready table, else tower), the tower alone, and the teacher's text (table, else kernel map).
The quantized model's figures are those of ./build.sh eval.
"""
import json

import numpy as np

import data
import features
import head
import text_space
from bag import Tokenizer
from paths import MODEL, OUT, ROOT
from reference import Reference


def prompts():
    return dict(line.rstrip("\n").split("\t") for line in open(ROOT / "assets/prompts.tsv"))


def main():
    r = Reference.load(MODEL)
    tokenize = Tokenizer(r.vocab)
    ready = dict(zip((MODEL / "ready_names.txt").read_text().splitlines(), r.t["label.ready.weight"].numpy()))
    centre = np.load(OUT / "head.npz")["centre"]
    tower = {}

    def towered(n):
        if n not in tower:
            tower[n] = r.text(n, tokenize)
        return tower[n]

    sides = {
        "shipped": lambda names: np.stack([ready[n] if n in ready else towered(n) for n in names]),
        "tower": lambda names: np.stack([towered(n) for n in names]),
        "teacher": lambda names: text_space.unit(text_space.embed(names, data.PERMISSIVE) - centre),
    }
    image = head.Embedder({k: v.numpy() for k, v in r.t.items() if k.startswith("image.")})

    def named(s):
        """A set's names as ./build.sh eval takes them: the first spelling with a ready row, else the first."""
        return [n if s == "sign_digits" else next((k for k in sp if k in ready), sp[0]) for n, sp in data.names(s).values()]

    def measure(suite, e, y, names):
        out = {"suite": suite, "n": len(y), "labels": len(names)}
        for side, embed in sides.items():
            out[side] = round(100 * float(((e @ embed(names).T).argmax(1) == y).mean()), 1)
        print(json.dumps(out), flush=True)
        return out

    rows = []
    for s in data.EVALUATION:
        f, _, members = features.load(*s.split("/"))
        c = data.names(s.split("/")[0])
        at = {k: i for i, k in enumerate(c)}
        rows.append(measure(s, image(f), np.array([at[m.split("/")[0]] for m in members]), named(s.split("/")[0])))
    print(json.dumps({"suite": "mean", **{k: round(float(np.mean([x[k] for x in rows])), 1) for k in sides}}))
    wording = prompts()
    for s in data.STREAMS:
        f, _, members = features.load("streams/" + s, s)
        of = data.clips(s)
        labels = sorted(set(of.values()))
        y = np.array([labels.index(of[m.split("/")[0]]) for m in members])
        measure("streams/" + s, image(f), y, [wording.get(n, n) for n in labels])

    # "none of these": ten labels, the right one among them or no right one there
    rng, none = np.random.default_rng(0), r.config["none_cosine"]
    f, _, _ = features.load("caltech101", "background")
    everyday = np.stack([ready[n] for n in ready])  # of their own lengths, as the engine takes them
    cos = image(f) @ everyday.T
    refused = np.mean([[cos[i][rng.choice(len(everyday), 10, replace=False)].max() < none for _ in range(20)] for i in range(len(f))])
    print(json.dumps({"suite": "none/caltech101 background", "refused": round(100 * float(refused), 1)}))
    f, _, members = features.load("flickr_cc", "test")
    c = data.names("flickr_cc")
    at, t = {k: i for i, k in enumerate(c)}, sides["shipped"](named("flickr_cc"))
    known, right, conf, missing = [], [], [], []
    scale = r.config["logit_scale"] / r.config["temperature"]
    for e, m in zip(image(f), members):
        for _ in range(10):
            others = rng.choice([i for i in range(len(t)) if i != at[m.split("/")[0]]], 10, replace=False)
            z = np.append(t[at[m.split("/")[0]]] @ e, t[others[:9]] @ e)
            p = np.exp(scale * (np.append(z, none) - z.max()))
            p /= p.sum()
            known.append(z.max() >= none)
            right.append(p.argmax() == 0)
            conf.append(p.max())
            missing.append((t[others] @ e).max() < none)
    pc = lambda x: round(100 * float(np.mean(x)), 1)
    print(json.dumps({"suite": "none/flickr_cc, ten labels", "kept": pc(known), "right": pc(right), "confidence": pc(conf), "refused without the right label": pc(missing)}))


if __name__ == "__main__":
    main()
