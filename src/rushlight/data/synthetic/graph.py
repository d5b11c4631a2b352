"""A graph of communities: nodes of one class are joined more often, and their features are alike (a stochastic block
model): data whose rows are related."""

from __future__ import annotations

import torch

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset, Info


def communities(
    n: int,
    *,
    classes: int = 4,
    degree: float | int = 6,
    within: float | int = 0.8,
    width: int = 16,
    signal: float | int = 0.5,
    seed: int = 0,
    test_share: float = 0.5,
) -> Dataset:
    """Return n nodes: `features`, `edges` (both directions of each), `class` (the community) and `fold`.

    Args:
        degree: mean number of neighbours.
        within: share of the edges that join nodes of one class.
        signal: distance of the classes' mean features, in standard deviations of a feature.

    Raises:
        UserError: a share outside 0 … 1, or fewer nodes than classes.
    """
    if n < classes or not 0 <= within <= 1:
        raise UserError(f"a graph needs a node a class and a share of 0 to 1, not {n} nodes and {within}")
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % classes
    centre = signal * torch.randn(classes, width, generator=generator)
    features = centre[label] + torch.randn(n, width, generator=generator)
    count = round(n * degree / 2)
    source = torch.randint(n, (count,), generator=generator)
    near = torch.rand(count, generator=generator) < within
    step = torch.randint(1, max(n // classes, 2), (count,), generator=generator)
    # Rows of one class lie `classes` apart.
    own = (source + step * classes) % (n - n % classes)
    target = torch.where(near & (source < n - n % classes), own, torch.randint(n, (count,), generator=generator))
    pairs = torch.stack([source, target])[:, source != target]
    edges = torch.cat([pairs, pairs.flip(0)], 1).unique(dim=1)
    fold = torch.where(torch.rand(n, generator=generator) < test_share, TEST, TRAIN).to(torch.int8)
    info = Info(source="communities", class_names=tuple(map(str, range(classes))), settings={"seed": seed})
    return Dataset({"features": features, "edges": edges, "class": label, "fold": fold}, info)
