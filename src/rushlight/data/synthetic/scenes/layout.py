"""Where the objects of scenes stand."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rushlight.data.synthetic.scenes.config import CANDIDATES, Wish
from rushlight.data.synthetic.scenes.draws import integers, uniform
from rushlight.data.synthetic.scenes.materials import photos


class Layout(NamedTuple):
    """Where the objects of some scenes stand, by slot, the first in front; `present`: the filled slots."""

    present: Bool[Tensor, "n slots"]
    label: Int[Tensor, "n slots"]
    photo: Int[Tensor, "n slots"]
    colour: Int[Tensor, "n slots"]
    centre: Float[Tensor, "n slots 2"]
    side: Float[Tensor, "n slots"]
    angle: Float[Tensor, "n slots"]
    depth: Float[Tensor, "n slots"]


def arranged(n: int, wish: Wish, generator: torch.Generator, present: Tensor | None = None) -> Layout:
    few, most = wish.objects
    if present is None:
        present = torch.arange(most) < few + integers(n, most - few + 1, generator)[:, None]
    label = _labels(n, wish, generator)
    side = uniform(generator, *wish.scale, n, most) * wish.size
    bank = photos(wish.fold)
    chosen = torch.tensor(wish.classes)[label]
    return Layout(
        present=present,
        label=label,
        photo=bank.start[chosen] + (uniform(generator, 0, 1, n, most) * bank.many[chosen]).long(),
        colour=torch.tensor(wish.colours)[integers((n, most), len(wish.colours), generator)],
        centre=_places(side, present, wish.size, generator),
        side=side,
        angle=uniform(generator, -wish.rotate, wish.rotate, n, most).deg2rad(),
        depth=uniform(generator, 0.05, 0.95, n, most).sort(1).values,
    )


def _labels(n: int, wish: Wish, generator: torch.Generator) -> Int[Tensor, "n slots"]:
    most, classes = wish.objects[1], len(wish.classes)
    if wish.same_class is False:
        return torch.rand(n, classes, generator=generator).argsort(1)[:, :most].contiguous()
    if wish.same_class:
        return integers(n, classes, generator)[:, None].repeat(1, most)
    return integers((n, most), classes, generator)


def _places(side: Tensor, present: Tensor, size: int, generator: torch.Generator) -> Float[Tensor, "n slots 2"]:
    """Draw centres that keep each photo's frame in the scene, away from each other by best candidate."""
    n, most = side.shape
    room = (size - side).clamp(min=0)[:, :, None, None]
    centres = side[:, :, None, None] / 2 + room * torch.rand(n, most, CANDIDATES, 2, generator=generator)
    taken = centres[:, :, 0].clone()
    for slot in range(1, most):
        gaps = (centres[:, slot, :, None] - taken[:, None, :slot]).norm(dim=-1)
        best = gaps.amin(2).argmax(1)
        taken[:, slot] = centres[torch.arange(n), slot, best]
    return taken
