"""Pictures in the training device's memory, views of them, and what cameras do to views: all in batches, on the device."""
import io
import math
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

# Pictures lie in squares of these sides, the soft ones (shorter side up to 128) in the first.
SIDES = 160, 336


def decode(blobs):
    """Encoded pictures -> [(side's index, uint8 [3, side, side], height, width)]: in the upper left, edges repeated."""
    out = []
    for b in blobs:
        a = np.asarray(Image.open(io.BytesIO(b)).convert("RGB"))
        k = int(min(a.shape[:2]) > 128)
        side = SIDES[k]
        for axis in 0, 1:  # of what is too long the middle
            cut = max(0, a.shape[axis] - side)
            a = np.take(a, range(cut // 2, a.shape[axis] - (cut - cut // 2)), axis)
        h, w = a.shape[:2]
        a = np.pad(a, ((0, side - h), (0, side - w), (0, 0)), "edge")
        out.append((k, a.transpose(2, 0, 1).copy(), h, w))
    return out


class Store:
    """Decoded pictures. Views are float [n, 3, size, size] in 0..1."""

    def __init__(self, blobs, device, jobs):
        chunks = [blobs[i : i + 200] for i in range(0, len(blobs), 200)]
        parts, self.device = ([], []), device
        self.kind, self.row, hw = np.zeros(len(blobs), int), np.zeros(len(blobs), int), np.zeros((len(blobs), 2), "f4")
        with ProcessPoolExecutor(jobs) as pool:
            for i, (k, a, h, w) in enumerate(x for c in pool.map(decode, chunks) for x in c):
                self.kind[i], self.row[i], hw[i] = k, len(parts[k]), (h, w)
                parts[k].append(torch.from_numpy(a))
        self.pixels = [torch.stack(p).to(device) if p else None for p in parts]
        self.hw = torch.from_numpy(hw).to(device)

    def sample(self, rows, theta, size):
        """rows: numpy indices; theta [n, 2, 3]: from -1..1 of the view to pixels of the picture."""
        out = torch.empty(len(rows), 3, size, size, device=self.device)
        line = (torch.arange(size, device=self.device) + 0.5) * (2 / size) - 1
        base = torch.stack([line.expand(size, size), line[:, None].expand(size, size), torch.ones(size, size, device=self.device)], -1)
        for k, side in enumerate(SIDES):
            at = np.where(self.kind[rows] == k)[0]
            if len(at):
                at_d = torch.as_tensor(at, device=self.device)
                x = self.pixels[k][torch.as_tensor(self.row[rows[at]], device=self.device)].float() / 255
                grid = torch.einsum("hwk,njk->nhwj", base, theta[at_d]) * (2 / side) - 1
                out[at_d] = F.grid_sample(x, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)
        return out

    def centre(self, rows):
        """theta of the centre square, as the product crops."""
        hw = self.hw[torch.as_tensor(rows, device=self.device)]
        half = hw.min(1).values / 2
        theta = torch.zeros(len(rows), 2, 3, device=self.device)
        theta[:, 0, 0] = theta[:, 1, 1] = half
        theta[:, 0, 2], theta[:, 1, 2] = hw[:, 1] / 2, hw[:, 0] / 2
        return theta

    def crops(self, rows, g):
        """theta of random crops: a third the centre square, the others 40 to 100 % of the picture, some turned a little."""
        n, d = len(rows), self.device
        u = lambda lo, hi: torch.rand(n, generator=g, device=d) * (hi - lo) + lo
        hw = self.hw[torch.as_tensor(rows, device=d)]
        side = (hw.prod(1).sqrt().clamp(max=1.25 * hw.min(1).values)) * u(0.4, 1).sqrt()
        aspect = torch.exp(u(-0.25, 0.25))
        w, h = torch.minimum(side * aspect, hw[:, 1]), torch.minimum(side / aspect, hw[:, 0])
        x, y = (hw[:, 1] - w) * u(0, 1) + w / 2, (hw[:, 0] - h) * u(0, 1) + h / 2
        turn = torch.where(u(0, 1) < 0.4, u(-0.25, 0.25), torch.zeros(n, device=d))
        cos, sin = turn.cos(), turn.sin()
        theta = torch.stack([torch.stack([cos * w / 2, -sin * h / 2, x], 1), torch.stack([sin * w / 2, cos * h / 2, y], 1)], 1)
        theta = torch.where((u(0, 1) < 1 / 3)[:, None, None], self.centre(rows), theta)
        flip = torch.where(u(0, 1) < 0.5, -1.0, 1.0)
        return torch.cat([theta[:, :, :1] * flip[:, None, None], theta[:, :, 1:]], 2)


def mix(views, share, g):
    """The first of the batch become mixtures with others of it, half of them blended, half pasted into: the same way in
    every tensor of views. -> how many."""
    n = int(len(views[0]) * share)
    d = views[0].device
    u = torch.rand(4, n, generator=g, device=d)
    partner = torch.randperm(len(views[0]), generator=g, device=d)[:n]
    for x in views:
        size = x.shape[2]
        line = (torch.arange(size, device=d) + 0.5) / size
        half = (0.15 + 0.25 * u[0])[:, None]
        inside = [((line[None] - u[k][:, None]).abs() < half).float() for k in (1, 2)]
        paste = inside[0][:, :, None] * inside[1][:, None, :]
        blend = (u[0] * 0.5)[:, None, None].expand_as(paste)
        weight = torch.where((u[3] < 0.5)[:, None, None], paste, blend)[:, None]
        x[:n] = x[:n] * (1 - weight) + x[partner] * weight
    return n


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
    """Light, white balance, contrast, colour, loss of sharpness, blur, noise: each on a part of the batch."""
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
