"""A small vision transformer with trained weights, to measure quantization on. It is not shipped.

CLIP's image tower at 64 pixels (quant/clip, kind "vit"), trained into the space of the shipped model, whose own image
tower is the teacher: the text side is taken over as it is.

vit.py pack                 OUT/vit/pack.npz, all that training needs (20 MB): pictures, labels, names, teacher
vit.py train SECONDS DIR    DIR/vit.safetensors, the averaged weights as halves; goes on from its state
vit.py export DIR MODEL     the float model directory MODEL for shq convert

train needs this file, paths.py, reference.py and the pack alone: it can run elsewhere. SECONDS count all runs together.
"""
import argparse
import io
import json
import math
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from paths import MODEL, OUT, SEED, THREADS, replace
from reference import Reference

SIDE = 72  # pictures are kept a little larger than the view
TILES = 16  # across a sheet of pictures
QUALITY, FINE = 23, 60  # of sheets, the second where pictures are tiny: the pack stays under 20 MiB
LEFT_OUT = ("flickr8k",)  # no names, only captions
VIEWS, TEACHING = 8, 0.15  # crops of a picture that the teacher looks at, at most; its share of the time
WARM, DECAY = 0.05, 0.08
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
BATCH, RATE = (1024, 1.2e-3) if CUDA else (64, 6e-4)
IMAGE = {
    "kind": "vit", "size": 64, "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711],
    "patch": 8, "width": 192, "layers": 12, "heads": 3, "mlp": 768, "activation": "quick_gelu", "eps": 1e-5,
}
EMBED = 512


# ---- the network: a dictionary of tensors under the names of quant/clip ------


