"""The embedded photos: 12,000 training and 2,000 test images of Fashion-MNIST, for demos, tests and claims.

They are the first of each part of the original set, in its order, in one compressed file beside this one
(`scripts/embed_fashion.py` makes it), so that a comparison on real photos needs no network.

Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", arXiv:1708.07747. Licence: MIT, Zalando SE (`fashion.LICENSE`).
"""

from __future__ import annotations

import lzma
from importlib.resources import files

import numpy as np
import torch

from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset, Info

CLASS_NAMES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
N_TRAIN, N_TEST, SIDE = 12_000, 2_000, 28


def load() -> Dataset:
    """Return the embedded photos.

    Returns:
        14,000 rows: `image` (uint8, 3×28×28, grey repeated, background 0), `class` (0 … 9, all known) and
        `fold` (12,000 `TRAIN`, then 2,000 `TEST`).
    """
    images, labels = _read()
    fold = torch.full((len(labels),), TRAIN, dtype=torch.int8)
    fold[N_TRAIN:] = TEST
    grey = torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1).contiguous()
    info = Info(source="fashion", class_names=CLASS_NAMES, keep=10, licence="MIT")
    return Dataset({"image": grey, "class": torch.from_numpy(labels.astype(np.int64)), "fold": fold}, info)


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Return grey images (14,000×28×28) and labels (14,000), both uint8, training rows first."""
    raw = np.frombuffer(
        lzma.decompress(files("rushlight.data.synthetic").joinpath("fashion.xz").read_bytes()), np.uint8
    )
    n = N_TRAIN + N_TEST
    return raw[n:].reshape(n, SIDE, SIDE).copy(), raw[:n].copy()
