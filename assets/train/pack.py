"""Everything that finetune.py needs, in one folder, for a machine with a GPU and without the sets and tables: pack.py BUNDLE.

  pictures.bin  the train splits' pictures as WebP, one after the other; pictures of kept-out classes are left out
  labels.npz    head.Labels; where the pictures lie (at, [n + 1])
  backbone.npz  the backbone's arrays (tower.Tower) and classifier, float16; its part of model.json
"""
import io
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import backbone
import data
from head import Labels
from paths import SEED, THREADS

QUALITY = {"soft": 72, "sharp": 78, "pairs": 70}
MOST = {"imagenette": 2000}  # ten classes that the backbone knows well


def encode(name, picture):
    kind = name if name == "pairs" else "sharp" if name in data.SHARP else "soft"
    out = io.BytesIO()
    picture.convert("RGB").save(out, "webp", quality=QUALITY[kind], method=4)
    return out.getvalue()


def encoded(name):
    """Member -> its bytes."""
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(pool.map(lambda x: (x[0], encode(name, x[1])), list(data.pictures(data.tar_of(name)))))


def main(directory):
    directory.mkdir(parents=True, exist_ok=True)
    rng, start = np.random.default_rng(SEED), time.time()
    d = Labels.make()
    rows = []
    for i, s in enumerate(d.sets):
        r = np.where(d.set == i)[0]
        rows.append(np.sort(rng.permutation(r)[: MOST.get(s, len(r))]))
    d.only(np.concatenate(rows))
    sizes = [0]
    with open(directory / "pictures.bin", "wb") as f:
        for i, s in enumerate(d.sets):
            of = encoded(s)
            for m, k in zip(d.members, d.set):
                if k == i:
                    sizes.append(f.write(of[m]))
            print(f"{s}: {sum(sizes) / 1e6:.1f} MB so far, {time.time() - start:.0f} s", flush=True)
    d.save(directory / "labels.npz", at=np.cumsum(sizes))
    net = backbone.load()
    w, b = backbone.classifier(net)
    arrays = {k: v.astype("f2") for k, v in backbone.unfolded(net).items() if v.ndim == 4 or "variance" not in k}
    arrays |= {k: v for k, v in backbone.unfolded(net).items() if "variance" in k}  # beyond a half's range
    np.savez(directory / "backbone.npz", config=json.dumps(backbone.config(net)), classifier=w.astype("f2"), classifier_bias=b, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
