"""DCL: contrast without the positive in its denominator, so that small batches learn as fast as large ones.

InfoNCE's gradient is that of a simpler loss times q = U/(exp(⟨z, z⁺⟩/τ) + U), where U sums over the negatives: it fades
where a positive is easy or negatives are few, which is a matter of the batch's size and not of the image. Dropping the
positive from the denominator drops q. For image i with views k ∈ {1, 2} (eq. 6):

    U_{i,k} = Σ_{l ∈ {1,2}} Σ_{j ≠ i} exp(⟨zᵢᵏ, z_jˡ⟩/τ)
    L_{i,k} = −⟨zᵢ¹, zᵢ²⟩/τ + log U_{i,k}

the mean over i and k. DCLW multiplies the first term by wᵢ = 2 − exp(⟨zᵢ¹, zᵢ²⟩/σ) / meanₘ exp(⟨zₘ¹, zₘ²⟩/σ), whose
mean is 1: hard positives count more. The same change fits other forms of contrast:

    simclr   negatives are both views of the batch's other images (above)
    moco     negatives are a queue of a slow copy's keys of past images
    nnclr    an embedding's nearest neighbour in a queue of past ones stands for it, and is told from the batch's
             predictions of the other view

Shared: the masked log-softmax with its denominators and weights, the queue, the moving average, shuffled batch norm,
the views.
Yeh et al., 2021, arXiv:2110.06848; code: raminnakhli/Decoupled-Contrastive-Learning. NNCLR: Dwibedi et al., 2021,
arXiv:2104.14548.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rushlight.augment import policy
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, Whole
from rushlight.core.card import Card, Needs
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import against_queue, coupling, in_batch, info_nce, nearest
from rushlight.nets.heads import MLP
from rushlight.train.joint_embedding import JointEmbedding, crop_scale
from rushlight.train.learner import Batch
from rushlight.train.memory_bank import MemoryBank, sized
from rushlight.train.optim import OptimiserName
from rushlight.train.shuffle import in_groups, shuffled
from rushlight.train.teacher import Teacher

FORMS = ("simclr", "moco", "nnclr")


class DCL(JointEmbedding):
    """Features without labels: contrast whose gradient does not fade in small batches."""

    card = Card(
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

    def __init__(
        self,
        *,
        form: str = "simclr",
        decoupled: bool = True,
        weighted: bool = False,
        sigma: Positive = 0.5,
        detach_weight: bool = True,
        temperature: Positive = 0.1,
        momentum: Share = 0.999,
        queue: Whole | None = None,
        group: Count = 32,
        projector: Sequence[Count] | None = None,
        scale: tuple[SomeShare, SomeShare] | None = None,
        flip: bool = True,
        batch: Several = 256,
        optimiser: OptimiserName = "adamw",
        learning_rate: Positive | None = None,
        weight_decay: NotNegative = 1e-6,
        warm_up: Share = 0.05,
    ):
        """
        Args:
            form: `simclr`, `moco` or `nnclr`.
            decoupled: drop the positive from the denominator; False is the form's own InfoNCE.
            weighted: weigh hard positives more (DCLW).
            sigma: σ of the weights.
            detach_weight: no gradient through the weights.
            temperature: τ.
            momentum: of the key encoder of `moco`, which rises to it as (1 + t)/(10 + t) over the steps t.
            queue: how many embeddings the queue of `moco` and `nnclr` holds, a multiple of the batch; None takes the
                papers' 65536 and 98304, but at most one for every fourth image.
            group: images that share batch statistics in `moco`, queries in order and keys shuffled.
            projector: widths of its layers; None takes the encoder's width, then 128.
            scale: share of the image's area that a view shows; None takes SimCLR's 0.08 to 1, but no crop of less
                than 16×16 pixels' area.
            flip: mirror half of the views.
            batch: images a step (two views each).
            optimiser: `adamw`; the paper has `lars`, and `sgd` for `moco`.
            learning_rate: at its peak; None takes 2e-3, for LARS 0.3 and for SGD 0.03, which are multiplied by
                batch/256.
            weight_decay: of weights.
            warm_up: share of the steps in which the learning rate rises.

        Raises:
            UserError: there is no such form.
        """
        super().__init__()
        if form not in FORMS:
            raise UserError(f"dcl has no form '{form}': simclr, moco and nnclr are known")
        self.form, self.momentum, self.wanted, self.group = form, momentum, queue, group
        self.decoupled = decoupled
        self.contrast: dict[str, Any] = {
            "temperature": temperature,
            "denominator": "none" if decoupled else "own",
            "sigma": sigma if weighted else None,
            "detach_weight": detach_weight,
        }
        self.projector, self.scale, self.flip = list(projector) if projector is not None else None, scale, flip
        self.batch, self.smallest_batch = batch, min(batch, 64)
        self.optimiser, self.weight_decay, self.warm_up = optimiser, weight_decay, warm_up
        self.learning_rate = learning_rate or {"lars": 0.3, "sgd": 0.03}.get(optimiser, 2e-3)

    def build(self, data: Dataset) -> None:
        width, size = self.model.encoder.width, (data.height, data.width)
        widths = [width, *(self.projector or [width, 128])]
        self.add_head("projector", MLP(widths=widths))
        view = policy.self_supervised(size, scale=self.scale or crop_scale(*size), flip=self.flip)
        self.policies = [view, view]
        if self.form == "moco":
            self.key_encoder = Teacher(self.model, momentum=self.momentum, own_statistics=True)
            self.memory_bank = MemoryBank(sized(self.wanted, len(data) // 4, self.batch, largest=65536), widths[-1])
        elif self.form == "nnclr":
            self.predictor = MLP(widths=[widths[-1], widths[1], widths[-1]])
            self.memory_bank = MemoryBank(sized(self.wanted, len(data) // 4, self.batch, largest=98304), widths[-1])

    def step(self, batch: Batch) -> Tensor:
        views = self.views(batch)
        self.losses: list[Tensor] = []
        loss = {"simclr": self.among, "moco": self.past, "nnclr": self.neighbours}[self.form](views)
        q = coupling(torch.cat(self.losses), decoupled=self.decoupled)
        self.log(q=q.mean(), q_variance=q.var())
        return loss

    def among(self, views: list[Tensor]) -> Tensor:
        """SimCLR's form: the other view against both views of all other images."""
        return info_nce(self.embed(views), per_view=self.per_view, watch=self.losses.append, **self.contrast)

    def past(self, views: list[Tensor]) -> Tensor:
        """MoCo's form: the other view's key against the queue."""
        together, apart = shuffled(self, len(views[0]), self.group)
        queries = in_groups(partial(self.model.logits, name="projector"), views[0], together)
        with torch.no_grad():
            keys = partial(self.key_encoder.network.logits, name="projector")
            self.pushed = in_groups(keys, views[1], apart)
        return against_queue(queries, self.pushed, self.memory_bank.values, watch=self.losses.append, **self.contrast)

    def neighbours(self, views: list[Tensor]) -> Tensor:
        """NNCLR's form: each view's nearest neighbour against the predictions of the other view of all images."""
        embeddings = self.embed(views)
        one, other = self.predictor(torch.cat(embeddings)).chunk(2)
        support = self.memory_bank.values
        near = [support[nearest(each.detach(), support)] for each in embeddings]
        self.pushed = embeddings[0].detach()
        told = [in_batch(n, p, watch=self.losses.append, **self.contrast) for n, p in zip(near, (other, one))]
        return (told[0] + told[1]) / 2

    def after_step(self) -> None:
        """The queue takes this step's embeddings in, and the key encoder follows."""
        if self.form != "simclr":
            self.memory_bank.push(self.pushed)
        if self.form == "moco":
            self.key_encoder.update(self.model)

    def groups(self) -> list[dict]:
        groups = super().groups()
        if self.optimiser == "sgd":
            for group in groups:
                group["scale"] = self.plan.batch / 256
        return groups
