"""The text side: an attention-pooled bag of WordPieces, distilled from the text space (the table, and MiniLM through the
kernel map for every other text).

Trained by the clock: SECONDS in all (LQA_BAG_SECONDS), resumable from OUT/bag.pt; the learning rate follows the time spent.
"""
import json
import lzma
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import bank
import text_space
import wordnet
from paths import OUT, SEED, THREADS, replace

SECONDS = float(os.environ.get("LQA_BAG_SECONDS") or 2400)
VOCAB, WIDTH, HIDDEN, CONTEXT = 10703, 256, 768, 32
RATE, DROP = 2e-3, 0.1
TEMPLATES = {  # and how often each is seen
    "a photo of a {}": 6, "{}": 4, "a {}": 1, "the {}": 1, "a picture of a {}": 1, "a photo of the {}": 1, "this is a {}": 1,
    "a close-up photo of a {}": 1, "my {}": 1, "an image of {}": 1, "a good photo of a {}": 1, "a blurry photo of a {}": 1, "a photo of {}": 1,
}
HELD_OUT = 150
# Phrases: what people add to a name.
WORDS = (
    "red blue green yellow black white brown grey orange pink purple old new small big broken empty open closed wooden metal plastic paper glass "
    "dirty clean wet striped round toy folded hanging sleeping running sitting half-eaten handmade"
).split()
FRAMES = (
    "a {} on a table", "a {} in a hand", "a hand holding a {}", "a person holding a {}", "a person with a {}", "a man with a {}", "a woman with a {}",
    "two {}s", "a pile of {}s", "part of a {}", "a {} and a {}", "a {} next to a {}", "a {} in a room", "a {} outdoors", "a drawing of a {}", "a toy {}",
    "a {} in a box", "no {}", "the inside of a {}", "a {} from above",
)
PHRASES, SEEN = 24000, 12000


def vocabulary(names, captions, known):
    """BERT's pieces, cut: every single ASCII character, then what these texts use most, then the commonest."""
    tokenizer = text_space.minilm().tokenizer
    count = {}
    for weight, texts in ((3, known), (1, names), (1, captions), (2, [t.format("x") for t in TEMPLATES])):
        for t in texts:
            for p in tokenizer.tokenize(t):
                count[p] = count.get(p, 0) + weight
    full = {p: i for p, i in tokenizer.get_vocab().items() if not p.startswith("[") and p.isascii()}
    base = sorted(p for p in full if len(p.replace("##", "")) == 1)
    rest = sorted(set(full) - set(base), key=lambda p: (-count.get(p, 0), full[p]))
    return (["[UNK]"] + base + rest)[:VOCAB]


def phrases(names, rng):
    """Made-up phrases around common names."""
    out = set()
    while len(out) < PHRASES:
        a, b = rng.choice(names, 2)
        out.add(f"{rng.choice(WORDS)} {a}" if rng.random() < 0.5 else str(rng.choice(FRAMES)).replace("{}", a, 1).replace("{}", b))
    return sorted(out)


def corpus():
    """Names, captions and held-out names with their targets; made once. names: first the known ones of the bank, then nouns and phrases."""
    if not (OUT / "corpus.json").exists():
        known, captions, e, _, c, centre = bank.load()
        rng = np.random.default_rng(SEED)
        test = [str(n) for n in rng.permutation([n for n in known if n in text_space.table().rows])[:HELD_OUT]]
        out = text_space.words_in(test)
        seen = [str(n) for n in rng.permutation(sorted(set(wordnet.nouns(wordnet.SEEN)) - set(wordnet.nouns())))[:SEEN]]
        more = sorted(set(wordnet.nouns()) - set(known)) + seen
        more += phrases([n for n in known if not out(n)], rng)
        more = [n for n in dict.fromkeys(more) if n not in set(known) and not text_space.kept_out(n)]
        names = [n for n in known if n not in set(test)]
        of = dict(zip(known, e))
        target = lambda rows: text_space.unit(np.stack(rows) - centre).astype("f2")
        t = target([of[n] for n in names] + list(text_space.embed(more)))
        arrays = dict(target=t, captions=target(list(c)), test=target([of[n] for n in test]))
        replace(OUT / "corpus.npz", lambda p: np.savez(p.open("wb"), **arrays))
        vocab = vocabulary(names + more, captions, known)
        j = dict(known=len(names), names=names + more, captions=captions, test=test, vocab=vocab)
        replace(OUT / "corpus.json", lambda p: p.write_text(json.dumps(j)))
    return json.loads((OUT / "corpus.json").read_text()), np.load(OUT / "corpus.npz")


