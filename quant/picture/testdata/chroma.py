"""Writes chroma-*.jpg and what libjpeg (Pillow) makes of them, chroma-*.png,
for TestDecode_Chroma.

    python3 chroma.py          (NumPy, Pillow)
"""

import io
import pathlib

import numpy as np
from PIL import Image

here = pathlib.Path(__file__).parent
colours = np.random.default_rng(0).integers(0, 255, (9, 15, 3)).astype("u1")
picture = Image.fromarray(colours).resize((61, 35), Image.Resampling.BICUBIC)
for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
    data = io.BytesIO()
    picture.save(data, "JPEG", subsampling=subsampling, quality=90)
    (here / f"chroma-{name}.jpg").write_bytes(data.getvalue())
    Image.open(data).convert("RGB").save(here / f"chroma-{name}.png", optimize=True)
