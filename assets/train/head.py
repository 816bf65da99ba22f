"""The head: pooled features [1280] -> centred CLIP text space [512], one linear layer on a frozen backbone.

What it is taught, a batch at a time: the name of the picture among the whole bank and among its own set's names; the
classifier's posterior over ImageNet names, mapped to the bank; captions; 1,000 real CLIP image embeddings. Beside
pictures stand synthetic features, made anew in every batch from the classifier's rows, one ImageNet name each: they
keep in the head what the backbone knows of things that few pictures here show.

OUT/head.npz: W [512, 1280], b [512], centre [512], scale, temperature, none_cosine.
"""
import json
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

import backbone
import bank
import data
import features
import text_space
import wordnet
from paths import MODELS, OUT, SEED, THREADS, replace

EPOCHS, BATCH, RATE = 10, 768, 2e-3
SYNTHETIC = 0.4  # share of a batch
SHARP_WEIGHT = 3  # how often a sharp picture stands in an epoch
VALIDATION = 0.05  # of every train split
BROADER = 0.1  # how often an ImageNet name gives way to a broader one (beagle, dog): people ask for dogs


def posterior(logits, to_bank, k=10):
    """The k likeliest ImageNet names as (bank indices, probabilities); names out of the bank count nothing."""
    p = np.exp(logits - logits.max(1, keepdims=True)) * (to_bank >= 0)
    top = np.argsort(-p, 1)[:, :k]
    v = np.take_along_axis(p, top, 1)
    return to_bank[top], v / v.sum(1, keepdims=True)


class Dataset:
    """Every training picture: features x, bank index y (-1: no name), set, soft target, captions, row of its CLIP embedding, (set, member)."""

    def __init__(self, leave_out=()):
        self.names, captions, e, p, c, self.centre = bank.load()
        self.text, self.ready, self.captions = (text_space.unit(a - self.centre) for a in (e, p, c))
        at, caption_at = {n: i for i, n in enumerate(self.names)}, {c: i for i, c in enumerate(captions)}
        self.to_bank = np.array([at.get(n, -1) for n in data.imagenet()])
        # Per bank name the bank names above it; the classifier's names alone have any.
        above = wordnet.broader(self.names)
        self.broader = {int(k): [at[n] for n in up] for k, up in zip(self.to_bank, above) if k >= 0 and up}
        self.sets = [s for s in data.SOFT + ["pairs"] + data.SHARP if s not in leave_out]
        parts, self.said, self.members, self.own = [], [], [], np.zeros((len(self.sets), len(self.names)), bool)
        for i, s in enumerate(self.sets):
            f, logits, members = features.load(s)
            said, y, keep = [[] for _ in members], np.full(len(members), -1), np.ones(len(members), bool)
            if s == "flickr8k":
                said = [[caption_at[c] for c in data.captions().get(m, []) if c in caption_at] for m in members]
                keep = np.array([bool(c) for c in said])
            elif s == "pairs":
                y = np.array([at.get(n, -1) for n in data.pair_names(members)])
                self.own[i, np.unique(y[y >= 0])] = True
            else:
                names = {k: -1 if any(map(text_space.kept_out, sp)) else at[n] for k, (n, sp) in data.names(s).items()}
                y = np.array([names[m.split("/")[0]] for m in members])
                keep = y >= 0
                self.own[i, np.unique(y[keep])] = True
            row = np.arange(len(f)) if s == "pairs" else np.full(len(f), -1)
            parts.append([a[keep] for a in (f, y, np.full(len(f), i), *posterior(logits, self.to_bank), row)])
            self.said += [c for c, k in zip(said, keep) if k]
            self.members += [(s, m) for m, k in zip(members, keep) if k]
        self.x, self.y, self.set, self.soft_at, self.soft, self.pair = (np.concatenate(a) for a in zip(*parts))


