"""IOMatch: learn from unlabelled images of which some are of no labelled class, without sorting them out.

Detectors of outliers are poor when labels are few, and what they reject by mistake is lost. IOMatch never decides: from
a weak view it makes a soft target over the K labelled classes and a soft target over K + 1, the last of which means
"none of these"; a strong view learns both where they are sure.

Li et al., ICCV 2023, arXiv:2308.13168; code: nukezil/IOMatch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rushlight.augment import presets
from rushlight.core.arguments import Count, NotNegative, Positive, Share, Whole, settings
from rushlight.core.card import Card, Needs, some
from rushlight.core.distributed import all_gather
from rushlight.data.dataset import Dataset
from rushlight.losses import consistency, supervised
from rushlight.methods.semi.iomatch.one_vs_all import hardest_negative, inlier_probabilities, open_set_target
from rushlight.nets.heads import MLP, Chain, Linear
from rushlight.nets.norm import frozen_statistics
from rushlight.train.learner import Batch, Learner
from rushlight.train.pseudo_labels import forward_views
from rushlight.train.teacher import Teacher


@settings
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

    closed_threshold: Share = 0.95
    """τ_p, the confidence from which a closed target counts."""
    open_threshold: Share = 0.5
    """τ_q, the confidence from which an open target counts."""
    detector_weight: NotNegative = 1.0
    """λ_mb, of the detectors' loss."""
    inlier_weight: NotNegative = 1.0
    """λ_ui, of the likely inliers' loss."""
    open_weight: NotNegative = 1.0
    """λ_op, of the open classifier's loss."""
    open_from: Whole = 1024
    """The step from which L_op counts (the paper: the second epoch), unless written at most a tenth of the training."""
    alignment: Whole = 128
    """Batch means that p̃ is aligned with (ImageNet-30: 32); 0 aligns nothing, as the paper on CIFAR-10."""
    projection: Count = 128
    """Size of z."""
    rotation_weight: NotNegative = 0.0
    """Of the rotation head's loss, an add-on of the paper with weight 1."""
    instance_weight: NotNegative = 0.0
    """Of the instance loss, an add-on of the paper with weight 1."""
    temperature: Positive = 0.1
    """Of the instance loss' similarities."""
    ratio: Count = 7
    """μ, unlabelled images for each labelled one; a budget of few steps takes 3, unless this is written."""
    joint: bool = False
    """One forward over all views, as published; else weak views have one of their own, without gradient."""
    momentum: Share = 0.999
    """Of the averaged weights."""
    batch: Count = 64
    """Labelled images a step."""
    learning_rate: Positive = 2e-3
    """Of AdamW, at its peak (the paper: SGD with 0.03)."""
    weight_decay: NotNegative = 5e-4
    """Of AdamW."""

    def __post_init__(self) -> None:
        self.parts = {"labelled": 1, "unlabelled": self.ratio}
        self.min_ratio = {} if "ratio" in self.explicit else {"unlabelled": min(self.ratio, 3)}

    def build(self, data: Dataset) -> None:
        super().build(data)
        width, classes = self.model.encoder.width, self.model.head("class").config["outputs"]
        projector = MLP(widths=[width, width, self.projection], norm=False)
        heads = Chain(projector, _xavier(Linear(width=self.projection, outputs=classes + 1)))
        self.add_head("open", heads)
        self.detectors = _xavier(Linear(width=self.projection, outputs=2 * classes, bias=False))
        self.register_buffer("history", torch.zeros(max(self.alignment, 1), classes))
        size = (data.height, data.width)
        self.weak, self.strong = presets.weak(size), presets.randaugment(size)
        self.teacher = Teacher(self.model, momentum=self.momentum)
        if self.rotation_weight:
            self.rotations = _xavier(Linear(width=width, outputs=4, bias=False))
        if self.instance_weight:
            self._build_bank(data)

    def step(self, batch: Batch) -> Tensor:
        labelled, unlabelled, generator = batch["labelled"], batch["unlabelled"], self.generator()
        weak = self.weak(torch.cat([labelled["image"], unlabelled["image"]]), generator=generator)
        u_strong = self.strong(unlabelled["image"], generator=generator)
        n, sizes = len(labelled), [len(labelled), len(unlabelled), len(unlabelled)]
        h = torch.cat(forward_views(self.model.encoder, weak[:n], weak[n:], u_strong, joint=self.joint))
        z = self.projector(h)
        logits_x, logits_u_weak, logits_u_strong = self.model.head("class")(h).split(sizes)
        detected = self.detectors(z[: len(weak)]).unflatten(1, (2, -1)).float()
        open_u_strong = self.open_head.heads[1](z[len(weak) :])
        p, q = self._targets(logits_u_weak, detected[n:])

        losses = {
            "labelled": supervised.classes(logits_x, labelled["class"]),  # L_s
            "detectors": hardest_negative(detected[:n], labelled["class"]),  # L_mb
        }
        # L_ui = mean 1[max p̃ ≥ τ_p]·1[S < ½]·H(p̃, φ(strong)): the likely inliers train φ     eq. 7
        inliers = (p.amax(1) >= self.closed_threshold) & (q[:, -1] < 0.5)
        losses["inliers"] = consistency.masked_cross_entropy(logits_u_strong.float(), p, inliers)
        # L_op = mean 1[max q̃ ≥ τ_q]·H(q̃, ψ(strong)): all train ψ, outliers too               eq. 8
        sure = q.amax(1) >= self.open_threshold
        losses["open"] = consistency.masked_cross_entropy(open_u_strong.float(), q, sure)
        if self.rotation_weight:
            losses["rotation"] = self._rotation_loss(weak[n : 2 * n])
        if self.instance_weight:
            losses["instance"] = self._instance_loss(z.split(sizes), p, labelled["row"])
        shares = {"kept": inliers, "sure": sure, "outliers": q[:, -1] >= 0.5}
        self.log(**losses, **{name: share.float().mean() for name, share in shares.items()})
        return sum((self._weights()[name] * loss for name, loss in losses.items()), torch.zeros((), device=z.device))

    def _weights(self) -> dict[str, float]:
        return {
            "labelled": 1.0,
            "detectors": self.detector_weight,
            "inliers": self.inlier_weight,
            "open": self.open_weight * self._opened(),
            "rotation": self.rotation_weight,
            "instance": self.instance_weight,
        }

    @property
    def projector(self) -> nn.Module:
        return self.open_head.heads[0]

    @property
    def open_head(self) -> Any:
        return self.model.head("open")

    @torch.no_grad()
    def _targets(self, logits_u_weak: Tensor, detected: Tensor) -> tuple[Tensor, Tensor]:
        """Return p̃ and q̃ of the weak views: q̃_k = p̃_k·o_k, q̃_{K+1} = S = Σ_k p̃_k·ō_k (eqs. 5, 6)."""
        p = logits_u_weak.float().softmax(1)
        if self.alignment:
            self.history.copy_(consistency.enqueue(self.history, all_gather(p), self.step_index))
            p = consistency.align(p, self.history)
        return p, open_set_target(p, inlier_probabilities(detected))

    def _opened(self) -> float:
        """Return 0 until the detectors have learned something, then 1."""
        sooner = self.progress >= 0.1 and "open_from" not in self.explicit
        return float(self.step_index >= self.open_from or sooner)

    def _rotation_loss(self, images: Tensor) -> Tensor:
        """Return the loss of predicting by how many quarter turns (half turns, if not square) views were turned."""
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
        """Return SimMatch's loss: a strong view is as near to each labelled image as the weak view, whose similarities
        are weighted by p̃ of that image's class."""
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
