"""IOMatch: learn from unlabelled images of which some are of no labelled class, without sorting them out.

Detectors of outliers are poor when labels are few, and what they reject by mistake is lost. IOMatch never
decides. A classifier φ on the features h = f(x) gives p over the K labelled classes. In a projected space z =
g(h) stand K detectors χ (o_k: of class k; ō_k = 1 − o_k) and a classifier ψ with K+1 outputs, the last of
which means "none of them". From the weak view of an unlabelled image come one closed and one open target,
both soft,

    p̃ = align(p)                     p divided by the running mean of p, renormalised
    q̃_k = p̃_k·o_k,   q̃_{K+1} = S = Σ_k p̃_k·ō_k                                             (eqs. 5, 6)

and the strong view must answer them, over all μB images, where they are sure:

    L_ui = mean 1[max p̃ ≥ τ_p]·1[S < ½]·H(p̃, φ(strong))     the likely inliers train φ      (eq. 7)
    L_op = mean 1[max q̃ ≥ τ_q]·H(q̃, ψ(strong))              all train ψ, outliers too       (eq. 8)
    L = L_s + λ_mb·L_mb + λ_ui·L_ui + λ_op·L_op

with L_s the labelled images' cross-entropy and L_mb their detectors' loss (own class and hardest other). Two
add-ons of the paper are off by default: a head that tells by how many quarter turns an image was turned, and
SimMatch's instance loss against the labelled images' projections.

Shared: views, one-vs-all loss and fusion, alignment, masked cross-entropy, the averaged teacher.
Li et al., ICCV 2023, arXiv:2308.13168; code: nukezil/IOMatch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rushlight.augment import policy
from rushlight.core.arguments import Count, NotNegative, Positive, Share, Whole
from rushlight.core.card import Card, Needs, some
from rushlight.core.distributed import all_gather
from rushlight.data.dataset import Dataset
from rushlight.losses import consistency, supervised
from rushlight.methods.semi.iomatch.one_vs_all import hardest_negative, inlier_probabilities, open_set_target
from rushlight.nets.heads import MLP, Chain, Linear
from rushlight.nets.norm import frozen_statistics
from rushlight.train.learner import Batch, Learner
from rushlight.train.pseudo_labels import answers
from rushlight.train.teacher import Teacher


class IOMatch(Learner):
    """Open-set semi-supervised learning that uses inliers and outliers jointly."""

    card = Card(
        id="iomatch",
        title="IOMatch: Simplifying Open-Set Semi-Supervised Learning with Joint Inliers and Outliers Utilization",
        paper="arXiv:2308.13168",
        code="nukezil/IOMatch",
        family="semi",
        role="learner",
        task=frozenset({"class"}),
        needs=Needs("image", some("class")),
        gives="a classifier, and a second one (`open`) whose last class means none of the labelled ones",
        says="CIFAR-10 with 6 seen classes, 4 labels each: 89.68 % of the seen (FixMatch 81.58), 75.08 % "
        "open-set balanced accuracy (OpenMatch 14.37)",
    )

    def __init__(
        self,
        *,
        closed_threshold: Share = 0.95,
        open_threshold: Share = 0.5,
        detector_weight: NotNegative = 1.0,
        inlier_weight: NotNegative = 1.0,
        open_weight: NotNegative = 1.0,
        open_from: Whole = 1024,
        alignment: Count = 128,
        projection: Count = 128,
        rotation_weight: NotNegative = 0.0,
        instance_weight: NotNegative = 0.0,
        temperature: Positive = 0.1,
        ratio: Count = 7,
        joint: bool = False,
        momentum: Share = 0.999,
        batch: Count = 64,
        learning_rate: Positive = 2e-3,
        weight_decay: NotNegative = 5e-4,
    ):
        """
        Args:
            closed_threshold: τ_p, the confidence from which a closed target counts.
            open_threshold: τ_q, the same for an open target.
            detector_weight: λ_mb. inlier_weight: λ_ui. open_weight: λ_op.
            open_from: the step from which L_op counts (the paper: the second of 256 epochs), at the latest
                after a tenth of the training.
            alignment: batch means that p̃ is aligned with (the paper: 128, ImageNet-30: 32); 0: none, as the
                paper on CIFAR-10, and for classes of very different sizes.
            projection: size of z.
            rotation_weight: of the rotation head's loss (the paper's add-on has 1).
            instance_weight: of the instance loss (the paper's add-on has 1).
            temperature: of its similarities.
            ratio: μ, unlabelled images for each labelled one; a budget of few steps takes 3.
            joint: one forward over all views, with common batch statistics, as published; otherwise the
                unlabelled
                weak views, which teach nothing themselves, have a forward without gradient: a third less
                work.
            momentum: of the averaged weights.
            batch: labelled images a step.
            learning_rate: of AdamW, at its peak (the paper: SGD with 0.03).
            weight_decay: of AdamW.
        """
        super().__init__()
        self.closed_threshold, self.open_threshold = closed_threshold, open_threshold
        self.detector_weight, self.inlier_weight = detector_weight, inlier_weight
        self.open_weight, self.open_from = open_weight, open_from
        self.alignment, self.projection, self.momentum = alignment, projection, momentum
        self.rotation_weight, self.instance_weight = rotation_weight, instance_weight
        self.temperature = temperature
        self.joint, self.parts, self.min_ratio = (
            joint,
            {"labelled": 1, "unlabelled": ratio},
            {"unlabelled": min(ratio, 3)},
        )
        self.batch, self.learning_rate, self.weight_decay = batch, learning_rate, weight_decay

    def build(self, data: Dataset) -> None:
        super().build(data)
        width, classes = self.model.encoder.width, self.model.head("class").config["outputs"]
        projector = MLP(widths=[width, width, self.projection], norm=False)
        heads = Chain(projector, _xavier(Linear(width=self.projection, outputs=classes + 1)))
        self.add_head("open", heads)
        self.detectors = _xavier(Linear(width=self.projection, outputs=2 * classes, bias=False))
        self.register_buffer("history", torch.zeros(max(self.alignment, 1), classes))
        size = (data.height, data.width)
        self.weak, self.strong = policy.weak(size), policy.randaugment(size)
        self.teacher = Teacher(self.model, momentum=self.momentum)
        if self.rotation_weight:
            self.rotations = _xavier(Linear(width=width, outputs=4, bias=False))
        if self.instance_weight:
            self._build_bank(data)

    def step(self, batch: Batch) -> Tensor:
        labelled, unlabelled, generator = batch["labelled"], batch["unlabelled"], self.generator()
        images = torch.cat([labelled["image"], unlabelled["image"]])
        weak = self.weak(images, generator=generator)
        strong = self.strong(unlabelled["image"], generator=generator)
        sizes = [len(labelled), len(unlabelled), len(unlabelled)]
        n = len(labelled)
        features = torch.cat(answers(self.model.encoder, weak[:n], weak[n:], strong, joint=self.joint))
        projected = self.projector(features)
        known, guess, asked = self.model.head("class")(features).split(sizes)
        detected = self.detectors(projected[: len(weak)]).unflatten(1, (2, -1)).float()
        closed, fused = self._targets(guess, detected[len(labelled) :])

        known_loss = supervised.classes(known, labelled["class"])
        detector_loss = hardest_negative(detected[: len(labelled)], labelled["class"])
        inliers = (closed.amax(1) >= self.closed_threshold) & (fused[:, -1] < 0.5)
        inlier_loss = consistency.masked_cross_entropy(asked.float(), closed, inliers)
        sure = fused.amax(1) >= self.open_threshold
        opened = self.model.head("open").heads[1](projected[len(weak) :])
        open_loss = consistency.masked_cross_entropy(opened.float(), fused, sure)
        loss = known_loss + self.detector_weight * detector_loss + self.inlier_weight * inlier_loss
        loss = loss + self.open_weight * self._opened() * open_loss
        shares = {"kept": inliers, "sure": sure, "outliers": fused[:, -1] >= 0.5}
        self.log(known=known_loss, detectors=detector_loss, inliers=inlier_loss, open=open_loss,
                  **{name: share.float().mean() for name, share in shares.items()})  # fmt: skip
        if self.rotation_weight:
            loss = loss + self.rotation_weight * self._rotation_loss(weak[len(labelled) : 2 * len(labelled)])
        if self.instance_weight:
            instance_loss = self._instance_loss(projected.split(sizes), closed, labelled["row"])
            loss = loss + self.instance_weight * instance_loss
        return loss

    @property
    def projector(self) -> nn.Module:
        return self.model.head("open").heads[0]

    @torch.no_grad()
    def _targets(self, guess: Tensor, detected: Tensor) -> tuple[Tensor, Tensor]:
        """p̃ and q̃ of the weak views."""
        closed = guess.float().softmax(1)
        if self.alignment:
            self.history.copy_(consistency.enqueue(self.history, all_gather(closed), self.step_index))
            closed = consistency.align(closed, self.history)
        return closed, open_set_target(closed, inlier_probabilities(detected))

    def _opened(self) -> float:
        """0 until `open_from` or a tenth of the training, then 1: the detectors must first know something."""
        return float(self.step_index >= self.open_from or self.progress >= 0.1)

    def _rotation_loss(self, images: Tensor) -> Tensor:
        """By how many quarter turns a batch of weak views was turned (square images; others by half
        turns)."""
        turns = [0, 1, 2, 3] if images.shape[2] == images.shape[3] else [0, 2]
        turned = torch.cat([images.rot90(turn, (2, 3)) for turn in turns])
        target = torch.tensor(turns, device=images.device).repeat_interleave(len(images))
        with frozen_statistics(self.model.encoder):
            features = self.model.encoder(turned)
        return F.cross_entropy(self.rotations(features), target)

    def _build_bank(self, data: Dataset) -> None:
        rows = data.known("class").nonzero().squeeze(1)
        slots = torch.full((len(data),), -1).index_put((rows,), torch.arange(len(rows)))
        self.register_buffer("slots", slots)
        self.register_buffer("bank_labels", data["class"][rows])
        self.register_buffer("bank", torch.zeros(len(rows), self.projection))

    def _instance_loss(self, projected: tuple[Tensor, ...], closed: Tensor, rows: Tensor) -> Tensor:
        """SimMatch's: the strong view is as near to each labelled image as the weak one, whose similarities
        are weighted by p̃ of the labelled image's class."""
        own, weak, strong = (F.normalize(part.float(), dim=1) for part in projected)
        with torch.no_grad():
            self.bank[self.slots[all_gather(rows)]] = all_gather(own)
            filled = self.bank.square().sum(1) > 0
            bank, labels = self.bank[filled], self.bank_labels[filled]
            target = (weak @ bank.T / self.temperature).softmax(1) * closed[:, labels]
            target = target / target.sum(1, keepdim=True).clamp(min=1e-12)
        return consistency.soft_cross_entropy(strong @ bank.T / self.temperature, target).mean()


def _xavier(head: Linear) -> Linear:
    nn.init.xavier_normal_(head.linear.weight)
    if head.linear.bias is not None:
        nn.init.zeros_(head.linear.bias)
    return head
