"""CW-BASS: segmentation from few masks, with pseudo-labels weighted by confidence and learned at boundaries.

Self-training couples to its first labels, repeats its own errors and blurs the edges of objects. A teacher (the running
average of the student) labels each unlabelled image; four cheap changes of the loss on these labels address this. As an
option, ST++'s retraining: the images on which the checkpoints of a first training agree are labelled for a second one.

Tarubinga et al., IJCNN 2025, arXiv:2502.15152; code: psychofict/CW-BASS, with the confidence floor of its successor
CW-BASS-v2. ST++: Yang et al., 2022, arXiv:2106.05095.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from tensordict import TensorDict
from torch import Tensor, nn

from rushlight.augment import mix, presets
from rushlight.core.arguments import Count, NotNegative, Positive, Share, settings
from rushlight.core.card import Card, Needs, some
from rushlight.core.seeds import mix as mixed
from rushlight.data.dataset import Dataset
from rushlight.losses import consistency, supervised
from rushlight.methods.semi.cw_bass import boundary, reliable
from rushlight.run.budget import Clock, Spent, count_flops, pace, pass_flops
from rushlight.run.model import Model
from rushlight.run.stage import Outcome, RunContext, Stage
from rushlight.train import optim
from rushlight.train.learner import Batch, Learner
from rushlight.train.optim import OptimiserName, ScheduleName
from rushlight.train.pseudo_labels import PseudoLabels
from rushlight.train.teacher import Teacher

EARLIER = 2
"""Checkpoints before the last one, at equal distances, that reliable images are chosen by."""
RANKING = 0.2
"""Ranking the images costs at most this share of the first half of the budget; the others are not ranked."""


@settings
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

    base: Positive = 0.6
    """T₀ of the threshold; with the paper's values it stays between 0.30 and 0.337 and drops almost nothing."""
    sensitivity: NotNegative = 0.5
    """β of the threshold."""
    low: Share = 0.3
    """The threshold's lower limit."""
    high: Share = 0.8
    """The threshold's upper limit."""
    class_aware: Literal["off", "start", "always"] = "start"
    """Whether each class has a confidence floor of its own: never, until λ is full, or always."""
    gamma: NotNegative = 1.0
    """γ, the power of the confidence as a weight; 0 weighs all pixels alike."""
    boundary_weight: NotNegative = 0.5
    """Of the loss at boundaries."""
    unlabelled_weight: NotNegative = 1.0
    """λ, the weight of L_u."""
    burn_in: Share = 0.1
    """Share of the training before pseudo-labels count (the paper: 0, from pretrained weights)."""
    ramp: Share = 5 / 80
    """Share of the training in which λ then rises from 0 (the paper: 5 of 80 epochs)."""
    decay: Literal["off", "constant", "epoch"] = "off"
    """Of the confidence: by `decay_factor` in each step alike (released code), or to the power of the epoch (paper)."""
    decay_factor: Share = 0.9
    """δ, of the confidence's decay."""
    views: Literal["basic", "strong"] = "basic"
    """What the student sees of unlabelled images: the teacher's view, or a strong one that lies on it."""
    zero_padding: bool = False
    """Pad the Sobel filter with zeros, as released: the frame of each image then counts as a boundary."""
    retrain: bool = False
    """Train a second time, with the most reliable images labelled (ST++)."""
    reliable_share: Share = 0.5
    """Share of the unlabelled images that are labelled for the second training."""
    ratio: Count = 1
    """Unlabelled images for each labelled one."""
    momentum: Share = 0.999
    """Of the teacher."""
    batch: Count = 16
    """Labelled images a step."""
    optimiser: OptimiserName = "adamw"
    """The paper: `sgd`, with plain momentum of 0.9."""
    schedule: ScheduleName = "cosine"
    """The paper: `poly`, from the first step."""
    learning_rate: Positive = 2e-3
    """At its peak (the paper: 0.001, Cityscapes 0.004, from a pretrained encoder)."""
    weight_decay: NotNegative = 1e-4
    """Of weights; see `decay_all`."""
    head_scale: NotNegative = 1.0
    """Times the learning rate, for the decoder (the paper: 10)."""
    nesterov: bool = False
    """Nesterov's form of the momentum, with `sgd`."""
    warm_up: Share = 0.05
    """Share of the steps in which the learning rate rises; `poly` has none unless this is written."""
    decay_all: bool | None = None
    """Decay biases and norms too; None does so with `sgd`, as the paper's code."""

    def __post_init__(self) -> None:
        self.parts = {"labelled": 1, "unlabelled": self.ratio}
        self.smallest_batch = min(self.batch, 8)
        if self.schedule == "poly" and "warm_up" not in self.explicit:
            self.warm_up = 0.0
        if self.decay_all is None:
            self.decay_all = self.optimiser == "sgd"
        self.keeps_earlier, self.relied = False, torch.empty(0, dtype=torch.long)

    def build(self, data: Dataset) -> None:
        super().build(data)
        size = (data.height, data.width)
        self.basic, self.strong = presets.dense_weak(size), presets.dense_strong(size)
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
        x, view = self.basic.with_view(labelled["image"], generator=generator)
        u_teacher, u_student, inside = self._unlabelled_views(batch["unlabelled"]["image"], generator)
        pseudo, boundaries = self._pseudo_labels(u_teacher, inside)
        logits_x, logits_u = self.model.logits(torch.cat([x, u_student])).split([len(x), len(u_student)])
        loss_x = supervised.masks(logits_x, view.masks(labelled["mask"]))
        loss_u = self._unlabelled_loss(logits_u.float(), pseudo, boundaries)
        self.log(labelled=loss_x, unlabelled=loss_u, kept=pseudo.kept, border=boundaries.float().mean(),
                 threshold=self._threshold, weight=self._weight())  # fmt: skip
        if "reliable" in batch:
            loss_x = (loss_x + self._reliable_loss(batch["reliable"], generator)) / 2
        return loss_x + self._weight() * loss_u  # L = L_s + λ·ramp·L_u

    def _weight(self) -> float:
        """Return λ: 0 during the burn-in, then rising."""
        if self.progress < self.burn_in:
            return 0.0
        return self.unlabelled_weight * consistency.linear_ramp(self.progress - self.burn_in, self.ramp)

    def groups(self) -> list[dict]:
        """Return encoder and heads apart: the heads' learning rate is `head_scale` times the encoder's."""
        heads = {id(parameter) for parameter in self.model.heads.parameters()}
        parted = []
        for group in optim.parameter_groups(self, self.weight_decay, exclude=not self.decay_all):
            for scale, inside in ((1.0, False), (self.head_scale, True)):
                chosen = [p for p in group["params"] if (id(p) in heads) == inside]
                parted.append({**group, "params": chosen, "scale": scale})
        return parted

    def _unlabelled_views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return the teacher's view, the student's, and the pixels of it that show something."""
        u_teacher, view = self.basic.with_view(images, generator=generator)
        if self.views == "basic":
            return u_teacher, u_teacher, view.inside()
        u_student, _ = self.strong.with_view(images, generator=generator, like=view)
        u_student, visible = _cutout(u_student, generator)
        return u_teacher, u_student, view.inside() & visible

    @torch.no_grad()
    def _pseudo_labels(self, images: Tensor, inside: Tensor) -> tuple[PseudoLabels, Tensor]:
        """Return the teacher's classes, where they count and their (decayed) confidence; and its boundaries."""
        logits = self.teacher.network.logits(images).float()
        confidence, target = logits.softmax(1).max(1)
        # b = Sobel(one-hot ŷ) ≠ 0, before anything is filtered
        boundaries = boundary.boundary_mask(target, classes=logits.shape[1], zero_padding=self.zero_padding)
        # T = clamp(T₀ / (1 + exp(−β(mean c − ½))), low, high)
        limits = {"base": self.base, "sensitivity": self.sensitivity, "low": self.low, "high": self.high}
        self._threshold = threshold = consistency.dynamic_threshold(confidence, **limits)
        if self.class_aware == "always" or (self.class_aware == "start" and self._weight() < self.unlabelled_weight):
            floors = boundary.confidence_floors(confidence, target, classes=logits.shape[1])
            threshold = floors.clamp(min=threshold)[target]
        mask = (confidence > threshold) & inside
        if self.decay != "off":
            epoch = self._epoch() if self.decay == "epoch" else None
            confidence = boundary.decay_confidence(confidence, factor=self.decay_factor, epoch=epoch)
        return PseudoLabels(target, mask, confidence), boundaries

    def _unlabelled_loss(self, logits: Tensor, pseudo: PseudoLabels, boundaries: Tensor) -> Tensor:
        """Return L_u = Σ_V c^γ·CE / |V| + ½·Σ_{V∩b} CE / |V∩b|, V the pixels above the threshold."""
        assert pseudo.weight is not None
        target = pseudo.target.masked_fill(~pseudo.mask, boundary.IGNORE)
        weighted = boundary.confidence_cross_entropy(logits, target, pseudo.weight, gamma=self.gamma)
        if not self.boundary_weight:
            return weighted
        return weighted + self.boundary_weight * boundary.boundary_cross_entropy(logits, target, boundaries)

    def _epoch(self) -> int:
        """Return how many times all unlabelled images were seen."""
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
        return replace(
            retrained.charged(labelled.spent, labelled.notes), data=data, curve=labelled.curve + retrained.curve
        )

    def after_step(self) -> None:
        super().after_step()
        if self.keeps_earlier:
            for number, earlier in enumerate(self.earlier, 1):
                if self.progress <= number / (EARLIER + 1):
                    earlier.load_state_dict(self.teacher.network.state_dict())

    def _reliable_loss(self, labelled: TensorDict, generator: torch.Generator) -> Tensor:
        """Return the cross-entropy on the labels of reliable images, in strong views."""
        images, view = self.strong.with_view(labelled["image"], generator=generator)
        images, visible = _cutout(images, generator)
        target = view.masks(labelled["mask"]).masked_fill(~visible, boundary.IGNORE)
        return supervised.masks(self.model.logits(images), target)


