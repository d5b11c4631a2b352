"""MSN: masked views are assigned to prototypes as the whole image is. Masked siamese networks.

A masked view of an image (some patches dropped, so it is cheap) and small focal views pass the network; another view,
whole, passes a slow copy. The anchors' assignments must match the target's, sharpened and balanced over the batch; a
second term keeps all prototypes in use. Nothing is rebuilt. On a convolutional encoder patches are painted grey.

Assran et al., 2022, arXiv:2204.07141; code: facebookresearch/msn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rushlight.augment import mask, presets
from rushlight.augment.policy import Policy
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, Whole, settings
from rushlight.core.card import Card, Needs
from rushlight.core.distributed import all_sum, world_size
from rushlight.data.dataset import Dataset
from rushlight.losses.self_distillation import cross_entropy
from rushlight.losses.transport import sinkhorn
from rushlight.nets.heads import MLP, Prototypes
from rushlight.nets.vit import encode, grid_of, is_vit, pooled
from rushlight.train.joint_embedding import JointEmbedding, crop_scale, local_scale, local_size, prototypes_for
from rushlight.train.learner import Batch
from rushlight.train.teacher import Teacher


@settings
class MSN(JointEmbedding):
    """Features without labels: masked views are assigned to prototypes as the whole image is."""

    card: ClassVar = Card(
        id="msn",
        title="Masked Siamese Networks for Label-Efficient Learning",
        paper="arXiv:2204.07141",
        code="facebookresearch/msn",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="an encoder trained without labels (the teacher's)",
        says="ImageNet with 1 % of the labels, ViT-B/4: 75.7 % top-1; ViT-S/16: 76.9 % by a linear probe on all",
        tags=("hybrid", "masked view distillation"),
    )
    smallest_batch = 32

    prototypes: Count | None = None
    """K; None: the paper's 1024, at most the images of a step, and one for about 16 images of the set."""
    outputs: Count = 256
    """Width of the embeddings."""
    hidden: Count | None = None
    """Width of the head; None takes six times the encoder's, at most 2048."""
    temperature: Positive = 0.1
    """τ."""
    sharpening: Positive = 0.25
    """T."""
    entropy_weight: NotNegative = 1.0
    """λ."""
    drop: Share = 0.15
    """Share of the patches that the anchor lacks."""
    focal: Whole = 10
    """Small views."""
    scale: tuple[SomeShare, SomeShare] | None = None
    """A large view's share of the image's area; None: 0.3 to 1, of 16×16 pixels at least."""
    focal_scale: tuple[SomeShare, SomeShare] | None = None
    """A small view's share of the image's area; None: 0.05 to 0.3, of 8×8 pixels at least."""
    flip: bool = True
    """Mirror half of the views."""
    momentum: Share = 0.996
    """Of the teacher at the start; it rises to 1 in a straight line, at most (1 + t)/(10 + t) at step t."""
    batch: Several = 256
    """Images a step."""
    learning_rate: Positive = 0.001
    """At its peak."""
    weight_decay: NotNegative = 0.04
    """At the start."""
    last_weight_decay: NotNegative | None = 0.4
    """At the end, by a half cosine."""
    clip: Positive | None = 3.0
    """Largest norm of all the encoder's gradients together."""
    warm_up: Share = 0.05
    """Share of the steps in which the learning rate rises (the paper: 15 of 800 epochs)."""

    def build(self, data: Dataset) -> None:
        encoder, size = self.model.encoder, (data.height, data.width)
        hidden = self.hidden or min(6 * encoder.width, 2048)
        head = MLP(widths=[encoder.width, hidden, hidden, self.outputs], activation="gelu")
        self.add_head("projector", head)
        self.teacher = Teacher(self.model, momentum=self.momentum, own_statistics=True)
        self.centres = Prototypes(
            width=self.outputs,
            outputs=self.prototypes or self.balanced(data),
            std=(3 * self.outputs) ** -0.5,  # of U(−1/√d, 1/√d), the official one
        )
        large = presets.self_supervised(
            size, scale=self.scale or crop_scale(*size, smallest=0.3), flip=self.flip, jitter=(0.4, 0.4, 0.4, 0.1)
        )
        small = presets.self_supervised(
            local_size(encoder, *size),
            scale=self.focal_scale or local_scale(*size, largest=0.3),
            flip=self.flip,
            jitter=(0.4, 0.4, 0.4, 0.1),
        )
        self.policies: Sequence[Policy] = [large, large, *[small] * self.focal]

    def balanced(self, data: Dataset) -> int:
        """Return a K, a power of two, for which each prototype can have an equal share of a step's images."""
        size = (data.height, data.width)
        share = math.prod(local_size(self.model.encoder, *size)) / math.prod(size)
        batch, _ = self.expected(1 / 3 + (1 - self.drop) + self.focal * share)  # target, anchor, focal views
        return min(prototypes_for(len(data), 1024), 2 ** int(math.log2(batch)))

    def step(self, batch: Batch) -> Tensor:
        target, anchor, *focal = self.views(batch)
        wanted = self.target(self.teacher(target)["projector"])
        anchors = [self.masked(anchor), *self.embed(focal)]
        scores = [in_full(self.centres(each)) for each in anchors]
        losses = torch.stack([cross_entropy(each, wanted, temperature=self.temperature) for each in scores])
        match = all_sum(losses.sum()) / (losses.numel() * world_size())
        probabilities = [(each / self.temperature).softmax(1) for each in scores]
        groups = probabilities if self.per_view else [torch.cat(probabilities)]
        spread = torch.stack([too_uneven(group) for group in groups]).mean()
        self.log(match=match, uneven=spread)
        return match + self.entropy_weight * spread

    @torch.no_grad()
    def target(self, embeddings: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch prototypes"]:
        """Return sharpened assignments with equal shares of the prototypes."""
        logs = (in_full(self.centres(embeddings)) / self.temperature).log_softmax(1) / self.sharpening
        return sinkhorn(logs.log_softmax(1), epsilon=1.0, iterations=3)

    def masked(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Return the head's outputs of images that lack some patches; one draw of patches for the whole batch."""
        generator, encoder = self.joint_generator(1), cast(Any, self.model.encoder)
        if is_vit(encoder):
            rows, columns = grid_of(encoder, *images.shape[-2:])
            hidden = mask.random_patches(1, (rows, columns), ratio=self.drop, generator=generator)
            seen = mask.visible(hidden).expand(len(images), -1)
            return self.model.head("projector")(pooled(encoder, *encode(encoder, images, visible=seen)))
        side = grey_side(*images.shape[-2:])
        grid = (images.shape[-2] // side, images.shape[-1] // side)
        hidden = mask.random_patches(1, grid, ratio=self.drop, generator=generator)
        grey = encoder.mean.to(images.dtype)
        return self.model.logits(torch.where(mask.masked_pixels(hidden, side)[:, None], grey, images), "projector")

    def groups(self) -> list[dict]:
        """Return the parameter groups: prototypes are not decayed."""
        weights, plain = super().groups()
        weights["params"] = [each for each in weights["params"] if each is not self.centres.weight]
        plain["params"].append(self.centres.weight)
        return [weights, plain]

    def clip_gradients(self, groups: list[dict]) -> None:
        """Clip the norm of all the network's gradients together; the prototypes' are left as they are."""
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)

    def after_step(self) -> None:
        self.teacher.update(self.model, self.momentum + (1 - self.momentum) * self.progress)


def in_full(values: Tensor) -> Tensor:
    """Return values in float32 at least."""
    return values.float() if values.dtype.itemsize < 4 else values


def too_uneven(probabilities: Float[Tensor, "anchors prototypes"]) -> Float[Tensor, ""]:
    """Return log K − H(p̄): 0 where the mean over all processes' anchors is uniform, log K where one takes all."""
    mean = all_sum(probabilities.sum(0)) / (len(probabilities) * world_size())
    return math.log(probabilities.shape[1]) + (mean * mean.clamp(min=1e-30).log()).sum()


def grey_side(height: int, width: int) -> int:
    """Return the side of the patches that are painted grey: about a seventh of the image, dividing both sides."""
    return next(side for side in range(max(height // 7, 1), 0, -1) if not height % side and not width % side)
