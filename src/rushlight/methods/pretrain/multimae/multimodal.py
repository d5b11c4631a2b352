"""Several modalities of one scene as tokens of one transformer: adapters in, cross-attention decoders out (MultiMAE).

A modality is a column: `image`; `depth`, one channel; `mask`, a class a pixel. All are cut into the encoder's patches,
so token i of each stands for the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from rushlight.nets.heads import Head
from rushlight.nets.vit import patch_size, sincos

UNKNOWN = 255
CLASS_WIDTH = 64
"""Width of the embedding of a class before it is cut into patches (the paper's)."""


class Adapters(Head):
    """What makes tokens of the modalities beside `image`, which the encoder's own patch embedding makes.

    As a head of a model it only travels with it (its output are the features as they are).

    Args:
        width: of the tokens. patch: side of a patch, in pixels. classes: of `mask`; 0 without it. depth: with `depth`.
    """

    def __init__(self, *, width: int, patch: int, classes: int = 0, depth: bool = False):
        super().__init__()
        self.config = {"width": width, "patch": patch, "classes": classes, "depth": depth}
        self.stride = label_stride(patch)
        self.depth = nn.Conv2d(1, width, patch, patch) if depth else None
        self.names = nn.Embedding(classes + 1, CLASS_WIDTH) if classes else None  # the last one: not known
        side = patch // self.stride
        self.mask = nn.Conv2d(CLASS_WIDTH, width, side, side) if classes else None

    def forward(self, features: Tensor) -> Tensor:
        return features

    def tokens(self, modality: str, values: Tensor) -> Float[Tensor, "batch tokens dim"]:
        """Return tokens of standardised depth (unknown pixels 0) or of a map of classes (255 unknown), no positions.

        Raises:
            KeyError: it was made without this modality.
        """
        if modality == "depth" and self.depth is not None:
            cells = self.depth(values[:, None])
        elif modality == "mask" and self.mask is not None and self.names is not None:
            coarse = values[:, :: self.stride, :: self.stride].long()
            known = coarse.masked_fill(coarse == UNKNOWN, self.names.num_embeddings - 1)
            cells = self.mask(self.names(known).permute(0, 3, 1, 2))
        else:
            raise KeyError(f"these adapters know no '{modality}'")
        return cells.flatten(2).transpose(1, 2)


def label_stride(patch: int) -> int:
    """Return the stride at which maps of classes are read and predicted: every fourth pixel of a patch of 16, and in
    proportion for others, by the next smaller number that divides the patch."""
    return next(stride for stride in range(max(patch // 4, 1), 0, -1) if patch % stride == 0)


def image_tokens(encoder: Any, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens dim"]:
    """Return the encoder's patch embedding of images in [0, 1], without positions."""
    return encoder.model.patch_embed(encoder.normalise(images)).flatten(1, -2)


def all_tokens(
    encoder: Any, adapters: Adapters, modalities: Mapping[str, Tensor], grid: tuple[int, int]
) -> Float[Tensor, "batch all_tokens dim"]:
    """Return tokens of all modalities, one after the other, with positions."""
    parts = [
        image_tokens(encoder, values) if name == "image" else adapters.tokens(name, values)
        for name, values in modalities.items()
    ]
    positions = sincos(*grid, parts[0].shape[2], column_first=False).to(parts[0])
    return torch.cat([part + positions for part in parts], 1)


def transform(encoder: Any, tokens: Float[Tensor, "batch n dim"]) -> Float[Tensor, "batch more dim"]:
    """Apply the encoder's blocks and last norm to tokens that have positions, with its class token before them."""
    model = encoder.model
    first = model.cls_token.expand(len(tokens), -1, -1).to(tokens.dtype)
    return model.norm(model.blocks(model.norm_pre(torch.cat([first, tokens], 1))))


class CrossDecoder(nn.Module):
    """Says what stands in every patch of one modality, from the visible tokens of all of them.

    Args:
        inputs: width of the encoder's tokens. outputs: values a patch. modalities: how many there are.
        width, depth, heads: of the decoder.
    """

    def __init__(self, *, inputs: int, outputs: int, modalities: int, width: int, depth: int, heads: int):
        super().__init__()
        from timm.models.vision_transformer import Block

        self.project = nn.Linear(inputs, width)
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.modality = nn.Parameter(torch.randn(modalities, width) * 0.02)
        self.query_norm, self.context_norm, self.mlp_norm = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.predict = nn.Linear(width, outputs)

    def forward(
        self,
        first: Float[Tensor, "batch 1 dim"],
        visible: Float[Tensor, "batch kept dim"],
        rows: Int[Tensor, "batch kept"],
        grid: tuple[int, int],
        own: int,
    ) -> Float[Tensor, "batch tokens outputs"]:
        """Return values of all patches of the modality number `own`; `rows` are the visible tokens' numbers among all
        tokens."""
        count = grid[0] * grid[1]
        first, visible = self.project(first), self.project(visible)
        positions = sincos(*grid, visible.shape[2], column_first=False).to(visible)
        places = (positions.repeat(len(self.modality), 1) + self.modality.repeat_interleave(count, 0)).to(visible.dtype)
        context = torch.cat([visible + places[rows], first], 1)
        hidden = self.mask_token.to(visible.dtype).expand(len(visible), places.shape[0], -1)
        filled = hidden.scatter(1, rows[..., None].expand_as(visible), visible)
        queries = filled[:, own * count : (own + 1) * count] + places[own * count : (own + 1) * count]
        context = self.context_norm(context)
        seen, _ = self.attention(self.query_norm(queries), context, context, need_weights=False)
        seen = seen + self.mlp(self.mlp_norm(seen))
        return self.predict(self.blocks(seen))


class TokenSegmenter(nn.Module):
    """An encoder with any of its modalities, all of them visible, and a linear layer on the image's tokens: a class for
    each cell of `label_stride` pixels.

    Args:
        encoder, adapters: as pretrained. modalities: which columns it reads, `image` first. classes: of its answers.
    """

    def __init__(self, encoder: Any, adapters: Adapters | None, modalities: tuple[str, ...], classes: int):
        super().__init__()
        self.encoder, self.modalities, self.patch = encoder, modalities, patch_size(encoder)
        self.adapters = adapters if adapters is not None else Adapters(width=encoder.model.embed_dim, patch=self.patch)
        self.side = self.patch // label_stride(self.patch)
        self.linear = nn.Linear(encoder.model.embed_dim, classes * self.side**2)

    def forward(self, columns: Mapping[str, Tensor]) -> Float[Tensor, "batch classes rows columns"]:
        """Return logits of each cell of `label_stride` pixels, for images in [0, 1] and standardised depth."""
        height, width = columns["image"].shape[-2:]
        grid = (height // self.patch, width // self.patch)
        given = {name: columns[name] for name in self.modalities}
        tokens = transform(self.encoder, all_tokens(self.encoder, self.adapters, given, grid))
        cells = self.linear(tokens[:, 1 : 1 + grid[0] * grid[1]])
        cells = cells.view(len(cells), *grid, self.side, self.side, -1)
        return cells.permute(0, 5, 1, 3, 2, 4).reshape(len(cells), -1, grid[0] * self.side, grid[1] * self.side)


def resized(logits: Float[Tensor, "batch classes rows columns"], size: tuple[int, int]) -> Tensor:
    """Return logits of cells as logits of pixels: each pixel has its cell's."""
    return F.interpolate(logits.float(), size=size, mode="nearest")
