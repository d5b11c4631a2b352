"""iBOT: features without labels, from self-distillation of views and of masked tokens at once.

DINO teaches the whole image: a student's view should be answered as a slow teacher answers another view. iBOT teaches
the parts with the same head: some patches of the student's large views are masked, and at each of them the student
must answer as the teacher does, which sees the patch. With P the centred, sharpened answers, over two large views
u, v and masks m:

    ℓ_cls   = mean over pairs of different views  H( P_t^cls(u), P_s^cls(v̂) )                   (eq. 3)
    ℓ_patch = mean over u of  Σᵢ mᵢ·H( P_t^i(u), P_s^i(û) ) / max(1, Σᵢ mᵢ)                      (eq. 2)
    ℓ = ℓ_cls + ℓ_patch

û is the masked view. The teacher is an online tokeniser: what it says of a patch is the target, so no tokeniser is
trained beforehand. Masks are blocks; half of the images are left whole. Patches have a centre of their own, the mean of
all the teacher's patches.

Shared: multi-crop's policies, losses and centres, the moving average, block masks, the token core, the head.
Zhou et al., 2021, arXiv:2111.07832; code: bytedance/ibot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rushlight.augment import mask, policy
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, Whole
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import global_mean
from rushlight.losses.self_distillation import Centre, across_views, cross_entropy, sharpened
from rushlight.nets.heads import prototype_head
from rushlight.nets.vit import drop_paths, encode, grid_of, pooled
from rushlight.train.joint_embedding import crop_scale, local_scale, local_size, prototypes_for
from rushlight.train.learner import Batch
from rushlight.train.self_distillation import SelfDistillation
from rushlight.train.teacher import Teacher

LARGE = 2
"""How many views the teacher sees."""


class IBOT(SelfDistillation):
    """Self-distillation of views and of masked tokens, with the teacher as the tokeniser."""

    card = Card(
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

    def __init__(
        self,
        *,
        ratio: Share = 0.3,
        ratio_spread: NotNegative = 0.2,
        masked_share: Share = 0.5,
        patch_weight: NotNegative = 1.0,
        outputs: Count | None = None,
        hidden: Count | None = None,
        bottleneck: Count = 256,
        local: Whole = 10,
        scale: tuple[SomeShare, SomeShare] | None = None,
        small_scale: tuple[SomeShare, SomeShare] | None = None,
        flip: bool = True,
        student_temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.07,
        patch_temperature: Positive = 0.07,
        first_temperature: Positive = 0.04,
        warm_temperature: Positive = 0.3,
        momentum: Share = 0.996,
        centre_momentum: Share = 0.9,
        freeze_last: Share = 0.01,
        drop_path: Share = 0.1,
        batch: Several = 256,
        learning_rate: Positive = 1e-3,
        weight_decay: NotNegative = 0.04,
        last_weight_decay: NotNegative | None = 0.4,
        clip: Positive | None = 3.0,
        warm_up: Share = 0.1,
    ):
        """
        Args:
            ratio: share of an image's patches that is masked, drawn evenly up to `ratio_spread` to either side.
            masked_share: share of the images that are masked at all.
            patch_weight: of ℓ_patch.
            outputs: of the head that views and patches share; None takes the paper's 8192, or one for about 16
                images of a smaller set, 256 at least.
            hidden, bottleneck: of the head (see `nets.heads.prototype_head`).
            local: small views.
            scale, small_scale: a large and a small view's share of the image's area; None takes the paper's 0.25 to 1
                and 0.05 to 0.25, but no large crop of less than 16×16 pixels' area, and no small one of less than 8×8.
            flip: mirror half of the views.
            student_temperature: T_s.
            teacher_temperature, patch_temperature: T_t of views and of patches; they go there from
                `first_temperature` over the share `warm_temperature` of the training.
            momentum: m at the start; it rises to 1 by a half cosine, and is no more than (1 + t)/(10 + t) at step t.
            centre_momentum: of both centres.
            freeze_last: share of the training in which the prototypes rest.
            drop_path: of the student's blocks.
            batch: images a step.
            learning_rate: at its peak (the paper: 5e-4 · batch/256).
            weight_decay, last_weight_decay: at the start and at the end, by a half cosine.
            clip: largest norm of each parameter's gradient.
            warm_up: share of the steps in which the learning rate rises.
        """
        super().__init__()
        self.ratio, self.ratio_spread, self.masked_share = ratio, ratio_spread, masked_share
        self.patch_weight, self.outputs, self.hidden, self.bottleneck = patch_weight, outputs, hidden, bottleneck
        self.local, self.scale, self.small_scale, self.flip = local, scale, small_scale, flip
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.patch_temperature, self.first_temperature = patch_temperature, first_temperature
        self.warm_temperature, self.momentum, self.centre_momentum = warm_temperature, momentum, centre_momentum
        self.freeze_last, self.drop_path, self.batch, self.smallest_batch = (
            freeze_last,
            drop_path,
            batch,
            min(batch, 32),
        )
        self.learning_rate, self.weight_decay, self.last_weight_decay = learning_rate, weight_decay, last_weight_decay
        self.clip, self.warm_up = clip, warm_up

    def build(self, data: Dataset) -> None:
        encoder, size = self.model.encoder, (data.height, data.width)
        outputs = self.outputs or prototypes_for(len(data), 8192)
        head = prototype_head(encoder.width, outputs, self.hidden, self.bottleneck)
        self.add_head("projector", head)
        self.teacher = Teacher(self.model, momentum=self.momentum, own_statistics=True)
        self.centre, self.patch_centre = (Centre(outputs, self.centre_momentum) for _ in range(2))
        self.mask_token = nn.Parameter(torch.zeros(encoder.width))
        drop_paths(encoder, self.drop_path)
        self.policies: Sequence[policy.Policy] = policy.multi_crop(
            size,
            local_size(encoder, *size),
            local=self.local,
            scale=self.scale or crop_scale(*size, smallest=0.25),
            local_scale=self.small_scale or local_scale(*size, largest=0.25),
            flip=self.flip,
        )

    def step(self, batch: Batch) -> Tensor:
        views = self.views(batch)
        large, local = torch.cat(views[:LARGE]), views[LARGE:]
        masked = self.masks(len(views[0]), grid_of(self.model.encoder, *large.shape[-2:]))
        target, patch_target = self.teach(large)
        answer, patches = self.answers(self.model, large, masked)
        student = [*answer.chunk(LARGE), *self.embed(local)]
        whole = across_views(student, target.chunk(LARGE), temperature=self.student_temperature)
        parts = patch_loss(patches, patch_target, masked, temperature=self.student_temperature)
        self.log(whole=whole, parts=parts)
        return whole + self.patch_weight * parts

    def answers(
        self, network: Any, images: Tensor, masked: Bool[Tensor, "batch rows columns"] | None = None
    ) -> tuple[Float[Tensor, "batch outputs"], Float[Tensor, "batch tokens outputs"]]:
        """The head's outputs for whole images and for each patch."""
        token = self.mask_token if masked is not None else None
        prefix, patches = encode(network.encoder, images, masked=masked, mask_token=token)
        head = network.head("projector")
        return head(pooled(network.encoder, prefix, patches)), head(patches)

    @torch.no_grad()
    def teach(self, large: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's targets for views and for patches; its logits wait for the centres."""
        self.seen = self.answers(self.teacher.network, large)
        whole, patches = self.seen
        return (
            sharpened(whole, self.centre.value, self.warmed(self.teacher_temperature)),
            sharpened(patches, self.patch_centre.value, self.warmed(self.patch_temperature)),
        )

    def masks(self, images: int, grid: tuple[int, int]) -> Bool[Tensor, "batch rows columns"]:
        """Blocks for both large views of each image, one view below the other."""
        generator, joined = self.joint_generator(1), images * self.processes
        drawn = []
        for _ in range(LARGE):
            draw = torch.rand(2, joined, generator=generator, device=generator.device)
            ratio = (self.ratio + (2 * draw[0] - 1) * self.ratio_spread) * (draw[1] < self.masked_share)
            drawn.append(
                self.local_rows(mask.block_patches(joined, grid, ratio=ratio, smallest=1, generator=generator))
            )
        return torch.cat(drawn)

    def after_step(self) -> None:
        whole, patches = self.seen
        self.centre.update(whole)
        self.patch_centre.update(patches)
        super().after_step()


def patch_loss(
    student: Float[Tensor, "batch tokens outputs"],
    target: Float[Tensor, "batch tokens outputs"],
    masked: Bool[Tensor, "batch rows columns"],
    *,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """The cross-entropy at an image's masked patches, their mean; then the mean over all images of all processes, those
    without a masked patch counting as 0."""
    hidden = masked.flatten(1)
    losses = cross_entropy(student, target, temperature=temperature) * hidden
    return global_mean(losses.sum(1) / hidden.sum(1).clamp(min=1))
