"""Images that occur twice: equal to the last pixel, or nearly so.

Near duplicates are found by difference hashes (Krawetz, "Kind of Like That", 2013): each image is shrunk to
9×8 grey values, and a bit says whether a value is brighter than its left neighbour. Images whose 64 bits
differ in at most three share one quarter of them exactly (four quarters, three differences), so candidates
are neighbours in the four orders sorted by a quarter first; those whose shrunken pixels also agree are near
duplicates. Work and memory grow with n log n; of more than `_WINDOW` alike images only neighbours in the
order are paired. Equal images are those whose rows have equal digests, which a pack keeps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from rushlight.data.dataset import Dataset

_BITS = 3
_CLOSE = 6.0
"""Mean absolute difference of the shrunken colours, of 255, up to which images count as nearly the same."""
_SIDE = 16
_WINDOW = 8
_BATCH = 512


def equal(data: Dataset) -> Int[Tensor, "rows"]:
    """Return a number for each row; rows have the same number exactly if their inputs are equal."""
    digests = np.ascontiguousarray(data.stored[data.input].row_digests().numpy())
    _, group = np.unique(digests.view(f"V{digests.shape[1]}").ravel(), return_inverse=True)
    return torch.from_numpy(group.astype(np.int64))


def exact(data: Dataset) -> list[list[int]]:
    """Return groups of rows with equal pixels, each in order, by their first row."""
    groups: dict[int, list[int]] = {}
    for row, number in enumerate(equal(data).tolist()):
        groups.setdefault(number, []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


def near(data: Dataset) -> Int[Tensor, "pairs 2"]:
    """Return pairs of rows whose images look the same but are not equal, the lower row first, sorted."""
    hashes, small = _describe(data.chunks("image", _BATCH))
    pairs = _candidates(hashes)
    if not len(pairs):
        return torch.zeros(0, 2, dtype=torch.int64)
    first, second = pairs.T
    bits = np.bitwise_count(hashes[first] ^ hashes[second])
    pairs = pairs[bits <= _BITS]
    pairs = pairs[_close(small, pairs)]
    group = equal(data).numpy()
    return torch.from_numpy(pairs[group[pairs[:, 0]] != group[pairs[:, 1]]].astype(np.int64))


def joined(pairs: Int[Tensor, "pairs 2"], count: int) -> Int[Tensor, "rows"]:
    """Return a number for each of `count` rows, equal for rows that pairs connect."""
    first, second = pairs.numpy().T
    graph = coo_array((np.ones(len(pairs), dtype=bool), (first, second)), shape=(count, count))
    return torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64))


def _describe(chunks: Iterator[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's 64-bit difference hash (uint64), and its colours at 16×16 (uint8)."""
    hashes, small = [], []
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    shrink = torch.nn.functional.interpolate
    for images in chunks:
        batch = images.float()
        grey = (batch * weights).sum(1, keepdim=True)
        tiny = shrink(grey, (8, 9), mode="area").round().squeeze(1)
        bits = (tiny[..., 1:] > tiny[..., :-1]).flatten(1).numpy()
        hashes.append(np.packbits(bits, axis=1).view(np.uint64).squeeze(1))
        small.append(shrink(batch, (_SIDE, _SIDE), mode="area").round().to(torch.uint8).numpy())
    return np.concatenate(hashes), np.concatenate(small)


def _candidates(hashes: np.ndarray) -> np.ndarray:
    """Return unique pairs (lower row first) that share a quarter of their bits and are near when sorted."""
    found = []
    for quarter in range(4):
        key = np.roll(hashes.view(np.uint16).reshape(-1, 4), quarter, axis=1)
        order = np.lexsort((hashes, key[:, 0]))
        for step in range(1, min(_WINDOW, len(order) - 1) + 1):
            a, b = order[:-step], order[step:]
            same = key[a, 0] == key[b, 0]
            found.append(np.stack([np.minimum(a, b), np.maximum(a, b)], axis=1)[same])
    pairs = np.concatenate(found) if found else np.zeros((0, 2), np.int64)
    return np.unique(pairs, axis=0)


def _close(small: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return which pairs have nearly the same colours."""
    keep = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), _BATCH):
        a, b = pairs[start : start + _BATCH].T
        distance = np.abs(small[a].astype(np.int16) - small[b]).mean(axis=(1, 2, 3))
        keep[start : start + _BATCH] = distance <= _CLOSE
    return keep
