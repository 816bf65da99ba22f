"""Write the float model directory: model.json, model.safetensors, vocab.txt, ready_names.txt."""
import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

import backbone
import data
import head
import text_space
import wordnet
from paths import MODEL, OUT
from reference import Reference

DEFAULTS = ["person", "hand", "mug", "bottle", "phone", "laptop", "keyboard", "book", "banana", "apple", "chair", "cat"]
TEMPLATES = ["a photo of a {}", "{}", "a close-up photo of a {}"]
READY = 3000
CONTEXT = 32


def ready_names():
    """A general vocabulary from word lists: the desk words, hand signs, ImageNet's names, then those of COCO, Objects365,
    OpenImages and LVIS by how many of these list a name, then WordNet's things; among equals the commonest first."""
    table, rank = text_space.table(), text_space.minilm().tokenizer
    desk = [w.strip() for w in open(Path(__file__).with_name("desk_words.txt"))]
    # BERT's vocabulary is ordered by frequency: the rarest piece of a name says how common the name is.
    rarest = lambda n: max(rank.convert_tokens_to_ids(rank.tokenize(n)))
    plain = lambda names: [n for n in names if not set(n) & set("(/)")]
    listed = sorted(plain(table.detic), key=lambda n: (-table.common[n], rarest(n), n))
    signs = [*sum(data.ALSO.values(), []), *data.BESIDE]
    things = sorted(plain(wordnet.nouns()), key=lambda n: (rarest(n), n))
    return sorted(list(dict.fromkeys(DEFAULTS + desk + list(text_space.ALIASES) + signs + plain(data.imagenet()) + listed + things))[:READY])


def main():
    made = dict(np.load(OUT / "head.npz"))
    corpus = json.loads((OUT / "corpus.json").read_text())
    bag = torch.load(OUT / "bag.pt", map_location="cpu", weights_only=True)["net"]
    bag = {k: v.float().numpy() for k, v in bag.items()}
    image, tensors = backbone.tower()
    d = head.Labels.make()
    names, trained = ready_names(), {d.names[i] for i in d.trained()}
    # Trained names' rows are shorter (head.correction).
    length = lambda n: np.array([made["trained"] if k in trained else 1 for k in n])[:, None]
    rows = lambda n: (text_space.unit(text_space.embed(n, data.PERMISSIVE) - made["centre"]) * length(n)).astype("f4")
    tensors |= {k: v for k, v in made.items() if k.startswith("image.")}
    image |= {"hidden": len(made["image.hidden.bias"]), "posterior": len(made["image.posterior.bias"])}
    tensors |= {
        "image.mean.weight": made["mean"][None], "label.default.weight": rows(DEFAULTS), "label.ready.weight": rows(names),
        "text.token.weight": bag["tok.weight"], "text.pool.weight": bag["pool"][None],
        "text.fc1.weight": bag["fc1.weight"], "text.fc1.bias": bag["fc1.bias"],
        "text.fc2.weight": bag["fc2.weight"], "text.fc2.bias": bag["fc2.bias"],
    }
    vocab, (v, width), hidden = corpus["vocab"], bag["tok.weight"].shape, len(bag["fc1.weight"])
    assert len(vocab) == v
    config = {
        "embed": 512, "logit_scale": float(made["scale"]), "temperature": float(made["temperature"]),
        "none_cosine": float(made["none_cosine"]), "image_mean": True, "image": image,
        "text": {"kind": "bag", "vocab": v, "width": width, "hidden": hidden, "context": CONTEXT,
                 "templates": TEMPLATES, "defaults": DEFAULTS, "ready": len(names)},
    }
    new = MODEL.with_name("model.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    save_file({k: np.ascontiguousarray(t, "f4") for k, t in sorted(tensors.items())}, new / "model.safetensors")
    (new / "model.json").write_text(json.dumps(config, indent=1) + "\n")
    (new / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    (new / "ready_names.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    off = backbone.difference(backbone.load(), Reference.load(new)) if not os.environ.get("LQA_WARM") else 0  # of the package's program
    assert off < 1e-4, off
    old = MODEL.with_name("model.old")
    shutil.rmtree(old, ignore_errors=True)
    if MODEL.exists():
        MODEL.rename(old)
    new.rename(MODEL)
    shutil.rmtree(old, ignore_errors=True)
    size = sum(int(np.prod(t.shape)) for t in tensors.values())
    print(f"{MODEL}: {len(tensors)} tensors, {size / 1e6:.2f} M weights, features off the package's by {off:.1e}")


if __name__ == "__main__":
    main()
