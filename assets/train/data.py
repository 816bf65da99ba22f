"""The picture sets: which there are, what their folders are called, their pictures and captions."""
import io
import os
import re
import tarfile
from functools import cache

from PIL import Image

import text_space
from paths import DATA, MODELS, OUT

# Only the train splits of these are trained on.
SOFT = "caltech101 cifar10 flickr8k grocery imagenette office_amazon office_caltech10 sign_digits tiny_imagenet trashnet walls".split()
SHARP = "caltech101_native clothing grocery_fine imagenet1k_one office_native voc5".split()
# LQA_PERMISSIVE=1: only sources whose terms allow any use (assets/MODEL.md).
PERMISSIVE = bool(os.environ.get("LQA_PERMISSIVE"))
if PERMISSIVE:
    SOFT = "caltech101 grocery office_caltech10 sign_digits trashnet walls".split()
    SHARP = "caltech101_native clothing grocery_fine".split()
OTHERS = [] if PERMISSIVE else ["pairs"]
PAIRS = MODELS / "clip_image_pairs/images.tar"  # pictures with real CLIP image embeddings
EVALUATION = (
    "imagenette/val cifar10/test tiny_imagenet/val caltech101/test grocery/test sign_digits/test trashnet/test pacs/photo pacs/cartoon "
    "flickr_cc/test clothing/test voc5/test caltech101_test_224/test"
).split()
STREAMS = "hands objects moving actions".split()


def folder(name):
    if name == "walls":  # made here
        return OUT / name
    d = DATA / name
    return d if d.exists() else DATA / "sharp" / name


def tar_of(name, split="train"):
    return PAIRS if name == "pairs" else folder(name) / f"{split}.tar"


def pictures(tar):
    """Yields (member name, PIL image)."""
    with tarfile.open(tar, "r:") as t:
        for m in t:
            if m.name.endswith((".jpg", ".png")):
                yield m.name, Image.open(io.BytesIO(t.extractfile(m).read()))


def members(tar):
    """The names of its pictures."""
    with tarfile.open(tar, "r:") as t:
        return [m.name for m in t if m.name.endswith((".jpg", ".png"))]


def spellings(path):
    """Folder -> every way classes.txt writes it; WordNet ids are no names."""
    out = {}
    for line in open(path, encoding="utf-8"):
        f = [x for x in line.rstrip("\n").split("\t") if x]
        out[f[0]] = [text_space.norm(x) for x in f if not re.fullmatch(r"n\d{8}", x)]
    return out


@cache
def names(name):
    """Folder -> (the name used, every spelling): the first that the text table holds, else the first."""
    out = {}
    for f, sp in spellings(folder(name) / "classes.txt").items():
        hit = [s for s in sp if text_space.table().get(s) is not None]
        out[f] = (hit[0] if hit else sp[0], sp)
        if name == "sign_digits":
            out[f] = (sp[-1], sp)
        elif name == "grocery_fine" and not hit and len(sp) > 1:
            out[f] = (sp[1], sp)
    return out


# What else people call a picture of the name: two times in ten it is taught as one of these.
ALSO = {
    "hand sign for one": ["pointing finger", "index finger", "hand"],
    "hand sign for two": ["peace sign", "victory hand", "two fingers", "hand"],
    "hand sign for three": ["three fingers", "hand"],
    "hand sign for four": ["four fingers", "hand"],
    "hand sign for five": ["open hand", "palm", "five fingers", "hand"],
    "wall": ["empty wall", "ceiling", "nothing"],
}
# Names with no picture here that are near to those: what a hand that is not one is told apart from.
BESIDE = ["closed fist", "raised fist", "thumbs up", "thumbs down", "ok hand", "empty hand"]
PEOPLE = set("man woman boy girl men women boys girls child children kid kids people person lady guy baby toddler".split())


@cache
def captions():
    """Member of flickr8k/train.tar -> its captions."""
    out = {}
    with tarfile.open(tar_of("flickr8k")) as t:
        for line in t.extractfile("captions.tsv").read().decode().splitlines():
            name, text = line.split("\t")
            out.setdefault(name, []).append(text.strip().lower())
    return out


# What the hundreds of the pairs show (models/README.md); Corel's "african people" is no name of the bank.
PAIR_CLASSES = ["", "beach", "building", "bus", "dinosaur", "elephant", "flower", "horse", "mountain", "food"]


def pair_names(members):
    """The name of each of the pairs' pictures, by its number."""
    return [PAIR_CLASSES[int(m.split(".")[0].split("/")[-1]) // 100] for m in members]


@cache
def imagenet():
    """The 1,000 ImageNet names in the order of the classifier's rows."""
    return [text_space.norm(line.rstrip("\n").split("\t")[1]) for line in open(MODELS / "teacher/imagenet_classes.txt")]


def wnids():
    """Their WordNet ids, likewise."""
    return [line.split("\t")[0] for line in open(MODELS / "teacher/imagenet_classes.txt")]


def clips(stream):
    """Clip -> its label, of a stream of pictures."""
    with tarfile.open(DATA / f"streams/{stream}/{stream}.tar") as t:
        lines = t.extractfile("clips.tsv").read().decode().splitlines()
    return dict(line.split("\t")[:2] for line in lines)
