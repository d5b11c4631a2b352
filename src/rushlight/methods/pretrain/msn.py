"""MSN: features without labels, from masked views that must be assigned as the whole image is. Masked siamese networks.

A masked view of an image (some of its patches dropped, so it is cheap) and small focal views pass the network; the
whole image in another view passes a slow copy. Both are compared with K prototypes, and the anchors' assignments p must
match the target's p⁺, sharpened, and balanced over the batch:

    p = softmax(⟨z, Q⟩/τ),  p⁺ₖ ∝ softmax(⟨z⁺, Q⟩/τ)ₖ^{1/T}, then Sinkhorn                      (eq. 1)
    ℓ = mean H(p⁺, p) + λ·(log K − H(p̄)),  p̄ the mean of all anchors' p                          (eq. 2)

Nothing is rebuilt: what is hidden matters only as far as it changes the assignment. The second term (mean entropy,
maximal) keeps all prototypes in use. Targets carry no gradient, also not to the prototypes.

On a convolutional encoder patches cannot be dropped: they are painted grey, which hides them but saves nothing.

Shared: policies, the token core, Sinkhorn, the cross-entropy, the moving average, the head's parts.
Assran et al., 2022, arXiv:2204.07141; code: facebookresearch/msn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rushlight.augment import mask, policy
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, Whole
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


class MSN(JointEmbedding):
    """Features without labels: masked views are assigned to prototypes as the whole image is."""

    card = Card(
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

    def __init__(
        self,
        *,
        prototypes: Count | None = None,
        outputs: Count = 256,
        hidden: Count | None = None,
        temperature: Positive = 0.1,
        sharpening: Positive = 0.25,
        entropy_weight: NotNegative = 1.0,
        drop: Share = 0.15,
        focal: Whole = 10,
        scale: tuple[SomeShare, SomeShare] | None = None,
        focal_scale: tuple[SomeShare, SomeShare] | None = None,
        flip: bool = True,
        momentum: Share = 0.996,
        batch: Several = 256,
        learning_rate: Positive = 1e-3,
        weight_decay: NotNegative = 0.04,
        last_weight_decay: NotNegative | None = 0.4,
        clip: Positive | None = 3.0,
        warm_up: Share = 0.05,
    ):
        """
        Args:
            prototypes: K; None takes the paper's 1024, or one for about 16 images of a smaller set, 256 at least.
            outputs: width of the embeddings.
            hidden: width of the head; None takes six times the encoder's, at most 2048.
            temperature: τ.
            sharpening: T.
            entropy_weight: λ.
            drop: share of the patches that the anchor lacks.
            focal: small views.
            scale, focal_scale: a large and a focal view's share of the image's area; None takes the paper's 0.3 to 1
                and 0.05 to 0.3, but no large crop of less than 16×16 pixels' area, and no focal one of less than 8×8.
            flip: mirror half of the views.
            momentum: of the teacher at the start; it rises to 1 in a straight line, and is no more than
                (1 + t)/(10 + t) at step t.
            batch: images a step.
            learning_rate: at its peak.
            weight_decay, last_weight_decay: at the start and at the end, by a half cosine.
            clip: largest norm of each parameter's gradient.
            warm_up: share of the steps in which the learning rate rises (the paper: 15 of 800 epochs).
        """
        super().__init__()
        self.prototypes, self.outputs, self.hidden = prototypes, outputs, hidden
        self.temperature, self.sharpening, self.entropy_weight = temperature, sharpening, entropy_weight
        self.drop, self.focal, self.scale, self.focal_scale, self.flip = drop, focal, scale, focal_scale, flip
        self.momentum, self.batch, self.smallest_batch = momentum, batch, min(batch, 32)
        self.learning_rate, self.weight_decay, self.last_weight_decay = learning_rate, weight_decay, last_weight_decay
        self.clip, self.warm_up = clip, warm_up

    def build(self, data: Dataset) -> None:
        encoder, size = self.model.encoder, (data.height, data.width)
        hidden = self.hidden or min(6 * encoder.width, 2048)
        head = MLP(widths=[encoder.width, hidden, hidden, self.outputs], activation="gelu")
        self.add_head("projector", head)
        self.teacher = Teacher(self.model, momentum=self.momentum, own_statistics=True)
        self.centres = Prototypes(width=self.outputs, outputs=self.prototypes or prototypes_for(len(data), 1024))
        large = policy.self_supervised(
            size, scale=self.scale or crop_scale(*size, smallest=0.3), flip=self.flip, jitter=(0.4, 0.4, 0.4, 0.1)
        )
        small = policy.self_supervised(
            local_size(encoder, *size),
            scale=self.focal_scale or local_scale(*size, largest=0.3),
            flip=self.flip,
            jitter=(0.4, 0.4, 0.4, 0.1),
        )
        self.policies: Sequence[policy.Policy] = [large, large, *[small] * self.focal]

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
        """Sharpened assignments with equal shares of the prototypes."""
        logs = (in_full(self.centres(embeddings)) / self.temperature).log_softmax(1) / self.sharpening
        return sinkhorn(logs.log_softmax(1), epsilon=1.0, iterations=3)

    def masked(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """The head's outputs of images that lack some patches; one draw of patches for the whole batch."""
        generator, encoder = self.joint_generator(1), self.model.encoder
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

    def after_step(self) -> None:
        self.teacher.update(self.model, self.momentum + (1 - self.momentum) * self.progress)


def in_full(values: Tensor) -> Tensor:
    """In float32 at least."""
    return values.float() if values.dtype.itemsize < 4 else values


def too_uneven(probabilities: Float[Tensor, "anchors prototypes"]) -> Float[Tensor, ""]:
    """log K − H(p̄): 0 where the mean over all processes' anchors is uniform, log K where one prototype has all."""
    mean = all_sum(probabilities.sum(0)) / (len(probabilities) * world_size())
    return math.log(probabilities.shape[1]) + (mean * mean.clamp(min=1e-30).log()).sum()


def grey_side(height: int, width: int) -> int:
    """The side of the patches that are painted grey: about a seventh of the image, dividing both sides."""
    return next(side for side in range(max(height // 7, 1), 0, -1) if not height % side and not width % side)
