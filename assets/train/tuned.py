"""From finetune.py's result to what export.py reads: tuned.py BUNDLE OUTPUT [SHARE] writes OUT/tower.npz (batch norms folded)
and OUT/head.npz. SHARE, by default 1, is that of the tuned weights in a mean with those that the tuning began from.
"""
import sys
from pathlib import Path

import numpy as np
import torch

import backbone
import data
import head
from paths import OUT, SEED, THREADS, replace
from reference import Reference, view
from tower import Tower


def features(config, tensors, d, rows):
    """Pooled features of those pictures."""
    r, out, size = Reference({"image": config}, tensors), {}, config["size"]
    for i in np.unique(d.set[rows]):
        wanted = {d.members[k]: k for k in rows if d.set[k] == i}
        part = [(wanted[n], view(p, size)) for n, p in data.pictures(data.tar_of(d.sets[i])) if n in wanted]
        for j in range(0, len(part), 32):
            keys, views = zip(*part[j : j + 32])
            with torch.no_grad():
                out.update(zip(keys, r.features(r.normalize(np.stack(views))).numpy()))
    return np.stack([out[k] for k in rows])


def main(bundle, output, share):
    torch.set_num_threads(THREADS)
    z, net = np.load(output / "tuned.npz"), backbone.load()
    config = backbone.config(net)
    start = Tower(config, backbone.unfolded(net)).tensors()
    between = lambda a, b: ((1 - share) * a + share * b).astype("f4")
    tensors = {k: between(v, z[k].astype("f4")) for k, v in start.items()}
    w, b = between(z["start.W"].astype("f4"), z["W"].astype("f4")), between(z["start.b"], z["b"])
    scale = float(between(z["start.scale"], z["scale"]))
    replace(OUT / "tower.npz", lambda p: np.savez(p.open("wb"), **tensors))
    d, rng = head.Labels.load(bundle / "labels.npz"), np.random.default_rng(SEED)
    _, va = head.split(d, rng)
    d.x = np.zeros((len(d.y), w.shape[1]), "f4")
    d.x[va] = features(config, tensors, d, va)
    acc = head.accuracy(d, w, b, va)
    print("validation", acc, "mean", round(np.mean(list(acc.values())), 1))
    head.save(d, w, b, scale, va, rng, acc)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 1.0)
