"""The text side: an attention-pooled bag of WordPieces, distilled from the text space (the table, and MiniLM through the
kernel map for every other text).

Trained by the clock: SECONDS in all (LQA_BAG_SECONDS), resumable from OUT/bag.pt; the learning rate follows the time spent.
"""
import json
import math
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import BertWordPieceTokenizer

import bank
import data
import text_space
import wordnet
from paths import OUT, SEED, THREADS, replace

SECONDS = float(os.environ.get("LQA_BAG_SECONDS") or 2400)
VOCAB, WIDTH, HIDDEN, CONTEXT = 10703, 256, 768, 32
BATCH, RATE = 512, 2e-3
TEMPLATES = {  # and how often each is seen
    "a photo of a {}": 6, "{}": 4, "a {}": 1, "the {}": 1, "a picture of a {}": 1, "a photo of the {}": 1, "this is a {}": 1,
    "a close-up photo of a {}": 1, "my {}": 1, "an image of {}": 1, "a good photo of a {}": 1, "a blurry photo of a {}": 1, "a photo of {}": 1,
}
NOUNS, HELD_OUT = 40000, 150


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


def corpus():
    """Names, captions and held-out names with their targets; made once."""
    if not (OUT / "corpus.json").exists():
        known, captions, e, _, c, centre = bank.load()
        rng = np.random.default_rng(SEED)
        nouns = sorted(set(wordnet.nouns()) - set(known))
        nouns = [nouns[i] for i in rng.permutation(len(nouns))[:NOUNS]]
        test = [str(n) for n in rng.permutation([n for n in known if n in (text_space.table().detic if data.PERMISSIVE else text_space.table().rows)])[:HELD_OUT]]
        names = [n for n in known if n not in set(test)]
        of = dict(zip(known, e))
        target = lambda rows: text_space.unit(np.stack(rows) - centre).astype("f2") if rows else np.zeros((0, len(centre)), "f2")
        t = target([of[n] for n in names] + list(text_space.embed(nouns, data.PERMISSIVE)))
        arrays = dict(target=t, captions=target(list(c)), test=target([of[n] for n in test]))
        replace(OUT / "corpus.npz", lambda p: np.savez(p.open("wb"), **arrays))
        vocab = vocabulary(names + nouns, captions, known)
        j = dict(known=len(names), names=names + nouns, captions=captions, test=test, vocab=vocab)
        replace(OUT / "corpus.json", lambda p: p.write_text(json.dumps(j)))
    return json.loads((OUT / "corpus.json").read_text()), np.load(OUT / "corpus.npz")


class Tokenizer:
    """Text -> ids of the cut vocabulary, without [CLS] and [SEP]."""

    def __init__(self, vocab):
        special = ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
        path = OUT / "vocab.tmp"
        path.write_text("\n".join(special + vocab) + "\n")
        self.skip, self.tokenizer = len(special), BertWordPieceTokenizer(str(path), lowercase=True)

    def __call__(self, text, limit=CONTEXT):
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return [max(i - self.skip, 0) for i in ids][:limit] or [0]


class Bag(torch.nn.Module):
    def __init__(self, vocab, width=WIDTH, hidden=HIDDEN, out=512):
        super().__init__()
        self.tok = torch.nn.Embedding(vocab, width)
        torch.nn.init.normal_(self.tok.weight, std=0.3)
        self.pool = torch.nn.Parameter(torch.zeros(width))
        self.fc1, self.fc2 = torch.nn.Linear(width, hidden), torch.nn.Linear(hidden, out)

    def forward(self, texts):
        """Lists of ids -> [n, out], unit length."""
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(t) for t in texts], batch_first=True, padding_value=-1)
        e = self.tok(ids.clamp(min=0))
        a = (e @ self.pool).masked_fill(ids < 0, -1e4).softmax(1)
        return F.normalize(self.fc2(F.gelu(self.fc1((a[..., None] * e).sum(1)))), dim=-1)


def done():
    path = OUT / "bag.pt"
    return path.exists() and torch.load(path, weights_only=True)["spent"] >= SECONDS


def main(slice_seconds):
    if done():
        return
    torch.set_num_threads(min(THREADS, 2))
    j, z = corpus()
    tokenize = Tokenizer(j["vocab"])
    before = [tokenize(t.split("{}")[0]) if t.split("{}")[0] else [] for t in TEMPLATES]
    weight = np.array(list(TEMPLATES.values()), float) / sum(TEMPLATES.values())
    names, captions = [tokenize(n) for n in j["names"]], [tokenize(c) for c in j["captions"]]
    test = [before[0] + tokenize(n) for n in j["test"]]
    target, caption_target, test_target = (torch.tensor(z[k].astype("f4")) for k in ("target", "captions", "test"))
    often = np.ones(len(names))
    often[: j["known"]] = 6
    often /= often.sum()
    torch.manual_seed(SEED)
    net = Bag(len(j["vocab"]))
    opt = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-4)
    path, step, spent, total = OUT / "bag.pt", 0, 0.0, 0.0
    if path.exists():
        c = torch.load(path, weights_only=True)
        net.load_state_dict(c["net"])
        opt.load_state_dict(c["opt"])
        step, spent = c["step"], c["spent"]
    rng, start = np.random.default_rng(SEED + step), time.time()

    def save():
        c = dict(net=net.state_dict(), opt=opt.state_dict(), step=step, spent=spent + time.time() - start)
        replace(path, lambda p: torch.save(c, p))

    while time.time() - start < slice_seconds and (now := spent + time.time() - start) < SECONDS:
        for g in opt.param_groups:
            g["lr"] = RATE * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * now / SECONDS)))
        ni = rng.choice(len(names), BATCH * 3 // 4 if captions else BATCH, p=often)
        ti = rng.choice(len(before), len(ni), p=weight)
        ci = rng.integers(max(1, len(captions)), size=BATCH - len(ni))
        y = torch.cat([target[ni], caption_target[ci]])
        out = net([before[t] + names[n] for t, n in zip(ti, ni)] + [captions[c] for c in ci])
        double = (y @ y.T > 0.999) & ~torch.eye(len(y), dtype=torch.bool)
        logits = (20 * out @ y.T).masked_fill(double, -1e4)
        loss = F.cross_entropy(logits, torch.arange(len(y))) + 4 * (1 - (out * y).sum(1)).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        step, total = step + 1, total + loss.item()
        if step % 200 == 0:
            with torch.no_grad():
                q = net(test)
                own = (q * test_target).sum(1)
                rank = lambda rows: ((q @ rows.T) > own[:, None] + 1e-6).sum(1)
                among, everywhere = rank(test_target), rank(torch.cat([test_target, target[: j["known"]]]))
            print(f"step {step}, {spent + time.time() - start:.0f} s: loss {total / 200:.3f}; {len(test)} held-out names, right among "
                  f"themselves {100 * (among < 1).float().mean():.1f} %, in the first five of all {100 * (everywhere < 5).float().mean():.1f} %, "
                  f"cosine {own.mean():.3f}", flush=True)
            total = 0.0
            save()
    save()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1e9)
