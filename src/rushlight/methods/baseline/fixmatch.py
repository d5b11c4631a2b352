"""FixMatch: learn confident predictions on weak views as labels of strong views.

Few labels, many unlabelled images of the same classes. An exponential moving average of the weights is handed on.
Sohn et al., 2020, arXiv:2001.07685; code: google-research/fixmatch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rushlight.augment import presets
from rushlight.core.arguments import Count, NotNegative, Positive, Share, settings
from rushlight.core.card import Card, Needs, some
from rushlight.data.dataset import Dataset
from rushlight.losses import supervised
from rushlight.losses.consistency import masked_cross_entropy
from rushlight.train.learner import Batch, Learner
from rushlight.train.pseudo_labels import confident, forward_views
from rushlight.train.teacher import Teacher


@settings
class FixMatch(Learner):
    """Pseudo-labels from confident weak views, learned on strong views."""

    card = Card(
        id="fixmatch",
        title="FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence",
        paper="arXiv:2001.07685",
        code="google-research/fixmatch",
        family="baseline",
        role="learner",
        serves="baseline",
        task=frozenset({"class"}),
        needs=Needs("image", some("class")),
        gives="a classifier trained on labelled and unlabelled images",
        says="CIFAR-10: 94.93 % with 250 labels, 88.61 % with 40 (4 a class)",
    )

    threshold: Share = 0.95
    """τ, the confidence from which a pseudo-label counts."""
    unlabelled_weight: NotNegative = 1.0
    """λ, the weight of ℓ_u."""
    ratio: Count = 7
    """μ, unlabelled images for each labelled one; a budget of few steps takes 3, unless this is written."""
    joint: bool = False
    """One forward over all views, as in the paper's code; else weak views have one of their own, without gradient."""
    momentum: Share = 0.999
    """Of the averaged weights."""
    batch: Count = 64
    """Labelled images a step."""
    learning_rate: Positive = 2e-3
    """Of AdamW, at its peak (the paper: SGD with 0.03 over a million steps)."""
    weight_decay: NotNegative = 5e-4
    """Of AdamW."""

    def __post_init__(self) -> None:
        self.parts = {"labelled": 1, "unlabelled": self.ratio}
        self.min_ratio = {} if "ratio" in self.explicit else {"unlabelled": min(self.ratio, 3)}

    def build(self, data: Dataset) -> None:
        super().build(data)
        size = (data.height, data.width)
        self.weak, self.strong = presets.weak(size), presets.strong(size)
        self.teacher = Teacher(self.model, momentum=self.momentum)

    def step(self, batch: Batch) -> Tensor:
        labelled, unlabelled, generator = batch["labelled"], batch["unlabelled"], self.generator()
        weak = self.weak(torch.cat([labelled["image"], unlabelled["image"]]), generator=generator)
        u_strong = self.strong(unlabelled["image"], generator=generator)
        x, u_weak = weak.split([len(labelled), len(unlabelled)])
        logits_x, logits_u_weak, logits_u_strong = forward_views(
            self.model.logits, x, u_weak, u_strong, joint=self.joint
        )
        # ℓ_s = mean H(y, p(α(x)))                                        eq. 3
        loss_x = supervised.classes(logits_x, labelled["class"])
        # ℓ_u = mean 1[max q ≥ τ] · H(argmax q, p(𝒜(u))), over all μB      eq. 4
        pseudo = confident(logits_u_weak.softmax(1), self.threshold)
        loss_u = masked_cross_entropy(logits_u_strong, pseudo.target, pseudo.mask)
        self.log(labelled=loss_x, unlabelled=loss_u, kept=pseudo.kept)
        return loss_x + self.unlabelled_weight * loss_u
