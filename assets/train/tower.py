"""EfficientNet-Lite in plain PyTorch, to be trained: batch norms keep their statistics, and rounding is as the engine rounds
(quant/clip, quant/kernel): weights in groups, each pixel of a block's input with its own scale, ReLU6 as 7-bit codes
before a depthwise convolution and 8-bit ones behind it. Gradients pass rounding by as if it were not there.
"""
import numpy as np
import torch
import torch.nn.functional as F

from reference import same

EPS = 1e-3  # of the package's batch norms
BITS = 7  # of pointwise weights; depthwise, stem and head have 8


class RoundedReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, steps):
        ctx.save_for_backward((x > 0) & (x < 6))
        return x.clamp(0, 6).mul_(steps / 6).round_().mul_(6 / steps)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0], None


class RoundedPixels(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        lo, hi = torch.aminmax(x, dim=1, keepdim=True)
        zero, step = (lo + hi) / 2, ((hi - lo) / 254).clamp(min=1e-6)
        return (x - zero).div_(step).round_().mul_(step).add_(zero)

    @staticmethod
    def backward(ctx, g):
        return g


def group(k):
    """qtype.Low.Group."""
    k = -(-k // 4) * 4
    return next((g for g in range(64, min(12, k - 4), -4) if k % g == 0), 64)


def rounded(w, bits):
    """A weight [N, K] as stored: 8 bits: a scale a row; fewer: a scale a group."""
    with torch.no_grad():
        n, k = w.shape
        if bits == 8:
            scale = w.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
            q = (w / scale).round() * scale
        else:
            g, zero = group(k), 2 ** (bits - 1)
            v = w.reshape(n, -1, g)
            scale = (v.abs().amax(2, keepdim=True) / (zero - 0.5)).clamp(min=2**-24)
            q = ((v / scale).round().clamp(-zero, zero - 1) * scale).reshape(n, k)
    return w + (q - w).detach()


class Layer(torch.nn.Module):
    """A convolution and its batch norm; groups: None or the number of channels."""

    def __init__(self, t, name, stride=1, depthwise=False):
        super().__init__()
        get = lambda k: torch.as_tensor(np.asarray(t[f"{name}.{k}"], np.float32))
        self.weight, self.gamma, self.beta = (torch.nn.Parameter(get(k)) for k in ("weight", "gamma", "beta"))
        self.register_buffer("mean", get("mean"))
        self.register_buffer("deviation", (get("variance") + EPS).sqrt())
        self.stride, self.depthwise = stride, depthwise
        self.bits = 8 if depthwise or self.weight.shape[2] > 1 else BITS

    def folded(self):
        """-> weight, bias with the batch norm in them."""
        scale = self.gamma / self.deviation
        return self.weight * scale[:, None, None, None], self.beta - self.mean * scale

    def forward(self, x, rounding):
        w, b = self.folded()
        if rounding:
            w = rounded(w.flatten(1), self.bits).reshape(w.shape)
        if self.stride > 1:
            x = same(x, w.shape[2], self.stride)
        pad = w.shape[2] // 2 if self.stride == 1 else 0
        return F.conv2d(x, w.to(x.dtype), b.to(x.dtype), self.stride, pad, groups=len(w) if self.depthwise else 1)


class Tower(torch.nn.Module):
    """x [n, 3, size, size], normalised -> pooled features [n, features]. config: the image part of model.json."""

    def __init__(self, config, t):
        super().__init__()
        self.blocks = config["blocks"]
        self.layers = torch.nn.ModuleDict()
        self.add(t, "image.stem", 2)
        for i, b in enumerate(self.blocks):
            name = f"image.block.{i:02d}."
            if b["e"] != 1:
                self.add(t, name + "expand")
            self.add(t, name + "depthwise", b["s"], True)
            self.add(t, name + "project")
        self.add(t, "image.features")

    def add(self, t, name, *args):
        self.layers[name.replace(".", "/")] = Layer(t, name, *args)

    def forward(self, x, rounding=False):
        layer = lambda x, name: self.layers[name.replace(".", "/")](x, rounding)
        relu6 = (lambda x, steps: RoundedReLU6.apply(x, steps)) if rounding else lambda x, steps: F.relu6(x)
        pixels = RoundedPixels.apply if rounding else lambda x: x
        x = F.relu6(layer(x, "image.stem"))
        for i, b in enumerate(self.blocks):
            name, before = f"image.block.{i:02d}.", x
            if b["e"] == 1:
                x = pixels(F.relu6(layer(x, name + "depthwise")))
            else:
                x = relu6(layer(pixels(x), name + "expand"), 127)
                x = relu6(layer(x, name + "depthwise"), 254)
            x = layer(x, name + "project")
            if b["s"] == 1 and b["in"] == b["out"]:
                x = x + before
        return F.relu6(layer(pixels(x), "image.features")).float().mean((2, 3))

    def tensors(self):
        """-> name: float32 array, folded, as the float model directory has them."""
        out = {}
        with torch.no_grad():
            for name, layer in self.layers.items():
                w, b = layer.folded()
                name = name.replace("/", ".")
                w = w.permute(0, 2, 3, 1) if name == "image.stem" else w
                out[name + ".weight"], out[name + ".bias"] = w.flatten(1).cpu().numpy(), b.cpu().numpy()
        return out
