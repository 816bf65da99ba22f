"""The bank of names that the head is taught with, their embeddings, and the centre of the text space.

OUT/bank.npz: E and P [names, 512] (P: from Apache-2.0 rows alone), C [captions, 512], unit length,
not centred; centre [512]. OUT/bank.json: the names and captions.
"""
import json
from pathlib import Path

import numpy as np

import data
import text_space
from paths import OUT, replace


def main():
    if (OUT / "bank.npz").exists():
        return
    names = dict.fromkeys(sorted(text_space.table().rows))
    names.update(dict.fromkeys(data.imagenet()))
    names.update(dict.fromkeys(w.strip() for w in open(Path(__file__).with_name("desk_words.txt"))))
    names.update(dict.fromkeys([*data.ALSO, *sum(data.ALSO.values(), []), *data.BESIDE]))
    for s in data.SOFT + data.SHARP:
        if s != "flickr8k":
            names.update(dict.fromkeys(n for n, sp in data.names(s).values() if not any(map(text_space.kept_out, sp))))
    names = [n for n in names if not text_space.kept_out(n)]
    captions = [] if data.PERMISSIVE else sorted({c for v in data.captions().values() for c in v if not text_space.kept_out(c)})
    e, p = text_space.embed(names), text_space.embed(names, permissive=True)
    c = text_space.text_map()(captions) if captions else np.zeros((0, e.shape[1]), "f4")
    (OUT / "bank.json").write_text(json.dumps({"names": names, "captions": captions}))
    replace(OUT / "bank.npz", lambda path: np.savez(path.open("wb"), E=e, P=p, C=c, centre=e.mean(0)))
    print(f"bank: {len(names)} names, {len(captions)} captions")


def load():
    """-> names, captions, E, P, C, centre. Of permissive sources there are P alone, and no captions."""
    z, j = np.load(OUT / "bank.npz"), json.loads((OUT / "bank.json").read_text())
    if data.PERMISSIVE:
        return j["names"], [], z["P"], z["P"], z["C"][:0], z["P"].mean(0)
    return j["names"], j["captions"], z["E"], z["P"], z["C"], z["centre"]


if __name__ == "__main__":
    main()
