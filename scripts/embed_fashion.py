"""Make `src/rushlight/data/synthetic/fashion.xz` from a folder with the four idx files of Fashion-MNIST.

The first 12,000 training and the first 2,000 test images, as one xz stream of bytes: 14,000 labels, then
14,000 × 28 × 28 grey values. The same input gives the same bytes.

    python scripts/embed_fashion.py FOLDER [OUT]
"""

from __future__ import annotations

import gzip
import lzma
import sys
from pathlib import Path

import numpy as np

FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 3, "lp": 0, "pb": 0, "dict_size": 1 << 24}]
OUT = Path(__file__).parents[1] / "src/rushlight/data/synthetic/fashion.xz"


def read_idx(path: Path) -> np.ndarray:
    """Return an array from a gzipped idx file (Yann LeCun's format: magic number, axes, bytes)."""
    raw = gzip.decompress(path.read_bytes())
    axes = raw[3]
    shape = np.frombuffer(raw, ">i4", count=axes, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def main(folder: Path, out: Path = OUT) -> None:
    parts = [("train", 12_000), ("t10k", 2_000)]
    labels = [read_idx(folder / f"{part}-labels-idx1-ubyte.gz")[:n] for part, n in parts]
    images = [read_idx(folder / f"{part}-images-idx3-ubyte.gz")[:n] for part, n in parts]
    raw = b"".join(array.tobytes() for array in labels + images)
    out.write_bytes(lzma.compress(raw, format=lzma.FORMAT_XZ, filters=FILTERS))
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
