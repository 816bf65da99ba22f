"""A .shq, dequantised, as a float model directory: warm.py FILE.shq FOLDER. Training with LQA_WARM=FOLDER starts from it."""
import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from paths import ROOT

sys.path.insert(0, str(ROOT / "quant/shq/testdata"))
import read_shq  # noqa: E402


def main(file, folder):
    folder, tensors = Path(folder), {}
    folder.mkdir(parents=True, exist_ok=True)
    with open(file, "rb") as f:
        head = f.read(44)
        manifest = read_shq.parse(f.read(int.from_bytes(head[8:12], "little")))
        f.seek(0)
        for t, data in read_shq.File(f).tensors():
            if t.kind == "u8":
                name = {"label.ready.names": "ready_names.txt"}.get(t.name, "vocab.txt")
                (folder / name).write_bytes(data.rstrip(b"\n") + b"\n")
            else:
                tensors[t.name] = np.ascontiguousarray(read_shq.dequantize(t.kind, t.shape, data), "f4")
    save_file(tensors, folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps(manifest["model"], indent=1) + "\n")
    print(f"{folder}: {len(tensors)} tensors, {sum(t.size for t in tensors.values()) / 1e6:.2f} M weights")


if __name__ == "__main__":
    main(*sys.argv[1:])
