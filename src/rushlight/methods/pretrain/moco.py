"""MoCo-v2: features without labels, from telling an image's other view from a queue of past images.

Contrast needs many negatives, and a large batch is a dear way to have them. Momentum contrast keeps them: the keys of
the last K images wait in a queue. They were made by earlier networks, and are comparable only if the network that makes
them changes slowly; so keys come from a copy of the query encoder that follows it as a moving average. One view
passes the query encoder and its projector, q = g(f(x)), the other the key encoder, k = g′(f′(x′)), both normalised, and

    ℓ = −log exp(⟨q, k⟩/τ) / ( exp(⟨q, k⟩/τ) + Σ_{n ∈ queue} exp(⟨q, n⟩/τ) )            (MoCo, eq. 1)
    θ′ ← m·θ′ + (1 − m)·θ                                                              (MoCo, eq. 2)

Gradients flow through q alone. After the step, the batch's keys replace the oldest ones of the queue. Batch norm would
betray which key was made beside the query; so it works on groups of the batch, and keys are shuffled among them. The
second version is the first with SimCLR's projector and blur, and a cosine schedule.

Shared: the views' family, the masked log-softmax, the queue (of all processes' keys), the moving average (of
parameters; the key encoder's batch statistics are its own), shuffled batch norm, the projector's MLP.
Chen et al., 2020, arXiv:2003.04297, after He et al., 2019, arXiv:1911.05722; code: facebookresearch/moco.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from rushlight.augment import policy
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, Whole
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import against_queue
from rushlight.nets.heads import MLP
from rushlight.train.joint_embedding import JointEmbedding, crop_scale
from rushlight.train.learner import Batch
from rushlight.train.memory_bank import MemoryBank, sized
from rushlight.train.optim import OptimiserName
from rushlight.train.shuffle import in_groups, shuffled
from rushlight.train.teacher import Teacher


class MoCo(JointEmbedding):
    """Features without labels: an image's other view is told from a queue of past images."""

    card = Card(
        id="moco",
        title="Improved Baselines with Momentum Contrastive Learning",
        paper="arXiv:2003.04297",
        code="facebookresearch/moco",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="an encoder trained without labels, and its projector",
        says="ImageNet, ResNet-50: 71.1 % top-1 by a linear probe after 800 epochs at a batch of 256",
        tags=("contrastive", "instance discrimination"),
    )

    def __init__(
        self,
        *,
        temperature: Positive = 0.2,
        momentum: Share = 0.999,
        queue: Whole | None = None,
        group: Count = 32,
        projector: Sequence[Count] | None = None,
        norm: bool = True,
        scale: tuple[SomeShare, SomeShare] | None = None,
        flip: bool = True,
        batch: Several = 256,
        optimiser: OptimiserName = "adamw",
        learning_rate: Positive | None = None,
        weight_decay: NotNegative = 1e-4,
        warm_up: Share = 0.05,
    ):
        """
        Args:
            temperature: τ.
            momentum: m of the key encoder, which rises to it as (1 + t)/(10 + t) over the steps t.
            queue: K, how many keys wait, a multiple of the batch; None takes the paper's 65536, but at most a key
                for every fourth image.
            group: images that share batch statistics, queries in order and keys shuffled (the paper: 32 on a GPU).
            projector: widths of its layers; None takes the encoder's width, then 128.
            norm: batch norm in the projector (the paper: none).
            scale: share of the image's area that a view shows; None takes the paper's 0.2 to 1, but no crop of
                less than 16×16 pixels' area.
            flip: mirror half of the views.
            batch: images a step (two views each).
            optimiser: `adamw`; `sgd` is the paper's.
            learning_rate: at its peak; None takes 2e-3, and for SGD 0.03, which is multiplied by batch/256.
            weight_decay: of weights.
            warm_up: share of the steps in which the learning rate rises (the paper: 0).
        """
        super().__init__()
        self.temperature, self.momentum, self.scale, self.flip = temperature, momentum, scale, flip
        self.wanted, self.group = queue, group
        self.projector, self.norm = list(projector) if projector is not None else None, norm
        self.batch, self.smallest_batch = batch, min(batch, 64)
        self.optimiser, self.weight_decay, self.warm_up = optimiser, weight_decay, warm_up
        self.learning_rate = learning_rate or (0.03 if optimiser == "sgd" else 2e-3)

    def build(self, data: Dataset) -> None:
        width, size = self.model.encoder.width, (data.height, data.width)
        widths = self.projector or [width, 128]
        self.add_head("projector", MLP(widths=[width, *widths], norm=self.norm))
        self.key_encoder = Teacher(self.model, momentum=self.momentum, own_statistics=True)
        self.memory_bank = MemoryBank(sized(self.wanted, len(data) // 4, self.batch, largest=65536), widths[-1])
        view = policy.self_supervised(size, scale=self.scale or crop_scale(*size, smallest=0.2), flip=self.flip)
        self.policies = [view, view]

    def step(self, batch: Batch) -> Tensor:
        one, other = self.views(batch)
        together, apart = shuffled(self, len(one), self.group)
        queries = in_groups(partial(self.model.logits, name="projector"), one, together)
        with torch.no_grad():
            keys = partial(self.key_encoder.network.logits, name="projector")
            self.keys = in_groups(keys, other, apart)
        return against_queue(queries, self.keys, self.memory_bank.values, temperature=self.temperature)

    def after_step(self) -> None:
        """The keys join the queue, and the key encoder follows: before the next keys are made, as published."""
        self.memory_bank.push(self.keys)
        self.key_encoder.update(self.model)

    def groups(self) -> list[dict]:
        groups = super().groups()
        if self.optimiser == "sgd":
            for group in groups:
                group["scale"] = self.plan.batch / 256
        return groups
