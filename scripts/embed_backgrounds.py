"""Make `src/rushlight/data/synthetic/backgrounds.xz` from the photos that scikit-image bundles.

For each ground two crops that do not overlap, one for training scenes and one for test scenes, scaled to
160×160: one xz stream of uint8 RGB, 2 folds × grounds × 160 × 160 × 3. Grey photos are coloured by a line
from a dark to a light colour.

    python scripts/embed_backgrounds.py [OUT]
"""

from __future__ import annotations

import lzma
import sys
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

SIDE = 160
OUT = Path(__file__).parents[1] / "src/rushlight/data/synthetic/backgrounds.xz"
DARK_LIGHT = {
    "grass": ((10, 40, 5), (150, 215, 90)),
    "gravel": ((30, 28, 25), (235, 225, 210)),
    "brick": ((60, 5, 0), (240, 150, 120)),
}
CROPS = {  # ground: photo, box of the training crop, box of the test crop (left, upper, right, lower)
    "grass": ("grass", (0, 0, 256, 256), (256, 256, 512, 512)),
    "gravel": ("gravel", (0, 0, 256, 256), (256, 256, 512, 512)),
    "brick": ("brick", (0, 0, 256, 256), (256, 256, 512, 512)),
    "wood": ("coffee", (485, 225, 595, 335), (0, 265, 72, 337)),
    "sky": ("rocket", (100, 0, 180, 80), (370, 0, 480, 110)),
    "stars": ("hubble_deep_field", (0, 0, 400, 400), (450, 450, 850, 850)),
}


def tile(ground: str, photo: str, box: tuple[int, int, int, int]) -> np.ndarray:
    crop = Image.fromarray(getattr(skimage.data, photo)()).crop(box).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    if ground not in DARK_LIGHT:
        return np.asarray(crop.convert("RGB"))
    dark, light = (np.array(colour, dtype=float) for colour in DARK_LIGHT[ground])
    grey = np.asarray(crop, dtype=float)
    low, high = np.percentile(grey, [1, 99])
    share = ((grey - low) / (high - low)).clip(0, 1)[..., None]
    return (dark + share * (light - dark)).round().astype(np.uint8)


def main(out: Path = OUT) -> None:
    tiles = [tile(ground, CROPS[ground][0], CROPS[ground][fold]) for fold in (1, 2) for ground in CROPS]
    out.write_bytes(lzma.compress(np.stack(tiles).tobytes(), preset=9))
    print(f"{out}: {', '.join(CROPS)}; {out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
