"""What scenes can be: colours, grounds, styles, and what was asked for, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rushlight.core.errors import UserError, nearest
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.synthetic import fashion

Number = float | int
CHUNK = 128
CANDIDATES = 4  # places tried for each object; the one farthest from the others is taken
ROUNDS = 10  # new tries for scenes in which an object came to be hidden
TILE = 160

COLOURS = {
    "red": (225, 35, 35),
    "orange": (250, 140, 20),
    "yellow": (245, 225, 40),
    "green": (40, 170, 60),
    "turquoise": (40, 210, 205),
    "blue": (50, 90, 235),
    "purple": (140, 50, 200),
    "pink": (255, 130, 190),
    "white": (245, 245, 245),
    "brown": (130, 80, 40),
}
GROUNDS = {
    "grass": "on grass",
    "gravel": "on gravel",
    "brick": "before a brick wall",
    "wood": "on wood",
    "sky": "under a blue sky",
    "stars": "among stars",
    "haze": "in a haze",
}
"""Names of the grounds and what a caption says of them; all are photos but `haze`, smooth noise."""


@dataclass(frozen=True)
class Style:
    """How a domain looks: an affine map of RGB in [0, 1], then grain and stripes of these amplitudes."""

    name: str
    matrix: tuple[tuple[Number, ...], ...]
    grain: Number = 0.0
    stripes: Number = 0.0


def _scaled(red: Number, green: Number, blue: Number, offset: Number = 0) -> tuple[tuple[Number, ...], ...]:
    return ((red, 0, 0, offset), (0, green, 0, offset), (0, 0, blue, offset))


STYLES = (
    Style("day", _scaled(1, 1, 1)),
    Style("night", _scaled(0.4, 0.45, 0.75, 0.02), grain=0.03),
    Style("faded", ((0.5, 0.25, 0.1, 0.2), (0.15, 0.5, 0.15, 0.14), (0.15, 0.25, 0.35, 0.08))),
    Style("negative", _scaled(-1, -1, -1, 1)),
    Style("fog", _scaled(0.45, 0.45, 0.45, 0.45)),
    Style("grain", _scaled(1, 1, 1), grain=0.15),
    Style("stripes", _scaled(0.85, 0.85, 0.85, 0.075), stripes=0.15),
)
"""The domains, in the order of their ids."""


@dataclass(frozen=True)
class Wish:
    """What `compose` was asked for, checked."""

    size: int
    classes: tuple[int, ...]
    objects: tuple[int, int]
    scale: tuple[Number, Number]
    rotate: Number
    same_class: bool | None
    visible: Number
    colours: tuple[int, ...]
    grounds: tuple[int, ...]
    domains: tuple[int, ...]
    fold: int


def check(size, classes, objects, domain, fold, scale, rotate, same_class, visible, colours, background) -> Wish:
    """Return the arguments of `compose` as ids, each checked against its range."""
    styles = [style.name for style in STYLES]
    everything = range(len(fashion.CLASS_NAMES))
    wish = Wish(
        size=size,
        classes=_ids(everything if classes is None else classes, fashion.CLASS_NAMES, "class"),
        objects=tuple(objects),
        scale=tuple(scale),
        rotate=rotate,
        same_class=same_class,
        visible=visible,
        colours=_ids(list(COLOURS) if colours is None else colours, list(COLOURS), "colour"),
        grounds=_ids(list(GROUNDS) if background is None else background, list(GROUNDS), "background"),
        domains=_ids(domain, styles, "domain"),
        fold=fold,
    )
    few, most = wish.objects
    for good, message in (
        (32 <= size <= 128, f"scenes are 32 to 128 pixels wide, not {size}"),
        (0 <= few <= most <= 100 and most > 0, f"objects must be (fewest, most), most from 1 to 100, not {objects}"),
        (0 < scale[0] <= scale[1] <= 1, f"scale must be (least, greatest) within 0 … 1, not {scale}"),
        (0 <= visible <= 1, f"the visible share must lie between 0 and 1, not be {visible}"),
        (fold in (TRAIN, TEST), f"the fold is TRAIN (0) or TEST (1), not {fold}"),
        (same_class is not False or most <= len(wish.classes),
         f"{most} objects of different classes cannot come from {len(wish.classes)} classes"),
    ):  # fmt: skip
        if not good:
            raise UserError(message)
    return wish


def _ids(wanted: int | str | Sequence[int | str], names: Sequence[str], what: str) -> tuple[int, ...]:
    several = [wanted] if isinstance(wanted, int | str) else list(wanted)
    for one in several:
        if one not in names and one not in range(len(names)):
            raise UserError(f"there is no {what} '{one}' for scenes.{nearest(str(one), names)}")
    if not several:
        raise UserError(f"name at least one {what} for the scenes")
    return tuple(list(names).index(one) if isinstance(one, str) else one for one in several)
