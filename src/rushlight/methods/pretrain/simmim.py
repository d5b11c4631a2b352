"""SimMIM: rebuild masked blocks of an image by one linear layer.

The patches of masked blocks are replaced by a mask token, the whole sequence passes the encoder, and one linear layer
predicts pixels. No decoder, no normalised targets, no tokeniser; large blocks keep the network from copying
neighbours. Pooled features are the mean of the patches' tokens.

Xie et al., 2021, arXiv:2111.09886; code: microsoft/SimMIM.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rushlight.augment import mask
from rushlight.augment.policy import Policy
from rushlight.core.arguments import Count, NotNegative, Part, Positive, Share, SomeShare, settings
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import global_mean
from rushlight.nets.vit import drop_paths, encode, grid_of, patch_size, patchify
from rushlight.train.joint_embedding import crop_scale
from rushlight.train.learner import Batch, Learner

BLOCK = 32 / 192
"""Side of a masked block as a share of the image's: the paper's 32 of 192 pixels."""


@settings
class SimMIM(Learner):
    """Features without labels: masked blocks are rebuilt by one linear layer."""

    card: ClassVar = Card(
        id="simmim",
        title="SimMIM: A Simple Framework for Masked Image Modeling",
        paper="arXiv:2111.09886",
        code="microsoft/SimMIM",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="a vision transformer trained without labels",
        says="ImageNet, ViT-B/16, 800 epochs: 83.8 % top-1 fine-tuned",
        tags=("generative", "pixel reconstruction"),
        encoder="vit",
    )
    parts = {"views": 1}
    reads = ("image",)
    smallest_batch = 64

    ratio: Part = 0.6
    """Share of the blocks that is masked, rounded up."""
    block: Count | None = None
    """Its side in patches; None: the paper's sixth of the image, or less where that does not divide the grid."""
    drop_path: Share = 0.1
    """Of the encoder's blocks, while it is pretrained."""
    scale: tuple[SomeShare, SomeShare] | None = None
    """A view's share of the image's area; None: 0.67 to 1, of 16×16 pixels at least."""
    flip: bool = True
    """Mirror half of the images."""
    batch: Count = 256
    """Images a step."""
    learning_rate: Positive = 0.001
    """At its peak (the paper: 1e-4 · batch/512 at 2048)."""
    weight_decay: NotNegative = 0.05
    """Of weights."""
    clip: Positive | None = 5.0
    """Largest norm of each parameter's gradient (the paper: 5, of all of them)."""
    warm_up: Share = 0.05
    """Share of the steps in which the learning rate rises (the paper: 20 of 800 epochs)."""

    def build(self, data: Dataset) -> None:
        encoder: Any = self.model.encoder
        encoder.pool_by_mean()
        drop_paths(encoder, self.drop_path)
        width = encoder.model.embed_dim
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.predict = nn.Linear(width, 3 * patch_size(encoder) ** 2)
        size = (data.height, data.width)
        self.side = self.block or block_side(grid_of(encoder, *size))
        scale = self.scale or crop_scale(*size, smallest=0.67)
        self.view = Policy(size, crop_scale=scale, flip=0.5 if self.flip else 0.0, padding="border")

    def step(self, batch: Batch) -> Tensor:
        images = self.view(batch["views"]["image"], generator=self.generator())
        grid = grid_of(self.model.encoder, *images.shape[-2:])
        joined = mask.coarse_patches(
            len(images) * self.processes, grid, ratio=self.ratio, block=self.side, generator=self.joint_generator(1)
        )
        return self.loss(images, self.local_rows(joined))

    def loss(
        self, images: Float[Tensor, "batch 3 height width"], masked: Bool[Tensor, "batch rows columns"]
    ) -> Float[Tensor, ""]:
        """Return the mean absolute error of the masked pixels, for images in [0, 1]."""
        encoder: Any = self.model.encoder
        _, tokens = encode(encoder, images, masked=masked, mask_token=self.mask_token)
        target = patchify(encoder.normalise(images.float()), patch_size(encoder))
        error, hidden = (self.predict(tokens).float() - target).abs().mean(2), masked.flatten(1)
        return global_mean((error * hidden).sum(1) / hidden.sum(1))

    def finish(self) -> Any:
        model = super().finish()
        drop_paths(model.encoder, 0.0)
        return model


def block_side(grid: tuple[int, int]) -> int:
    """Return the largest block, in patches, of at most a sixth of the grid's shorter side that divides both sides."""
    wanted = max(round(BLOCK * min(grid)), 1)
    return next(side for side in range(wanted, 0, -1) if not grid[0] % side and not grid[1] % side)
