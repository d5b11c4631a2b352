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

TRIES = 10
"""Rectangles in a row that may fail before an image has all its masks (iBOT's code)."""


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
    rounds: int = 32,
    generator: torch.Generator,
) -> Bool[Tensor, "n rows columns"]:
    """Mask rectangles of patches, one after another, at most a share `ratio` of all (iBOT, arXiv:2111.07832).

    A rectangle's area lies between (min(rows, columns) // 3)² patches and the room that is left. One that covers the
    grid from side to side, adds nothing, or adds more than the room is dropped; after ten such in a row the image is
    done. Whole batches at once: each round draws one rectangle an image.

    Args:
        ratio: of every image, or each image's own.
        aspect: range of height over width, drawn evenly in its logarithm.
        rounds: rectangles drawn an image; 32 leave the distribution of the official loop as it is.
    """
    rows, columns = grid
    limit = torch.as_tensor(ratio, device=generator.device).expand(n) * rows * columns + 1e-6
    masked = torch.zeros(n, rows, columns, dtype=torch.bool, device=generator.device)
    failed = torch.zeros_like(limit)
    for draw in torch.rand(rounds, 4, n, generator=generator, device=generator.device):
        room = limit - masked.flatten(1).sum(1)
        block, inside = _rectangles(draw, room, grid, aspect)
        added = (block & ~masked).flatten(1).sum(1)
        fits = inside & (added > 0) & (added <= room) & (failed < TRIES)
        failed = torch.where(fits, 0, failed + 1)
        masked = masked | (block & fits[:, None, None])
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
    chosen = _subsets(open_, generator) if subsets else open_
    there = chosen.to(own.device)
    shares = gamma * there + 1e-12 * there
    wanted = (shares / shares.sum(1, keepdim=True) * kept).round().to(device)
    keys = []
    for modality, count in enumerate(counts):
        rank = torch.rand(n, count, generator=generator, device=device).argsort(1).argsort(1)
        keys.append((rank >= wanted[:, modality, None]).float() + 2 * ~open_[:, modality, None])
    order = torch.cat(keys, 1) + torch.rand(n, sum(counts), generator=generator, device=device)
    return order.argsort(1).argsort(1) >= kept


def _subsets(available: Bool[Tensor, "n modalities"], generator: torch.Generator) -> Bool[Tensor, "n modalities"]:
    """Return a random subset of each image's modalities, all non-empty ones equally likely (of three: 1/7 each)."""
    several = 2 ** available.sum(1)
    number = 1 + (torch.rand(len(available), generator=generator, device=available.device) * (several - 1)).long()
    place = available.cumsum(1) - 1  # each available modality owns one binary digit of the subset's number
    return available & ((number.clamp(max=several - 1)[:, None] >> place.clamp(min=0)) & 1).bool()


def _rectangles(
    draw: Float[Tensor, "4 n"], room: Float[Tensor, "n"], grid: tuple[int, int], aspect: tuple[float, float]
) -> tuple[Bool[Tensor, "n rows columns"], Bool[Tensor, "n"]]:
    """Return a rectangle of patches for each image, and whether it is smaller than the grid in both directions."""
    rows, columns = grid
    smallest = (min(grid) // 3) ** 2
    area = smallest + draw[0] * (room - smallest)  # ~ U(smallest, room)
    shape = (math.log(aspect[0]) + draw[1] * math.log(aspect[1] / aspect[0])).exp()
    height, width = (area * shape).sqrt().round(), (area / shape).sqrt().round()
    top = (draw[2] * (rows - height + 1)).floor()
    left = (draw[3] * (columns - width + 1)).floor()
    row, column = torch.arange(rows, device=draw.device), torch.arange(columns, device=draw.device)
    down = (row >= top[:, None]) & (row < (top + height)[:, None])
    across = (column >= left[:, None]) & (column < (left + width)[:, None])
    return down[:, :, None] & across[:, None], (height < rows) & (width < columns)


def masked_pixels(masked: Bool[Tensor, "n rows columns"], patch: int) -> Bool[Tensor, "n height width"]:
    """Return the pixels of the masked patches, each of patch×patch pixels."""
    return masked.repeat_interleave(patch, 1).repeat_interleave(patch, 2)


def visible(masked: Bool[Tensor, "n rows columns"]) -> Int[Tensor, "n kept"]:
    """Return the numbers of each image's visible patches, in reading order. All images must have equally many."""
    flat = masked.flatten(1)
    kept = int(flat.shape[1] - flat[0].sum())
    return flat.to(torch.uint8).argsort(dim=1, stable=True)[:, :kept]
