"""Composed scenes with exact truth: coloured cut-outs of the embedded photos on photographed grounds.

Every question about segmentation, detection, several labels an image, occlusion, captions or domains needs a
truth that is known to the pixel. A scene pastes 1 to 5 photos (alpha = pixel > 0, cleaned of specks), each
turned, scaled and tinted, from front to back onto a ground; whatever is asked of it follows from which object
owns which pixel. Training scenes use training photos and one crop of each ground, test scenes test photos and
another crop.

All work is done in batches of `CHUNK` scenes, each with a generator of its own: a scene depends on the seed,
the fold and its number alone, so a longer set begins with the shorter one. The style is drawn apart from the
rest: the same seed in two domains gives the same scenes twice.
"""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from rushlight.core.errors import UserError, nearest
from rushlight.data.columns import TEST, TRAIN, encode_text
from rushlight.data.dataset import Dataset, Info
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
class _Wish:
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


class _Layout(NamedTuple):
    """Where the objects of some scenes stand, by slot, the first in front; `present`: the filled slots."""

    present: Bool[Tensor, "n slots"]
    label: Int[Tensor, "n slots"]
    photo: Int[Tensor, "n slots"]
    colour: Int[Tensor, "n slots"]
    centre: Float[Tensor, "n slots 2"]
    side: Float[Tensor, "n slots"]
    angle: Float[Tensor, "n slots"]
    depth: Float[Tensor, "n slots"]


class _Objects(NamedTuple):
    """What became of a layout: each pixel's owner (0 the ground) and grey value; each slot's box."""

    owner: UInt8[Tensor, "n size size"]
    grey: Float[Tensor, "n size size"]
    box: Float[Tensor, "n slots 4"]
    area: Int[Tensor, "n slots"]
    visibility: Float[Tensor, "n slots"]


