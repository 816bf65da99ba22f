"""The head: pooled features [1280] -> centred CLIP text space [512], on a frozen backbone. Beside a linear layer stand a GELU branch
and, behind a learned gate, the backbone's own classifier, whose likely names' embeddings are added (Head).

What it is taught, a batch at a time: the name of the picture among the whole bank and among its own set's names; the
classifier's posterior over ImageNet names, mapped to the bank; captions; 1,000 real CLIP image embeddings. Beside
pictures stand synthetic features, made anew in every batch from the classifier's rows, one ImageNet name each: they
keep in the head what the backbone knows of things that few pictures here show. HEADS of them are averaged.

OUT/head.npz: the tensors of Head, mean [512] (of the embeddings), centre [512], scale, temperature, none_cosine, trained (a factor).
"""
import json
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

import backbone
import bank
import data
import text_space
import wordnet
from paths import MODELS, OUT, SEED, THREADS, replace
from reference import Reference

EPOCHS, BATCH, RATE = 18, 768, 2e-3
HEADS = 3  # heads that saw other orders of the same; they ship as one
HIDDEN = 192  # width of the GELU branch of each
CAMERAS = 3  # views a picture beside the product's own, which half of the batch has
SYNTHETIC = 0.4  # share of a batch
SHARP_WEIGHT = 3  # how often a sharp picture stands in an epoch
VALIDATION = 0.05  # of every train split
ALPHA = 4.44  # see Synthetic; what all sets together say
KNOWLEDGE = 1.0  # weight of the classifier's posterior among its own names
BROADER = 0.1  # how often an ImageNet name gives way to a broader one (beagle, dog): people ask for dogs


