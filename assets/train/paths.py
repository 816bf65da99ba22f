"""Where things are, and the seed. Everything made here goes under OUT, which git ignores."""
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("LQA_DATA") or ROOT / "../shared/data")
MODELS = Path(os.environ.get("LQA_MODELS") or ROOT / "../shared/models")
OUT = Path(os.environ.get("LQA_TRAIN_OUT") or ROOT / "build/train")
MODEL = OUT / "model"  # the float model directory that the .shq is made from
SEED = 16
THREADS = int(os.environ.get("LQA_TRAIN_THREADS") or os.cpu_count() or 1)

OUT.mkdir(parents=True, exist_ok=True)


def replace(path, write):
    """Call write(temporary path), then move that to path: a cut run leaves no half file."""
    path = Path(path)
    tmp = path.with_name("." + path.name)
    write(tmp)
    os.replace(tmp, path)