class Tokenizer:
    """Text -> ids of the cut vocabulary, without [CLS] and [SEP]."""

    def __init__(self, vocab):
        from tokenizers import BertWordPieceTokenizer

        special = ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
        path = OUT / "vocab.tmp"
        path.write_text("\n".join(special + vocab) + "\n")
        self.skip, self.tokenizer = len(special), BertWordPieceTokenizer(str(path), lowercase=True)

    def __call__(self, text, limit=CONTEXT):
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return [max(i - self.skip, 0) for i in ids][:limit] or [0]


def padded(texts):
    """Lists of ids -> int16 [n, longest], -1 behind the end."""
    out = np.full((len(texts), max(map(len, texts))), -1, "i2")
    for row, t in zip(out, texts):
        row[: len(t)] = t
    return out


def tokenized():
    """The corpus as arrays: ids (before: of the templates; names, captions, test) and targets."""
    j, z = corpus()
    tokenize = Tokenizer(j["vocab"])
    ids = lambda texts: padded([tokenize(t) for t in texts])
    before = padded([tokenize(t.split("{}")[0]) if t.split("{}")[0] else [] for t in TEMPLATES])
    first = next(iter(TEMPLATES))
    out = {"before": before, "names": ids(j["names"]), "captions": ids(j["captions"]), "test": ids([first.format(n) for n in j["test"]])}
    return out | {"target": z["target"], "caption_target": z["captions"], "test_target": z["test"], "known": j["known"], "vocab": len(j["vocab"])}


STEP = 0.036  # of a packed target's coordinates: 2 % of its cosine is lost
PACKED = 38000  # names


def pack(path):
    """The tokenized corpus, small: all but the test's targets in their principal directions, coarsely rounded and compressed."""
    t = tokenized()
    rest = np.random.default_rng(SEED).permutation(np.arange(t["known"], len(t["names"])))[: PACKED - t["known"]]
    keep = np.concatenate([np.arange(t["known"]), np.sort(rest)])
    t["names"], t["target"] = t["names"][keep], t["target"][keep]
    y = np.concatenate([t["target"], t["caption_target"]]).astype("f4")
    vectors = np.linalg.eigh(y.T @ y)[1].astype("f2")
    codes = np.round(y @ vectors.astype("f4") / STEP).clip(-127, 127).astype("i1")
    lost = 1 - (text_space.unit(codes @ vectors.astype("f4").T) * y).sum(1).mean()
    codes = lzma.compress(codes.T.tobytes(), preset=2)
    print(f"{len(y)} targets, {len(codes) / 1e6:.1f} MB, mean cosine 1 - {lost:.3f}")
    t["caption_target"], t["target"] = len(t["caption_target"]), np.frombuffer(codes, "u1")
    np.savez_compressed(path, vectors=vectors, **t)


def unpack(path):
    z = np.load(path)
    t = {k: z[k] for k in z.files}
    codes = np.frombuffer(lzma.decompress(t["target"].tobytes()), "i1").reshape(len(t["vectors"]), -1)
    y = text_space.unit(codes.T @ t["vectors"].astype("f4").T).astype("f4")
    n = len(y) - int(t["caption_target"])
    return t | {"target": y[:n], "caption_target": y[n:], "known": int(t["known"]), "vocab": int(t["vocab"])}


class Bag(torch.nn.Module):
    def __init__(self, vocab, width=WIDTH, hidden=HIDDEN, out=512):
        super().__init__()
        self.tok = torch.nn.Embedding(vocab, width)
        torch.nn.init.normal_(self.tok.weight, std=0.3)
        self.pool = torch.nn.Parameter(torch.zeros(width))
        self.fc1, self.fc2 = torch.nn.Linear(width, hidden), torch.nn.Linear(hidden, out)

    def forward(self, ids):
        """[n, length], -1: none -> [n, out], unit length."""
        e = self.tok(ids.clamp(min=0))
        a = (e @ self.pool).masked_fill(ids < 0, -1e4).softmax(1)
        pooled = F.dropout((a[..., None] * e).sum(1), DROP, self.training)
        return F.normalize(self.fc2(F.dropout(F.gelu(self.fc1(pooled)), DROP, self.training)), dim=-1)