def posterior(logits):
    """-> [n, known classes], probabilities."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    return (p / p.sum(1, keepdims=True)).astype("f4")


class Labels:
    """What is known of every training picture but the picture: set, name y (of the bank, -1: none), captions said (rows of
    the captions, -1: none), row of its CLIP embedding (pair, -1: none), member of its set's tar; and of the names: their
    embeddings, those that a set has (own), the ImageNet names' places in the bank (to_bank) and the names above them."""

    MOST = 5  # captions a picture
    ARRAYS = "y set said pair own to_bank text ready captions clip centre".split()

    @classmethod
    def make(cls, leave_out=()):
        d = cls()
        d.names, captions, e, p, c, d.centre = bank.load()
        d.text, d.ready, d.captions = (text_space.unit(a - d.centre) for a in (e, p, c))
        clip = text_space.unit(np.load(MODELS / "clip_image_pairs/embeddings_f16.npy").astype("f4"))
        d.clip = text_space.unit(clip - clip.mean(0))  # both sides centred: the gap between CLIP's pictures and texts drops out
        at, caption_at = {n: i for i, n in enumerate(d.names)}, {c: i for i, c in enumerate(captions)}
        d.to_bank = np.array([at.get(n, -1) for n in data.imagenet()])
        # Per bank name the bank names above it, for the classifier's names; and what else a thing is called.
        above = wordnet.broader(d.names)
        d.broader = {int(k): [at[n] for n in up] for k, up in zip(d.to_bank, above) if k >= 0 and up}
        d.broader |= {at[n]: [at[o] for o in others] for n, others in data.ALSO.items()}
        d.sets = [s for s in data.SOFT + data.OTHERS + data.SHARP if s not in leave_out]
        d.own, d.members, parts = np.zeros((len(d.sets), len(d.names)), bool), [], []
        for i, s in enumerate(d.sets):
            members = data.members(data.tar_of(s))
            said, y, keep = np.full((len(members), cls.MOST), -1), np.full(len(members), -1), np.ones(len(members), bool)
            if s == "flickr8k":
                for row, m in zip(said, members):
                    known = [caption_at[c] for c in data.captions().get(m, []) if c in caption_at][: cls.MOST]
                    row[: len(known)] = known
                keep = said[:, 0] >= 0
                # Every other picture whose captions agree that it shows people is taught as a person too.
                shown = [sum(bool(data.PEOPLE & set(c.split())) for c in data.captions().get(m, [])) >= 4 for m in members]
                y = np.where(shown & (np.arange(len(y)) % 2 == 0), at["person"], -1)
            elif s == "pairs":
                y = np.array([at.get(n, -1) for n in data.pair_names(members)])
            else:
                names = {k: -1 if any(map(text_space.kept_out, sp)) else at[n] for k, (n, sp) in data.names(s).items()}
                y = np.array([names[m.split("/")[0]] for m in members])
                keep = y >= 0
            d.own[i, np.unique(y[y >= 0])] = True
            pair = np.arange(len(y)) if s == "pairs" else np.full(len(y), -1)
            parts.append([a[keep] for a in (y, np.full(len(y), i), said, pair)])
            d.members += [m for m, k in zip(members, keep) if k]
        d.y, d.set, d.said, d.pair = (np.concatenate(a) for a in zip(*parts))
        return d

    def save(self, path, **more):
        j = json.dumps(dict(sets=self.sets, names=self.names, members=self.members, broader=list(self.broader.items())))
        arrays = {}
        for k in self.ARRAYS:
            a = getattr(self, k)
            if a.ndim == 2 and a.dtype.kind == "f":  # embeddings: a byte a number
                step = np.abs(a).max(1, keepdims=True) / 127
                arrays[k + ".step"], a = step, np.round(a / step).astype("i1")
            arrays[k] = a
        np.savez_compressed(path, json=j, **arrays, **more)

    @classmethod
    def load(cls, path):
        z, d = np.load(path), cls()
        for k in cls.ARRAYS:
            setattr(d, k, text_space.unit(z[k] * z[k + ".step"]).astype("f4") if k + ".step" in z else z[k])
        for k, v in json.loads(str(z["json"])).items():
            setattr(d, k, dict(v) if k == "broader" else v)
        return d

    def known(self):
        """ImageNet classes whose names stand in the bank."""
        return np.where(self.to_bank >= 0)[0]

    def trained(self):
        """Names that pictures, or the classifier's posterior, are taught by, or that are told apart from them on purpose."""
        rows = [self.y[self.y >= 0], self.to_bank[self.known()], *map(np.array, self.broader.values())]
        return set(np.concatenate(rows).tolist()) | {self.names.index(n) for n in data.BESIDE}

    def sharp(self):
        """Which rows are of sharp sets."""
        return np.isin(self.set, [i for i, s in enumerate(self.sets) if s in data.SHARP])

    def only(self, rows):
        """Those pictures alone, or some twice."""
        for k in ("y", "set", "said", "pair"):
            setattr(self, k, getattr(self, k)[rows])
        self.members = [self.members[i] for i in rows]
        return self


def dataset(leave_out=()):
    """-> Labels with features views [1 + CAMERAS, n, 1280] (x: the product's own view) and the classifier's logits over its known classes."""
    import features  # needs packages that a GPU machine may lack

    d, x, logits = Labels.make(leave_out), [], []
    for i, s in enumerate(d.sets):
        views = [features.load(s, folder=k) for k in ["features"] + [f"camera{n + 1}" for n in range(CAMERAS)]]
        at = {m: k for k, m in enumerate(views[0][2])}
        rows = [at[m] for m, k in zip(d.members, d.set) if k == i]
        x.append([f[rows] for f, _, _ in views])
        logits.append([l[rows][:, d.known()] for _, l, _ in views])
    d.views, d.logits = (np.concatenate(a, 1) for a in (x, logits))
    d.x = d.views[0]
    return d


