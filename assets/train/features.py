"""Pooled features and classifier logits of every picture, once: <set>_<split>.npz (f, l as float16; names).

Into OUT/features those of the product's own view, of all tars (with the argument "train": of the training sets alone). With the
arguments "camera N" into OUT/camera<N> those of one random view a training picture, as a poor camera might show it (augment.py).
The backbone stays frozen, so this is all that the head's training needs of it. It runs in ONNX Runtime, a tar at a time; a tar already
done is skipped.
"""
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper

import augment
import backbone
import data
from paths import DATA, OUT, THREADS, replace
from reference import view

SIZE = backbone.SIZE


def graph():
    """The backbone and its classifier as ONNX: x [n, 3, SIZE, SIZE] -> f [n, 1280], l [n, 1000]."""
    config, t = backbone.tower()
    nodes, weights, count = [], [], 0

    def node(op, *inputs, **attributes):
        nonlocal count
        count += 1
        nodes.append(helper.make_node(op, list(inputs), [f"y{count}"], **attributes))
        return f"y{count}"

    def const(name, value):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    six = const("zero", np.float32(0)), const("six", np.float32(6))

    def conv(x, name, shape, k=1, s=1, group=1, clamp=True):
        y = node("Conv", x, const(name + ".weight", t[name + ".weight"].reshape(shape)), const(name + ".bias", t[name + ".bias"]),
                 kernel_shape=[k, k], strides=[s, s], group=group, auto_pad="SAME_UPPER")
        return node("Clip", y, *six) if clamp else y

    stem = t["image.stem.weight"].reshape(-1, 3, 3, 3).transpose(0, 3, 1, 2)
    t["image.stem.weight"] = stem
    x = conv("x", "image.stem", stem.shape, 3, 2)
    for i, c in enumerate(config["blocks"]):
        name, wide, before = f"image.block.{i:02d}.", c["in"] * c["e"], x
        if c["e"] != 1:
            x = conv(x, name + "expand", (wide, c["in"], 1, 1))
        x = conv(x, name + "depthwise", (wide, 1, c["k"], c["k"]), c["k"], c["s"], wide)
        x = conv(x, name + "project", (c["out"], wide, 1, 1), clamp=False)
        if c["s"] == 1 and c["in"] == c["out"]:
            x = node("Add", x, before)
    x = node("GlobalAveragePool", conv(x, "image.features", (config["features"], c["out"], 1, 1)))
    nodes.append(helper.make_node("Flatten", [x], ["f"]))
    nodes.append(helper.make_node("Gemm", ["f", *(const("image.posterior." + k, t["image.posterior." + k]) for k in ("weight", "bias"))], ["l"], transB=1))
    value = lambda n, *shape: helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", *shape])
    g = helper.make_graph(nodes, "tower", [value("x", 3, SIZE, SIZE)], [value("f", 1280), value("l", 1000)], weights)
    return helper.make_model(g, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def batched(items, n):
    it = iter(items)
    while part := list(islice(it, n)):
        yield part


def key(tar):
    return tar.with_suffix("").parent.name + "_" + tar.stem


def load(name, split="train", folder="features"):
    """-> features [n, 1280], logits [n, 1000] (float32), member names."""
    z = np.load(OUT / folder / (key(data.tar_of(name, split)) + ".npz"))
    return z["f"].astype("f4"), z["l"].astype("f4"), [str(n) for n in z["names"]]


def own(part, _, __):
    """The product's view of every picture of a batch, in bytes [n, 3, SIZE, SIZE]."""
    return np.stack([view(p, SIZE) for _, p in part]).transpose(0, 3, 1, 2)


def camera(part, number, seed):
    """Likewise, through a poor camera; number is the batch's place in its tar."""
    rng, g = np.random.default_rng([seed, number]), torch.Generator().manual_seed(seed * 1000003 + number)
    x = np.stack([augment.crop(p, rng, SIZE) for _, p in part]).transpose(0, 3, 1, 2)
    return (augment.camera(torch.from_numpy(x.astype("f4") / 255), g) * 255).numpy()


def compute(folder, tars, views, seed=0):
    """Features of every picture of tars, into OUT/folder."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    net = None
    (OUT / folder).mkdir(exist_ok=True)
    for tar in tars:
        path, start = OUT / folder / (key(tar) + ".npz"), time.time()
        if path.exists():
            continue
        net = net or ort.InferenceSession(graph(), options)

        def run(job):
            x = views(job[1], job[0], seed)
            return net.run(None, {"x": np.ascontiguousarray((x.astype("f4") - 127) / 128)})

        names, out, count = [], [], 0
        with ThreadPoolExecutor(THREADS) as pool:
            for chunk in batched(data.pictures(tar), 512):  # bounded memory
                names += [n for n, _ in chunk]
                parts = list(batched(chunk, 16))
                out += pool.map(run, enumerate(parts, count))
                count += len(parts)
        f, l = (np.concatenate(o).astype("f2") for o in zip(*out))
        replace(path, lambda p: np.savez(p.open("wb"), f=f, l=l, names=np.array(names)))
        print(f"{folder}/{key(tar)}: {len(names)} pictures, {time.time() - start:.0f} s", flush=True)


def main():
    torch.set_num_threads(1)
    train = [data.tar_of(s) for s in data.SOFT + data.SHARP + data.OTHERS]
    rest = sorted(p for p in [*DATA.glob("*/*.tar"), *DATA.glob("sharp/*/*.tar"), *DATA.glob("streams/*/*.tar")] if p not in train)
    match sys.argv[1:]:
        case ["camera", n]:
            compute("camera" + n, train, camera, int(n))
        case ["train"]:
            compute("features", train, own)
        case _:
            compute("features", train + rest, own)


if __name__ == "__main__":
    main()
