"""CW-BASS: segmentation from few masks, with pseudo-labels that are weighed by confidence and taught at
borders.

Self-training segments couple to their first labels, repeat their own errors, and blur objects' edges. A
teacher (the running average of the student) labels each unlabelled image u: confidence c = max softmax, class
ŷ. Four cheap changes to the loss on these labels:

    b   = Sobel(one-hot ŷ) ≠ 0, before anything is filtered             borders of what the teacher sees
    T   = clamp(T₀ / (1 + exp(−β(mean c − ½))), low, high)              a threshold that follows the batch
    V   = pixels with c > T; the others count nowhere
    c   ← δ·c (or δ^epoch·c), if asked for                              confidence decay
    L_u = Σ_V c^γ·CE / |V|  +  ½ · Σ_{V∩b} CE / |V∩b|                   confidence-weighted, boundary-aware
    L   = CE on the known pixels + λ·ramp·L_u

Student and teacher see the same basic view (scale, crop, flip); or the student a strong one that lies on it
pixel for pixel (jitter, grey, blur, cut-out). As an option ST++'s retraining: self-training with half of the
budget, the images on which its checkpoints agreed are labelled, and the training starts anew with them.

Shared: views, the losses and the threshold, the teacher, the decoder, the choice of reliable images.
Tarubinga et al., IJCNN 2025, arXiv:2502.15152; code: psychofict/CW-BASS. ST++: Yang et al., 2022,
arXiv:2106.05095.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from tensordict import TensorDict
from torch import Tensor, nn

from rushlight.augment import mix, policy
from rushlight.core.arguments import Count, NotNegative, Positive, Share
from rushlight.core.card import Card, Needs, some
from rushlight.data.dataset import Dataset
from rushlight.losses import consistency, supervised
from rushlight.methods.semi.cw_bass import boundary, reliable
from rushlight.run.budget import Spent, count_flops, pass_flops
from rushlight.run.model import Model
from rushlight.run.stage import Outcome, RunContext, Stage
from rushlight.train.learner import Batch, Learner
from rushlight.train.optim import OptimiserName, ScheduleName
from rushlight.train.pseudo_labels import PseudoLabels
from rushlight.train.teacher import Teacher

EARLIER = 2
"""Checkpoints before the last one, at equal distances, that reliable images are chosen by."""


class CWBASS(Learner):
    """Semi-supervised segmentation with confidence-weighted, boundary-aware pseudo-labels."""

    card = Card(
        id="cw-bass",
        title="Confidence-Weighted Boundary-Aware Learning for Semi-Supervised Semantic Segmentation",
        paper="arXiv:2502.15152",
        code="psychofict/CW-BASS",
        family="semi",
        role="learner",
        task=frozenset({"mask"}),
        needs=Needs("image", some("mask")),
        gives="a segmenter trained on few masks and many unlabelled images",
        says="Pascal VOC with 1/8 of the masks: 75.81 mIoU; Cityscapes with 100 masks: 65.9 (a later version)",
    )

    def __init__(
        self,
        *,
        base: Share = 0.6,
        sensitivity: NotNegative = 0.5,
        low: Share = 0.3,
        high: Share = 0.8,
        gamma: NotNegative = 1.0,
        boundary_weight: NotNegative = 0.5,
        unlabelled_weight: NotNegative = 1.0,
        ramp: Share = 5 / 80,
        decay: Literal["off", "constant", "epoch"] = "off",
        decay_factor: Share = 0.9,
        views: Literal["basic", "strong"] = "basic",
        zero_padding: bool = False,
        retrain: bool = False,
        reliable_share: Share = 0.5,
        ratio: Count = 1,
        momentum: Share = 0.999,
        batch: Count = 16,
        optimiser: OptimiserName = "adamw",
        schedule: ScheduleName = "cosine",
        learning_rate: Positive = 2e-3,
        weight_decay: NotNegative = 1e-4,
        head_scale: NotNegative = 1.0,
    ):
        """
        Args:
            base: T₀, sensitivity: β, low, high: of the threshold. With the paper's values it stays between
                0.30
                and 0.337 and drops almost nothing; watch `kept`.
            gamma: γ, the power of the confidence as a weight; 0 weighs all pixels alike.
            boundary_weight: of the loss at borders.
            unlabelled_weight: λ.
            ramp: share of the training in which λ rises from 0 (the paper: 5 of 80 epochs).
            decay: of the confidence: by `decay_factor` in each step alike (the released code), or by its
                power, the number of the epoch (the paper's text).
            views: what the student sees of unlabelled images: the teacher's view, or a strong one on it.
            zero_padding: of the Sobel filter, as released: the frame of each image counts as a border.
            retrain: ST++'s second training, with the `reliable_share` most reliable images labelled.
            ratio: unlabelled images for each labelled one.
            momentum: of the teacher.
            batch: labelled images a step.
            optimiser, schedule, learning_rate, head_scale: the paper: sgd, poly, 0.001 (Cityscapes 0.004),
            and
                10 times that for the decoder, on an encoder that is pretrained.
            weight_decay: of weights.
        """
        super().__init__()
        self.base, self.sensitivity, self.low, self.high = base, sensitivity, low, high
        self.gamma, self.boundary_weight, self.unlabelled_weight = gamma, boundary_weight, unlabelled_weight
        self.ramp, self.decay, self.decay_factor = ramp, decay, decay_factor
        self.views, self.zero_padding, self.momentum = views, zero_padding, momentum
        self.retrain, self.reliable_share = retrain, reliable_share
        self.parts = {"labelled": 1, "unlabelled": ratio}
        self.batch, self.smallest_batch = batch, min(batch, 8)
        self.optimiser, self.schedule, self.head_scale = optimiser, schedule, head_scale
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.keeps_earlier, self.relied = False, torch.empty(0, dtype=torch.long)

    def build(self, data: Dataset) -> None:
        super().build(data)
        size = (data.height, data.width)
        self.basic, self.strong = policy.dense_weak(size), policy.dense_strong(size)
        self.teacher = Teacher(self.model, momentum=self.momentum)
        if self.keeps_earlier:
            copies = [copy.deepcopy(self.model).requires_grad_(False) for _ in range(EARLIER)]
            self.earlier = nn.ModuleList(copies)

    def rows(self, data: Dataset, part: str) -> Int[Tensor, "n"]:
        if part == "unlabelled":
            return (~data.known("mask")).nonzero().squeeze(1)
        if part == "reliable":
            return self.relied
        rows = super().rows(data, part)
        return rows[~torch.isin(rows, self.relied)]

    def step(self, batch: Batch) -> Tensor:
        generator, labelled = self.generator(), batch["labelled"]
        images, view = self.basic.with_view(labelled["image"], generator=generator)
        seen, asked, inside = self._unlabelled_views(batch["unlabelled"]["image"], generator)
        pseudo, border = self._pseudo_labels(seen, inside)
        known, guess = self.model.logits(torch.cat([images, asked])).split([len(images), len(asked)])
        known_loss = supervised.masks(known, view.masks(labelled["mask"]))
        unlabelled_loss = self._unlabelled_loss(guess.float(), pseudo, border)
        self.log(known=known_loss, unlabelled=unlabelled_loss, kept=pseudo.kept,
                  border=border.float().mean(), threshold=self._threshold)  # fmt: skip
        if "reliable" in batch:
            known_loss = (known_loss + self._reliable_loss(batch["reliable"], generator)) / 2
        weight = self.unlabelled_weight * consistency.linear_ramp(self.progress, self.ramp)
        return known_loss + weight * unlabelled_loss

    def groups(self) -> list[dict]:
        """Encoder and heads apart: the heads' learning rate is `head_scale` times the encoder's."""
        heads = {id(parameter) for parameter in self.model.heads.parameters()}
        parted = []
        for group in super().groups():
            for scale, inside in ((1.0, False), (self.head_scale, True)):
                chosen = [p for p in group["params"] if (id(p) in heads) == inside]
                parted.append({**group, "params": chosen, "scale": scale})
        return parted

    def _unlabelled_views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """What the teacher sees, what the student sees, and the pixels of it that show something."""
        seen, view = self.basic.with_view(images, generator=generator)
        if self.views == "basic":
            return seen, seen, view.inside()
        asked, _ = self.strong.with_view(images, generator=generator, like=view)
        asked, visible = _cutout(asked, generator)
        return seen, asked, view.inside() & visible

    @torch.no_grad()
    def _pseudo_labels(self, images: Tensor, inside: Tensor) -> tuple[PseudoLabels, Tensor]:
        """The teacher's classes, where they count, and their (decayed) confidence; and its borders."""
        logits = self.teacher.network.logits(images).float()
        confidence, target = logits.softmax(1).max(1)
        border = boundary.boundary_mask(target, classes=logits.shape[1], zero_padding=self.zero_padding)
        limits = {"base": self.base, "sensitivity": self.sensitivity, "low": self.low, "high": self.high}
        self._threshold = consistency.dynamic_threshold(confidence, **limits)
        mask = (confidence > self._threshold) & inside
        if self.decay != "off":
            epoch = self._epoch() if self.decay == "epoch" else None
            confidence = boundary.decay_confidence(confidence, factor=self.decay_factor, epoch=epoch)
        return PseudoLabels(target, mask, confidence), border

    def _unlabelled_loss(self, logits: Tensor, pseudo: PseudoLabels, border: Tensor) -> Tensor:
        assert pseudo.weight is not None
        target = pseudo.target.masked_fill(~pseudo.mask, boundary.IGNORE)
        weighted = boundary.confidence_cross_entropy(logits, target, pseudo.weight, gamma=self.gamma)
        if not self.boundary_weight:
            return weighted
        return weighted + self.boundary_weight * boundary.boundary_cross_entropy(logits, target, border)

    def _epoch(self) -> int:
        """How many times all unlabelled images were seen."""
        seen = self.step_index * self.plan.batch * self.parts["unlabelled"]
        return int(seen // max(len(self._rows["unlabelled"]), 1))

    # ST++: a second training on the images that the first one was sure of from early on ------------------------------

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        if not self.retrain:
            return super().run(data, model, ctx)
        labelled = ctx.substage("labelling", share=0.5).run(Labelling(self), data, model)
        self.relied = (labelled.data.known("mask") & ~data.known("mask")).nonzero().squeeze(1)
        self.parts = {**self.parts, "reliable": 1}
        retrained = super().run(labelled.data, model, ctx.after(labelled.spent))
        return replace(retrained.charged(labelled.spent), data=data, curve=labelled.curve + retrained.curve)

    def after_step(self) -> None:
        super().after_step()
        if self.keeps_earlier:
            for number, earlier in enumerate(self.earlier, 1):
                if self.progress <= number / (EARLIER + 1):
                    earlier.load_state_dict(self.teacher.network.state_dict())

    def _reliable_loss(self, labelled: TensorDict, generator: torch.Generator) -> Tensor:
        """Cross-entropy on the labels of reliable images, in strong views."""
        images, view = self.strong.with_view(labelled["image"], generator=generator)
        images, visible = _cutout(images, generator)
        target = view.masks(labelled["mask"]).masked_fill(~visible, boundary.IGNORE)
        return supervised.masks(self.model.logits(images), target)


class Labelling(Stage):
    """ST++'s first half: self-training, and the masks of the images on which its checkpoints agreed."""

    def __init__(self, learner: CWBASS):
        self.card = learner.card  # type: ignore[misc]
        self.learner = copy.deepcopy(learner)
        self.learner.retrain, self.learner.keeps_earlier = False, True

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        trained = self.learner.run(data, model, ctx)
        checkpoints = [checkpoint.cpu() for checkpoint in self.learner.earlier] + [trained.model]
        rows = self.learner.rows(data, "unlabelled")
        image = data["image"][:1].float() / 255
        price = len(checkpoints) * count_flops(lambda: trained.model.logits(image))
        a_pass = pass_flops(trained.model.encoder, (data.height, data.width))
        if ctx.budget.passes is not None:  # ranking costs at most a fifth of this half of the budget
            rows = rows[: max(int(0.2 * ctx.budget.passes * a_pass / price), 2)]
        labelled, _ = reliable.label_reliable(data, checkpoints, rows, share=self.learner.reliable_share)
        ranked = Spent(len(rows) * price / a_pass, len(rows) * price)
        return replace(trained.charged(ranked), data=labelled)


def _cutout(
    images: Float[Tensor, "batch 3 h w"], generator: torch.Generator
) -> tuple[Float[Tensor, "batch 3 h w"], Bool[Tensor, "batch h w"]]:
    """ST++'s cut-out: in half of the images a box of 2 to 40 % of the area is noise; and what is left to
    see."""
    n, size = len(images), (images.shape[2], images.shape[3])
    boxes = mix.cutmix(n, size, generator=generator, area=(0.02, 0.4), ratio=(0.3, 1 / 0.3)).pasted
    drawn = torch.rand(n, 1, 1, generator=generator, device=images.device) < 0.5
    hidden = boxes & drawn
    noise = torch.rand(images.shape, generator=generator, device=images.device)
    return torch.where(hidden[:, None], noise, images), ~hidden
