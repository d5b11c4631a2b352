"""Hold out a test fold, so that every label keeps its share on both sides and nothing stands on both.

What belongs together moves together: rows of one `group` (a patient, a slide, a video), images with equal pixels, and
near-duplicates. Classes are split one by one. Where an item can show several (tags; masks, boxes and keypoints by what
they show; classes whose groups hold several) iterative stratification is used (Sechidis, Tsoumakas, Vlahavas, "On the
Stratification of Multi-Label Data", ECML PKDD 2011: the rarest first, each item to the side that lacks it most), and
then items change sides as long as that brings a class to a side that lacks it, or the size nearer to the share.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.data.columns import KINDS, TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.data.edit.duplicates import equal, joined, near

CHAINED = 0.1
"""Share of the rows above which near-duplicates that lead from one to the next are no longer one thing: images that are
all alike (blank, or of one background) would otherwise be one item."""
ORDER = tuple(name for name, kind in KINDS.items() if kind.label or (kind.moves and not kind.input))
"""Which column decides, where none is named: of the labels and what lies over the pixels, in the order of the kinds,
the first of which anything is known."""


def hold_out(
    data: Dataset,
    share: float | int = 0.25,
    seed: int = 0,
    column: str | None = None,
    presence: Bool[Tensor, "rows classes"] | None = None,
) -> Dataset:
    """Return the same rows with a test fold, if there is none yet.

    A share of the rows whose label is known goes to `TEST`, all others to `TRAIN`; of every class with at least two
    items (see `together`) at least one goes to either side, where items that show several classes allow it. An
    unlabelled row goes to `TEST` only as one of the same item. What was kept together is noted in
    `info.settings["kept_together"]`.

    Args:
        column: the label that is stratified; by default the first of `ORDER` of which anything is known.
        presence: which classes each row shows, for labels that are more than a class or tags (see `Task.presence`);
            None splits these at random.

    Raises:
        UserError: a share outside 0 … 1 (exclusive), fewer than two different items with a known label.
    """
    if "fold" in data and bool((data["fold"] == TEST).any()):
        return data
    if not 0 < share < 1:
        raise UserError(f"the share of test images must lie between 0 and 1, not be {share}")
    column = column or _deciding(data)
    known = data.known(column).numpy()
    whole, note = together(data) if len(data) else (np.zeros(0, dtype=np.int64), "")
    _, item = np.unique(whole[known], return_inverse=True)
    if item.size == 0 or item.max() < 1:
        raise UserError(
            f"a test fold needs at least two different {'groups' if 'group' in data else 'images'} with a known "
            f"'{column}': label more images"
        )
    chosen = _choose(_shown(data, column, presence)[known], item, share, np.random.default_rng(seed))
    test = np.isin(whole, whole[known][chosen[item]])
    fold = torch.from_numpy(np.where(test, TEST, TRAIN).astype(np.int8))
    settings = {**data.info.settings, **({"kept_together": note} if note else {})}
    return data.with_columns(fold=fold).with_info(settings=settings)


def together(data: Dataset) -> tuple[Int[np.ndarray, "rows"], str]:
    """Return a number for each row, equal for rows that must not be separated, and what they are, in words."""
    pairs, notes = [_stars(equal(data))], []
    if "group" in data:
        pairs.append(_stars(groups(data)))
        notes.append(f"{len(data['group'][data.known('group')].unique()):,} groups")
    if "image" in data:
        alike, note = _alike(data)
        pairs.append(alike)
        notes += [note] if note else []
    return joined(torch.cat(pairs), len(data)).numpy(), " and ".join(notes)


def groups(data: Dataset) -> Int[Tensor, "rows"]:
    """Return the number of each row's group; a row without a group is a group by itself."""
    rows = torch.arange(len(data))
    if "group" not in data or not len(data):
        return rows
    own = data["group"]
    return torch.where(own >= 0, own, own.max().clamp(min=-1) + 1 + rows)


def crossing(data: Dataset) -> int:
    """Return how many groups have rows both in the test fold and outside of it."""
    if "group" not in data or "fold" not in data:
        return 0
    test, known = data["fold"] == TEST, data["group"] >= 0
    sides = [set(data["group"][known & side].tolist()) for side in (test, ~test)]
    return len(sides[0] & sides[1])


def _alike(data: Dataset) -> tuple[Int[Tensor, "pairs 2"], str]:
    """Return pairs of near-duplicates, without chains that would make a large part of the data one item."""
    pairs = near(data)
    chain = joined(pairs, len(data))
    long = chain.bincount()[chain] > max(CHAINED * len(data), 2)
    pairs = pairs[~long[pairs[:, 0]]] if len(pairs) else pairs
    return pairs, f"{len(pairs):,} pairs of near-duplicates" if len(pairs) else ""


def _stars(number: Int[Tensor, "rows"]) -> Int[Tensor, "rows 2"]:
    """Return each row paired with the first row of its number."""
    _, place = number.unique(return_inverse=True)
    rows = torch.arange(len(number))
    first = torch.full((len(number),), len(number)).scatter_reduce(0, place, rows, "amin")
    return torch.stack([rows, first[place]], 1)


def blind(data: Dataset) -> Dataset:
    """Return the same rows with every label of the test rows unknown: the only data that stages may see."""
    return data.hide(data["fold"] == TEST) if "fold" in data and data.label_names else data


