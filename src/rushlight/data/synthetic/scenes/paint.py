"""Scenes as pixels, and the truth of each: what is pasted on what, in which colours, on which ground."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from rushlight.data.synthetic.scenes.config import COLOURS, GROUNDS, STYLES, TILE, Wish
from rushlight.data.synthetic.scenes.draws import integers, uniform
from rushlight.data.synthetic.scenes.layout import Layout
from rushlight.data.synthetic.scenes.materials import photos, tiles


class Objects(NamedTuple):
    """What became of a layout: each pixel's owner (0 the ground) and grey value; each slot's box."""

    owner: UInt8[Tensor, "n size size"]
    grey: Float[Tensor, "n size size"]
    box: Float[Tensor, "n slots 4"]
    area: Int[Tensor, "n slots"]
    visibility: Float[Tensor, "n slots"]


def paste(layout: Layout, wish: Wish) -> Objects:
    """Paste cut-outs from front to back; one that would show less than its share is left out (area 0)."""
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
    return Objects(owner, grey, box, area, area / full.clamp(min=1))


def _cutouts(
    layout: Layout, rows: Int[Tensor, "m"], slot: int, wish: Wish
) -> tuple[Float[Tensor, "m size size"], Bool[Tensor, "m size size"]]:
    """Return grey values and alpha of one slot's photos, turned, scaled and placed, each in its own frame."""
    centre, angle = layout.centre[rows, slot, :, None], layout.angle[rows, slot, None]
    # Offsets of the pixels' centres from the object's, in halves of the photo's side, as grid_sample wants.
    offset = (torch.arange(wish.size) + 0.5 - centre) * (2 / layout.side[rows, slot, None, None])
    (x, y), cos, sin = offset.unbind(1), angle.cos(), angle.sin()
    grid = torch.empty(len(rows), wish.size, wish.size, 2)
    torch.add((cos * x)[:, None, :], (sin * y)[:, :, None], out=grid[..., 0])
    torch.add((-sin * x)[:, None, :], (cos * y)[:, :, None], out=grid[..., 1])
    photo = photos(wish.fold).cutouts.index_select(0, layout.photo[rows, slot])
    shade, alpha = F.grid_sample(photo, grid, align_corners=False).unbind(1)
    return shade / alpha.clamp(min=0.5), alpha > 0.5


def _bounds(seen: Bool[Tensor, "m size size"]) -> Float[Tensor, "m 4"]:
    """Return x1, y1, x2, y2 of the set pixels; zeros where there are none."""
    first, after = [], []
    for axis in (1, 2):  # over rows: which columns are touched; over columns: which rows
        touched = seen.view(torch.uint8).amax(axis)
        some = touched.amax(1)
        first.append(touched.argmax(1) * some)
        after.append((touched.shape[1] - touched.flip(1).argmax(1)) * some)
    return torch.stack(first + after, 1).float()


def compact(layout: Layout, objects: Objects) -> tuple[Layout, Objects]:
    """Close the slots of objects that were left out, so that numbers run from 1 without gaps."""
    kept = objects.area > 0
    if torch.equal(kept, layout.present):
        return layout, objects
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
    number = F.pad(kept.cumsum(1), (1, 0)).to(torch.uint8)
    owner = number.gather(1, objects.owner.flatten(1).long()).view(objects.owner.shape)
    rows = torch.arange(len(kept))
    moved = [values[rows[:, None], order] for values in (*layout._replace(present=kept), *objects[2:])]
    return Layout(*moved[:8]), Objects(owner, objects.grey, *moved[8:])


def painted(
    colour: Int[Tensor, "n slots"], objects: Objects, generator: torch.Generator
) -> Float[Tensor, "n 3 size size"]:
    """Paint the objects alone, on black: each in its colour, slightly varied."""
    palette = torch.tensor(list(COLOURS.values())) / 255
    tint = palette[colour] * uniform(generator, 0.88, 1.0, *colour.shape, 3)
    tint = F.pad(tint, (0, 0, 1, 0)).transpose(1, 2)  # slot 0, the ground, is black
    owner = objects.owner.flatten(1).long()
    planes = torch.stack([plane.gather(1, owner) for plane in tint.unbind(1)], 1)
    return planes.view(len(colour), 3, *objects.owner.shape[1:]).mul_(objects.grey[:, None])


def grounds(ground: Int[Tensor, "n"], wish: Wish, generator: torch.Generator) -> Float[Tensor, "n 3 size size"]:
    """Return a crop of the ground's photo (turned by a multiple of 90°, mirrored, zoomed), or smooth noise."""
    n, size, hazy = len(ground), wish.size, ground == list(GROUNDS).index("haze")
    step = uniform(generator, 0.6, min(1.6, (TILE - 1) / size), n)
    start = torch.rand(n, 2, generator=generator) * (TILE - 1 - step * size)[:, None]
    line = (start[..., None] + step[:, None, None] * torch.arange(size)).int()
    line = torch.where(integers((n, 2), 2, generator)[..., None] > 0, TILE - 1 - line, line)
    stride = torch.where(integers((n, 1), 2, generator) > 0, torch.tensor([1, TILE]), torch.tensor([TILE, 1]))
    down, across = (line * stride[..., None].int()).unbind(1)
    photo = torch.where(hazy, 0, ground).int() * TILE**2
    place = ((down + photo[:, None])[:, :, None] + across[:, None, :]).flatten()
    canvas = (
        torch.stack([plane.index_select(0, place).view(n, size, size) for plane in tiles(wish.fold)], 1).float() / 255
    )
    haze = 0.2 + 0.5 * torch.rand(n, 3, 4, 4, generator=generator)[hazy]
    canvas[hazy] = F.interpolate(haze, size=(size, size), mode="bilinear", align_corners=True)
    return canvas.mul_(uniform(generator, 0.6, 1.0, n, 1, 1, 1))


def styled(
    image: Float[Tensor, "n 3 size size"], style: Int[Tensor, "n"], generator: torch.Generator
) -> Float[Tensor, "n 3 size size"]:
    """Return the scenes in the style of their domains."""
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


def to_bytes(image: Float[Tensor, "n 3 size size"]) -> UInt8[Tensor, "n 3 size size"]:
    # By way of int32: the direct conversion is three times as slow.
    return image.clamp_(0, 1).mul_(255).round_().to(torch.int32).to(torch.uint8)


def truth(layout: Layout, objects: Objects, classes: int) -> dict[str, Tensor]:
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
