"""Write the peers' models, and what our engine needs of the same towers, to a folder: make.py OUT SAMPLES [MODEL ...].

OUT/MODEL.WEIGHTS.onnx; OUT/MODEL.input.f32 and .embedding.f32, a picture [3,224,224] and what PyTorch makes of it;
OUT/lite2/: the float model directory that `shq convert` reads. SAMPLES holds photographs. What is there is kept."""
import json
import logging
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

import towers

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
SIZE = towers.SIZE


def photographs(folder):
    """-> [N,3,224,224] centre crops, (byte - 127)/128."""
    out = []
    for path in sorted(Path(folder).glob("*.jpg")):
        im = Image.open(path).convert("RGB")
        s = SIZE / min(im.size)
        w, h = (max(SIZE, round(v * s)) for v in im.size)
        x, y = (w - SIZE) // 2, (h - SIZE) // 2
        im = im.resize((w, h), Image.BICUBIC).crop((x, y, x + SIZE, y + SIZE))
        out.append((np.asarray(im, "f4").transpose(2, 0, 1) - 127) / 128)
    return np.stack(out)


class Reader(CalibrationDataReader):
    def __init__(self, pictures):
        self.left = iter(pictures)

    def get_next(self):
        x = next(self.left, None)
        return None if x is None else {"pixel_values": x[None]}


def dynamic8(src, dst, _):
    # A convolution quantized as it runs becomes a slow ConvInteger: the patches stay in float.
    quantize_dynamic(src, dst, weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul", "Gemm"], extra_options={"DefaultTensorType": 1})


def blocks4(src, dst, _):
    q = MatMulNBitsQuantizer(onnx.load(src), block_size=32, is_symmetric=True, accuracy_level=4)
    q.process()
    q.model.save_model_to_file(str(dst), False)


def static8(src, dst, pictures):
    pre = Path(dst).with_suffix(".pre")
    quant_pre_process(src, pre, skip_symbolic_shape=True)
    quantize_static(pre, dst, Reader(pictures), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                    per_channel=True, calibrate_method=CalibrationMethod.MinMax,
                    op_types_to_quantize=["Conv", "Add", "Clip", "ReduceMean", "GlobalAveragePool", "MatMul", "Gemm", "Pad"])
    pre.unlink()


VARIANTS = {
    "vit-b-32": {"uint8": dynamic8, "uint4": blocks4},
    "vit-tiny-16": {"uint8": dynamic8, "uint4": blocks4},
    "lite2": {"int8": static8},
}


def model_dir(net, out):
    """The tower as a float model directory. Its text side is a stub: the benchmark asks for pictures only."""
    from safetensors.numpy import save_file

    tensors, blocks = {}, []

    def put(name, layer, shape=lambda w: w.reshape(len(w), -1)):
        tensors[name + ".weight"], tensors[name + ".bias"] = shape(layer.weight).numpy(), layer.bias.numpy()

    put("image.stem", net.stem.conv, lambda w: w.permute(0, 2, 3, 1).reshape(len(w), -1))
    for i, b in enumerate(net.blocks):
        name, d = f"image.block.{i:02d}.", b.depthwise.conv
        if b.expand:
            put(name + "expand", b.expand.conv)
        put(name + "depthwise", d)
        put(name + "project", b.project.conv)
        wide = (b.expand or b.depthwise).conv
        blocks.append({"k": d.kernel_size[0], "s": d.stride[0], "e": d.in_channels // wide.in_channels if b.expand else 1,
                       "in": wide.in_channels, "out": b.project.conv.out_channels})
    put("image.features", net.head.conv)
    tensors["image.project.weight"], tensors["image.project.bias"] = net.project.weight.numpy(), np.zeros(towers.EMBED)
    vocab, width = ["[PAD]", "[UNK]", "a"], 8
    random = np.random.default_rng(7).standard_normal
    tensors |= {
        "label.default.weight": random((2, towers.EMBED)) / math.sqrt(towers.EMBED),
        "text.token.weight": random((len(vocab), width)), "text.pool.weight": random((1, width)),
        "text.fc1.weight": random((width, width)), "text.fc1.bias": np.zeros(width),
        "text.fc2.weight": random((towers.EMBED, width)), "text.fc2.bias": np.zeros(towers.EMBED),
    }
    config = {
        "embed": towers.EMBED, "logit_scale": 100, "temperature": 1,
        "image": {"kind": "efficientnet-lite", "size": SIZE, "mean": [127 / 255] * 3, "std": [128 / 255] * 3,
                  "stem": net.stem.conv.out_channels, "blocks": blocks, "features": net.head.conv.out_channels},
        "text": {"kind": "bag", "vocab": len(vocab), "width": width, "hidden": width, "context": 8, "templates": ["{}"], "defaults": ["this", "that"], "ready": 0},
    }
    out.mkdir(exist_ok=True)
    save_file({k: np.ascontiguousarray(t, "f4") for k, t in sorted(tensors.items())}, out / "model.safetensors")
    (out / "vocab.txt").write_text("\n".join(vocab) + "\n")
    (out / "model.json").write_text(json.dumps(config) + "\n")  # last: it says that all is there


def main(out, samples, *names):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    pictures = photographs(samples)
    for name in names or VARIANTS:
        missing = {w: make for w, make in VARIANTS[name].items() if not (out / f"{name}.{w}.onnx").exists()}
        if not missing and (out / f"{name}.embedding.f32").exists() and (name != "lite2" or (out / name / "model.json").exists()):
            continue
        print("peers: making", name, file=sys.stderr, flush=True)
        net, x = towers.build(name), torch.from_numpy(pictures[:1])
        if name == "lite2":
            model_dir(net, out / name)
        x.numpy().tofile(out / f"{name}.input.f32")
        float32 = out / f"{name}.float.onnx"
        torch.onnx.export(net, (x,), str(float32), input_names=["pixel_values"], output_names=["embeds"], opset_version=17, dynamo=False)
        for weights, make in missing.items():
            part = out / f"{name}.part"
            make(float32, part, pictures[1:])
            part.rename(out / f"{name}.{weights}.onnx")
        float32.unlink()
        net(x).numpy().tofile(out / f"{name}.embedding.f32")


if __name__ == "__main__":
    main(*sys.argv[1:])
