"""The whole image tower, taught end to end: finetune.py BUNDLE OUTPUT SECONDS. BUNDLE is pack.py's; a GPU is used where there is one.

First the head on the frozen backbone (head.py), then all of it: random views, a camera's faults, three input sizes; the frozen
backbone sees each view unspoilt and says what of its ImageNet names it takes it for. For the last part of the time
weights and activations are rounded as the engine rounds. The learning rate follows the clock. OUTPUT/tuned.npz is the
running mean of the weights, every minute and at the end; BUNDLE/state.pt resumes a run that was cut; OUTPUT/curve.jsonl is the curve.
"""
import copy
import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import augment
import head
from paths import SEED
from tower import Tower, rounded

BATCH = int(os.environ.get("LQA_BATCH") or 256)
SIZES = {192: 0.6, 176: 0.2, 224: 0.2}  # input sizes and their shares; the first is the one that ships
TEACHER = 224  # the size that the frozen backbone sees
HEAD_EPOCHS = int(os.environ.get("LQA_HEAD_EPOCHS") or 30)
RATE, HEAD_RATE, DECAY = 2e-4, 5e-4, 0.02
ROUNDING = 0.6  # from this part of the time on
MIXED = 0.25  # share of the batch
MEAN = 0.997  # of the running mean, a step
OFTEN = {"cifar10": 0.7, "caltech101": 1.5, "flickr8k": 1.5, "pairs": 1.5}  # how often a set's pictures are drawn; sharp ones
SHARP = 4


def normalise(x, half):
    """0..1 -> what the tower takes."""
    x = (x * 255 - 127) / 128
    return x.to(torch.float16 if half else torch.float32, memory_format=torch.channels_last)


class Model(torch.nn.Module):
    """The tower, and the head on standardised features."""

    def __init__(self, config, arrays, mu, sd, w, b, scale):
        super().__init__()
        t = lambda a: torch.as_tensor(np.asarray(a, "f4"))
        self.tower = Tower(config, arrays)
        self.register_buffer("mu", t(mu))
        self.register_buffer("sd", t(sd))
        self.linear = torch.nn.Linear(*w.T.shape)
        with torch.no_grad():
            self.linear.weight.copy_(t(w * sd))
            self.linear.bias.copy_(t(b + w @ mu))
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(scale)))

    def head(self):
        w = self.linear.weight / self.sd
        return w, self.linear.bias - w @ self.mu

    def forward(self, x, rounding):
        f = self.tower(x, rounding)
        if not rounding:
            return F.normalize(self.linear((f - self.mu) / self.sd), dim=-1)
        w, b = self.head()
        return F.normalize(f @ rounded(w, 8).T + b, dim=-1)

    def export(self, path, **more):
        with torch.no_grad():
            w, b = (a.cpu().numpy() for a in self.head())
        arrays = {k: v.astype("f2") for k, v in self.tower.tensors().items()}
        tmp = path.with_name("." + path.name)
        np.savez(tmp.open("wb"), W=w.astype("f2"), b=b, scale=self.log_scale.exp().item(), **arrays, **more)
        os.replace(tmp, path)


def embed(net, store, rows, size, half, view=None):
    """-> net's output over the rows' centre views (or view(x)), numpy."""
    out, batch = [], 256 if half else 32
    with torch.no_grad():
        for i in range(0, len(rows), batch):
            r = rows[i : i + batch]
            full = np.resize(r, batch)  # one shape, so that cuDNN chooses its kernels once
            x = store.sample(full, store.centre(full), size)
            out.append(net(normalise(x if view is None else view(x), half)).float().cpu().numpy()[: len(r)])
    return np.concatenate(out)


def evaluate(d, e, va):
    """Validation rows' embeddings -> per set accuracy among its own names."""
    y, sets, named = d.y[va], d.set[va], d.y[va] >= 0
    z = e @ d.text.T
    ok = np.where(d.own[sets], z, -9).argmax(1) == y
    acc = {s: round(100 * float(ok[named & (sets == i)].mean()), 1) for i, s in enumerate(d.sets) if (named & (sets == i)).any()}
    return {"mean": round(float(np.mean(list(acc.values()))), 2), "sets": acc}


