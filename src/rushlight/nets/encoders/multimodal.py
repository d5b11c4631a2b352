"""One vision transformer that reads several columns of a scene: images, depth, or both, an adapter each.

Tokens of all columns stand in one row, so any of them may be left out (Bachmann et al., 2022, "MultiMAE").
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from rushlight.core.errors import UserError
from rushlight.core.float64 import double
from rushlight.nets.encoders.base import Encoder, Size, to_unit
from rushlight.nets.encoders.timm import MEAN, Timm
from rushlight.nets.vit import is_vit, patch_size, sincos

COLUMNS = ("image", "depth")
"""What can be read, in this order."""
OWN = ("depth.", "mean", "std")
"""Weights that a file of an encoder of images may lack: they stay as they are."""


def columns_in(addition: str) -> tuple[str, ...]:
    """Return the columns that follow the first `+` in an encoder's name; empty where anything else follows."""
    named = set(addition.split("+"))
    return tuple(name for name in COLUMNS if name in named) if "depth" in named <= set(COLUMNS) else ()


class MultiModal(Encoder):
    """Images in [0, 1] and depth in any unit (NaN is unknown) → the mean of all tokens.

    It standardises depth itself, each map by its own middle, as it normalises images.

    Args:
        base: the vision transformer, with a class token and no registers; it is taken over, not copied.
        columns: what it reads, of `COLUMNS`.
        depth: the adapter of depth; None makes a new one.

    Raises:
        UserError: the encoder is no such transformer.
    """

    mean: Tensor
    std: Tensor
    positions: Float[Tensor, "cells dim"]

    def __init__(self, base: Encoder, columns: tuple[str, ...], depth: nn.Conv2d | None = None):
        if not (isinstance(base, Timm) and is_vit(base) and base.model.num_prefix_tokens == 1):
            raise UserError(f"'{base.name}' reads images alone: take a vision transformer with a class token and no "
                            "registers, such as vit96, to read depth")  # fmt: skip
        super().__init__(f"{base.name.removesuffix(f'+{MEAN}')}+{'+'.join(columns)}")
        self.reads = columns if len(columns) > 1 else columns[0]
        self.image_size, self.width = base.image_size, base.width
        self.channels, self.strides = base.channels, base.strides
        self.model, self.patch = base.model, patch_size(base)
        self.depth = depth if depth is not None else nn.Conv2d(1, base.width, self.patch, self.patch)
        self.register_buffer("mean", base.mean)
        self.register_buffer("std", base.std)
        height, width = base.model.patch_embed.grid_size
        places = sincos(height, width, base.width, column_first=False)
        self.register_buffer("positions", places.to(base.mean.device), persistent=False)
        self.model.pos_embed = None  # `positions` stand for it
        if "image" not in columns:
            self.model.patch_embed = None

    def example(
        self, n: int, size: Size = None, generator: torch.Generator | None = None
    ) -> Tensor | dict[str, Tensor]:
        """Return n images of uniform noise and n maps of depth; one of them where it reads one column."""
        height, width = size if isinstance(size, tuple) else (size or self.image_size,) * 2
        shapes = {"image": (n, 3, height, width), "depth": (n, height, width)}
        made = {name: torch.rand(shapes[name], device=self.mean.device, generator=generator) for name in self.columns}
        return made if len(made) > 1 else made[self.columns[0]]

    def prepare(self, values: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return images in [0, 1], channels last in memory; depth as it is."""
        return {name: to_unit(one) if name == "image" else one for name, one in self._named(values).items()}

    def takes(self, size: int) -> bool:
        return size > 0 and size % self.patch == 0

    def forward(self, inputs: Tensor | Mapping[str, Tensor]) -> Float[Tensor, "batch dim"]:
        """Return the mean of the tokens of those columns that are given.

        Args:
            inputs: by column; a tensor alone is of the first column.
        """
        return self.maps(inputs).mean((2, 3))

    def maps(self, inputs: Tensor | Mapping[str, Tensor]) -> Float[Tensor, "batch dim rows columns"]:
        """Return the last tokens as a map, each place the mean of its tokens of all columns."""
        tokens, grid = self.tokens(inputs)
        return self._map(self.model.norm(self.model.blocks(tokens)), grid)

    def pyramid(self, inputs: Tensor | Mapping[str, Tensor]) -> list[Float[Tensor, "batch dim rows columns"]]:
        """Return the map after each block, before the last norm."""
        (tokens, grid), levels = self.tokens(inputs), []
        for block in self.model.blocks:
            tokens = block(tokens)
            levels.append(self._map(tokens, grid))
        return levels

    def tokens(
        self, inputs: Tensor | Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, "batch one_and_tokens dim"], tuple[int, int]]:
        """Return the class token and the tokens of all given columns with their positions, and the grid of each.

        Raises:
            UserError: none of the columns that it reads is given.
        """
        given = self._named(inputs)
        height, width = next(iter(given.values())).shape[-2:]
        grid = (height // self.patch, width // self.patch)
        parts = [self._embedded(name, values) for name, values in given.items()]
        places = self._places(grid).to(parts[0].dtype)
        first = self.model.cls_token.expand(parts[0].shape[0], -1, -1).to(parts[0].dtype)
        return self.model.norm_pre(torch.cat([first, *(part + places for part in parts)], 1)), grid

    def _named(self, inputs: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        given = {self.columns[0]: inputs} if isinstance(inputs, Tensor) else inputs
        found = {name: given[name] for name in self.columns if name in given}
        if not found:
            raise UserError(f"'{self.name}' reads {' and '.join(self.columns)}, and none of them is given")
        return found

    def _embedded(self, column: str, values: Shaped[Tensor, "batch *channels height width"]) -> Tensor:
        if column == "image":
            return self.model.patch_embed((values - self.mean) / self.std).flatten(1, -2)
        return self.depth(standardise_depth(values)[0][:, None]).flatten(2).transpose(1, 2)

    def _places(self, grid: tuple[int, int]) -> Float[Tensor, "cells dim"]:
        square = round(len(self.positions) ** 0.5)
        if grid == (square, square):
            return self.positions
        return sincos(*grid, self.width, column_first=False).to(self.positions.device)

    def _map(self, tokens: Tensor, grid: tuple[int, int]) -> Float[Tensor, "batch dim rows columns"]:
        cells = tokens[:, 1:].unflatten(1, (-1, *grid))  # batch × columns of the data × rows × columns × dim
        return cells.mean(1).permute(0, 3, 1, 2)

    def completed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights from a file, ours or timm's, as this encoder loads them: parts that an encoder of images lacks
        (the adapter of depth) are taken from here, and parts that are not read are left out."""
        bare = not any(name.startswith("model.") for name in state)
        named = {f"model.{name}" if bare else name: values for name, values in state.items()}
        own = self.state_dict()
        return {name: values for name, values in own.items() if name.startswith(OWN)} | {
            name: values for name, values in named.items() if name in own
        }


def standardise_depth(
    depth: Float[Tensor, "batch height width"], *, cut: float = 0.1
) -> tuple[Float[Tensor, "batch height width"], Bool[Tensor, "batch height width"]]:
    """Standardise each depth map by the mean and the (unbiased) variance of its middle; return what is known, too.

    The middle of n known values are the ranks int(cut·n) … int((1 − cut)·n). Unknown pixels become 0.
    """
    flat = depth.float().flatten(1)
    known = ~flat.isnan()
    order = flat.masked_fill(~known, torch.inf).sort(1).values
    count = known.sum(1, keepdim=True)
    rank = torch.arange(flat.shape[1], device=depth.device)
    first, last = ((share * double(count)).long().to(depth.device) for share in (cut, 1 - cut))
    middle = (rank >= first) & (rank < last)
    values, n = order.masked_fill(~middle, 0.0), middle.sum(1, keepdim=True).clamp(min=1)
    mean = values.sum(1, keepdim=True) / n
    variance = ((values - mean) * middle).square().sum(1, keepdim=True) / (n - 1).clamp(min=1)
    # d̂ = (d − mean(middle)) / √(var(middle) + 10⁻⁶)
    result = ((flat - mean) / (variance + 1e-6).sqrt()).masked_fill(~known, 0.0)
    return result.view_as(depth), known.view(depth.shape)