class Synthetic:
    """Features of ImageNet names: mean + alpha * C w + the residual of some real picture, w the classifier's row, C the
    covariance within classes, alpha fitted on the classes that have pictures here."""

    def __init__(self, d, w, b, device):
        known = d.known()
        w, b, y = w[known], b[known], d.to_bank[known]
        labelled = d.y >= 0
        u, inverse, count = np.unique(d.set[labelled] * 100000 + d.y[labelled], return_inverse=True, return_counts=True)
        mean = np.zeros((len(u), d.x.shape[1]), "f4")
        np.add.at(mean, inverse, d.x[labelled])
        mean /= count[:, None]
        big = count >= 20
        residual = (d.x[labelled] - mean[inverse])[big[inverse]]
        cov = residual.T @ residual / len(residual)
        direction = (w - w.mean(0)) @ cov
        of = {int(k): i for i, k in enumerate(y)}
        sets = [d.sets.index(s) for s in ("tiny_imagenet", "imagenette") if s in d.sets]
        seen = [q for q in np.where(big)[0] if u[q] // 100000 in sets and int(u[q] % 100000) in of]
        a, t = direction[[of[int(u[q] % 100000)] for q in seen]], mean[seen]
        if len(seen) > 1:
            a, t = a - a.mean(0), t - t.mean(0)
            self.alpha = float((a * t).sum() / (a * a).sum())
        else:  # without ImageNet's pictures: what they say
            self.alpha = ALPHA
        t = lambda a: torch.as_tensor(a, device=device)
        self.w, self.b, self.y, self.residual, self.direction = t(w), t(b), t(y), t(residual), t(direction)
        self.mean = t(d.x[d.sharp()].mean(0))

    def __call__(self, n, g):
        """-> features [n, 1280], bank indices, posterior."""
        pick = lambda m: torch.randint(m, (n,), generator=g, device=g.device)
        k = pick(len(self.y))
        alpha = self.alpha * (0.7 + 0.6 * torch.rand(n, 1, generator=g, device=g.device))
        x = (self.mean + alpha * self.direction[k] + self.residual[pick(len(self.residual))]).clamp(min=0)
        return x, self.y[k], (x @ self.w.T + self.b).softmax(1)


class Broader:
    """Replaces some names by broader ones."""

    def __init__(self, d, device):
        most = max(map(len, d.broader.values()))
        names, count, share = np.zeros((len(d.names), most), int), np.zeros(len(d.names), int), np.zeros(len(d.names), "f4")
        for k, up in d.broader.items():
            names[k, : len(up)], count[k] = up, len(up)
            share[k] = 0.2 if d.names[k] in data.ALSO else BROADER
        self.names, self.count, self.share = (torch.as_tensor(a, device=device) for a in (names, count, share))

    def __call__(self, y, g):
        """-> y, and where it changed."""
        u = torch.rand(2, len(y), generator=g, device=y.device)
        count = self.count[y.clamp(min=0)] * (y >= 0)
        changed = (count > 0) & (u[0] < self.share[y.clamp(min=0)])
        return torch.where(changed, self.names[y.clamp(min=0), (u[1] * count).long()], y), changed


def split(d, rng):
    """-> (training, validation) rows: a slice of every set."""
    p = rng.permutation(len(d.y))
    va = p[: int(VALIDATION * len(p))]
    return np.setdiff1d(p, va), va


def often(d, rows):
    """The rows, sharp ones several times."""
    return np.concatenate([rows] + [rows[d.sharp()[rows]]] * (SHARP_WEIGHT - 1))


class Teaching:
    """The loss of a batch of embeddings: cross-entropy over the bank against 70 % label and 30 % posterior; over the ImageNet
    names alone against the posterior, which keeps what the classifier knows; over the set's own names; cosine to the
    label; captions; CLIP's embeddings of the pairs."""

    def __init__(self, d, device="cpu"):
        t = lambda a: torch.as_tensor(a, device=device)
        # Batches take turns with the embeddings from all tables and those from Apache-2.0 rows: two wordings of each name.
        self.texts = [t(d.text).float(), t(d.ready).float()]
        self.captions, self.clip, self.imagenet = t(d.captions).float(), t(d.clip).float(), t(d.to_bank[d.known()])
        own = np.concatenate([d.own, np.isin(np.arange(len(d.text)), d.to_bank)[None]])  # the last: synthetic features
        self.own = torch.where(t(own), 0.0, -1e4)
        # Names that no picture is taught by stand in no sum: else pictures learn to be none of them, and so none of what people ask for.
        self.strange = torch.where(torch.isin(torch.arange(len(d.text)), torch.as_tensor(sorted(d.trained()))).to(device), 0.0, -1e4)
        self.signs = t(np.array([s == "sign_digits" for s in d.sets] + [False]))  # the classifier knows nothing of hand signs

    def __call__(self, step, out, scale, y, wide, sets, p, said, pair):
        """out [n, 512] unit length; y (-1: none); wide: y stands above the true name; p [n, known] posterior."""
        text = self.texts[step % 2]
        logits, named, yc, signs = scale * out @ text.T + self.strange, y >= 0, y.clamp(min=0), self.signs[sets]
        lp = logits.log_softmax(1)
        hard = torch.where(named, torch.where(signs, 1.0, 0.7), 0.0)
        loss = -(hard * lp.gather(1, yc[:, None])[:, 0] + (1 - hard) * (lp[:, self.imagenet] * p).sum(1)).mean()
        inside = logits[:, self.imagenet].log_softmax(1)
        loss = loss - KNOWLEDGE * ((inside * p).sum(1) * ~signs).mean()
        narrow = (named & ~wide).float()
        own = F.cross_entropy(logits + self.own[sets], yc, reduction="none")
        loss = loss + 0.5 * (own * narrow).mean() + 0.1 * ((1 - (out * text[yc]).sum(1)) * named).mean()
        q = torch.where(said >= 0)[0]
        if len(q) > 4:
            g, diagonal = scale * out[q] @ self.captions[said[q]].T, torch.arange(len(q), device=out.device)
            loss = loss + 0.25 * (F.cross_entropy(g, diagonal) + F.cross_entropy(g.T, diagonal))
        q = torch.where(pair >= 0)[0]
        if len(q):
            loss = loss + 0.1 * (1 - (out[q] * self.clip[pair[q]]).sum(1)).mean()
        return loss


def caption_of(d, rows, rng):
    """-> for each of the rows one of its captions, -1: none."""
    count = (d.said[rows] >= 0).sum(1)
    return d.said[rows, (rng.random(len(rows)) * count).astype(int)]


def classifier_in_text_space(d, w, b, norm=10):
    """The linear map M, c whose products with the ImageNet names' texts come nearest to the classifier's logits."""
    known = d.known()
    e, w, b = d.text[d.to_bank[known]], w[known], b[known]
    a = np.linalg.solve(e.T @ e + 0.01 * np.eye(e.shape[1]), e.T)
    m, c = a @ (w - w.mean(0)), a @ (b - b.mean())
    k = norm / np.linalg.norm(d.x[:: max(1, len(d.x) // 1000)] @ m.T + c, axis=1).mean()
    return (k * m).astype("f4"), (k * c).astype("f4")


class Head(torch.nn.Module):
    """e = norm(h + sigmoid(g) q): h the unit vector of W f + V gelu(U f + u) + b, g the last row of W f + b, q = N softmax(C f + c), not
    normalised: where the posterior is spread it is short, which is the other half of the gate. Features are standardised inside; tensors()
    takes that into the weights."""

    def __init__(self, d, mu, sd, classes, bias):
        super().__init__()
        m, c = map(torch.as_tensor, classifier_in_text_space(d, classes, bias))
        t = torch.as_tensor
        self.register_buffer("mu", mu)
        self.register_buffer("sd", sd)
        self.linear = torch.nn.Linear(m.shape[1], len(m) + 1)
        self.hidden, self.out = torch.nn.Linear(m.shape[1], HIDDEN), torch.nn.Linear(HIDDEN, len(m), bias=False)
        names = np.zeros((len(m), len(classes)), "f4")
        known = d.known()
        names[:, known] = text_space.unit(d.text[d.to_bank[known]] + d.ready[d.to_bank[known]]).T
        self.names = torch.nn.Parameter(t(names))
        self.register_buffer("classes", t(classes))
        self.register_buffer("bias", t(bias))
        with torch.no_grad():
            self.linear.weight[:-1], self.linear.bias[:-1] = m * sd, c + m @ mu
            self.linear.weight[-1], self.linear.bias[-1] = 0, 0
            self.out.weight.zero_()

    BRANCH = 10  # the GELU branch's weights are small beside the linear layer's: its steps are made larger by this

    def forward(self, x):
        z = (x - self.mu) / self.sd
        u = self.linear(z)
        h = F.normalize(u[:, :-1] + self.BRANCH * self.out(F.gelu(self.hidden(z))), dim=-1)
        p = (x @ self.classes.T + self.bias).softmax(1)
        return F.normalize(h + u[:, -1:].sigmoid() * (p @ self.names.T), dim=-1)

    def tensors(self):
        """By their names in the model directory."""
        with torch.no_grad():
            w, v = self.linear.weight / self.sd, self.hidden.weight / self.sd
            t = {
                "image.project.weight": w, "image.project.bias": self.linear.bias - w @ self.mu,
                "image.hidden.weight": v, "image.hidden.bias": self.hidden.bias - v @ self.mu,
                "image.widen.weight": self.BRANCH * self.out.weight,
                "image.posterior.weight": self.classes, "image.posterior.bias": self.bias, "image.names.weight": self.names,
            }
            return {k: a.cpu().numpy() for k, a in t.items()}

    def warm(self, t):
        """Takes up what tensors() gave, from a model directory."""
        with torch.no_grad():
            w, v, a = (torch.as_tensor(t["image." + k + ".weight"]) for k in ("project", "hidden", "widen"))
            self.linear.weight.copy_(w * self.sd)
            self.linear.bias.copy_(torch.as_tensor(t["image.project.bias"]) + w @ self.mu)
            self.hidden.weight.copy_(v * self.sd)
            self.hidden.bias.copy_(torch.as_tensor(t["image.hidden.bias"]) + v @ self.mu)
            self.out.weight.copy_(a / self.BRANCH)
            self.names.copy_(torch.as_tensor(t["image.names.weight"]))


def train(d, tr, classes, bias, device="cpu", epochs=EPOCHS, seed=SEED, warm=None):
    """On d.views, d.logits; classes, bias: the classifier. -> Head, scale."""
    torch.manual_seed(seed)
    rng, g = np.random.default_rng(seed), torch.Generator(device).manual_seed(seed)
    t = lambda a: torch.as_tensor(a, device=device)
    teach, synthetic, broader = Teaching(d, device), Synthetic(d, classes, bias, device), Broader(d, device)
    x, p = t(d.views), t(posterior(d.logits))
    y, sets, pair = t(d.y), t(d.set), t(d.pair)
    net = Head(d, x[0, t(tr)].mean(0).cpu(), x[0, t(tr)].std(0).cpu() + 1e-3, classes, bias)
    if warm:
        net.warm(warm)
    net = net.to(device)
    log_scale = torch.nn.Parameter(torch.tensor(3.0, device=device))
    branch = [*net.hidden.parameters(), *net.out.parameters()]
    opt = torch.optim.AdamW([
        {"params": net.linear.parameters(), "weight_decay": 0.01, "rate": RATE}, {"params": [log_scale], "weight_decay": 0.0, "rate": RATE},
        {"params": branch, "weight_decay": 0.01, "rate": RATE / 2}, {"params": [net.names], "weight_decay": 0.0, "rate": RATE / 10}])
    half = torch.autocast(device, torch.bfloat16, enabled=device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    real = int(BATCH * (1 - SYNTHETIC))
    none = torch.full((BATCH - real,), -1, device=device)
    steps, step, start = epochs * (len(tr) // real), 0, time.time()
    for epoch in range(epochs):
        total, order = 0.0, rng.permutation(tr)
        for i in range(len(tr) // real):
            for group in opt.param_groups:
                group["lr"] = group["rate"] * min(1, (step + 1) / 20) * 0.5 * (1 + np.cos(np.pi * step / steps))
            step += 1
            rows = order[i * real : (i + 1) * real]
            view = t(np.maximum(rng.integers(0, 2 * CAMERAS + 1, len(rows)) - CAMERAS, 0))
            ix, (sx, sy, sp) = t(rows), synthetic(BATCH - real, g)
            names, wide = broader(torch.cat([y[ix], sy]), g)
            said = torch.cat([t(caption_of(d, rows, rng)), none])
            with half:
                out = net(torch.cat([x[view, ix], sx])).float()
                loss = teach(step, out, log_scale.exp(), names, wide, torch.cat([sets[ix], none + len(d.sets) + 1]), torch.cat([p[view, ix], sp]),
                             said, torch.cat([pair[ix], none]))
            opt.zero_grad()
            loss.backward()
            opt.step()
            total += loss.detach()
        if epoch % 5 == 4 or epoch == epochs - 1:
            print(f"seed {seed}, epoch {epoch}: loss {total / (len(tr) // real):.4f}, scale {log_scale.exp().item():.2f}, {time.time() - start:.0f} s", flush=True)
    return net.cpu(), log_scale.exp().item()


def heads(d, tr, classes, bias, warm=None):
    """-> HEADS heads, and the mean of their scales. A head that is done is kept in OUT: a cut run goes on."""
    out, scales = [], []
    for i in range(HEADS):
        path = OUT / f"head{i}.pt"
        if not path.exists():
            net, scale = train(d, tr, classes, bias, seed=SEED + i, warm=warm and parted(warm, i))
            replace(path, lambda p: torch.save({"net": net.state_dict(), "scale": scale}, p))
        part = torch.load(path, weights_only=True)
        net = Head(d, part["net"]["mu"], part["net"]["sd"], classes, bias)
        net.load_state_dict(part["net"])
        out.append(net)
        scales.append(part["scale"])
    return out, sum(scales) / HEADS


def united(parts):
    """Tensors of several heads -> those of one whose h, before its length is taken, is the mean of theirs: the GELU branches side by side."""
    mean = lambda k: sum(p[k] for p in parts) / len(parts)
    one = {k: mean(k) for k in parts[0]}
    for k in "image.hidden.weight", "image.hidden.bias":
        one[k] = np.concatenate([p[k] for p in parts])
    one["image.widen.weight"] = np.concatenate([p["image.widen.weight"] for p in parts], 1) / len(parts)
    return one


def parted(t, i):
    """What united made of part i, as far as it is still there."""
    at = slice(i * HIDDEN, (i + 1) * HIDDEN)
    return t | {
        "image.hidden.weight": t["image.hidden.weight"][at], "image.hidden.bias": t["image.hidden.bias"][at],
        "image.widen.weight": t["image.widen.weight"][:, at] * HEADS,
    }


class Embedder:
    """The tensors of a head, at work."""

    def __init__(self, tensors):
        self.reference = Reference({"image": {"hidden": len(tensors["image.hidden.bias"]), "posterior": len(tensors["image.posterior.bias"])}}, tensors)

    def __call__(self, x):
        """Features [n, 1280] -> embeddings [n, 512]."""
        with torch.no_grad():
            return torch.cat([self.reference.project(torch.as_tensor(p)) for p in np.array_split(x, len(x) // 4096 + 1)]).numpy()


def correction(d, out, va, strange):
    """Trained names draw pictures of untrained ones to themselves, so the rows of trained names are made shorter by one factor: the least
    at which validation pictures, told among their own names and the 100 names strange [100, 512] of no picture, lose less than a point."""
    va = va[(d.y[va] >= 0) & (d.own[d.set[va]].sum(1) > 1)]
    own = out[va] @ d.text.T
    own[~d.own[d.set[va]]] = -9
    best, right, other = own.max(1), own.argmax(1) == d.y[va], (out[va] @ strange.T).max(1)
    kept = lambda f: float((right & (f * best > other)).mean())
    factor = min(f for f in np.arange(0.8, 1.001, 0.01) if kept(f) > kept(1) - 0.01)
    print(f"trained names: rows times {factor:.2f}; right among own and strange names {100 * kept(1):.1f} -> {100 * kept(factor):.1f} %")
    return float(factor)


def calibrate(d, views, scale, va, rng, trained=1.0, labels=10, draws=8):
    """Temperature and the cosine of "none of these", from ten-label sets around validation pictures: nine other names of
    the picture's own set, or of the bank. Sharp pictures, few here, count as much as all others together. views: embeddings [n, 512] of
    the pictures through several lenses, which take turns.
    -> temperature, none_cosine (a tenth of the pictures lies below it)."""
    va = va[(d.y[va] >= 0) & (d.own[d.set[va]].sum(1) > 1)]
    sharp = d.sharp()[va]
    weight = np.repeat(np.where(sharp, 0.5 / sharp.sum(), 0.5 / (~sharp).sum()) / draws, draws)
    cos = []
    for j, y, s in zip(va, d.y[va], d.set[va]):
        for i in range(draws):
            pool = np.where(d.own[s])[0] if i % 2 else np.arange(len(d.names))
            others = rng.choice(pool[pool != y], min(labels - 1, len(pool) - 1), replace=False)
            c = trained * (d.text, d.ready)[i // 2 % 2][np.concatenate([[y], others])] @ views[i // 4 % len(views)][j]
            cos.append(np.concatenate([c, np.full(labels - len(c), -9)]))
    cos = np.array(cos, "f4")  # column 0 is right
    nll = lambda s: float(weight @ np.log(np.exp(s * (cos - cos[:, :1])).sum(1)))
    fitted = min(np.arange(4, 60, 0.5), key=nll)
    best = cos.max(1)
    order = np.argsort(best)
    none = float(best[order][np.searchsorted(np.cumsum(weight[order]), 0.1)])
    print(f"ten labels: right {100 * weight @ (cos.argmax(1) == 0):.1f} %, fitted scale {fitted}, none_cosine {none:.3f}")
    return scale / fitted, none


def accuracy(d, out, rows):
    """Of embeddings out [n, 512]: per set of more than one name, among its own names, percent."""
    rows = rows[(d.y[rows] >= 0) & (d.own[d.set[rows]].sum(1) > 1)]
    z = out[rows] @ d.text.T
    z[~d.own[d.set[rows]]] = -9
    ok = z.argmax(1) == d.y[rows]
    return {s: round(100 * float(ok[d.set[rows] == i].mean()), 1) for i, s in enumerate(d.sets) if (d.set[rows] == i).any()}


def strange_names(d, rng, n=100):
    """Centred embeddings of nouns that no picture has been taught with."""
    nouns = sorted(set(wordnet.nouns()) - set(d.names))
    return text_space.unit(text_space.embed([nouns[i] for i in rng.choice(len(nouns), n, replace=False)]) - d.centre).astype("f4")


def main(leave_out=()):
    if not leave_out and (OUT / "head.npz").exists():
        return
    torch.set_num_threads(THREADS)
    rng = np.random.default_rng(SEED)
    d = dataset(leave_out)
    tr, va = split(d, rng)
    print(f"{len(d.x)} pictures, {len(va)} for validation, {len(d.names)} names")
    tensors = backbone.tower()[1]
    classes, bias = tensors["image.posterior.weight"], tensors["image.posterior.bias"]
    warm = tensors if "image.widen.weight" in tensors else None
    if leave_out:  # a measurement for choices: sets never seen, all their names offered
        net, _ = train(d, often(d, tr), classes, bias)
        full = dataset()
        rows = np.where(np.isin(full.set, [full.sets.index(s) for s in leave_out]))[0]
        print("left out", accuracy(full, Embedder(net.tensors())(full.x), rows))
        return
    parts, scale = heads(d, often(d, tr), classes, bias, warm)
    tensors = united([p.tensors() for p in parts])
    embed = Embedder(tensors)
    out = embed(d.x)
    acc = accuracy(d, out, va)
    print("validation", acc, "mean", round(np.mean(list(acc.values())), 1))
    trained = correction(d, out, va, strange_names(d, rng))
    temperature, none = calibrate(d, [out] + [embed(v) for v in d.views[1:]], scale, va, rng, trained)
    numbers = dict(scale=scale, temperature=temperature, none_cosine=none, trained=trained)
    replace(OUT / "head.npz", lambda p: np.savez(p.open("wb"), centre=d.centre, mean=out[tr].mean(0), **numbers, **tensors))
    (OUT / "head.json").write_text(json.dumps({"validation": acc, **numbers}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
