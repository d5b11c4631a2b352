"""DCL: contrast without the positive in its denominator, so that small batches learn as fast as large ones.

InfoNCE's gradient is that of a simpler loss times q = U / (exp s⁺ + U), where U sums over the negatives: it fades where
a positive is easy or negatives are few. Dropping the positive from the denominator drops q. DCLW weighs hard positives
more. The change fits SimCLR (negatives: the batch), MoCo (a memory bank of past keys) and NNCLR (a nearest
neighbour in a memory bank stands for the embedding).

Yeh et al., 2021, arXiv:2110.06848; code: raminnakhli/Decoupled-Contrastive-Learning. NNCLR: arXiv:2104.14548.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from rushlight.augment import presets
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, Whole, settings
from rushlight.core.card import Card, Needs
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import LARGE, against_memory_bank, coupling, in_batch, info_nce, nearest
from rushlight.losses.contrastive_blocks import against_memory_bank_by_blocks, in_batch_by_blocks, info_nce_by_blocks
from rushlight.nets.heads import MLP
from rushlight.train.joint_embedding import JointEmbedding, crop_scale
from rushlight.train.learner import Batch
from rushlight.train.memory_bank import MemoryBank, sized
from rushlight.train.optim import OptimiserName
from rushlight.train.shuffle import in_groups, shuffled
from rushlight.train.teacher import Teacher

FORMS = ("simclr", "moco", "nnclr")


@settings
class DCL(JointEmbedding):
    """Features without labels: contrast whose gradient does not fade in small batches."""

    card: ClassVar = Card(
        id="dcl",
        title="Decoupled Contrastive Learning",
        paper="arXiv:2110.06848",
        code="raminnakhli/Decoupled-Contrastive-Learning",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="an encoder trained without labels, and its projector",
        says="ImageNet, ResNet-50, batch 256, 200 epochs: 68.2 % top-1 by a linear probe, 6.4 points above SimCLR",
        tags=("contrastive", "instance discrimination"),
    )

    form: str = "simclr"
    """`simclr`, `moco` or `nnclr`."""
    decoupled: bool = True
    """Drop the positive from the denominator; False is the form's own InfoNCE."""
    weighted: bool = False
    """Weigh hard positives more (DCLW)."""
    sigma: Positive = 0.5
    """σ of the weights."""
    detach_weight: bool = True
    """No gradient through the weights."""
    temperature: Positive = 0.1
    """τ."""
    momentum: Share = 0.999
    """Of the key encoder of `moco`, which rises to it as (1 + t)/(10 + t) over the steps t."""
    memory_bank_size: Whole | None = None
    """Embeddings in the memory bank of `moco` and `nnclr`; None: 65536 and 98304, at most one for four images."""
    group: Count = 32
    """Images that share batch statistics in `moco`, queries in order and keys shuffled."""
    projector: Sequence[Count] | None = None
    """Widths of its layers; None takes the encoder's width, then 128."""
    scale: tuple[SomeShare, SomeShare] | None = None
    """A view's share of the image's area; None: 0.08 to 1, of 16×16 pixels at least."""
    flip: bool = True
    """Mirror half of the views."""
    batch: Several = 256
    """Images a step (two views each)."""
    optimiser: OptimiserName = "adamw"
    """`adamw`; the paper has `lars`, and `sgd` for `moco`."""
    learning_rate: Positive | None = None  # type: ignore[assignment]
    """At its peak; None: 2e-3, for LARS 0.3 and for SGD 0.03, times batch/256."""
    weight_decay: NotNegative = 1e-06
    """Of weights."""
    warm_up: Share = 0.05
    """Share of the steps in which the learning rate rises."""

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UserError(f"dcl has no form '{self.form}': choose simclr, moco or nnclr")
        self.learning_rate = self.learning_rate or {"lars": 0.3, "sgd": 0.03}.get(self.optimiser, 2e-3)

    def build(self, data: Dataset) -> None:
        width, size = self.model.encoder.width, (data.height, data.width)
        widths = [width, *(self.projector or [width, 128])]
        self.add_head("projector", MLP(widths=widths))
        view = presets.self_supervised(size, scale=self.scale or crop_scale(*size), flip=self.flip)
        self.policies = [view, view]
        if self.form == "moco":
            self.key_encoder = Teacher(self.model, momentum=self.momentum, own_statistics=True)
            self.memory_bank = MemoryBank(
                sized(self.memory_bank_size, len(data) // 4, self.batch, largest=65536), widths[-1]
            )
        elif self.form == "nnclr":
            self.predictor = MLP(widths=[widths[-1], widths[1], widths[-1]])
            self.memory_bank = MemoryBank(
                sized(self.memory_bank_size, len(data) // 4, self.batch, largest=98304), widths[-1]
            )

    def step(self, batch: Batch) -> Tensor:
        views = self.views(batch)
        self.losses: list[Tensor] = []
        loss = {"simclr": self.among, "moco": self.past, "nnclr": self.neighbours}[self.form](views)
        q = coupling(torch.cat(self.losses), decoupled=self.decoupled)
        self.log(q=q.mean(), q_variance=q.var())
        return loss

    def contrast(self) -> dict[str, Any]:
        """Return the arguments that every form's loss takes: temperature, denominator, and the weights of DCLW."""
        return {
            "temperature": self.temperature,
            "denominator": "none" if self.decoupled else "own",
            "sigma": self.sigma if self.weighted else None,
            "detach_weight": self.detach_weight,
        }

    def among(self, views: list[Tensor]) -> Tensor:
        """Return the loss in SimCLR's form: the other view against both views of all other images."""
        anchors = sum(map(len, views))
        loss = info_nce_by_blocks if anchors**2 * self.processes > LARGE else info_nce
        return loss(self.embed(views), per_view=self.per_view, watch=self.losses.append, **self.contrast())

    def past(self, views: list[Tensor]) -> Tensor:
        """Return the loss in MoCo's form: the other view's key against the memory bank."""
        together, apart = shuffled(self, len(views[0]), self.group)
        queries = in_groups(partial(self.model.logits, name="projector"), views[0], together)
        with torch.no_grad():
            keys = partial(self.key_encoder.network.logits, name="projector")
            self.keys = in_groups(keys, views[1], apart)
        past = self.memory_bank.values
        loss = against_memory_bank_by_blocks if len(queries) * len(past) > LARGE else against_memory_bank
        return loss(queries, self.keys, past, watch=self.losses.append, **self.contrast())

    def neighbours(self, views: list[Tensor]) -> Tensor:
        """Return the loss in NNCLR's form: each view's nearest neighbour against all predictions of the other view."""
        embeddings = self.embed(views)
        one, other = self.predictor(torch.cat(embeddings)).chunk(2)
        support = self.memory_bank.values
        near = [support[nearest(each.detach(), support)] for each in embeddings]
        self.keys = embeddings[0].detach()
        loss = in_batch_by_blocks if len(one) ** 2 * self.processes > LARGE else in_batch
        told = [loss(n, p, watch=self.losses.append, **self.contrast()) for n, p in zip(near, (other, one))]
        return (told[0] + told[1]) / 2

    def after_step(self) -> None:
        """Add this step's embeddings to the memory bank, and update the key encoder."""
        if self.form != "simclr":
            self.memory_bank.push(self.keys)
        if self.form == "moco":
            self.key_encoder.update(self.model)

    def groups(self) -> list[dict]:
        groups = super().groups()
        if self.optimiser == "sgd":
            for group in groups:
                group["scale"] = self.plan.batch / 256
        return groups
