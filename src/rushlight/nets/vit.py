"""The token core: what masked and token-level methods ask of a vision transformer.

Everything here works on timm's `VisionTransformer` inside of our `Timm` encoder, so that what is trained stays an
encoder like any other. Tokens are in reading order; prefix tokens (class, registers) come first and are never masked.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rushlight.core.errors import UserError
from rushlight.nets.encoders import Encoder


def is_vit(encoder: nn.Module) -> bool:
    """Return whether an encoder is a vision transformer whose tokens, patches of pixels, can be masked."""
    from timm.layers import PatchEmbed
    from timm.models.vision_transformer import VisionTransformer

    model = getattr(encoder, "model", None)
    return isinstance(model, VisionTransformer) and isinstance(model.patch_embed, PatchEmbed)


def vit_needed(method: str) -> str:
    """Return, as a clause, why a method needs a vision transformer."""
    return f"'{method}' requires a vision transformer"


def check_vit(encoder: Encoder, method: str) -> None:
    """Refuse an encoder that is no vision transformer, for a method that works on tokens.

    Raises:
        UserError: it is none.
    """
    if not is_vit(encoder):
        raise UserError(f"{vit_needed(method)}, and '{encoder.name}' is none: name one, such as --encoder vit96")


def patch_size(encoder: Any) -> int:
    """Return the side of the encoder's patches, in pixels."""
    return encoder.model.patch_embed.patch_size[0]


def grid_of(encoder: Any, height: int, width: int) -> tuple[int, int]:
    """Return (rows, columns) of patches in an image of this size."""
    rows, columns = encoder.model.patch_embed.dynamic_feat_size((height, width))
    return int(rows), int(columns)


def sincos(rows: int, columns: int, width: int, *, column_first: bool = True) -> Float[Tensor, "cells width"]:
    """Return fixed sine–cosine positions of a grid, in reading order.

    Args:
        column_first: the first half of the channels tells the column, the second the row (MAE); MoCo-v3 and MultiMAE
            have it the other way round.

    Raises:
        ValueError: the width is not divisible by 4.
    """
    if width % 4:
        raise ValueError(f"sine–cosine positions need a width divisible by 4, not {width}")
    rate = 1 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    halves = []
    for place in (column, row) if column_first else (row, column):
        angle = place.flatten()[:, None] * rate
        halves.append(torch.cat([angle.sin(), angle.cos()], 1))
    return torch.cat(halves, 1).float()


def fix_positions(encoder: Any, *, column_first: bool = True) -> None:
    """Give a ViT fixed sine–cosine positions (zero for its class token), which no training changes."""
    model = encoder.model
    rows, columns = model.patch_embed.grid_size
    positions = sincos(rows, columns, model.embed_dim, column_first=column_first)
    extra = model.pos_embed.shape[1] - rows * columns
    with torch.no_grad():
        model.pos_embed.copy_(torch.cat([positions.new_zeros(extra, positions.shape[1]), positions])[None])
    model.pos_embed.requires_grad_(False)


def encode(
    encoder: Any,
    images: Float[Tensor, "batch 3 height width"],
    *,
    visible: Int[Tensor, "batch kept"] | None = None,
    masked: Bool[Tensor, "batch rows columns"] | None = None,
    mask_token: Float[Tensor, "dim"] | None = None,
) -> tuple[Float[Tensor, "batch prefix dim"], Float[Tensor, "batch tokens dim"]]:
    """Return (prefix tokens, patch tokens) after the last norm, for images in [0, 1].

    Args:
        visible: the numbers of the patches that the network sees (MAE); None shows all.
        masked: the patches whose embedding is replaced by
        mask_token: (SimMIM, iBOT), before positions are added.
    """
    model = encoder.model
    tokens = model.patch_embed(encoder.normalise(images))
    if masked is not None:
        assert mask_token is not None
        shape = masked.view(len(masked), *tokens.shape[1:-1], 1)
        tokens = torch.where(shape, mask_token.to(tokens.dtype), tokens)
    tokens = model._pos_embed(tokens)
    prefix = model.num_prefix_tokens
    if visible is not None:
        tokens = torch.cat([tokens[:, :prefix], gather(tokens[:, prefix:], visible)], 1)
    tokens = model.norm(model.blocks(model.norm_pre(tokens)))
    return tokens[:, :prefix], tokens[:, prefix:]


