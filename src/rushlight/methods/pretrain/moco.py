"""MoCo-v2: tell an image's other view from a memory bank of past images.

Contrast needs many negatives, and a large batch is a dear way to have them. The keys of the last K images wait
in a memory bank instead. They are comparable only if the network that made them changes slowly, so keys come from a
moving average of the query encoder. Batch norm would betray which key was made beside the query: it works on groups of
the batch, and keys are shuffled among them.

Chen et al., 2020, arXiv:2003.04297, after He et al., 2019, arXiv:1911.05722; code: facebookresearch/moco.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from rushlight.augment import presets
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, Whole, settings
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import LARGE, against_memory_bank
from rushlight.losses.contrastive_blocks import against_memory_bank_by_blocks
from rushlight.nets.heads import MLP
from rushlight.train.joint_embedding import JointEmbedding, crop_scale
from rushlight.train.learner import Batch
from rushlight.train.memory_bank import MemoryBank, sized
from rushlight.train.optim import OptimiserName
from rushlight.train.shuffle import in_groups, shuffled
from rushlight.train.teacher import Teacher


@settings
class MoCo(JointEmbedding):
    """Features without labels: an image's other view is contrasted with a memory bank."""

    card: ClassVar = Card(
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

    temperature: Positive = 0.2
    """τ."""
    momentum: Share = 0.999
    """m of the key encoder, which rises to it as (1 + t)/(10 + t) over the steps t."""
    memory_bank_size: Whole | None = None
    """K, keys that wait, a multiple of the batch; None: the paper's 65536, at most one for four images."""
    group: Count = 32
    """Images that share batch statistics, queries in order and keys shuffled (the paper: 32 on a GPU)."""
    projector: Sequence[Count] | None = None
    """Widths of its layers; None takes the encoder's width, then 128."""
    norm: bool = True
    """Batch norm in the projector (the paper: none)."""
    scale: tuple[SomeShare, SomeShare] | None = None
    """A view's share of the image's area; None: 0.2 to 1, of 16×16 pixels at least."""
    flip: bool = True
    """Mirror half of the views."""
    batch: Several = 256
    """Images a step (two views each)."""
    optimiser: OptimiserName = "adamw"
    """`adamw`; `sgd` is the paper's."""
    learning_rate: Positive | None = None  # type: ignore[assignment]
    """At its peak; None: 2e-3, for SGD 0.03 times batch/256."""
    weight_decay: NotNegative = 0.0001
    """Of weights."""
    warm_up: Share = 0.05
    """Share of the steps in which the learning rate rises (the paper: 0)."""

    def __post_init__(self) -> None:
        self.learning_rate = self.learning_rate or (0.03 if self.optimiser == "sgd" else 2e-3)

    def build(self, data: Dataset) -> None:
        width, size = self.model.encoder.width, (data.height, data.width)
        widths = list(self.projector or [width, 128])
        self.add_head("projector", MLP(widths=[width, *widths], norm=self.norm))
        self.key_encoder = Teacher(self.model, momentum=self.momentum, own_statistics=True)
        self.memory_bank = MemoryBank(
            sized(self.memory_bank_size, len(data) // 4, self.batch, largest=65536), widths[-1]
        )
        view = presets.self_supervised(size, scale=self.scale or crop_scale(*size, smallest=0.2), flip=self.flip)
        self.policies = [view, view]

    def step(self, batch: Batch) -> Tensor:
        one, other = self.views(batch)
        together, apart = shuffled(self, len(one), self.group)
        queries = in_groups(partial(self.model.logits, name="projector"), one, together)
        with torch.no_grad():
            keys = partial(self.key_encoder.network.logits, name="projector")
            self.keys = in_groups(keys, other, apart)
        past = self.memory_bank.values
        loss = against_memory_bank_by_blocks if len(queries) * len(past) > LARGE else against_memory_bank
        return loss(queries, self.keys, past, temperature=self.temperature)

    def after_step(self) -> None:
        """Add the keys to the memory bank and update the key encoder, before the next keys are made, as published."""
        self.memory_bank.push(self.keys)
        self.key_encoder.update(self.model)

    def groups(self) -> list[dict]:
        groups = super().groups()
        if self.optimiser == "sgd":
            for group in groups:
                group["scale"] = self.plan.batch / 256
        return groups
