"""iBOT: self-distillation of views and of masked tokens at once.

DINO teaches the whole image; iBOT teaches the parts with the same head. Some patches of the student's large views are
masked, and at each of them the student must answer as the teacher does, which sees the patch. So the teacher is an
online tokeniser: none is trained beforehand.

Zhou et al., 2021, arXiv:2111.07832; code: bytedance/ibot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rushlight.augment import mask, presets
from rushlight.augment.policy import Policy
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, Whole, settings
from rushlight.core.card import Card, Needs
from rushlight.core.distributed import all_sum, world_size
from rushlight.data.dataset import Dataset
from rushlight.losses.self_distillation import Centre, across_views, cross_entropy, sharpened
from rushlight.nets.heads import prototype_head
from rushlight.nets.vit import drop_paths, encode, grid_of, pooled
from rushlight.train.joint_embedding import crop_scale, local_scale, local_size
from rushlight.train.learner import Batch
from rushlight.train.self_distillation import SelfDistillation
from rushlight.train.teacher import Teacher

LARGE = 2
"""How many views the teacher sees."""


@settings
class IBOT(SelfDistillation):
    """Self-distillation of views and of masked tokens, with the teacher as the tokeniser."""

    card: ClassVar = Card(
        id="ibot",
        title="iBOT: Image BERT Pre-Training with Online Tokenizer",
        paper="arXiv:2111.07832",
        code="bytedance/ibot",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="a vision transformer trained without labels (the teacher's)",
        says="ImageNet, ViT-S/16, 800 epochs: 75.2 % by k-NN, 77.9 % by a linear probe, 82.3 % fine-tuned",
        tags=("hybrid", "view and token distillation"),
        encoder="vit",
    )
    smallest_batch = 32

    ratio: Share = 0.3
    """Share of an image's patches that is masked, in the mean."""
    ratio_spread: NotNegative = 0.2
    """How far each image's ratio may lie to either side, evenly."""
    masked_share: Share = 0.5
    """Share of the images that are masked at all."""
    patch_weight: NotNegative = 1.0
    """Of ℓ_patch."""
    outputs: Count | None = None
    """K, of views and patches; None: at most 8192, one for 16 images and for two steps, 256 at least."""
    hidden: Count | None = None
    """Width of the head's MLP; None: six times the encoder's, at most the paper's 2048."""
    bottleneck: Count = 256
    """Width before the prototypes."""
    local: Whole | None = None
    """Small views; None: the paper's 10, fewer (2 at least) where they would leave under 1000 steps."""
    scale: tuple[SomeShare, SomeShare] | None = None
    """A large view's share of the image's area; None: 0.25 to 1, of 16×16 pixels at least."""
    small_scale: tuple[SomeShare, SomeShare] | None = None
    """A small view's share of the image's area; None: 0.05 to 0.25, of 8×8 pixels at least."""
    flip: bool = True
    """Mirror half of the views."""
    student_temperature: Positive = 0.1
    """T_s."""
    teacher_temperature: Positive = 0.07
    """T_t of views."""
    patch_temperature: Positive = 0.07
    """T_t of patches."""
    first_temperature: Positive = 0.04
    """T_t of both at the start."""
    warm_temperature: Share | None = None
    """Share of the training in which T_t rises; None: 0.3, in proportion less below 10,000 steps."""
    momentum: Share = 0.996
    """m at the start; it rises to 1 by a half cosine, and is at most (1 + t)/(10 + t) at step t."""
    centre_momentum: Share = 0.9
    """Of both centres."""
    freeze_last: Share = 0.01
    """Share of the training in which the prototypes rest."""
    drop_path: Share = 0.1
    """Of the student's blocks."""
    batch: Several = 256
    """Images a step."""
    learning_rate: Positive = 0.001
    """At its peak (the paper: 5e-4 · batch/256)."""
    weight_decay: NotNegative = 0.04
    """At the start."""
    last_weight_decay: NotNegative | None = 0.4
    """At the end, by a half cosine."""
    clip: Positive | None = 3.0
    """Largest norm of each parameter's gradient."""
    warm_up: Share = 0.1
    """Share of the steps in which the learning rate rises."""

    def build(self, data: Dataset) -> None:
        encoder, size = self.model.encoder, (data.height, data.width)
        local, outputs = self.settle(data, views=10, outputs=8192)
        head = prototype_head(encoder.width, outputs, self.hidden, self.bottleneck)
        self.add_head("projector", head)
        self.teacher = Teacher(self.model, momentum=self.momentum, own_statistics=True)
        self.centre, self.patch_centre = (Centre(outputs, self.centre_momentum) for _ in range(2))
        self.mask_token = nn.Parameter(torch.zeros(encoder.width))
        drop_paths(encoder, self.drop_path)
        self.policies: Sequence[Policy] = presets.multi_crop(
            size,
            local_size(encoder, *size),
            local=local,
            scale=self.scale or crop_scale(*size, smallest=0.25),
            local_scale=self.small_scale or local_scale(*size, largest=0.25),
            flip=self.flip,
        )

    def step(self, batch: Batch) -> Tensor:
        views = self.views(batch)
        large, local = torch.cat(views[:LARGE]), views[LARGE:]
        masked = self.masks(len(views[0]), grid_of(self.model.encoder, *large.shape[-2:]))
        rows = masked.flatten().nonzero()[:, 0].to(large.device, non_blocking=True)
        target, patch_target = self.teach(large, rows)
        answer, patch_answer = self.answers(large, masked, rows)
        student = [*answer.chunk(LARGE), *self.embed(local)]
        # ℓ = ℓ_cls + ℓ_patch
        whole = across_views(student, target.chunk(LARGE), temperature=self.student_temperature)
        parts = patch_loss(patch_answer, patch_target, masked, temperature=self.student_temperature)
        self.log(whole=whole, parts=parts)
        return whole + self.patch_weight * parts

    def answers(
        self, large: Tensor, masked: Bool[Tensor, "batch rows columns"], rows: Int[Tensor, "masked"]
    ) -> tuple[Float[Tensor, "batch outputs"], Float[Tensor, "masked outputs"]]:
        """Return the student's logits for masked views, and for their masked patches alone."""
        encoder, head = self.model.encoder, self.model.head("projector")
        prefix, patches = encode(encoder, large, masked=masked.to(large.device), mask_token=self.mask_token)
        return head(pooled(encoder, prefix, patches)), head(patches.flatten(0, 1)[rows])

    @torch.no_grad()
    def teach(
        self, large: Tensor, rows: Int[Tensor, "masked"]
    ) -> tuple[Float[Tensor, "batch outputs"], Float[Tensor, "masked outputs"]]:
        """Return the teacher's targets for whole views and for masked patches; keep its logits for the centres."""
        encoder, head = self.teacher.network.encoder, self.teacher.network.head("projector")
        prefix, patches = encode(encoder, large)
        self.seen = head(pooled(encoder, prefix, patches)), head(patches.flatten(0, 1))
        whole, parts = self.seen
        return (
            sharpened(whole, self.centre.value, self.warmed(self.teacher_temperature)),
            sharpened(parts[rows], self.patch_centre.value, self.warmed(self.patch_temperature)),
        )

    def masks(self, images: int, grid: tuple[int, int]) -> Bool[Tensor, "batch rows columns"]:
        """Return blocks for both large views of each image, one view below the other; on the CPU, where their number
        is known without waiting."""
        joined = images * self.processes
        generator = torch.Generator().manual_seed(self.joint_generator(1).initial_seed())
        spread, some = torch.rand(2, LARGE, joined, generator=generator)
        ratio = (self.ratio + (2 * spread - 1) * self.ratio_spread) * (some < self.masked_share)
        drawn = mask.block_patches(LARGE * joined, grid, ratio=ratio.flatten(), generator=generator)
        return torch.cat([self.local_rows(view) for view in drawn.chunk(LARGE)])

    def after_step(self) -> None:
        whole, patches = self.seen
        self.centre.update(whole)
        self.patch_centre.update(patches)
        super().after_step()


def patch_loss(
    student: Float[Tensor, "masked outputs"],
    target: Float[Tensor, "masked outputs"],
    masked: Bool[Tensor, "batch rows columns"],
    *,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Return the mean over all processes' images of the mean cross-entropy at each image's masked patches, 0 where it
    has none (eq. 2).

    Args:
        student, target: at the masked patches, in reading order, one image after the other.
    """
    hidden = masked.flatten(1)
    share = (hidden / hidden.sum(1, keepdim=True).clamp(min=1))[hidden].to(student)  # mᵢ / max(1, Σᵢ mᵢ)
    # 1/N Σ_images Σᵢ mᵢ·H(P_tⁱ, P_sⁱ) / max(1, Σᵢ mᵢ)
    losses = share * cross_entropy(student, target, temperature=temperature)
    return all_sum(losses.sum()) / (len(masked) * world_size())
