"""What cameras do to pictures: a crop of one (NumPy, Pillow), and light, blur and noise on a batch of views (PyTorch)."""
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from reference import view


def crop(image, rng, size):
    """PIL image -> uint8 [size, size, 3]: a third the product's own view, the others 40 to 100 % of the picture at another
    aspect, some turned a little; half of them mirrored."""
    image = image.convert("RGB")
    w, h = image.size
    if rng.random() < 1 / 3:
        v = view(image, size)
    else:
        side = min(np.sqrt(w * h), 1.25 * min(w, h)) * np.sqrt(rng.uniform(0.4, 1))
        aspect = np.exp(rng.uniform(-0.25, 0.25))
        cw, ch = min(side * aspect, w), min(side / aspect, h)
        x, y = rng.uniform(0, w - cw), rng.uniform(0, h - ch)
        v = image.resize((size, size), Image.BICUBIC, box=(x, y, x + cw, y + ch))
        if rng.random() < 0.4:
            v = v.rotate(rng.uniform(-14, 14), Image.BILINEAR)
        v = np.asarray(v)
    return v[:, ::-1] if rng.random() < 0.5 else v


def kernels(n, g, d, side=11):
    """Blur [n, side, side]: half of it out of focus, half in motion."""
    u = torch.rand(4, n, generator=g, device=d)
    line = torch.arange(side, device=d) - side // 2
    x, y = line[None, None, :].float(), line[None, :, None].float()
    sigma = (0.5 + 2 * u[0])[:, None, None]
    focus = torch.exp(-(x * x + y * y) / (2 * sigma * sigma))
    angle, length = (math.pi * u[1])[:, None, None], (1 + 4.5 * u[2])[:, None, None]
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    motion = (1 - across.abs()).clamp(min=0) * (along.abs() <= length)
    k = torch.where((u[3] < 0.5)[:, None, None], focus, motion)
    return k / k.sum((1, 2), keepdim=True)


def camera(x, g):
    """x float [n, 3, size, size] in 0..1, changed in place and returned: light, white balance, contrast, colour, loss of sharpness,
    blur, noise, each on a part of the batch."""
    n, d, size = len(x), x.device, x.shape[2]
    u = lambda *shape: torch.rand(*shape, generator=g, device=d)
    normal = lambda *shape: torch.randn(*shape, generator=g, device=d)
    some = lambda share: torch.randperm(n, generator=g, device=d)[: int(n * share)]
    i = some(0.6)
    v = x[i]
    gain = torch.exp(0.25 * normal(len(i), 1, 1, 1) + 0.08 * normal(len(i), 3, 1, 1))
    v = (v.clamp(min=1e-3) ** torch.exp(0.2 * normal(len(i), 1, 1, 1)) * gain).clamp(0, 1)
    grey, mean = v.mean(1, keepdim=True), v.mean((1, 2, 3), keepdim=True)
    v = grey + (v - grey) * (0.4 + u(len(i), 1, 1, 1))
    x[i] = (mean + (v - mean) * (0.7 + 0.6 * u(len(i), 1, 1, 1))).clamp(0, 1)
    i = some(0.3)  # shrunk and enlarged again
    for low, part in zip((48, 64, 80, 112), i.chunk(4)):
        if len(part):
            v = F.interpolate(x[part], size=(low, low), mode="bilinear", antialias=True, align_corners=False)
            x[part] = F.interpolate(v, size=(size, size), mode="bicubic", align_corners=False).clamp(0, 1)
    i = some(0.25)
    if len(i):
        k = kernels(len(i), g, d)
        v = F.pad(x[i], (5, 5, 5, 5), "replicate").reshape(1, -1, size + 10, size + 10)
        x[i] = F.conv2d(v, k.repeat_interleave(3, 0)[:, None], groups=3 * len(i)).reshape(-1, 3, size, size)
    i = some(0.3)
    x[i] = x[i] + normal(len(i), 3, size, size) * (0.08 * u(len(i), 1, 1, 1))
    return (x.clamp(0, 1) * 255).round() / 255