def compose(
    n: int,
    *,
    size: int = 48,
    classes: Sequence[str | int] | None = None,
    objects: tuple[int, int] = (1, 5),
    seed: int = 0,
    domain: int | str | Sequence[int | str] = 0,
    fold: int = TRAIN,
    scale: tuple[Number, Number] = (0.3, 0.6),
    rotate: Number = 20.0,
    same_class: bool | None = None,
    visible: Number = 0.3,
    colours: Sequence[str] | None = None,
    background: str | Sequence[str] | None = None,
) -> Dataset:
    """n scenes of size × size pixels.

    Args:
        size: 32 to 128.
        classes: names or ids of the classes of `fashion.CLASS_NAMES` to use, in the order of their new ids
            0 … K−1; all ten by default.
        objects: fewest and most objects in a scene; the number is drawn uniformly.
        domain: a style of `STYLES` by id or name, or several, of which each scene gets one.
        fold: `TRAIN` or `TEST`: whose photos and grounds are used.
        scale: least and greatest side of an object's photo, in sides of the scene.
        rotate: greatest turn to either side, in degrees.
        same_class: True: the objects of a scene are of one class; False: all of different classes; None: by
            chance.
        visible: least share of an object that must be seen. A scene that breaks it is drawn anew; after
            `ROUNDS` tries the hidden objects are left out (which happens only when the scene is crammed).
        colours: names from `COLOURS`; all by default.
        background: one or several of `GROUNDS`; all by default.

    Returns:
        A data set in which everything is known, with the columns

        - `image`
        - `instance`: 0 the ground; 1 … M the objects, the first in front of all others
        - `mask`: 0 the ground, 1 … K the classes, in this order
        - `boxes`: slot i holds object i+1: tight bounds of its *visible* pixels (pixel j covers [j, j+1]),
          its class (0 … K−1) and its visibility: visible pixels as a share of those it would show in this
          frame alone; empty slots are zero
        - `tags` (N×K): the classes of which a pixel is visible
        - `class`: of the object with most visible pixels (the front one of equals)
        - `depth`: distance, 0 to 1; the ground's is 1; objects lie flat, each at its own
        - `domain`: the style's id in `STYLES`
        - `caption`: colours, classes and relations of all objects, and the ground
        - `fold`

    Raises:
        UserError: an argument out of its range, or an unknown name.
    """
    wish = _check(size, classes, objects, domain, fold, scale, rotate, same_class, visible, colours, background)
    if n < 0:
        raise UserError(f"cannot compose {n} scenes: give a number from 0 up")
    chunks = [_chunk(wish, seed, number) for number in range(max(1, -(-n // CHUNK)))]
    columns = {name: torch.cat([chunk[name] for chunk in chunks])[:n] for name in chunks[0] if name != "caption"}
    captions = [text for chunk in chunks for text in chunk["caption"]]
    return Dataset({**columns, "caption": encode_text(captions[:n])}, _info(wish, seed))


def _info(wish: _Wish, seed: int) -> Info:
    names = tuple(fashion.CLASS_NAMES[label] for label in wish.classes)
    return Info(
        source="scenes",
        class_names=names,
        tag_names=names,
        mask_names=("background", *names),
        box_names=names,
        domain_names=tuple(style.name for style in STYLES),
        licence="MIT, CC0, public domain",
        settings={"size": wish.size, "seed": seed},
    )


# Asking


def _check(size, classes, objects, domain, fold, scale, rotate, same_class, visible, colours, background) -> _Wish:
    """The arguments of `compose` as ids, each within its range."""
    styles = [style.name for style in STYLES]
    everything = range(len(fashion.CLASS_NAMES))
    wish = _Wish(
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


# Materials


class _Photos(NamedTuple):
    """A fold's cut-outs, sorted by class: grey × alpha, and alpha; each class's first row and number."""

    cutouts: Float[Tensor, "photos 2 28 28"]
    start: Int[Tensor, "classes"]
    many: Int[Tensor, "classes"]


@cache
def _photos(fold: int) -> _Photos:
    data = fashion.load().fold(fold)
    order = data["class"].argsort(stable=True)
    grey = data["image"][order, :1].float() / 255
    # A pixel belongs to the thing if most of its neighbourhood does: no specks, no pinholes.
    alpha = (F.avg_pool2d((grey > 0).float(), 3, stride=1, padding=1) > 0.5).float()
    grey = 0.2 + 0.8 * grey  # so that the darkest photo still shows its colour
    count = torch.bincount(data["class"], minlength=len(fashion.CLASS_NAMES))
    return _Photos(torch.cat([grey * alpha, alpha], 1), count.cumsum(0) - count, count)


@cache
def _tiles(fold: int) -> UInt8[Tensor, "3 pixels"]:
    """The grounds' photos, red, green and blue, one after the other."""
    raw = bytearray(lzma.decompress(files("rushlight.data.synthetic").joinpath("backgrounds.xz").read_bytes()))
    tiles = torch.frombuffer(raw, dtype=torch.uint8).view(2, -1, TILE, TILE, 3)[fold]
    return tiles.flatten(0, 2).T.contiguous()


# Placing


def _chunk(wish: _Wish, seed: int, number: int) -> dict:
    """The columns of `CHUNK` scenes (the captions as texts)."""
    things, look = (_generator(seed, wish.fold, number, stream) for stream in (0, 1))
    layout, objects = _settled(wish, things)
    ground = torch.tensor(wish.grounds)[_integers(CHUNK, len(wish.grounds), things)]
    image = _grounds(ground, wish, things).mul_((objects.owner == 0)[:, None])
    image += _paint(layout.colour, objects, things)
    style = torch.tensor(wish.domains)[_integers(CHUNK, len(wish.domains), look)]
    columns = {"image": _bytes(_styled(image, style, look))}
    columns |= _truth(layout, objects, len(wish.classes))
    columns["domain"] = style
    columns["fold"] = torch.full((CHUNK,), wish.fold, dtype=torch.int8)
    return columns | {"caption": _captions(layout, objects, ground, wish)}


def _settled(wish: _Wish, generator: torch.Generator) -> tuple[_Layout, _Objects]:
    """Layouts in which every object shows its least share: scenes that fail are drawn anew."""
    layout = _layout(CHUNK, wish, generator)
    objects = _paste(layout, wish)
    for _ in range(ROUNDS):
        failed = (layout.present & (objects.area == 0)).any(1).nonzero().flatten()
        if not len(failed):
            break
        again = _layout(len(failed), wish, generator, layout.present[failed])
        for old, new in zip((*layout, *objects), (*again, *_paste(again, wish)), strict=True):
            old[failed] = new
    return _compact(layout, objects)


def _layout(n: int, wish: _Wish, generator: torch.Generator, present: Tensor | None = None) -> _Layout:
    few, most = wish.objects
    if present is None:
        present = torch.arange(most) < few + _integers(n, most - few + 1, generator)[:, None]
    label = _labels(n, wish, generator)
    side = _uniform(generator, *wish.scale, n, most) * wish.size
    photos = _photos(wish.fold)
    chosen = torch.tensor(wish.classes)[label]
    return _Layout(
        present=present,
        label=label,
        photo=photos.start[chosen] + (_uniform(generator, 0, 1, n, most) * photos.many[chosen]).long(),
        colour=torch.tensor(wish.colours)[_integers((n, most), len(wish.colours), generator)],
        centre=_places(side, present, wish.size, generator),
        side=side,
        angle=_uniform(generator, -wish.rotate, wish.rotate, n, most).deg2rad(),
        depth=_uniform(generator, 0.05, 0.95, n, most).sort(1).values,
    )


def _labels(n: int, wish: _Wish, generator: torch.Generator) -> Int[Tensor, "n slots"]:
    most, classes = wish.objects[1], len(wish.classes)
    if wish.same_class is False:
        return torch.rand(n, classes, generator=generator).argsort(1)[:, :most].contiguous()
    if wish.same_class:
        return _integers(n, classes, generator)[:, None].repeat(1, most)
    return _integers((n, most), classes, generator)


def _places(side: Tensor, present: Tensor, size: int, generator: torch.Generator) -> Float[Tensor, "n slots 2"]:
    """Centres such that each photo's frame lies in the scene, away from each other by best candidate."""
    n, most = side.shape
    room = (size - side).clamp(min=0)[:, :, None, None]
    centres = side[:, :, None, None] / 2 + room * torch.rand(n, most, CANDIDATES, 2, generator=generator)
    taken = centres[:, :, 0].clone()
    for slot in range(1, most):
        gaps = (centres[:, slot, :, None] - taken[:, None, :slot]).norm(dim=-1)
        best = gaps.amin(2).argmax(1)
        taken[:, slot] = centres[torch.arange(n), slot, best]
    return taken


# Painting


def _paste(layout: _Layout, wish: _Wish) -> _Objects:
    """Cut-outs pasted from front to back; one that would show less than its share is left out (area 0)."""
    n, most = layout.label.shape
    owner = torch.zeros(n, wish.size, wish.size, dtype=torch.uint8)
    grey = torch.zeros(n, wish.size, wish.size)
    box = torch.zeros(n, most, 4)
    area, full = torch.zeros(2, n, most, dtype=torch.int64)
    for slot in range(most):
        rows = layout.present[:, slot].nonzero().flatten()
        shade, alpha = _cutouts(layout, rows, slot, wish)
        seen = alpha & (owner.index_select(0, rows) == 0)
        whole, shown = alpha.flatten(1).sum(1), seen.flatten(1).sum(1)
        enough = (shown > 0) & (shown >= wish.visible * whole)
        seen &= enough[:, None, None]
        owner.index_add_(0, rows, seen.to(torch.uint8), alpha=slot + 1)
        grey.index_add_(0, rows, shade.mul_(seen))
        area[rows, slot], full[rows, slot], box[rows, slot] = shown * enough, whole, _bounds(seen)
    return _Objects(owner, grey, box, area, area / full.clamp(min=1))


def _cutouts(
    layout: _Layout, rows: Int[Tensor, "m"], slot: int, wish: _Wish
) -> tuple[Float[Tensor, "m size size"], Bool[Tensor, "m size size"]]:
    """Grey values and alpha of one slot's photos, turned, scaled and placed, in frames of their own."""
    centre, angle = layout.centre[rows, slot, :, None], layout.angle[rows, slot, None]
    # Offsets of the pixels' centres from the object's, in halves of the photo's side, as grid_sample wants.
    offset = (torch.arange(wish.size) + 0.5 - centre) * (2 / layout.side[rows, slot, None, None])
    (x, y), cos, sin = offset.unbind(1), angle.cos(), angle.sin()
    grid = torch.empty(len(rows), wish.size, wish.size, 2)
    torch.add((cos * x)[:, None, :], (sin * y)[:, :, None], out=grid[..., 0])
    torch.add((-sin * x)[:, None, :], (cos * y)[:, :, None], out=grid[..., 1])
    photo = _photos(wish.fold).cutouts.index_select(0, layout.photo[rows, slot])
    shade, alpha = F.grid_sample(photo, grid, align_corners=False).unbind(1)
    return shade / alpha.clamp(min=0.5), alpha > 0.5


def _bounds(seen: Bool[Tensor, "m size size"]) -> Float[Tensor, "m 4"]:
    """x1, y1, x2, y2 of the set pixels; zeros where there are none."""
    first, after = [], []
    for axis in (1, 2):  # over rows: which columns are touched; over columns: which rows
        touched = seen.view(torch.uint8).amax(axis)
        some = touched.amax(1)
        first.append(touched.argmax(1) * some)
        after.append((touched.shape[1] - touched.flip(1).argmax(1)) * some)
    return torch.stack(first + after, 1).float()


def _compact(layout: _Layout, objects: _Objects) -> tuple[_Layout, _Objects]:
    """Slots of objects that were left out are closed, so that numbers run from 1 without gaps."""
    kept = objects.area > 0
    if torch.equal(kept, layout.present):
        return layout, objects
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
    number = F.pad(kept.cumsum(1), (1, 0)).to(torch.uint8)
    owner = number.gather(1, objects.owner.flatten(1).long()).view(objects.owner.shape)
    rows = torch.arange(len(kept))
    moved = [values[rows[:, None], order] for values in (*layout._replace(present=kept), *objects[2:])]
    return _Layout(*moved[:8]), _Objects(owner, objects.grey, *moved[8:])


def _paint(
    colour: Int[Tensor, "n slots"], objects: _Objects, generator: torch.Generator
) -> Float[Tensor, "n 3 size size"]:
    """The objects alone, on black: each in its colour, a little off what its name says."""
    palette = torch.tensor(list(COLOURS.values())) / 255
    tint = palette[colour] * _uniform(generator, 0.88, 1.0, *colour.shape, 3)
    tint = F.pad(tint, (0, 0, 1, 0)).transpose(1, 2)  # slot 0, the ground, is black
    owner = objects.owner.flatten(1).long()
    planes = torch.stack([plane.gather(1, owner) for plane in tint.unbind(1)], 1)
    return planes.view(len(colour), 3, *objects.owner.shape[1:]).mul_(objects.grey[:, None])


def _grounds(ground: Int[Tensor, "n"], wish: _Wish, generator: torch.Generator) -> Float[Tensor, "n 3 size size"]:
    """A crop of the ground's photo (turned by a multiple of 90°, mirrored, zoomed), or smooth noise."""
    n, size, hazy = len(ground), wish.size, ground == list(GROUNDS).index("haze")
    step = _uniform(generator, 0.6, min(1.6, (TILE - 1) / size), n)
    start = torch.rand(n, 2, generator=generator) * (TILE - 1 - step * size)[:, None]
    line = (start[..., None] + step[:, None, None] * torch.arange(size)).int()
    line = torch.where(_integers((n, 2), 2, generator)[..., None] > 0, TILE - 1 - line, line)
    stride = torch.where(_integers((n, 1), 2, generator) > 0, torch.tensor([1, TILE]), torch.tensor([TILE, 1]))
    down, across = (line * stride[..., None].int()).unbind(1)
    photo = torch.where(hazy, 0, ground).int() * TILE**2
    place = ((down + photo[:, None])[:, :, None] + across[:, None, :]).flatten()
    canvas = (
        torch.stack([plane.index_select(0, place).view(n, size, size) for plane in _tiles(wish.fold)], 1).float() / 255
    )
    haze = 0.2 + 0.5 * torch.rand(n, 3, 4, 4, generator=generator)[hazy]
    canvas[hazy] = F.interpolate(haze, size=(size, size), mode="bilinear", align_corners=True)
    return canvas.mul_(_uniform(generator, 0.6, 1.0, n, 1, 1, 1))


def _styled(
    image: Float[Tensor, "n 3 size size"], style: Int[Tensor, "n"], generator: torch.Generator
) -> Float[Tensor, "n 3 size size"]:
    """The scenes in their domains' looks."""
    for number in style.unique().tolist():
        look, rows = STYLES[number], style == number
        if look == STYLES[0]:
            continue
        matrix = torch.tensor(look.matrix, dtype=torch.float32)
        part = torch.einsum("oc,nchw->nohw", matrix[:, :3], image[rows]) + matrix[:, 3, None, None]
        part += look.grain * torch.randn(len(part), 1, *part.shape[2:], generator=generator)
        ramp = torch.arange(part.shape[-1])
        part += look.stripes * ((ramp[:, None] + ramp) * (2 * torch.pi / 6)).sin()
        image[rows] = part
    return image


def _bytes(image: Float[Tensor, "n 3 size size"]) -> UInt8[Tensor, "n 3 size size"]:
    # By way of int32: the direct conversion is three times as slow.
    return image.clamp_(0, 1).mul_(255).round_().to(torch.int32).to(torch.uint8)


# Telling


def _truth(layout: _Layout, objects: _Objects, classes: int) -> dict[str, Tensor]:
    owner, shape = objects.owner.flatten(1).long(), objects.owner.shape
    class_of = F.pad(layout.label + 1, (1, 0)).to(torch.uint8)
    depth_of = F.pad(layout.depth, (1, 0), value=1.0)
    tags = torch.zeros(len(owner), classes + 1, dtype=torch.int8)
    tags.scatter_(1, torch.where(layout.present, layout.label, classes), 1)
    entries = torch.cat([objects.box, layout.label[..., None], objects.visibility[..., None]], 2)
    largest = layout.label.gather(1, objects.area.argmax(1, keepdim=True)).squeeze(1)
    return {
        "instance": objects.owner.to(torch.int16),
        "mask": class_of.gather(1, owner).view(shape),
        "boxes": torch.where(layout.present[..., None], entries, 0.0),
        "tags": tags[:, :classes].contiguous(),
        "class": torch.where(layout.present.any(1), largest, -1),
        "depth": depth_of.gather(1, owner).view(shape),
    }


def _captions(layout: _Layout, objects: _Objects, ground: Int[Tensor, "n"], wish: _Wish) -> list[str]:
    """`a red bag in front of a blue shirt, and an orange coat, on grass`: the largest two first, related."""
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
    """How the largest object lies to the second: covering it, covered by it, or beside it."""
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


# Drawing


def _generator(*numbers: int) -> torch.Generator:
    """A generator for this combination of numbers."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % (2**63)
    return torch.Generator().manual_seed(mixed)


def _uniform(generator: torch.Generator, low: Number, high: Number, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _integers(shape: int | tuple[int, ...], high: int, generator: torch.Generator) -> Tensor:
    return torch.randint(high, (shape,) if isinstance(shape, int) else shape, generator=generator)