def done():
    path = OUT / "bag.pt"
    return path.exists() and torch.load(path, weights_only=True)["spent"] >= SECONDS


def train(data, path, slice_seconds, seconds):
    """Until seconds were spent in all, or slice_seconds now; path resumes."""
    torch.set_num_threads(min(THREADS, 2))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = 4096 if device == "cuda" else 512
    t = lambda a, kind=torch.float32: torch.as_tensor(a, device=device).to(kind)
    before, names, captions, test = (t(data[k], torch.long) for k in ("before", "names", "captions", "test"))
    target, caption_target, test_target = (t(data[k]) for k in ("target", "caption_target", "test_target"))
    weight = torch.tensor(list(TEMPLATES.values()), dtype=torch.float32, device=device)
    often = torch.ones(len(names), device=device)
    often[: data["known"]] = 6
    torch.manual_seed(SEED)
    net = Bag(data["vocab"]).to(device)
    opt = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-4)
    step, spent, total = 0, 0.0, 0.0
    if path.exists():
        c = torch.load(path, map_location=device, weights_only=True)
        net.load_state_dict(c["net"])
        opt.load_state_dict(c["opt"])
        step, spent = c["step"], c["spent"]
    torch.manual_seed(SEED + step)
    start, said, count = time.time(), 0.0, 0

    def save():
        c = dict(net=net.state_dict(), opt=opt.state_dict(), step=step, spent=spent + time.time() - start)
        replace(path, lambda p: torch.save(c, p))

    def report():
        net.eval()
        with torch.no_grad():
            q = net(test)
            own = (q * test_target).sum(1)
            rank = lambda rows: ((q @ rows.T) > own[:, None] + 1e-6).sum(1)
            among, everywhere = rank(test_target), rank(torch.cat([test_target, target[: data["known"]]]))
        net.train()
        print(f"bag: step {step}, {spent + time.time() - start:.0f} s: loss {float(total) / max(count, 1):.3f}; {len(test)} held-out names, right among "
              f"themselves {100 * (among < 1).float().mean():.1f} %, in the first five of all {100 * (everywhere < 5).float().mean():.1f} %, "
              f"cosine {own.mean():.3f}", flush=True)

    while time.time() - start < slice_seconds and (now := spent + time.time() - start) < seconds:
        for g in opt.param_groups:
            g["lr"] = RATE * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * now / seconds)))
        ni = torch.multinomial(often, batch * 3 // 4, replacement=True)
        ti = torch.multinomial(weight, len(ni), replacement=True)
        ci = torch.randint(len(captions), (batch - len(ni),), device=device)
        y = torch.cat([target[ni], caption_target[ci]])
        ids = [torch.cat([before[ti], names[ni]], 1), captions[ci]]
        longest = max(a.shape[1] for a in ids)
        out = net(torch.cat([F.pad(a, (0, longest - a.shape[1]), value=-1) for a in ids]))
        double = (y @ y.T > 0.999) & ~torch.eye(len(y), dtype=torch.bool, device=device)
        logits = (20 * out @ y.T).masked_fill(double, -1e4)
        loss = F.cross_entropy(logits, torch.arange(len(y), device=device)) + 4 * (1 - (out * y).sum(1)).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        step, count, total = step + 1, count + 1, total + loss.detach()
        if step % 100 == 0 and time.time() - said > 15:
            report()
            save()
            total, count, said = 0.0, 0, time.time()
    report()
    save()
    return net


def main(slice_seconds):
    if not done():
        train(tokenized(), OUT / "bag.pt", slice_seconds, SECONDS)


def elsewhere(bundle, output, seconds):
    """On a machine that has a bundle and nothing else; the result is to become OUT/bag.pt."""
    net = train(unpack(bundle / "text.npz"), bundle / "bag.pt", seconds, seconds)
    torch.save(dict(net={k: v.half() for k, v in net.state_dict().items()}, spent=1e9), output / "bag.pt")


if __name__ == "__main__":
    if sys.argv[1:2] == ["pack"]:
        pack(Path(sys.argv[2]) / "text.npz")
    elif len(sys.argv) == 4:
        elsewhere(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 1e9)
