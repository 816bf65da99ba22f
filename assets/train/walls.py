"""Pictures of nothing: plain surfaces under uneven light, made by rule, since no set has any. A camera sees a wall more often
than anything else, and the model must not call it a hand or a phone.

OUT/walls/train.tar: wall/<number>.jpg, 224 px; OUT/walls/classes.txt.
"""
import io
import tarfile

import numpy as np
from PIL import Image

from paths import OUT, SEED, replace

COUNT, SIZE = 240, 224


def smooth(rng, cells):
    """Low-frequency noise [SIZE, SIZE], about -1..1."""
    grid = rng.uniform(-1, 1, (cells, cells)).astype("f4")
    return np.asarray(Image.fromarray(grid).resize((SIZE, SIZE), Image.BICUBIC))


def wall(rng):
    """uint8 [SIZE, SIZE, 3]: a colour, a slope of light, blotches, grain, now and then a corner, a seam or a pattern."""
    colour = rng.uniform(60, 240) * (1 + rng.choice([0.05, 0.25], p=[0.7, 0.3]) * rng.uniform(-1, 1, 3))
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0, 0.4) * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 0.12) * smooth(rng, rng.integers(3, 9))
    kind = rng.random()
    along = x * np.cos(angle) + y * np.sin(angle)
    if kind < 0.2:  # two walls meet, or a wall and the ceiling
        light = light * np.where(along > rng.uniform(-0.6, 0.6), 1, rng.uniform(0.7, 0.95))
    elif kind < 0.3:  # a seam
        light = light * (1 - 0.3 * (np.abs(along - rng.uniform(-0.6, 0.6)) < 0.01))
    elif kind < 0.45:  # wallpaper, plaster
        light = light * (1 + rng.uniform(0.02, 0.1) * smooth(rng, rng.integers(20, 90)))
    elif kind < 0.5:  # tiles
        step = rng.uniform(0.25, 0.6)
        light = light * (1 - 0.25 * ((np.mod(x, step) < 0.015) | (np.mod(y, step) < 0.015)))
    v = colour * light[..., None] + rng.normal(0, rng.uniform(0, 6), (SIZE, SIZE, 3))
    return np.clip(v, 0, 255).astype(np.uint8)


def main():
    folder = OUT / "walls"
    if (folder / "train.tar").exists():
        return
    folder.mkdir(exist_ok=True)
    (folder / "classes.txt").write_text("wall\twall\n")
    rng = np.random.default_rng(SEED)

    def write(path):
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as t:
            for i in range(COUNT):
                b = io.BytesIO()
                Image.fromarray(wall(rng)).save(b, "JPEG", quality=int(rng.integers(70, 95)))
                info = tarfile.TarInfo(f"wall/{i:03d}.jpg")
                info.size = len(b.getvalue())
                b.seek(0)
                t.addfile(info, b)

    replace(folder / "train.tar", write)
    print(f"{folder}: {COUNT} pictures of nothing")


if __name__ == "__main__":
    main()