def start_weights(c, rng):
    """Small normals, residual branches smaller with depth; gains 1, biases 0."""
    w, t = c["width"], {}

    def add(name, *shape, std=0.02):
        t[name + ".weight"] = torch.randn(shape, generator=rng) * std

    def layer(name, n, k, std=0.02):
        add(name, n, k, std=std)
        t[name + ".bias"] = torch.zeros(n)

    def norm(name):
        t[name + ".weight"], t[name + ".bias"] = torch.ones(w), torch.zeros(w)

    add("image.patch", w, c["patch"] ** 2 * 3)
    add("image.class", 1, w)
    add("image.position", (c["size"] // c["patch"]) ** 2 + 1, w)
    norm("image.pre")
    branch = 0.02 / math.sqrt(2 * c["layers"]) * 2
    for i in range(c["layers"]):
        name = f"image.layer.{i:02d}."
        norm(name + "norm1")
        layer(name + "attn.in", 3 * w, w, std=w**-0.5)
        layer(name + "attn.out", w, w, std=branch)
        norm(name + "norm2")
        layer(name + "mlp.in", c["mlp"], w, std=w**-0.5)
        layer(name + "mlp.out", w, c["mlp"], std=branch)
    norm("image.post")
    add("image.project", EMBED, w, std=w**-0.5)
    return t


def encode(t, c, x):
    """x [n, 3, size, size] in 0..1 -> [n, EMBED], unit length."""
    n, p, w, heads = len(x), c["patch"], c["width"], c["heads"]
    g = c["size"] // p
    rgb = lambda v: torch.tensor(v, device=x.device)[:, None, None]
    x = (x - rgb(c["mean"])) / rgb(c["std"])
    x = x.view(n, 3, g, p, g, p).permute(0, 2, 4, 3, 5, 1).reshape(n, g * g, -1)  # columns are ky, kx, rgb
    norm = lambda h, name: F.layer_norm(h, (w,), t[name + ".weight"], t[name + ".bias"], c["eps"])
    layer = lambda h, name: F.linear(h, t[name + ".weight"], t.get(name + ".bias"))
    h = torch.cat([t["image.class.weight"].expand(n, 1, w), layer(x, "image.patch")], 1) + t["image.position.weight"]
    h = norm(h, "image.pre")
    for i in range(c["layers"]):
        name = f"image.layer.{i:02d}."
        q, k, v = layer(norm(h, name + "norm1"), name + "attn.in").view(n, -1, 3, heads, w // heads).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, -1, w)
        h = h + layer(a, name + "attn.out")
        m = layer(norm(h, name + "norm2"), name + "mlp.in")
        h = h + layer(m * torch.sigmoid(1.702 * m), name + "mlp.out")
    return F.normalize(layer(norm(h[:, 0], "image.post"), "image.project").float(), dim=-1)


# ---- the pack --------------------------------------------------------------


def shrink(a):
    """Rows as int8 and their scales."""
    s = np.abs(a).max(-1, keepdims=True).clip(1e-9) / 127
    return np.round(a / s).astype("i1"), s.astype("f4")


def sheets(pictures, side):
    """Square pictures, TILES x TILES of them to a WebP."""
    for i in range(0, len(pictures), TILES**2):
        part = pictures[i : i + TILES**2]
        sheet = Image.new("RGB", (TILES * side, -(-len(part) // TILES) * side))
        for q, p in enumerate(part):
            sheet.paste(Image.fromarray(p), (q % TILES * side, q // TILES * side))
        out = io.BytesIO()
        sheet.save(out, "webp", quality=QUALITY if side > 32 else FINE, method=6)
        yield np.frombuffer(out.getvalue(), "u1")


def pack(_):
    import data
    import head
    from reference import view

    rng = np.random.default_rng(SEED)
    d = head.Labels.make(LEFT_OUT)
    train, validation = head.split(d, rng)
    out = {"y": d.y.astype("i2"), "set": d.set.astype("i1"), "sets": np.array(d.sets), "own": d.own, "train": train.astype("i4"), "validation": validation.astype("i4")}
    for k, e in ("text", d.text), ("ready", d.ready):
        out[k], out[k + ".scale"] = shrink(e)
    tower = {k: v for k, v in load_file(MODEL / "model.safetensors").items() if k.startswith("image.")}
    for k, v in tower.items():
        # The first blocks bear rounding least (run.sh).
        if v.ndim < 2 or k.startswith(tuple(f"image.block.{i:02d}." for i in range(4))):
            out[k] = v.astype("f2")
        else:
            out[k], out[k + ".scale"] = shrink(v)
    model = json.loads((MODEL / "model.json").read_text())
    out["teacher"] = np.array(json.dumps(model))
    for s in d.sets:
        keep = {m for q, m in zip(d.set, d.members) if d.sets[q] == s}
        side = min(SIDE, min(min(p.size) for _, p in data.pictures(data.tar_of(s))))
        pictures = [view(p, side) for m, p in data.pictures(data.tar_of(s)) if m in keep]
        assert len(pictures) == len(keep)
        for i, sheet in enumerate(sheets(pictures, side)):
            out[f"sheet.{s}.{i:02d}"] = sheet
        print(f"{s}: {len(pictures)} pictures of {side} pixels", flush=True)
    path = OUT / "vit/pack.npz"
    path.parent.mkdir(exist_ok=True)
    replace(path, lambda p: np.savez_compressed(p.open("wb"), **out))
    print(f"{path}: {len(d.y)} pictures, {path.stat().st_size / 1e6:.1f} MB")


class Pack:
    """The pack on the device. limit: that many pictures only, evenly taken."""

    def __init__(self, path, limit=None):
        z = np.load(path)
        put = lambda a: torch.as_tensor(a).to(DEVICE)
        wide = lambda k: z[k] * z[k + ".scale"] if k + ".scale" in z else z[k].astype("f4")
        self.sets = [str(s) for s in z["sets"]]
        self.y, self.set = put(z["y"].astype("i8")), put(z["set"].astype("i8"))
        self.own = put(np.where(z["own"], 0, -1e4).astype("f4"))
        self.train, self.validation = z["train"].astype("i8"), put(z["validation"].astype("i8"))
        if limit:
            self.train = self.train[:: -(-len(self.train) // limit)]
        self.texts = [F.normalize(put(wide(k)), dim=-1) for k in ("text", "ready")]
        teacher = json.loads(str(z["teacher"]))
        self.scale = teacher["logit_scale"]
        self.teacher = Reference(teacher, {k: wide(k) for k in z if k.startswith("image.") and not k.endswith(".scale")})
        half = torch.float16 if CUDA else torch.float32
        self.teacher.t = {k: v.to(DEVICE, torch.float32 if k.startswith("image.project") else half) for k, v in self.teacher.t.items()}
        self.half = half
        count, parts = np.bincount(z["set"], minlength=len(self.sets)), []
        for i, s in enumerate(self.sets):
            rows = [np.asarray(Image.open(io.BytesIO(z[k].tobytes())).convert("RGB")) for k in sorted(z) if k.startswith(f"sheet.{s}.")]
            side = rows[0].shape[1] // TILES
            tiles = np.concatenate([a.reshape(-1, side, TILES, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3) for a in rows])
            x = torch.as_tensor(tiles[: count[i]]).permute(0, 3, 1, 2)
            for q in x.split(1024):
                q = q.to(DEVICE).float()
                if side != SIDE:
                    q = F.interpolate(q, SIDE, mode="bicubic").clamp(0, 255)
                parts.append(q.round().byte())
        self.pixels = torch.cat(parts)  # [n, 3, SIDE, SIDE]

    def load(self, rows):
        return self.pixels[rows].float() / 255

    def teach(self, x):
        """x [n, 3, h, w] in 0..1 -> the teacher's embeddings."""
        with torch.no_grad():
            x = ((x * 255 - 127) / 128).to(self.half, memory_format=torch.channels_last)
            return self.teacher.project(self.teacher.features(x).float())

    def accuracy(self, e):
        """Of the embeddings of the validation pictures, per set among its own names, percent."""
        y, s = self.y[self.validation], self.set[self.validation]
        ok = (e @ self.texts[0].T + self.own[s]).argmax(1) == y
        out = {n: (s == i) & (y >= 0) for i, n in enumerate(self.sets)}
        return {n: round(100 * ok[m].float().mean().item(), 1) for n, m in out.items() if m.any()}


def told(accuracy):
    return f"mean {np.mean(list(accuracy.values())):.1f} " + " ".join(f"{k} {v}" for k, v in accuracy.items())


# ---- views of pictures -----------------------------------------------------


def uniform(lo, hi, *shape):
    return torch.rand(shape, device=DEVICE) * (hi - lo) + lo


def boxes(n):
    """Random crops: centre x, y and half sides in -1..1; a negative width mirrors."""
    side = uniform(0.3, 1, n).sqrt()
    narrow = uniform(-0.14, 0.14, n).exp()
    sx, sy = (side * narrow).clamp(max=1), (side / narrow).clamp(max=1)
    mirror = torch.where(uniform(0, 1, n) < 0.5, -1, 1)
    return torch.stack([uniform(-1, 1, n) * (1 - sx), uniform(-1, 1, n) * (1 - sy), sx * mirror, sy], 1)


def shifted(box):
    """A box nearly the same: what the teacher said of it still holds."""
    c, s = box[:, :2], box[:, 2:] * uniform(0.94, 1.06, len(box), 2)
    s = s.clamp(-1, 1)
    room = 1 - s.abs()
    c = (c + uniform(-0.06, 0.06, len(box), 2)).clamp(-room, room)
    return torch.cat([c, s], 1)


def crop(x, box, size):
    cx, cy, sx, sy = box.T
    zero = torch.zeros_like(cx)
    theta = torch.stack([sx, zero, cx, zero, sy, cy], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, (len(x), 3, size, size), align_corners=False)
    return F.grid_sample(x, grid, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(0, 1)


def centre(x, size):
    return F.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 1)


def disturb(x):
    """Colour, contrast, sharpness and noise, each picture its own."""
    n = len(x)
    u = lambda lo, hi, c=1: uniform(lo, hi, n, c, 1, 1)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = x + u(-1, 0.6) * (x - soft)
    x = x * u(0.65, 1.35) * u(0.92, 1.08, 3)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * u(0.65, 1.35)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * u(0.4, 1.5)
    return (x + u(0, 0.03) * torch.randn_like(x)).clamp(0, 1)


def teach_views(p, seconds):
    """The teacher on random crops of every picture, as many as the time allows -> boxes [views, n, 4], embeddings [views, n, EMBED]."""
    all_boxes, said, begin = [], [], time.time()
    rows = torch.as_tensor(np.unique(p.train)).to(DEVICE)
    while len(said) < VIEWS and (not said or (time.time() - begin) * (1 + 1 / len(said)) < seconds):
        b = boxes(len(p.y))
        e = torch.zeros(len(p.y), EMBED, device=DEVICE, dtype=torch.float16)
        for r in rows.split(512 if CUDA else 16):
            e[r] = p.teach(crop(p.load(r), b[r], 224)).half()
        if CUDA:
            torch.cuda.synchronize()
        all_boxes.append(b)
        said.append(e)
        print(f"teacher: view {len(said)}, {time.time() - begin:.0f} s", flush=True)
    return torch.stack(all_boxes), torch.stack(said)


# ---- training --------------------------------------------------------------


def train(a):
    begin = time.time()
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    c = {**IMAGE, "patch": a.patch, "layers": a.layers}
    state = Path(a.state or a.dir)
    for d in (state, Path(a.dir)):
        d.mkdir(parents=True, exist_ok=True)
    p = Pack(a.pack, a.limit)
    print(f"{DEVICE}, {len(p.y)} pictures, {len(p.validation)} for validation, {time.time() - begin:.0f} s", flush=True)

    t = {k: v.to(DEVICE).requires_grad_() for k, v in start_weights(c, torch.Generator().manual_seed(SEED)).items()}
    t["scale"] = torch.tensor(3.0, device=DEVICE, requires_grad=True)
    matrices = [k for k, v in t.items() if v.ndim == 2 and "position" not in k and "class" not in k]
    opt = torch.optim.AdamW(
        [{"params": [t[k] for k in matrices], "weight_decay": DECAY}, {"params": [v for k, v in t.items() if k not in matrices], "weight_decay": 0.0}],
        lr=RATE, betas=(0.9, 0.98), fused=CUDA)
    mean, step = {k: v.detach().clone() for k, v in t.items()}, 0
    if (state / "resume.pt").exists():
        s = torch.load(state / "resume.pt", map_location=DEVICE, weights_only=True)
        with torch.no_grad():
            for k, v in t.items():
                v.copy_(s["weights"][k])
        mean, step = s["mean"], s["step"]
        opt.load_state_dict(s["opt"])
        begin -= s["seconds"]
        print(f"resumed at step {step}, {s['seconds']:.0f} s", flush=True)
    if (state / "views.pt").exists():
        where, said = torch.load(state / "views.pt", map_location=DEVICE, weights_only=True)
    else:
        e = torch.cat([p.teach(centre(p.load(r), 224)) for r in p.validation.split(256 if CUDA else 16)])
        print("teacher:", told(p.accuracy(e)), flush=True)
        where, said = teach_views(p, TEACHING * a.seconds)
        replace(state / "views.pt", lambda f: torch.save((where, said), f))
    elapsed = lambda: time.time() - begin

    def validate():
        with torch.no_grad(), autocast():
            return p.accuracy(torch.cat([encode(mean, c, centre(p.load(r), c["size"])) for r in p.validation.split(512 if CUDA else 64)]))

    def save():
        halves = {k: v.half().cpu().numpy() for k, v in mean.items()}
        text = {"image": json.dumps(c), "seconds": f"{elapsed():.0f}", "step": str(step)}
        replace(Path(a.dir) / "vit.safetensors", lambda f: save_file(halves, f, text))
        whole = {"weights": {k: v.detach() for k, v in t.items()}, "mean": mean, "opt": opt.state_dict(), "step": step, "seconds": elapsed()}
        replace(state / "resume.pt", lambda f: torch.save(whole, f))

    def autocast():
        return torch.autocast(DEVICE.type, torch.bfloat16)

    order, at, total, count, cost = torch.empty(0, dtype=torch.long), 0, 0.0, 0, 0.0
    report, saved = elapsed() + 15, elapsed()
    while elapsed() < a.seconds - 2 * cost - 2:
        if at + BATCH > len(order):
            q = torch.as_tensor(p.train)
            order, at = q[torch.randperm(len(q))].to(DEVICE), 0
        rows = order[at : at + BATCH]
        at += len(rows)
        done = elapsed() / a.seconds
        for g in opt.param_groups:
            g["lr"] = RATE * min(1, done / WARM, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done))
        view = torch.randint(len(said), (len(rows),), device=DEVICE)
        x, e, y, s = crop(p.load(rows), shifted(where[view, rows]), c["size"]), said[view, rows].float(), p.y[rows], p.set[rows]
        x = disturb(x)
        # Half of the batch is mixed with other pictures of it.
        lam = torch.where(uniform(0, 1, len(rows)) < 0.5, uniform(0.5, 1, len(rows)), 1.0)[:, None]
        other = torch.randperm(len(rows), device=DEVICE)
        x = lam[..., None, None] * x + (1 - lam[..., None, None]) * x[other]
        text = p.texts[step % 2]
        # Over the bank: half the label, half the teacher's posterior.
        target = (p.scale * e @ text.T).softmax(1)
        named = y >= 0
        hard = F.one_hot(y.clamp(min=0), len(text))
        target = torch.where(named[:, None], 0.5 * hard + 0.5 * target, target)
        target = lam * target + (1 - lam) * target[other]
        taught = F.normalize(lam * e + (1 - lam) * e[other], dim=-1)
        with autocast():
            out = encode(t, c, x)
        logits = t["scale"].exp() * out @ text.T
        loss = -(target * logits.log_softmax(1)).sum(1).mean()
        for part, share in (slice(None), lam[:, 0]), (other, 1 - lam[:, 0]):  # among the set's own names
            own = F.cross_entropy(logits + p.own[s[part]], y[part].clamp(min=0), reduction="none")
            loss = loss + 0.5 * (own * share * named[part]).mean()
        loss = loss + 2 * (1 - (out * taught).sum(1)).mean()
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(t.values()), 1.0)
        opt.step()
        step += 1
        with torch.no_grad():
            torch._foreach_lerp_(list(mean.values()), [v.detach() for v in t.values()], 1 - min(0.998, (1 + step) / (10 + step)))
        total, count = total + loss.detach(), count + 1
        if elapsed() >= report:
            accuracy, at_report = validate(), elapsed()
            print(f"{elapsed():.0f} s, step {step}, epoch {step * BATCH / len(p.train):.1f}: loss {total / count:.3f}, scale {t['scale'].exp():.1f}, {told(accuracy)}", flush=True)
            cost, total, count = elapsed() - report, 0.0, 0
            report = elapsed() + max(15, 20 * cost)
        if elapsed() >= saved + 60:
            save()
            saved = elapsed()
    save()
    print(f"{elapsed():.0f} s, step {step}: {told(validate())}", flush=True)


# ---- export ----------------------------------------------------------------


def load(directory):
    """-> configuration, tensors, logit scale"""
    with safe_open(Path(directory) / "vit.safetensors", "np") as f:
        c = json.loads(f.metadata()["image"])
        t = {k: f.get_tensor(k).astype("f4") for k in f.keys()}
    return c, t, float(np.exp(t.pop("scale")))


def export(a):
    import data
    import head
    from reference import view

    torch.set_num_threads(THREADS)
    rng = np.random.default_rng(SEED)
    c, t, scale = load(a.dir)
    d = head.Labels.make(LEFT_OUT)
    _, validation = head.split(d, rng)
    chosen = {(d.sets[d.set[i]], d.members[i]): i for i in validation}
    d.x = np.zeros((len(d.y), EMBED), "f4")
    weights = {k: torch.as_tensor(v) for k, v in t.items()}
    for s in d.sets:
        part = [(chosen[s, m], view(p, c["size"])) for m, p in data.pictures(data.tar_of(s)) if (s, m) in chosen]
        x = torch.as_tensor(np.stack([v for _, v in part])).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            d.x[[i for i, _ in part]] = torch.cat([encode(weights, c, q) for q in x.split(64)]).numpy()
    print("validation:", told(head.accuracy(d, d.x, validation)))
    temperature, none_cosine = head.calibrate(d, [d.x], scale, validation, rng)

    model = json.loads((MODEL / "model.json").read_text())
    model |= {"logit_scale": scale, "temperature": temperature, "none_cosine": none_cosine, "image": c}
    text = {k: v for k, v in load_file(MODEL / "model.safetensors").items() if not k.startswith("image.")}
    t["image.patch.bias"], t["image.project.bias"] = np.zeros(c["width"], "f4"), np.zeros(EMBED, "f4")
    out = Path(a.model)
    out.mkdir(parents=True, exist_ok=True)
    replace(out / "model.safetensors", lambda f: save_file({k: np.ascontiguousarray(v) for k, v in sorted((t | text).items())}, f))
    (out / "model.json").write_text(json.dumps(model, indent=1) + "\n")
    for name in ("vocab.txt", "ready_names.txt"):
        shutil.copy(MODEL / name, out / name)
    print(f"{out}: {sum(v.size for v in t.values()) / 1e6:.2f} M weights in the image tower")


def main():
    p = argparse.ArgumentParser()
    sub = p.add_subparsers(required=True)
    sub.add_parser("pack").set_defaults(run=pack)
    q = sub.add_parser("train")
    q.add_argument("seconds", type=float)
    q.add_argument("dir")
    q.add_argument("--pack", default=OUT / "vit/pack.npz")
    q.add_argument("--state", help="folder of what a later run goes on from (150 MB), if not DIR")
    q.add_argument("--limit", type=int, help="train on about so many pictures")
    q.add_argument("--patch", type=int, default=IMAGE["patch"])
    q.add_argument("--layers", type=int, default=IMAGE["layers"])
    q.set_defaults(run=train)
    q = sub.add_parser("export")
    q.add_argument("dir")
    q.add_argument("model")
    q.set_defaults(run=export)
    a = p.parse_args()
    a.run(a)


if __name__ == "__main__":
    main()