class Synthetic:
    """Features of ImageNet names: mean + alpha * C w + the residual of some real picture, w the classifier's row, C the
    covariance within classes, alpha fitted on the classes that have pictures here."""

    def __init__(self, d, w, b, rng):
        self.rng, self.w, self.b, self.to_bank = rng, w, b, d.to_bank
        labelled = d.y >= 0
        u, inverse, count = np.unique(d.set[labelled] * 100000 + d.y[labelled], return_inverse=True, return_counts=True)
        mean = np.zeros((len(u), d.x.shape[1]), "f4")
        np.add.at(mean, inverse, d.x[labelled])
        mean /= count[:, None]
        big = count >= 20
        self.residual = (d.x[labelled] - mean[inverse])[big[inverse]]
        cov = self.residual.T @ self.residual / len(self.residual)
        self.direction = (w - w.mean(0)) @ cov
        of = {int(k): i for i, k in enumerate(d.to_bank) if k >= 0}
        sets = [d.sets.index(s) for s in ("tiny_imagenet", "imagenette")]
        known = [q for q in np.where(big)[0] if u[q] // 100000 in sets and int(u[q] % 100000) in of]
        a, t = self.direction[[of[int(u[q] % 100000)] for q in known]], mean[known]
        a, t = a - a.mean(0), t - t.mean(0)
        self.alpha = float((a * t).sum() / (a * a).sum())
        sharp = [i for i, s in enumerate(d.sets) if s in data.SHARP]
        self.mean = d.x[np.isin(d.set, sharp)].mean(0)
        self.classes = np.where(d.to_bank >= 0)[0]

    def __call__(self, n):
        """-> features [n, 1280], bank indices, soft targets."""
        k = self.rng.choice(self.classes, n)
        alpha = self.alpha * self.rng.uniform(0.7, 1.3, (n, 1)).astype("f4")
        x = self.mean + alpha * self.direction[k] + self.residual[self.rng.integers(len(self.residual), size=n)]
        x = np.maximum(x, 0)
        return x, self.to_bank[k], *posterior(x @ self.w.T + self.b, self.to_bank)


def broaden(d, y, rng):
    """-> y with some names replaced by broader ones, and which."""
    changed = np.array([k in d.broader for k in y.tolist()]) & (rng.random(len(y)) < BROADER)
    return np.array([rng.choice(d.broader[k]) if c else k for k, c in zip(y.tolist(), changed)]), changed


def split(d, rng):
    """-> (training, validation) rows: a slice of every set."""
    p = rng.permutation(len(d.x))
    va = p[: int(VALIDATION * len(p))]
    tr = np.setdiff1d(p, va)
    sharp = np.isin(d.set[tr], [i for i, s in enumerate(d.sets) if s in data.SHARP])
    return np.concatenate([tr] + [tr[sharp]] * (SHARP_WEIGHT - 1)), va


def train(d, tr, synthetic, rng):
    """-> W, b, scale."""
    torch.manual_seed(SEED)
    t = torch.as_tensor
    # Batches take turns with the embeddings that the bag learns and those of the ready table: the model serves both.
    texts, captions = [t(d.text).float(), t(d.ready).float()], t(d.captions).float()
    text = texts[0]
    clip = text_space.unit(np.load(MODELS / "clip_image_pairs/embeddings_f16.npy").astype("f4"))
    clip = t(text_space.unit(clip - clip.mean(0)))  # both sides centred: the gap between CLIP's pictures and texts drops out
    own = torch.where(t(d.own), 0.0, -1e4)
    signs = t([s == "sign_digits" for s in d.sets] + [False])  # the classifier knows nothing of hand signs
    own = torch.cat([own, torch.where(t(np.isin(np.arange(len(text)), d.to_bank)), 0.0, -1e4)[None]])
    mu, sd = t(d.x[tr].mean(0)), t(d.x[tr].std(0) + 1e-3)
    linear, log_scale = torch.nn.Linear(d.x.shape[1], text.shape[1]), torch.nn.Parameter(torch.tensor(3.0))
    opt = torch.optim.AdamW([{"params": linear.parameters(), "weight_decay": 0.01}, {"params": [log_scale], "weight_decay": 0.0}])
    real = int(BATCH * (1 - SYNTHETIC))
    steps, step, start = EPOCHS * (len(tr) // real), 0, time.time()
    for epoch in range(EPOCHS):
        total, order = 0.0, rng.permutation(tr)
        for i in range(len(tr) // real):
            for g in opt.param_groups:
                g["lr"] = RATE * min(1, (step + 1) / 20) * 0.5 * (1 + np.cos(np.pi * step / steps))
            step += 1
            text = texts[step % 2]
            ix = order[i * real : (i + 1) * real]
            sx, sy, ssa, ss = synthetic(BATCH - real)
            x, (y, wide) = t(np.concatenate([d.x[ix], sx])).float(), map(t, broaden(d, np.concatenate([d.y[ix], sy]), rng))
            st = t(np.concatenate([d.set[ix], np.full(len(sy), len(d.sets))]))
            soft_at, soft = t(np.concatenate([d.soft_at[ix], ssa]).clip(0)), t(np.concatenate([d.soft[ix], ss])).float()
            out, scale = F.normalize(linear((x - mu) / sd), dim=-1), log_scale.exp()
            logits, named, yc = scale * out @ text.T, y >= 0, y.clamp(min=0)
            lp = logits.log_softmax(1)
            hard = torch.where(named, torch.where(signs[st], 1.0, 0.7), 0.0)
            loss = -(hard * lp.gather(1, yc[:, None])[:, 0] + (1 - hard) * (lp.gather(1, soft_at) * soft).sum(1)).mean()
            narrow = named & ~wide
            loss = loss + 0.5 * F.cross_entropy(logits[narrow] + own[st[narrow]], y[narrow]) * narrow.float().mean()
            loss = loss + 0.1 * ((1 - (out * text[yc]).sum(1)) * named).mean()
            said = [(q, d.said[n][rng.integers(len(d.said[n]))]) for q, n in enumerate(ix) if d.said[n]]
            if len(said) > 4:
                g, diagonal = scale * out[[q for q, _ in said]] @ captions[[c for _, c in said]].T, torch.arange(len(said))
                loss = loss + 0.25 * (F.cross_entropy(g, diagonal) + F.cross_entropy(g.T, diagonal))
            pair = d.pair[ix]
            if (pair >= 0).any():
                q = np.where(pair >= 0)[0]
                loss = loss + 0.1 * (1 - (out[q] * clip[pair[q]]).sum(1)).mean()
            opt.zero_grad()
            loss.backward()
            opt.step()
            total += loss.item()
        print(f"epoch {epoch}: loss {total / (len(tr) // real):.4f}, scale {log_scale.exp().item():.2f}, {time.time() - start:.0f} s", flush=True)
    with torch.no_grad():
        w = linear.weight / sd
        return w.numpy(), (linear.bias - w @ mu).numpy(), log_scale.exp().item()


def calibrate(d, w, b, scale, va, rng, labels=10, draws=8):
    """Temperature and the cosine of "none of these", from ten-label sets around validation pictures: nine other names of
    the picture's own set, or of the bank. Sharp pictures, few here, count as much as all others together.
    -> temperature, none_cosine (a tenth of the pictures lies below it)."""
    va = va[d.y[va] >= 0]
    sharp = np.isin(d.set[va], [i for i, s in enumerate(d.sets) if s in data.SHARP])
    weight = np.repeat(np.where(sharp, 0.5 / sharp.sum(), 0.5 / (~sharp).sum()) / draws, draws)
    out, cos = text_space.unit(d.x[va] @ w.T + b), []
    for o, y, s in zip(out, d.y[va], d.set[va]):
        for i in range(draws):
            pool = np.where(d.own[s])[0] if i % 2 else np.arange(len(d.names))
            others = rng.choice(pool[pool != y], min(labels - 1, len(pool) - 1), replace=False)
            c = (d.text, d.ready)[i // 2 % 2][np.concatenate([[y], others])] @ o
            cos.append(np.concatenate([c, np.full(labels - len(c), -9)]))
    cos = np.array(cos, "f4")  # column 0 is right
    nll = lambda s: float(weight @ np.log(np.exp(s * (cos - cos[:, :1])).sum(1)))
    fitted = min(np.arange(4, 60, 0.5), key=nll)
    best = cos.max(1)
    order = np.argsort(best)
    none = float(best[order][np.searchsorted(np.cumsum(weight[order]), 0.1)])
    print(f"ten labels: right {100 * weight @ (cos.argmax(1) == 0):.1f} %, fitted scale {fitted}, none_cosine {none:.3f}")
    return scale / fitted, none


def accuracy(d, w, b, rows):
    """Per set, among its own names, percent."""
    rows = rows[d.y[rows] >= 0]
    z = text_space.unit(d.x[rows] @ w.T + b) @ d.text.T
    z[~d.own[d.set[rows]]] = -9
    ok = z.argmax(1) == d.y[rows]
    return {s: round(100 * float(ok[d.set[rows] == i].mean()), 1) for i, s in enumerate(d.sets) if (d.set[rows] == i).any()}


def main(leave_out=()):
    if not leave_out and (OUT / "head.npz").exists():
        return
    torch.set_num_threads(THREADS)
    rng = np.random.default_rng(SEED)
    _, _, cw, cb = backbone.fold(backbone.load())
    d = Dataset(leave_out)
    tr, va = split(d, rng)
    print(f"{len(d.x)} pictures, {len(va)} for validation, {len(d.names)} names")
    w, b, scale = train(d, tr, Synthetic(d, cw, cb, rng), rng)
    acc = accuracy(d, w, b, va)
    print("validation", acc, "mean", round(np.mean(list(acc.values())), 1))
    if leave_out:  # a measurement for choices: sets never seen, all their names offered
        full = Dataset()
        rows = np.where(np.isin(full.set, [full.sets.index(s) for s in leave_out]))[0]
        print("left out", accuracy(full, w, b, rows))
        return
    temperature, none = calibrate(d, w, b, scale, va, rng)
    head = dict(W=w, b=b, centre=d.centre, scale=scale, temperature=temperature, none_cosine=none)
    replace(OUT / "head.npz", lambda p: np.savez(p.open("wb"), **head))
    (OUT / "head.json").write_text(json.dumps({"validation": acc, "scale": scale, "temperature": temperature, "none_cosine": none}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
