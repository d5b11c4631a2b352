"""What a caption says of a scene."""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from rushlight.data.synthetic import fashion
from rushlight.data.synthetic.scenes.config import COLOURS, GROUNDS, Wish
from rushlight.data.synthetic.scenes.layout import Layout
from rushlight.data.synthetic.scenes.paint import Objects


def sentences(layout: Layout, objects: Objects, ground: Int[Tensor, "n"], wish: Wish) -> list[str]:
    """Return captions, largest two objects first: `a red bag in front of a blue shirt, and an orange coat, on
    grass`."""
    colours, places = list(COLOURS), list(GROUNDS.values())
    names = [fashion.CLASS_NAMES[label] for label in wish.classes]
    order = objects.area.argsort(dim=1, descending=True, stable=True)
    told = (
        order,
        layout.colour,
        layout.label,
        objects.box,
        objects.visibility,
        layout.present.sum(1),
        ground,
    )
    return [
        _sentence(
            [_noun(colours[colour[slot]], names[label[slot]]) for slot in slots[:count]],
            _relation(slots, box, visibility) if count > 1 else "",
            places[where],
        )
        for slots, colour, label, box, visibility, count, where in zip(
            *(column.tolist() for column in told), strict=True
        )
    ]


def _noun(colour: str, thing: str) -> str:
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {thing}"


def _relation(slots: list[int], box: list[list[float]], visibility: list[float]) -> str:
    """Return how the largest object lies to the second: covering it, covered by it, or beside it."""
    first, second = slots[:2]
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = box[first], box[second]
    touching = ax1 < bx2 and bx1 < ax2 and ay1 < by2 and by1 < ay2
    if touching and visibility[max(first, second)] < 1:
        return "in front of" if first < second else "behind"
    across, down = ax1 + ax2 - bx1 - bx2, ay1 + ay2 - by1 - by2
    if abs(across) >= abs(down):
        return "right of" if across > 0 else "left of"
    return "below" if down > 0 else "above"


def _sentence(nouns: list[str], relation: str, place: str) -> str:
    if not nouns:
        return f"nothing {place}"
    if len(nouns) == 1:
        return f"{nouns[0]} {place}"
    rest = "".join(f", and {noun}" for noun in nouns[2:])
    return f"{nouns[0]} {relation} {nouns[1]}{rest}{',' if rest else ''} {place}"
