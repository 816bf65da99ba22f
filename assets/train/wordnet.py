"""WordNet 3's nouns (Debian's package wordnet-base, or LQA_WORDNET)."""
import os
import re
from functools import cache
from pathlib import Path

import data
import text_space

PHYSICAL = {5, 6, 8, 13, 17, 18, 20, 27}  # files of animals, artefacts, body, food, objects, persons, plants, substances
WIDEST = 130  # ImageNet classes under a name that is still worth saying: all 118 dogs are dogs; "animal" says too little
VAGUE = {"container", "equipment", "instrument", "component", "furnishing"}  # to WordNet a car is a container


@cache
def synsets():
    """Offset -> (file, names, offsets of what it is a kind of)."""
    path = Path(os.environ.get("LQA_WORDNET") or "/usr/share/wordnet/data.noun")
    if not path.exists():
        raise SystemExit(f"{path} is missing: apt-get install wordnet-base, or set LQA_WORDNET to WordNet's data.noun")
    out = {}
    for line in open(path):
        if line.startswith(" "):
            continue
        f = line.split(" | ")[0].split()
        n = int(f[3], 16)
        names = [text_space.norm(f[4 + 2 * i]) for i in range(n)]
        pointers = f[5 + 2 * n :]
        above = [pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] in ("@", "@i") and pointers[i + 2] == "n"]
        out[f[0]] = (int(f[1]), names, above)
    return out


def nouns():
    """Names of physical things, sorted."""
    taxon = re.compile(r"^(genus|family|order|class|phylum|subfamily) ")
    names = {n for file, names, _ in synsets().values() if file in PHYSICAL for n in names}
    return sorted(n for n in names if len(n) < 40 and not taxon.match(n) and not text_space.kept_out(n))


def broader(bank):
    """For each ImageNet class, the names of the bank that stand above it in WordNet, the nearest first: a beagle is a hound and a dog."""
    at = set(bank)
    above, count = [], {}
    for wnid in data.wnids():
        seen, todo = {}, [wnid[1:]]
        while todo:
            for up in synsets().get(todo.pop(0), (0, [], []))[2]:
                if up not in seen:
                    seen[up] = None
                    todo.append(up)
        above.append(list(seen))
        for s in seen:
            count[s] = count.get(s, 0) + 1
    out = []
    for chain in above:
        names = [next((n for n in synsets()[s][1] if n in at), None) for s in chain if count[s] <= WIDEST]
        out.append(list(dict.fromkeys(n for n in names if n and n not in VAGUE)))
    return out
