"""The atlas of a model's features in a report: a map with small pictures, and rows of nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from rushlight.bench.atlas import Atlas
from rushlight.data.dataset import Dataset
from rushlight.report import plots
from rushlight.report.html import Block, Gallery, Plot, Text, Thumb

PICTURES = 350
"""Images that are drawn as pictures, at most; the others are dots."""


def blocks(atlas: Atlas, data: Dataset, what: str = "model") -> list[Block]:
    """The atlas for a report: the map, then a row of neighbours for each sample."""
    names = data.names
    known = [int(label) for label in atlas.labels.unique() if label >= 0][: plots.SERIES]
    legend = [(_name(atlas.names, label), f"s{i}") for i, label in enumerate(known)]
    drawn = Plot(
        picture(atlas, data, known),
        f"{len(atlas.rows):,} images as the {what} sees them",
        "Images that it finds alike lie beside each other; directions and distances across the map mean nothing."
        + (" Frames show the class, where it is known." if known else ""),
        legend=legend,
    )
    shown: list[Block] = [
        drawn,
        Text("Each row: an image, then those that are nearest to it by the features.", quiet=True),
    ]
    for sample, nearest in zip(atlas.samples, atlas.neighbours, strict=True):
        thumbs = [_thumb(atlas, data, names, place, place == sample) for place in (sample, *nearest)]
        shown.append(Gallery(thumbs))
    return shown


def _thumb(atlas: Atlas, data: Dataset, names: Sequence[str], place: int, first: bool) -> Thumb:
    row, label = int(atlas.rows[place]), int(atlas.labels[place])
    lines = ([_name(atlas.names, label)] if label >= 0 else []) + (["nearest to it:"] if first else [])
    return Thumb(plots.thumbnail(data["image"][row].numpy(), largest=64), plots.shorten(names[row], 24), lines)


def picture(atlas: Atlas, data: Dataset, known: Sequence[int]) -> str:
    """The map: a picture of each image that has room, a dot of each that has not; frames in the colour of the class."""
    pixels = {place: data["image"][int(atlas.rows[place])].numpy() for place in apart(atlas.places, PICTURES)}
    colours = [f"s{known.index(int(label))}" if int(label) in known else "muted" for label in atlas.labels]
    return plots.atlas(atlas.places, pixels, colours)


def apart(places: Float[np.ndarray, "n 2"], most: int) -> list[int]:
    """At most so many places of which no two would cover each other: one for each cell of a grid."""
    columns = max(int(np.sqrt(most * 2)), 1)
    grid = np.array([columns, max(round(0.72 * columns), 1)])
    cells: dict[tuple[int, int], int] = {}
    for place, (x, y) in enumerate(np.minimum((places * grid).astype(int), grid - 1)):
        cells.setdefault((int(x), int(y)), place)
    return sorted(cells.values())[:most] if len(cells) <= most else sorted(cells.values())[:: -(-len(cells) // most)]


def _name(names: Sequence[str], label: int) -> str:
    return names[label] if label < len(names) else str(label)
