"""Which patches of an image a model must do without: random and block masks on a grid of patches.

True is masked. All of one batch have equally many masked patches where the method needs that
(`random_patches`), so that the visible ones can be gathered into one tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rushlight.core import float64


def random_patches(
    n: int, grid: tuple[int, int], *, ratio: float = 0.75, generator: torch.Generator
) -> Bool[Tensor, "n rows columns"]:
    """Mask a fixed number of patches, all sets of them equally likely (MAE, arXiv:2111.06377).

    Args:
        grid: (rows, columns) of patches.
        ratio: share that is masked; int(patches · (1 − ratio)) are kept, as in MAE's code.
    """
    rows, columns = grid
    kept = int(rows * columns * (1 - ratio) + 1e-9)
    order = torch.rand(n, rows * columns, generator=generator, device=generator.device).argsort(1).argsort(1)
    return (order >= kept).view(n, rows, columns)


def coarse_patches(
    n: int, grid: tuple[int, int], *, ratio: float = 0.6, block: int = 1, generator: torch.Generator
) -> Bool[Tensor, "n rows columns"]:
    """Mask ⌈ratio · cells⌉ cells of a coarser grid, each of block×block patches (SimMIM, arXiv:2111.09886).

    Raises:
        ValueError: the grid is not divisible into such blocks.
    """
    rows, columns = grid
    if rows % block or columns % block:
        raise ValueError(f"a grid of {rows}×{columns} patches does not divide into blocks of {block}×{block}")
    cells = (rows // block) * (columns // block)
    masked = math.ceil(ratio * cells - 1e-9)
    order = torch.rand(n, cells, generator=generator, device=generator.device).argsort(1).argsort(1)
    coarse = (order < masked).view(n, rows // block, columns // block)
    return coarse.repeat_interleave(block, 1).repeat_interleave(block, 2)


def block_patches(
    n: int,
    grid: tuple[int, int],
    *,
    ratio: float | Float[Tensor, "n"] = 0.3,
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    smallest: int = 4,
    blocks: int = 10,
    generator: torch.Generator,
) -> Bool[Tensor, "n rows columns"]:
    """Mask rectangles of patches, one after another, never more than ⌊ratio · patches⌋ in all (iBOT, BEiT); the ratio
    may be each image's own.

    Whole batches at once: each round draws a rectangle an image, of an area between `smallest` patches and
    the room that is left, and drops it where it would add more than that room. (iBOT's code tries each
    rectangle up to ten times and stops at its first failure; here `blocks` rounds are drawn in any case.)
    """
    rows, columns = grid
    device = generator.device
    limit = (torch.as_tensor(ratio, device=device).expand(n) * rows * columns + 1e-6).long()
    masked = torch.zeros(n, rows, columns, dtype=torch.bool, device=device)
    for draw in torch.rand(blocks, n, 4, generator=generator, device=device):
        room = limit - masked.flatten(1).sum(1)
        block = _rectangles(draw, room, grid, limit.clamp(max=smallest), aspect)
        added = (block & ~masked).flatten(1).sum(1)
        masked = masked | (block & (added <= room)[:, None, None])
    return masked


def dirichlet_tokens(
    n: int,
    counts: Sequence[int],
    *,
    kept: int,
    alpha: float = 1.0,
    available: Bool[Tensor, "n modalities"] | None = None,
    subsets: bool = False,
    generator: torch.Generator,
) -> Bool[Tensor, "n tokens"]:
    """Mask the tokens of several modalities, one after the other in a row, so that each image keeps exactly `kept`
    (MultiMAE, arXiv:2204.01678).

    Each image draws the modalities' shares from Dirichlet(alpha, …), rounds them to numbers of tokens, and draws so
    many of each; what rounding adds or lacks is made up at random.

    Args:
        counts: tokens of each modality.
        alpha: small ones favour one modality, large ones equal shares.
        available: of which modalities an image has any; tokens of the others are never kept.
        subsets: draw a random non-empty set of modalities first, and share among these.

    Raises:
        ValueError: an image has fewer available tokens than are to be kept.
    """
    device, sizes = generator.device, torch.tensor(counts, device=generator.device)
    open_ = torch.ones(n, len(counts), dtype=torch.bool, device=device) if available is None else available
    if bool(((open_ * sizes).sum(1) < kept).any()):
        raise ValueError(f"an image has fewer than {kept} tokens of known modalities to keep")
    own = float64.drawing(generator)
    gamma = torch._standard_gamma(torch.full((n, len(counts)), alpha, dtype=torch.float64, device=own.device), own)
    chosen = open_ & (torch.rand(n, len(counts), generator=generator, device=device) < 0.5) if subsets else open_
    chosen = torch.where(chosen.any(1, keepdim=True), chosen, open_)
    there = chosen.to(own.device)
    shares = gamma * there + 1e-12 * there
    wanted = (shares / shares.sum(1, keepdim=True) * kept).round().to(device)
    keys = []
    for modality, count in enumerate(counts):
        rank = torch.rand(n, count, generator=generator, device=device).argsort(1).argsort(1)
        keys.append((rank >= wanted[:, modality, None]).float() + 2 * ~open_[:, modality, None])
    order = torch.cat(keys, 1) + torch.rand(n, sum(counts), generator=generator, device=device)
    return order.argsort(1).argsort(1) >= kept


def _rectangles(
    draw: Tensor, room: Tensor, grid: tuple[int, int], smallest: Tensor, aspect: tuple[float, float]
) -> Tensor:
    rows, columns = grid
    area = smallest + draw[:, 0] * (room - smallest).clamp(min=0)
    shape = (math.log(aspect[0]) + draw[:, 1] * math.log(aspect[1] / aspect[0])).exp()
    height = (area * shape).sqrt().round().clamp(1, rows)
    width = (area / shape).sqrt().round().clamp(1, columns)
    top = (draw[:, 2] * (rows - height + 1)).floor()
    left = (draw[:, 3] * (columns - width + 1)).floor()
    row, column = torch.arange(rows, device=draw.device), torch.arange(columns, device=draw.device)
    down = (row >= top[:, None]) & (row < (top + height)[:, None])
    across = (column >= left[:, None]) & (column < (left + width)[:, None])
    return down[:, :, None] & across[:, None]


def masked_pixels(masked: Bool[Tensor, "n rows columns"], patch: int) -> Bool[Tensor, "n height width"]:
    """The pixels of the masked patches, each of patch×patch pixels."""
    return masked.repeat_interleave(patch, 1).repeat_interleave(patch, 2)


def visible(masked: Bool[Tensor, "n rows columns"]) -> Int[Tensor, "n kept"]:
    """The numbers of the visible patches of each image, in reading order. All must have equally many."""
    flat = masked.flatten(1)
    kept = int(flat.shape[1] - flat[0].sum())
    return flat.to(torch.uint8).argsort(dim=1, stable=True)[:, :kept]