def main(bundle, output, seconds):
    start = time.time()
    output.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    half = device == "cuda"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    curve = (output / "curve.jsonl").open("a")

    def say(**what):
        line = json.dumps({"seconds": round(time.time() - start, 1), **what})
        print(line, flush=True)
        curve.write(line + "\n")
        curve.flush()

    d, z = head.Labels.load(bundle / "labels.npz"), np.load(bundle / "backbone.npz")
    at, raw = np.load(bundle / "labels.npz")["at"], (bundle / "pictures.bin").read_bytes()
    if part := int(os.environ.get("LQA_PART") or 0):  # one name in so many, to try the program
        rows = np.where(np.where(d.y >= 0, d.y, np.arange(len(d.y))) % part == 0)[0]
        d.only(rows)
        at = [(at[i], at[i + 1]) for i in rows]
    else:
        at = list(zip(at[:-1], at[1:]))
    store = augment.Store([raw[a:b] for a, b in at], device, os.cpu_count())
    del raw
    g = torch.Generator(device).manual_seed(SEED)
    arrays, config = {k: z[k].astype("f4") for k in z.files if k.startswith("image.")}, json.loads(str(z["config"]))
    cw, cb = z["classifier"].astype("f4"), z["classifier_bias"]
    teacher = Tower(config, arrays).to(device).eval()
    say(stage="decoded", device=torch.cuda.get_device_name() if half else "cpu", pictures=len(d.y), names=len(d.names))

    # The head on the frozen backbone: features of the centre view, and of a spoilt one.
    n = len(d.y)
    tr, va = head.split(d, rng)
    size, rows = next(iter(SIZES)), np.arange(n)
    f = np.concatenate([embed(teacher, store, rows, size, half), embed(teacher, store, rows, size, half, view=lambda x: augment.camera(x, g))])
    twice = copy.copy(d).only(np.tile(rows, 2))
    twice.x, twice.logits = f, f @ cw[d.known()].T + cb[d.known()]
    twice.logits[n:] = twice.logits[:n]  # what the classifier says of the clear view
    say(stage="features")
    w, b, scale = head.train(twice, head.often(twice, np.concatenate([tr, tr + n])), cw, cb, device, HEAD_EPOCHS)
    model = Model(config, arrays, f.mean(0), f.std(0) + 1e-3, w, b, scale).to(device)
    start_head = {"start.W": w.astype("f2"), "start.b": b, "start.scale": scale}  # for a mean of the two towers' weights
    e = f[va] @ w.T + b
    say(stage="head", scale=round(scale, 2), **evaluate(d, e / np.linalg.norm(e, axis=1, keepdims=True), va))
    del twice, f

    mean = copy.deepcopy(model).eval()
    weights = [p for k, p in model.tower.named_parameters() if k.endswith("weight")]
    norms = [p for k, p in model.tower.named_parameters() if not k.endswith("weight")]
    opt = torch.optim.AdamW([
        {"params": weights, "rate": RATE, "weight_decay": DECAY}, {"params": norms, "rate": RATE, "weight_decay": 0.0},
        {"params": model.linear.parameters(), "rate": HEAD_RATE, "weight_decay": 0.01}, {"params": [model.log_scale], "rate": HEAD_RATE, "weight_decay": 0.0},
    ], fused=half)
    scaler = torch.amp.GradScaler(device, init_scale=2.0**10, enabled=half)
    step, spent, state = 0, 0.0, bundle / "state.pt"
    if state.exists():
        c = torch.load(state, map_location=device, weights_only=True)
        for part, k in ((model, "model"), (mean, "mean"), (opt, "opt"), (scaler, "scaler")):
            part.load_state_dict(c[k])
        step, spent = c["step"], c["spent"]
    begin = time.time() - spent
    left = seconds - (time.time() - start) + spent  # for the whole of this stage

    def save(final=False):
        mean.export(output / "tuned.npz", **start_head)
        if not final:
            c = dict(model=model.state_dict(), mean=mean.state_dict(), opt=opt.state_dict(), scaler=scaler.state_dict(), step=step, spent=time.time() - begin)
            torch.save(c, bundle / ".state.pt")
            os.replace(bundle / ".state.pt", state)

    often = np.array([SHARP if s in head.data.SHARP else OFTEN.get(s, 1) for s in d.sets], float)[d.set[tr]]
    cumulative = np.cumsum(often / often.sum())
    teach, broader = head.Teaching(d, device), head.Broader(d, device)
    t = lambda a: torch.as_tensor(a, device=device)
    cw, cb = t(cw[d.known()]), t(cb[d.known()])
    y, sets, pair = t(d.y), t(d.set), t(d.pair)
    sizes, shares = list(SIZES), list(SIZES.values())
    total, count, seen, said_at, saved_at, was = 0.0, 0, 0, time.time(), time.time(), False
    model.train()
    while (part := (time.time() - begin) / left) < 1:
        rounding = part >= ROUNDING
        rate = min(1, part / 0.04) * 0.5 * (1 + math.cos(math.pi * part))
        for group in opt.param_groups:
            group["lr"] = group["rate"] * max(rate, 0.01)
        rows = tr[np.searchsorted(cumulative, rng.random(BATCH)).clip(max=len(tr) - 1)]
        size = int(rng.choice(sizes, p=shares))
        with torch.no_grad():
            theta = store.crops(rows, g)
            clear = store.sample(rows, theta, TEACHER)
            x = clear.clone() if size == TEACHER else store.sample(rows, theta, size)
            mixed = augment.mix([clear, x], MIXED, g)
            p = (teacher(normalise(clear, half)) @ cw.T + cb).softmax(1)
            x = normalise(augment.camera(x, g), half)
            ix = t(rows)
            names, wide = broader(y[ix], g)
            said, pairs = t(head.caption_of(d, rows, rng)), pair[ix]
            for a in (names, said, pairs):
                a[:mixed] = -1
        out = model(x, rounding)
        loss = teach(step, out, model.log_scale.exp(), names, wide, sets[ix], p, said, pairs)
        opt.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(opt)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        scaler.step(opt)
        scaler.update()
        step, count, seen, total = step + 1, count + 1, seen + BATCH, total + loss.detach()
        with torch.no_grad():
            keep = min(MEAN, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(mean.parameters()), list(model.parameters()), 1 - keep)
        now = time.time()
        if now - said_at > 15:
            e = embed(lambda x: mean(x, rounding), store, va, sizes[0], half)
            say(stage="tower", step=step, part=round(part, 3), rounding=rounding, loss=round(float(total) / count, 4), seen=seen,
                scale=round(mean.log_scale.exp().item(), 2), rate=round(rate, 3), grad=scaler.get_scale(), **evaluate(d, e, va))
            total, count, said_at = 0.0, 0, time.time()
        if now - saved_at > 60:
            save()
            saved_at = time.time()
    save(final=True)
    for r in (False, True):
        say(stage="end", rounding=r, step=step, **evaluate(d, embed(lambda x: mean(x, r), store, va, sizes[0], half), va))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
