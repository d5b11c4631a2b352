"""Hold out a test fold, so that every label keeps its share on both sides and no photo stands on both.

Classes are split one by one; tags by iterative stratification (Sechidis, Tsoumakas, Vlahavas, "On the
Stratification of Multi-Label Data", ECML PKDD 2011: the rarest tag first, each image to the side that lacks
it most); everything else at random. Images with equal pixels move together.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset

ORDER = ("class", "tags", "mask", "boxes", "keypoints", "caption", "depth", "instance", "domain")
"""Which column decides, where none is named: the first of which anything is known."""


def hold_out(data: Dataset, share: float | int = 0.25, seed: int = 0, column: str | None = None) -> Dataset:
    """The same rows with a test fold, if there is none yet.

    A share of the rows whose label is known goes to `TEST`, all others to `TRAIN`; of every class with at
    min_ratio two different images at least one goes to either side. An unlabelled image goes to `TEST` only as
    the duplicate of a labelled one.

    Args:
        column: the label that is stratified; by default the first of `ORDER` of which anything is known.

    Raises:
        UserError: a share outside 0 … 1 (exclusive), fewer than two different images with a known label.
    """
    if "fold" in data and bool((data["fold"] == TEST).any()):
        return data
    if not 0 < share < 1:
        raise UserError(f"the share of test images must lie between 0 and 1, not be {share}")
    column = column or _deciding(data)
    known = data.known(column).numpy()
    group = duplicates(data["image"]).numpy()
    _, item = np.unique(group[known], return_inverse=True)
    if item.size == 0 or item.max() < 1:
        raise UserError(f"a test fold needs at least two different images with a known '{column}': label more images")
    chosen = _choose(data[column].numpy()[known], column, item, share, np.random.default_rng(seed))
    test = np.isin(group, group[known][chosen[item]])
    return data.with_columns(fold=torch.from_numpy(np.where(test, TEST, TRAIN).astype(np.int8)))


def blind(data: Dataset) -> Dataset:
    """The same rows with every label of the test rows unknown: what stages may see."""
    return data.hide(data["fold"] == TEST) if "fold" in data and data.label_names else data


def duplicates(images: UInt8[Tensor, "rows ..."]) -> Int[Tensor, "rows"]:
    """A number for each image; images have the same number exactly if their pixels are equal."""
    flat = images.flatten(1)
    probe = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(0))[:64].sort().values
    # 64 pixels tell most images apart; only those that agree there are read whole.
    keys = np.ascontiguousarray(flat[:, probe].numpy())
    _, group, counts = np.unique(keys.view(f"V{keys.shape[1]}").ravel(), return_inverse=True, return_counts=True)
    group = group.astype(np.int64)
    first: dict[bytes, int] = {}
    for row in (counts[group] > 1).nonzero()[0]:
        digest = hashlib.sha256(flat[row].numpy().tobytes()).digest()
        group[row] = first.setdefault(digest, len(counts) + len(first))
    return torch.from_numpy(group)


def _deciding(data: Dataset) -> str:
    for name in ORDER:
        if bool(data.known(name).any()):
            return name
    raise UserError("no label is known: a test fold needs labels; give some, or a fold of your own")


def _choose(
    values: np.ndarray, column: str, item: np.ndarray, share: float | int, rng: np.random.Generator
) -> np.ndarray:
    """Which items (groups of equal images) go to the test fold; `item` is each known row's."""
    sizes = np.bincount(item)
    if column == "tags":
        positives = np.zeros((len(sizes), values.shape[1]))
        np.add.at(positives, item, values == 1)
        return _iterative(positives, share, rng)
    strata = np.zeros(len(sizes), dtype=np.int64)
    if values.ndim == 1:
        strata[item[::-1]] = values[::-1]  # equal images with different labels count as the first's
    chosen, owed = np.zeros(len(sizes), dtype=bool), 0.0
    for stratum in np.unique(strata):
        members = rng.permutation((strata == stratum).nonzero()[0])
        wanted = share * sizes[members].sum() + owed
        part = _prefix(members, sizes, wanted)
        chosen[part] = True
        # What rounding took from one class goes to the next, so that the whole has its share too.
        owed = float(np.clip(wanted - sizes[part].sum(), -0.5, 0.5))
    return chosen if chosen.any() else _one(chosen, rng)


def _prefix(members: np.ndarray, sizes: np.ndarray, wanted: float | int) -> np.ndarray:
    """As many of the members as hold about the wanted images; one at least, but never the last."""
    if len(members) < 2:
        return members[:0]
    n = int(np.abs(np.cumsum(sizes[members]) - wanted).argmin()) + 1
    return members[: min(n, len(members) - 1)]


def _one(chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A single item, where every class has one image only."""
    chosen[rng.integers(len(chosen))] = True
    return chosen


def _iterative(positives: np.ndarray, share: float | int, rng: np.random.Generator) -> np.ndarray:
    """Iterative stratification of items with tags into (train, test)."""
    shares = np.array([1 - share, share])
    need = shares[:, None] * positives.sum(0)
    room = shares * len(positives)
    side = np.full(len(positives), -1)
    while (left := side < 0).any():
        counts = (positives[left] > 0).sum(0)
        if not counts.any():
            break
        tag = np.where(counts > 0, counts, len(positives) + 1).argmin()
        for one in rng.permutation((left & (positives[:, tag] > 0)).nonzero()[0]):
            # The side that lacks this tag most; then the emptier one.
            side[one] = int(max((0, 1), key=lambda s: (round(need[s, tag], 6), room[s])))
            need[side[one]] -= positives[one]
            room[side[one]] -= 1
    rest = rng.permutation((side < 0).nonzero()[0])
    side[rest] = 0
    side[rest[: max(0, round(room[1]))]] = 1
    return side == 1 if (side == 1).any() else _one(side == 1, rng)
