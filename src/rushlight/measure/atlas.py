"""An atlas of a model's features: a map of the images on which neighbours in feature space lie beside each other, and
the nearest neighbours of a few of them.

The map is t-SNE's (van der Maaten and Hinton, 2008) in two dimensions: places near each other mean something, distances
across the map do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rushlight import tasks
from rushlight.data.dataset import Dataset
from rushlight.measure.features import pooled
from rushlight.run.model import Model

IMAGES, ROWS, NEIGHBOURS = 1500, 6, 7
"""Images on the map at most; rows of neighbours; neighbours a row."""
FEWEST = 10
"""Images that an atlas needs."""


@dataclass(frozen=True)
class Atlas:
    """What an atlas shows.

    Attributes:
        rows: which images of the data; places: of each on the map, in [0, 1].
        labels: of each, where known (−1 is not), and names: of the labels.
        samples: positions in `rows` of the images whose neighbours are shown; neighbours: positions of these.
    """

    rows: Int[Tensor, "n"]
    places: Float[np.ndarray, "n 2"]
    labels: Int[Tensor, "n"]
    names: tuple[str, ...]
    samples: list[int]
    neighbours: list[list[int]]


def chart(model: Model, data: Dataset, *, images: int = IMAGES, seed: int = 0) -> Atlas:
    """Lay out the images of a data set by a model's features.

    Raises:
        ValueError: fewer than 10 images.
    """
    from sklearn.manifold import TSNE

    if len(data) < FEWEST:
        raise ValueError(f"an atlas needs at least {FEWEST} images, not {len(data)}")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    rows = order[:images].sort().values
    features = F.normalize(pooled(model, data.select(rows)), dim=1)
    places = TSNE(perplexity=min(30, (len(rows) - 1) / 3), init="pca", random_state=seed).fit_transform(
        features.numpy()
    )
    places = (places - places.min(0)) / np.maximum(np.ptp(places, axis=0), 1e-9)
    labels, names = _labels(data.select(rows))
    samples = spread(features, min(ROWS, len(rows)))
    similarity = features[samples] @ features.T
    nearest = similarity.topk(min(NEIGHBOURS + 1, len(rows)), dim=1).indices.tolist()
    neighbours = [[j for j in row if j != i][:NEIGHBOURS] for i, row in zip(samples, nearest, strict=True)]
    return Atlas(rows, places, labels, names, samples, neighbours)


def _labels(data: Dataset) -> tuple[Int[Tensor, "n"], tuple[str, ...]]:
    """Return each image's class where exactly one is known to be there, else −1; and the classes' names."""
    task = tasks.of(data)
    if task is None:
        return torch.full((len(data),), -1), ()
    there = task.presence(data)
    return torch.where(there.sum(1) == 1, there.long().argmax(1), -1), task.names(data.info)


def spread(features: Float[Tensor, "n dim"], count: int) -> list[int]:
    """Return `count` images that lie far from each other: each is the farthest from those before it."""
    chosen = [int((features @ features.mean(0)).argmax())]
    closest = features @ features[chosen[0]]
    while len(chosen) < count:
        chosen.append(int(closest.argmin()))
        closest = torch.maximum(closest, features @ features[chosen[-1]])
    return chosen
