"""Curation by rules: what speaks against single images, drawn samples, and groups of images that are one.

Draws go by a hash of seed and name, so that they do not depend on which other images there are: a new version of a
data set, from which some are gone, draws the others as before.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rushlight.data.columns import decode_text
from rushlight.data.dataset import Dataset
from rushlight.data.edit.licences import normal
from rushlight.data.edit.pool import BETWEEN, Pool

Judged = tuple[dict[str, Bool[Tensor, "n"]], dict[str, Float[Tensor, "n"]]]
"""Reasons against some rows, and scores of them."""
Rule = Callable[[Dataset, Int[Tensor, "n"]], Judged]
NAMED = 12
"""So many licences that are not allowed are named, the commonest; the others count together."""


def judge(rule: Rule, data: Dataset, pool: Pool, *, everything: bool) -> Pool:
    """Return the pool with a rule's reasons and scores, for every image or for those that are still kept."""
    rows = torch.arange(len(data)) if everything else pool.kept.nonzero().squeeze(1)
    against, scores = rule(data, rows)
    for reason, hit in against.items():
        pool = pool.remove(reason, torch.zeros(len(pool), dtype=torch.bool).index_put((rows,), hit))
    for name, values in scores.items():
        pool = pool.score(name, torch.full((len(pool),), torch.nan).index_put((rows,), values))
    return pool


def listed(reason: str, names: Sequence[str]) -> Rule:
    """Return a rule against the images of these names."""
    asked = set(names)

    def rule(data: Dataset, rows: Tensor) -> Judged:
        here = data.names
        return {reason: torch.tensor([here[row] in asked for row in rows.tolist()], dtype=torch.bool)}, {}

    return rule


def licensed(licences: Sequence[str]) -> Rule:
    """Return a rule against images without one of these licences, however written; it also scores `licence allowed`."""
    allowed = {normal(name) for name in licences}

    def rule(data: Dataset, rows: Tensor) -> Judged:
        given = [normal(text) for text in decode_text(data["licence"][rows])]
        strange = Counter(name for name in given if name not in allowed)
        common = {name for name, _ in strange.most_common(NAMED)}
        reasons = {name: _not_allowed(name, name in common) for name in strange}
        against = {
            reason: torch.tensor([reasons.get(name) == reason for name in given], dtype=torch.bool)
            for reason in dict.fromkeys(reasons.values())
        }
        return against, {"licence allowed": torch.tensor([float(name in allowed) for name in given])}

    return rule


def _not_allowed(name: str, named: bool) -> str:
    if not name:
        return "licence: none is given"
    shown = f"'{name.replace(BETWEEN.strip(), ',')[:60]}' is" if named else "others are"
    return f"licence: {shown} not allowed"


def not_first(n: int, pairs: Sequence[tuple[int, int]]) -> Bool[Tensor, "n"]:
    """Return all but the first of things that pairs connect."""
    first = list(range(n))

    def root(i: int) -> int:
        while first[i] != i:
            i = first[i]
        return i

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        first[high] = low
    return torch.tensor([root(i) != i for i in range(n)], dtype=torch.bool)


def lot(name: str, seed: int) -> bytes:
    """Return a sort key that shuffles images by name and seed alone, whatever other images there are."""
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()


def sample(pool: Pool, n: int, seed: int) -> Float[Tensor, "rows"]:
    """Return 1, 2, … for the kept images that come first in a draw; NaN for the others."""
    kept = sorted(pool.kept.nonzero().flatten().tolist(), key=lambda row: lot(pool.names[row], seed))
    place = torch.full((len(pool),), torch.nan)
    for number, row in enumerate(kept[:n], 1):
        place[row] = number
    return place