class Labelling(Stage):
    """ST++'s first half: self-training, then the masks of the images on which its checkpoints agree."""

    def __init__(self, learner: CWBASS):
        self.card = learner.card  # type: ignore[misc]
        self.learner = copy.deepcopy(learner)
        self.learner.retrain, self.learner.keeps_earlier = False, True

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        trained = self.learner.run(data, model, ctx)
        checkpoints: list[Any] = [checkpoint.cpu() for checkpoint in self.learner.earlier] + [trained.model]
        rows = self.learner.rows(data, "unlabelled")
        image = data.read("image", slice(1)).float() / 255
        price = len(checkpoints) * count_flops(lambda: trained.model.logits(image))
        a_pass = pass_flops(trained.model.encoder, (data.height, data.width))
        with Clock() as clock:
            bought = ctx.budget.pays_for(
                RANKING,
                passes=price / a_pass,
                seconds=lambda: pace(lambda part: reliable.scored(data, checkpoints, rows[part]), len(rows)),
            )
            rows = _sample(rows, max(bought, 2), mixed(ctx.seed, 5))
            labelled, _ = reliable.label_reliable(data, checkpoints, rows, share=self.learner.reliable_share)
        ranked = Spent(len(rows) * price / a_pass, len(rows) * price, seconds=clock.seconds)
        return replace(trained.charged(ranked), data=labelled)


def _sample(rows: Int[Tensor, "n"], most: int, seed: int) -> Int[Tensor, "kept"]:
    """Draw at most `most` of the rows by the seed, in their order."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows[order[:most].sort().values]


def _cutout(
    images: Float[Tensor, "batch 3 h w"], generator: torch.Generator
) -> tuple[Float[Tensor, "batch 3 h w"], Bool[Tensor, "batch h w"]]:
    """Return ST++'s cut-out (noise in a box of 2 to 40 % of the area, in half of the images) and what stays visible."""
    n, size = len(images), (images.shape[2], images.shape[3])
    boxes = mix.cutmix(n, size, generator=generator, area=(0.02, 0.4), ratio=(0.3, 1 / 0.3)).pasted
    assert boxes is not None
    drawn = torch.rand(n, 1, 1, generator=generator, device=images.device) < 0.5
    hidden = boxes & drawn
    noise = torch.rand(images.shape, generator=generator, device=images.device)
    return torch.where(hidden[:, None], noise, images), ~hidden
