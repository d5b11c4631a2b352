"""The atlas of a model's features in a report: a map with small pictures, and rows of nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from rushlight.data.dataset import Dataset
from rushlight.measure.atlas import Atlas
from rushlight.present import plots
from rushlight.present.page import Block, Gallery, Plot, Text, Thumb

PICTURES = 350
"""Images that are drawn as pictures, at most; the others are dots."""
COLOURS = 12
"""Classes that have a colour of their own: those with the most images."""


def blocks(atlas: Atlas, data: Dataset, what: str = "model") -> list[Block]:
    """Return the atlas for a report: the map, then a row of neighbours for each sample."""
    names, coloured = data.names, _coloured(atlas)
    shown: list[Block] = [
        Plot(
            picture(atlas, data, coloured),
            f"{len(atlas.rows):,} images as the {what} sees them",
            "Images that it finds alike lie beside each other; directions and distances across the map mean nothing. "
            + ("Colours show the class. " if coloured else "")
            + "Where there is no room for a picture stands a dot.",
            legend=_legend(atlas, coloured),
        ),
        Text("In each row, an image (framed) and those that are nearest to it by the features.", quiet=True),
    ]
    for sample, nearest in zip(atlas.samples, atlas.neighbours, strict=True):
        shown.append(Gallery([_thumb(atlas, data, names, place) for place in (sample, *nearest)], row=True))
    return shown


def _coloured(atlas: Atlas) -> list[int]:
    """Return the classes that have a colour, in their order."""
    labels, counts = atlas.labels[atlas.labels >= 0].unique(return_counts=True)
    most = counts.argsort(descending=True, stable=True)[:COLOURS]
    return sorted(labels[most].tolist())


def _legend(atlas: Atlas, coloured: Sequence[int]) -> list[tuple[str, str]]:
    named = [(_name(atlas.names, label), f"c{i}") for i, label in enumerate(coloured)]
    rest = set(atlas.labels.tolist()) - set(coloured)
    said = [text for text, there in (("other classes", rest - {-1}), ("unknown", -1 in rest)) if there]
    return [*named, (" or ".join(said), "muted")] if coloured and said else named


def _thumb(atlas: Atlas, data: Dataset, names: Sequence[str], place: int) -> Thumb:
    row, label = int(atlas.rows[place]), int(atlas.labels[place])
    lines = [_name(atlas.names, label)] if label >= 0 else []
    return Thumb(plots.thumbnail(data.read("image", row).numpy(), largest=64), plots.shorten(names[row], 24), lines)


def picture(atlas: Atlas, data: Dataset, coloured: Sequence[int]) -> str:
    """Return the map: a picture of each image that has room, a dot for each other one, in the classes' colours."""
    pixels = {place: data.read("image", int(atlas.rows[place])).numpy() for place in apart(atlas.places, PICTURES)}
    colours = {label: f"c{i}" for i, label in enumerate(coloured)}
    labels, names = atlas.labels.tolist(), data.names
    said = [
        plots.shorten(names[int(row)], 40) + (f": {_name(atlas.names, label)}" if label >= 0 else "")
        for row, label in zip(atlas.rows, labels, strict=True)
    ]
    return plots.atlas(atlas.places, pixels, [colours.get(label, "muted") for label in labels], said)


def apart(places: Float[np.ndarray, "n 2"], most: int) -> list[int]:
    """Return at most `most` places whose pictures do not overlap: each one that has room among those before it."""
    at, room = plots.on_map(places), plots.side(len(places)) + 2
    chosen: list[int] = []
    for place in range(len(at)):
        if len(chosen) < most and (np.abs(at[chosen] - at[place]).max(axis=1, initial=0) >= room).all():
            chosen.append(place)
    return chosen


def _name(names: Sequence[str], label: int) -> str:
    return names[label] if label < len(names) else str(label)