def gather(tokens: Float[Tensor, "batch tokens width"], rows: Int[Tensor, "batch n"]) -> Float[Tensor, "batch n width"]:
    """Return the tokens with these numbers."""
    return tokens.gather(1, rows[..., None].expand(-1, -1, tokens.shape[2]))


def pooled(encoder: Encoder, prefix: Tensor, patches: Tensor) -> Float[Tensor, "batch width"]:
    """Return what the encoder's `forward` gives for these tokens: its class token, or their mean."""
    mean = getattr(encoder, "pool", "default") == "mean" or prefix.shape[1] == 0
    return patches.mean(1) if mean else prefix[:, 0]


def patchify(images: Float[Tensor, "batch channels height width"], patch: int) -> Float[Tensor, "batch tokens values"]:
    """Return each patch's values in a row (row, column, channel), patches in reading order."""
    n, channels, height, width = images.shape
    cells = images.view(n, channels, height // patch, patch, width // patch, patch)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, patch * patch * channels)


def unpatchify(
    patches: Float[Tensor, "batch tokens values"], patch: int, grid: tuple[int, int]
) -> Float[Tensor, "batch channels height width"]:
    """Return the images of these patches."""
    rows, columns = grid
    cells = patches.view(len(patches), rows, columns, patch, patch, -1)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, rows * patch, columns * patch)


class PatchDecoder(nn.Module):
    """A light transformer that says what stands in every patch, from the tokens of the visible ones (MAE).

    Args:
        inputs: width of the encoder's tokens.
        outputs: values a patch.
        width, depth, heads: of the decoder's own blocks.
    """

    def __init__(self, *, inputs: int, outputs: int, width: int, depth: int, heads: int):
        super().__init__()
        from timm.models.vision_transformer import Block

        self.embed = nn.Linear(inputs, width)
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.predict = nn.Linear(width, outputs)

    def forward(
        self,
        prefix: Float[Tensor, "batch prefix inputs"],
        visible: Float[Tensor, "batch kept inputs"],
        rows: Int[Tensor, "batch kept"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "batch tokens outputs"]:
        """Return values of all patches of a grid; `rows` are the numbers of the visible ones."""
        count, tokens = prefix.shape[1], self.embed(torch.cat([prefix, visible], 1))
        hidden = self.mask_token.to(tokens.dtype).expand(len(tokens), grid[0] * grid[1], -1)
        places = rows[..., None].expand(-1, -1, tokens.shape[2])
        cells = hidden.scatter(1, places, tokens[:, count:]) + sincos(*grid, tokens.shape[2]).to(tokens)
        return self.predict(self.norm(self.blocks(torch.cat([tokens[:, :count], cells], 1))))[:, count:]


def decoder_size(encoder: Any) -> dict[str, int]:
    """Return width, depth and heads of MAE's decoder for an encoder: the paper's 512, 8 and 16 for 12 blocks of width
    768; two thirds of the width for narrower ones, and a quarter of the blocks for shallower ones."""
    width, depth = encoder.model.embed_dim, len(encoder.model.blocks)
    width = min(max(round(width * 2 / 3 / 32), 1) * 32, 512)
    return {"width": width, "depth": 8 if depth >= 12 else max(depth // 4, 1), "heads": max(width // 32, 1)}


def normalised_patches(patches: Float[Tensor, "batch tokens values"]) -> Float[Tensor, "batch tokens values"]:
    """Return each patch with mean 0 and (unbiased) variance 1: MAE's targets."""
    return (patches - patches.mean(2, keepdim=True)) / (patches.var(2, keepdim=True) + 1e-6).sqrt()


def drop_paths(encoder: Any, rate: float) -> None:
    """Set a ViT's residual branches to be dropped in training, with a probability that rises linearly to `rate`."""
    from timm.layers import DropPath

    blocks = encoder.model.blocks
    for number, block in enumerate(blocks):
        share = rate * number / max(len(blocks) - 1, 1)
        for name in ("drop_path1", "drop_path2"):
            setattr(block, name, DropPath(share) if share else nn.Identity())
