"""Training goes on from a .shq alone: test_warm.py [FILE.shq], by default assets/lqa-lite2.shq. 75 s of one core.

On a small slice (clothing and walls, one poor camera's view, no captions) in a temporary folder: the file is dequantised (warm.py), its
tower makes the features, one head goes on for some steps, another starts from the classifier. It fails unless the
warm one is far ahead of the other before any step, and ahead after as many. (The file's training saw these pictures: its
figures tell that it is taken up, not how good it is.)
"""
import os
import sys
import tempfile
from pathlib import Path

folder = tempfile.TemporaryDirectory()
os.environ |= {"LQA_TRAIN_OUT": folder.name, "LQA_WARM": folder.name + "/warm"}  # before paths.py looks

import numpy as np
import torch

import backbone
import bank
import data
import features
import head
import walls
import warm
from paths import ROOT, SEED, THREADS

EPOCHS = 10  # of one step each


def main(file=ROOT / "assets/lqa-lite2.shq"):
    torch.set_num_threads(THREADS)
    data.SOFT, data.SHARP, data.OTHERS, data.captions = ["walls"], ["clothing"], [], dict
    head.CAMERAS, head.VALIDATION = 1, 0.3
    warm.main(file, Path(os.environ["LQA_WARM"]))
    walls.main()
    bank.main()
    tars = [data.tar_of(s) for s in data.SOFT + data.SHARP]
    features.compute("features", tars, features.own)
    features.compute("camera1", tars, features.camera, 1)
    d = head.dataset()
    tr, va = head.split(d, np.random.default_rng(SEED))
    tensors = backbone.tower()[1]
    classes, bias = tensors["image.posterior.weight"], tensors["image.posterior.bias"]
    named = sorted(d.trained())

    def measure(what, start, epochs):
        """-> accuracy among the set's own names, percent, and cross-entropy over the trained names, of the validation pictures."""
        net, _ = head.train(d, head.often(d, tr), classes, bias, epochs=epochs, warm=start)
        out = head.Embedder(net.tensors())(d.x)
        z = torch.as_tensor(30 * out[va] @ d.text[named].T)
        loss = float(torch.nn.functional.cross_entropy(z, torch.as_tensor(np.searchsorted(named, d.y[va]))))
        right = head.accuracy(d, out, va)["clothing"]
        print(f"{what}, {epochs} epochs: clothing right {right} %, loss {loss:.2f} over {len(named)} names, {len(va)} pictures", flush=True)
        return right, loss

    part = head.parted(tensors, 0)
    (cold, cold_loss), (started, started_loss) = measure("from scratch", None, 0), measure("warm", part, 0)
    (scratch, scratch_loss), (right, loss) = measure("from scratch", None, EPOCHS), measure("warm", part, EPOCHS)
    assert started > cold + 15 and started_loss < 0.7 * cold_loss, "the file's head is no better a start than none"
    assert right > scratch and loss < scratch_loss, "going on undid the start"


if __name__ == "__main__":
    main(*sys.argv[1:])
