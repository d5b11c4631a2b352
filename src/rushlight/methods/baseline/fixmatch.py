"""FixMatch: trust the model's confident guesses on weakly augmented images, and ask for them under strong ones.

Few labels, many unlabelled images of the same classes. For each unlabelled image u, the class probabilities of a weak
view, q = p(y | α(u)), become a pseudo-label argmax q where max q reaches a threshold τ; a strong view 𝒜(u) must then
give that label:

    ℓ_s = mean H(y, p(α(x)))                                                       (eq. 3)
    ℓ_u = mean 1[max q ≥ τ] · H(argmax q, p(𝒜(u)))         over all μB images        (eq. 4)
    ℓ   = ℓ_s + λ ℓ_u

An exponential moving average of the weights is what is handed on.

Shared: views (RandAugment and cut-out as matrices), masked cross-entropy, the averaged teacher.
Sohn et al., 2020, arXiv:2001.07685; code: google-research/fixmatch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rushlight.augment import policy
from rushlight.core.arguments import Count, NotNegative, Positive, Share
from rushlight.core.card import Card, Needs, some
from rushlight.data.dataset import Dataset
from rushlight.losses import supervised
from rushlight.losses.consistency import masked_cross_entropy
from rushlight.train.learner import Batch, Learner
from rushlight.train.pseudo_labels import answers, confident
from rushlight.train.teacher import Teacher


class FixMatch(Learner):
    """Pseudo-labels from confident weak views, asked for under strong views."""

    card = Card(
        id="fixmatch",
        title="FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence",
        paper="arXiv:2001.07685",
        code="google-research/fixmatch",
        family="baseline",
        role="learner",
        task=frozenset({"class"}),
        needs=Needs("image", some("class")),
        gives="a classifier trained on labelled and unlabelled images",
        says="CIFAR-10: 94.93 % with 250 labels, 88.61 % with 40 (4 a class)",
    )

    def __init__(
        self,
        *,
        threshold: Share = 0.95,
        unlabelled_weight: NotNegative = 1.0,
        ratio: Count = 7,
        joint: bool = False,
        momentum: Share = 0.999,
        batch: Count = 64,
        learning_rate: Positive = 2e-3,
        weight_decay: NotNegative = 5e-4,
    ):
        """
        Args:
            threshold: τ, the confidence from which a pseudo-label counts.
            unlabelled_weight: λ.
            ratio: μ, unlabelled images for each labelled one; a budget of few steps takes 3.
            joint: one forward over labelled, weak and strong views, with common batch statistics, as in the paper's
                code; otherwise the unlabelled weak views have a forward of their own, without gradient, a third less
                work (as semilearn's without `use_cat`).
            momentum: of the averaged weights.
            batch: labelled images a step.
            learning_rate: of AdamW, at its peak (the paper: SGD with 0.03 over a million steps).
            weight_decay: of AdamW.
        """
        super().__init__()
        self.threshold, self.unlabelled_weight, self.momentum = threshold, unlabelled_weight, momentum
        self.joint, self.parts, self.min_ratio = (
            joint,
            {"labelled": 1, "unlabelled": ratio},
            {"unlabelled": min(ratio, 3)},
        )
        self.batch, self.learning_rate, self.weight_decay = batch, learning_rate, weight_decay

    def build(self, data: Dataset) -> None:
        super().build(data)
        size = (data.height, data.width)
        self.weak, self.strong = policy.weak(size), policy.strong(size)
        self.teacher = Teacher(self.model, momentum=self.momentum)

    def step(self, batch: Batch) -> Tensor:
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        generator = self.generator()
        weak = self.weak(torch.cat([labelled["image"], unlabelled["image"]]), generator=generator)
        strong = self.strong(unlabelled["image"], generator=generator)
        n = len(labelled)
        known, guess, asked = answers(self.model.logits, weak[:n], weak[n:], strong, joint=self.joint)
        pseudo = confident(guess.softmax(1), self.threshold)
        known_loss = supervised.classes(known, labelled["class"])
        unlabelled_loss = masked_cross_entropy(asked, pseudo.target, pseudo.mask)
        self.log(known=known_loss, unlabelled=unlabelled_loss, kept=pseudo.kept)
        return known_loss + self.unlabelled_weight * unlabelled_loss
