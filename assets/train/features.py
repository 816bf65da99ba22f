"""Pooled features and classifier logits of every picture, once: OUT/features/<set>_<split>.npz (f, l as float16; names).

Of OUT/tower.npz (to evaluate it), or with the argument "frozen" of the backbone as it came (to try heads on it), into
OUT/frozen. It runs in ONNX Runtime, a tar at a time; a tar already done is skipped.
"""
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import backbone
import data
from paths import DATA, OUT, THREADS, replace
from reference import view
from tower import Tower

SIZE = backbone.SIZE


def graph(frozen):
    """The tower and the backbone's classifier as ONNX: x [n, 3, SIZE, SIZE] -> f [n, 1280], l [n, 1000]."""
    net = backbone.load()
    config, (w, b) = backbone.config(net), backbone.classifier(net)
    t = Tower(config, backbone.unfolded(net)).tensors() if frozen else dict(np.load(OUT / "tower.npz"))
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
    nodes.append(helper.make_node("Gemm", ["f", const("classifier", w), const("classifier.bias", b)], ["l"], transB=1))
    value = lambda n, *shape: helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", *shape])
    g = helper.make_graph(nodes, "tower", [value("x", 3, SIZE, SIZE)], [value("f", 1280), value("l", 1000)], weights)
    return helper.make_model(g, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def batched(items, n):
    it = iter(items)
    while part := list(islice(it, n)):
        yield part


def key(tar):
    return tar.with_suffix("").parent.name + "_" + tar.stem


def folder(frozen):
    return OUT / ("frozen" if frozen else "features")


def load(name, split="train", frozen=False):
    """-> features [n, 1280], logits [n, 1000] (float32), member names."""
    z = np.load(folder(frozen) / (key(data.tar_of(name, split)) + ".npz"))
    return z["f"].astype("f4"), z["l"].astype("f4"), [str(n) for n in z["names"]]


def main():
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    net, frozen = None, "frozen" in sys.argv
    folder(frozen).mkdir(exist_ok=True)
    train = [data.tar_of(s) for s in data.SOFT + data.SHARP + ["pairs"]]
    rest = sorted(p for p in [*DATA.glob("*/*.tar"), *DATA.glob("sharp/*/*.tar"), *DATA.glob("streams/*/*.tar")] if p not in train)
    for tar in train if "train" in sys.argv else train + rest:
        path, start = folder(frozen) / (key(tar) + ".npz"), time.time()
        if path.exists():
            continue
        net = net or ort.InferenceSession(graph(frozen), options)

        def run(part):
            x = (np.stack([view(p, SIZE) for _, p in part]).astype("f4") - 127) / 128
            return net.run(None, {"x": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})

        names, out = [], []
        with ThreadPoolExecutor(THREADS) as pool:
            for chunk in batched(data.pictures(tar), 512):  # bounded memory
                names += [n for n, _ in chunk]
                out += pool.map(run, list(batched(chunk, 16)))
        f, l = (np.concatenate(o).astype("f2") for o in zip(*out))
        replace(path, lambda p: np.savez(p.open("wb"), f=f, l=l, names=np.array(names)))
        print(f"{key(tar)}: {len(names)} pictures, {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
