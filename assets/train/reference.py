"""The model in plain PyTorch, from a float model directory alone (model.json,
model.safetensors, vocab.txt). It shares no code with the backbone's package:
the check that an export says what it should, and the source of the goldens.
"""
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import load_file


def view(image, size):
    """PIL image -> uint8 [size, size, 3]: short side to size by Pillow's bicubic, centre crop, as torchvision does."""
    image = image.convert("RGB")
    w, h = image.size
    width, height = (size, size * h // w) if w <= h else (size * w // h, size)
    image = image.resize((width, height), Image.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def same(x, k, s):
    """TensorFlow's SAME padding: the odd pixel goes to the end."""
    h, w = (max((-(-n // s) - 1) * s + k - n, 0) for n in x.shape[-2:])
    return F.pad(x, (w // 2, w - w // 2, h // 2, h - h // 2))


class Reference:
    """config and tensors as the Go engine reads them; weights float32."""

    def __init__(self, config, tensors, vocab=None):
        self.config, self.vocab = config, vocab
        self.t = {k: torch.as_tensor(np.asarray(v, np.float32)) for k, v in tensors.items()}

    @classmethod
    def load(cls, directory):
        d = Path(directory)
        vocab = (d / "vocab.txt").read_text(encoding="utf-8").splitlines() if (d / "vocab.txt").exists() else None
        return cls(json.loads((d / "model.json").read_text()), load_file(d / "model.safetensors"), vocab)

    def normalize(self, views):
        """uint8 [n, size, size, 3] -> float32 [n, 3, size, size]."""
        c = self.config["image"]
        x = torch.as_tensor(np.asarray(views, np.float32)) / 255
        return ((x - torch.tensor(c["mean"])) / torch.tensor(c["std"])).permute(0, 3, 1, 2).contiguous()

    def features(self, x, taps=None):
        """Pooled features [n, features]. taps, a dict, receives the activations in between, channels last."""
        t, c = self.t, self.config["image"]
        tap = (lambda name, y: None) if taps is None else (lambda name, y: taps.__setitem__(name, y.permute(0, 2, 3, 1).contiguous()))

        def point(x, name, clamp):
            w = t[name + ".weight"]
            y = F.conv2d(x, w[:, :, None, None], t[name + ".bias"])
            return y.clamp(0, 6) if clamp else y

        w = t["image.stem.weight"]
        w = w.reshape(w.shape[0], 3, 3, 3).permute(0, 3, 1, 2)  # columns are ky, kx, rgb
        x = F.conv2d(same(x, 3, 2), w, t["image.stem.bias"], stride=2).clamp(0, 6)
        tap("stem", x)
        for i, b in enumerate(c["blocks"]):
            name, k, s, before = f"image.block.{i:02d}.", b["k"], b["s"], x
            if b["e"] != 1:
                x = point(x, name + "expand", True)
            w = t[name + "depthwise.weight"]
            x = F.conv2d(same(x, k, s), w.reshape(-1, 1, k, k), t[name + "depthwise.bias"], stride=s, groups=len(w)).clamp(0, 6)
            x = point(x, name + "project", False)
            if s == 1 and b["in"] == b["out"]:
                x = x + before
            tap(f"block.{i:02d}", x)
        return point(x, "image.features", True).mean((2, 3))

    def project(self, features):
        """Pooled features -> embeddings, unit length. Beside a posterior the last row of the projection is the gate."""
        t, c = self.t, self.config["image"]
        linear = lambda x, name: x @ t[f"image.{name}.weight"].T + t.get(f"image.{name}.bias", 0)
        u = linear(features, "project")
        h, gate = (u[..., :-1], u[..., -1:]) if c.get("posterior") else (u, None)
        if c.get("hidden"):
            h = h + linear(F.gelu(linear(features, "hidden")), "widen")
        h = F.normalize(h, dim=-1)
        if gate is None:
            return h
        q = linear(linear(features, "posterior").softmax(-1), "names")  # not normalised: it is short where the posterior is spread
        return F.normalize(h + gate.sigmoid() * q, dim=-1)

    def image(self, views):
        with torch.no_grad():
            return self.project(self.features(self.normalize(views))).numpy()

    def token_text(self, ids):
        """One text's token ids -> embedding [D], unit length."""
        t = self.t
        e = t["text.token.weight"][torch.as_tensor(ids, dtype=torch.long)]
        a = (e @ t["text.pool.weight"][0]).softmax(0)
        h = F.gelu((a[:, None] * e).sum(0) @ t["text.fc1.weight"].T + t["text.fc1.bias"])
        return F.normalize(h @ t["text.fc2.weight"].T + t["text.fc2.bias"], dim=-1)

    def text(self, label, tokenize):
        """A label through the text tower: the mean over the templates, unit length."""
        c = self.config["text"]
        with torch.no_grad():
            e = [self.token_text(tokenize(p.replace("{}", label))[: c["context"]]) for p in c["templates"]]
            return F.normalize(torch.stack(e).mean(0), dim=-1).numpy()
