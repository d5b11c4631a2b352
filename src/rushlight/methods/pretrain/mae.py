"""MAE: rebuild an image of which a quarter of the patches is seen.

The encoder sees the visible patches alone, which makes it several times as cheap; a light decoder gets their tokens and
a mask token in each empty place, and predicts the pixels of every patch. So much is hidden that neighbours do not give
it away. The decoder is thrown away; pooled features are the mean of the patches' tokens.

He et al., 2021, arXiv:2111.06377; code: facebookresearch/mae.
"""

from __future__ import annotations

from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from rushlight.augment import mask
from rushlight.augment.policy import Policy
from rushlight.core.arguments import Count, NotNegative, Part, Positive, Share, SomeShare, settings
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import global_mean
from rushlight.nets.vit import (
    PatchDecoder,
    decoder_size,
    encode,
    fix_positions,
    grid_of,
    normalised_patches,
    patch_size,
    patchify,
)
from rushlight.train.joint_embedding import crop_scale
from rushlight.train.learner import Batch, Learner


@settings
class MAE(Learner):
    """Features without labels: an image is rebuilt from a quarter of its patches."""

    card: ClassVar = Card(
        id="mae",
        title="Masked Autoencoders Are Scalable Vision Learners",
        paper="arXiv:2111.06377",
        code="facebookresearch/mae",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="a vision transformer trained without labels",
        says="ImageNet, ViT-B/16, 1600 epochs: 83.6 % top-1 fine-tuned, 67.8 % by a linear probe",
        tags=("generative", "pixel reconstruction"),
        encoder="vit",
    )
    parts = {"views": 1}
    reads = ("image",)
    smallest_batch = 64

    ratio: Part = 0.75
    """Share of the patches that is masked."""
    normalise: bool = True
    """Targets by each patch's own mean and variance."""
    decoder: tuple[Count, Count, Count] | None = None
    """Its width, blocks and heads; None: 512, 8 and 16 for a ViT-B, less for smaller encoders."""
    scale: tuple[SomeShare, SomeShare] | None = None
    """A view's share of the image's area; None: 0.2 to 1, of 16×16 pixels at least."""
    flip: bool = True
    """Mirror half of the images."""
    batch: Count = 256
    """Images a step."""
    learning_rate: Positive = 0.0015
    """At its peak (the paper: 1.5e-4 · batch/256 at a batch of 4096)."""
    weight_decay: NotNegative = 0.05
    """Of weights."""
    warm_up: Share = 0.05
    """Share of the steps in which the learning rate rises (the paper: 40 of 800 epochs)."""

    def build(self, data: Dataset) -> None:
        encoder: Any = self.model.encoder
        encoder.pool_by_mean()
        fix_positions(encoder)
        size = decoder_size(encoder)
        if self.decoder is not None:
            size = dict(zip(("width", "depth", "heads"), self.decoder, strict=True))
        self.patch_decoder = PatchDecoder(inputs=encoder.model.embed_dim, outputs=3 * patch_size(encoder) ** 2, **size)
        seen = (data.height, data.width)
        scale = self.scale or crop_scale(*seen, smallest=0.2)
        self.view = Policy(seen, crop_scale=scale, flip=0.5 if self.flip else 0.0, padding="border")

    def step(self, batch: Batch) -> Tensor:
        images = self.view(batch["views"]["image"], generator=self.generator())
        grid = grid_of(self.model.encoder, *images.shape[-2:])
        joined = mask.random_patches(
            len(images) * self.processes, grid, ratio=self.ratio, generator=self.joint_generator(1)
        )
        return self.loss(images, self.local_rows(joined))

    def loss(
        self, images: Float[Tensor, "batch 3 height width"], masked: Bool[Tensor, "batch rows columns"]
    ) -> Float[Tensor, ""]:
        """Return the mean squared error of the masked patches, for images in [0, 1]."""
        encoder: Any = self.model.encoder
        rows = mask.visible(masked)
        prefix, tokens = encode(encoder, images, visible=rows)
        predicted = self.patch_decoder(prefix, tokens, rows, masked.shape[1:]).float()
        target = patchify(encoder.normalise(images.float()), patch_size(encoder))
        target = normalised_patches(target) if self.normalise else target
        error, hidden = (predicted - target).square().mean(2), masked.flatten(1)
        return global_mean((error * hidden).sum(1) / hidden.sum(1))

    def groups(self) -> list[dict]:
        return [{**group, "betas": (0.9, 0.95)} for group in super().groups()]