def _deciding(data: Dataset) -> str:
    for name in ORDER:
        if bool(data.known(name).any()):
            return name
    raise UserError("no label is known: a test fold needs labels; give some, or a fold of your own")


def _shown(data: Dataset, column: str, presence: Tensor | None) -> np.ndarray:
    """Return each row's class, or which classes it shows (rows × classes); one class for all where no labels exist."""
    axes = len(data.row_shape(column))
    if axes == 0:
        return data[column].numpy()
    if presence is not None:
        return presence.numpy()
    return (data[column] == 1).numpy() if axes == 1 else np.zeros(len(data), dtype=np.int64)


def _choose(
    values: Int[np.ndarray, " rows"] | Bool[np.ndarray, "rows classes"],
    item: Int[np.ndarray, " rows"],
    share: float | int,
    rng: np.random.Generator,
) -> Bool[np.ndarray, " items"]:
    """Choose which items go to the test fold; `item` is the item of each known row."""
    sizes = np.bincount(item)
    if values.ndim == 2:
        positives = np.zeros((len(sizes), values.shape[1]))
        np.add.at(positives, item, values)
        return _several(positives, sizes, share, rng)
    strata = np.zeros(len(sizes), dtype=np.int64)
    strata[item[::-1]] = values[::-1]
    if (strata[item] != values).any():  # an item holds several classes
        counts = np.zeros((len(sizes), int(values.max()) + 1))
        np.add.at(counts, (item, values), 1)
        return _several(counts, sizes, share, rng)
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
    """Return the first members that hold about the wanted number of images; at least one, but never all."""
    if len(members) < 2:
        return members[:0]
    n = int(np.abs(np.cumsum(sizes[members]) - wanted).argmin()) + 1
    return members[: min(n, len(members) - 1)]


def _one(chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mark a single random item, where every class has only one image."""
    chosen[rng.integers(len(chosen))] = True
    return chosen


def _several(
    positives: Float[np.ndarray, "items classes"],
    sizes: Int[np.ndarray, " items"],
    share: float | int,
    rng: np.random.Generator,
) -> Bool[np.ndarray, " items"]:
    """Choose which items, with given numbers of rows and of each class, go to the test fold."""
    used = (positives > 0).sum(0) > 0
    test = _iterative(positives[:, used], sizes, share, rng)
    return _settled(test, positives[:, used], sizes, share * sizes.sum(), rng)


def _settled(
    test: Bool[np.ndarray, " items"],
    positives: Float[np.ndarray, "items classes"],
    sizes: Int[np.ndarray, " items"],
    wanted: float,
    rng: np.random.Generator,
) -> Bool[np.ndarray, " items"]:
    """Move items to the other side, one by one, while more classes get on both sides, or as many with a nearer size.

    Of such moves the one is made that leaves the most classes on both sides, then the shares of the classes nearest to
    the whole's, then the first in a drawn order.
    """
    test, order = test.copy(), rng.permutation(len(test))
    shares = positives / positives.sum(0)
    norms = np.square(shares).sum(1)
    while True:
        sign, held = np.where(test, -1, 1), sizes[test].sum() - wanted
        parted, off = _parted(test, positives > 0), np.abs(held + sign * sizes)
        astray = norms + 2 * sign * (shares @ (shares[test].sum(0) - wanted / sizes.sum()))
        alone = np.where(test, test.sum(), (~test).sum()) == 1
        better = ~alone & ((parted > 0) | ((parted == 0) & (off < abs(held) - 1e-9)))
        if not better.any():
            return test
        most = parted[better].max()
        cost = np.where(better & (parted == most), off if most else astray, np.inf)
        test[order[cost[order].argmin()]] ^= True


def _parted(test: Bool[np.ndarray, " items"], there: Bool[np.ndarray, "items classes"]) -> Int[np.ndarray, " items"]:
    """Return how many more classes would be on both sides if an item changed its side."""
    change = np.zeros(len(test), dtype=np.int64)
    for own in (test, ~test):
        here, beyond = there[own].sum(0), there[~own].sum(0)
        # one that is alone here would be gone; one that is not beyond yet would come there
        change[own] = there[own] @ ((beyond == 0).astype(np.int64) - (here == 1))
    return change


def _iterative(positives: np.ndarray, sizes: np.ndarray, share: float | int, rng: np.random.Generator) -> np.ndarray:
    """Split items (with given numbers of rows and of each label) into (train, test) by iterative stratification."""
    shares = np.array([1 - share, share])
    need = shares[:, None] * positives.sum(0)
    room = shares * sizes.sum()
    side = np.full(len(positives), -1)
    while (left := side < 0).any():
        counts = (positives[left] > 0).sum(0)
        if not counts.any():
            break
        tag = np.where(counts > 0, counts, len(positives) + 1).argmin()
        for one in rng.permutation((left & (positives[:, tag] > 0)).nonzero()[0]):
            # The side that lacks this label most; then the emptier one.
            side[one] = int(max((0, 1), key=lambda s: (round(need[s, tag], 6), room[s])))
            need[side[one]] -= positives[one]
            room[side[one]] -= sizes[one]
    rest = rng.permutation((side < 0).nonzero()[0])
    side[rest] = 0
    side[rest[np.cumsum(sizes[rest]) <= round(room[1])]] = 1
    return side == 1 if (side == 1).any() else _one(side == 1, rng)
