"""What scenes are made of: cut-outs of photos, and photographed grounds."""

from __future__ import annotations

import lzma
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from rushlight.data.synthetic import fashion
from rushlight.data.synthetic.scenes.config import TILE


class _Photos(NamedTuple):
    """A fold's cut-outs, sorted by class: grey × alpha, and alpha; each class's first row and number."""

    cutouts: Float[Tensor, "photos 2 28 28"]
    start: Int[Tensor, "classes"]
    many: Int[Tensor, "classes"]


@cache
def photos(fold: int) -> _Photos:
    data = fashion.load().fold(fold)
    order = data["class"].argsort(stable=True)
    grey = data["image"][order, :1].float() / 255
    # A pixel belongs to the thing if most of its neighbourhood does: no specks, no pinholes.
    alpha = (F.avg_pool2d((grey > 0).float(), 3, stride=1, padding=1) > 0.5).float()
    grey = 0.2 + 0.8 * grey  # so that the darkest photo still shows its colour
    count = torch.bincount(data["class"], minlength=len(fashion.CLASS_NAMES))
    return _Photos(torch.cat([grey * alpha, alpha], 1), count.cumsum(0) - count, count)


@cache
def tiles(fold: int) -> UInt8[Tensor, "3 pixels"]:
    """Return the grounds' photos, red, green and blue, one after the other."""
    raw = bytearray(lzma.decompress(files("rushlight.data.synthetic").joinpath("backgrounds.xz").read_bytes()))
    tiles = torch.frombuffer(raw, dtype=torch.uint8).view(2, -1, TILE, TILE, 3)[fold]
    return tiles.flatten(0, 2).T.contiguous()
