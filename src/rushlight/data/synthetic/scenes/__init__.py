"""Composed scenes with exact truth: coloured cut-outs of the embedded photos on photographed grounds.

Every question about segmentation, detection, several labels an image, occlusion, captions or domains needs a
truth that is known to the pixel. A scene pastes 1 to 5 photos (alpha = pixel > 0, cleaned of specks), each
turned, scaled and tinted, from front to back onto a ground; every label of it follows from which object
owns which pixel. Training scenes use training photos and one crop of each ground, test scenes test photos and
another crop.

All work is done in batches of `CHUNK` scenes, each with a generator of its own: a scene depends on the seed,
the fold and its number alone, so a longer set begins with the shorter one. The style is drawn apart from the
rest: the same seed in two domains gives the same scenes twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rushlight.core.errors import UserError
from rushlight.data.columns import TRAIN, encode_text
from rushlight.data.dataset import Dataset, Info
from rushlight.data.synthetic import fashion
from rushlight.data.synthetic.scenes.captions import sentences
from rushlight.data.synthetic.scenes.config import CHUNK, COLOURS, GROUNDS, ROUNDS, STYLES, Number, Style, Wish, check
from rushlight.data.synthetic.scenes.draws import integers, seeded
from rushlight.data.synthetic.scenes.layout import Layout, arranged
from rushlight.data.synthetic.scenes.paint import Objects, compact, grounds, painted, paste, styled, to_bytes, truth

__all__ = ["CHUNK", "COLOURS", "GROUNDS", "STYLES", "Style", "compose"]


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
    """Return n scenes of size × size pixels.

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
        visible: least share of an object that must be seen. A scene that breaks it is drawn again; after
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
    wish = check(size, classes, objects, domain, fold, scale, rotate, same_class, visible, colours, background)
    if n < 0:
        raise UserError(f"cannot compose {n} scenes: give a number from 0 up")
    chunks = [_chunk(wish, seed, number) for number in range(max(1, -(-n // CHUNK)))]
    columns = {name: torch.cat([chunk[name] for chunk in chunks])[:n] for name in chunks[0] if name != "caption"}
    captions = [text for chunk in chunks for text in chunk["caption"]]
    return Dataset({**columns, "caption": encode_text(captions[:n])}, _info(wish, seed))


def _info(wish: Wish, seed: int) -> Info:
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


def _chunk(wish: Wish, seed: int, number: int) -> dict:
    """Return the columns of `CHUNK` scenes (the captions as texts)."""
    things, look = (seeded(seed, wish.fold, number, stream) for stream in (0, 1))
    layout, objects = _settled(wish, things)
    ground = torch.tensor(wish.grounds)[integers(CHUNK, len(wish.grounds), things)]
    image = grounds(ground, wish, things).mul_((objects.owner == 0)[:, None])
    image += painted(layout.colour, objects, things)
    style = torch.tensor(wish.domains)[integers(CHUNK, len(wish.domains), look)]
    columns = {"image": to_bytes(styled(image, style, look))}
    columns |= truth(layout, objects, len(wish.classes))
    columns["domain"] = style
    columns["fold"] = torch.full((CHUNK,), wish.fold, dtype=torch.int8)
    return columns | {"caption": sentences(layout, objects, ground, wish)}


def _settled(wish: Wish, generator: torch.Generator) -> tuple[Layout, Objects]:
    """Draw layouts in which every object shows at least its minimum share; scenes that fail are drawn again."""
    layout = arranged(CHUNK, wish, generator)
    objects = paste(layout, wish)
    for _ in range(ROUNDS):
        failed = (layout.present & (objects.area == 0)).any(1).nonzero().flatten()
        if not len(failed):
            break
        again = arranged(len(failed), wish, generator, layout.present[failed])
        for old, new in zip((*layout, *objects), (*again, *paste(again, wish)), strict=True):
            old[failed] = new
    return compact(layout, objects)
