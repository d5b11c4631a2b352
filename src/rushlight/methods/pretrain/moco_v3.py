"""MoCo-v3: contrast of each view with a slow copy's keys of the other view, made stable for vision transformers.

Large batches give negatives enough, so there is no memory bank. A predictor stands on the query side alone, and the
patch projection of a vision transformer keeps its random weights: where its gradient spikes, training breaks.

Chen, Xie & He, 2021, arXiv:2104.02057; code: facebookresearch/moco-v3.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from rushlight.augment import presets
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, settings
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import LARGE, in_batch
from rushlight.losses.contrastive_blocks import in_batch_by_blocks
from rushlight.nets.heads import MLP
from rushlight.nets.vit import fix_positions, is_vit
from rushlight.train.joint_embedding import JointEmbedding, crop_scale
from rushlight.train.learner import Batch
from rushlight.train.optim import OptimiserName
from rushlight.train.teacher import Teacher, rising


@settings
class MoCoV3(JointEmbedding):
    """Features without labels: each view asks a slow copy's keys for the other view of its image."""

    card: ClassVar = Card(
        id="moco-v3",
        title="An Empirical Study of Training Self-Supervised Vision Transformers",
        paper="arXiv:2104.02057",
        code="facebookresearch/moco-v3",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="an encoder trained without labels, and its projector",
        says="ImageNet, ViT-B/16: 76.7 % top-1 by a linear probe after 300 epochs, 83.2 % when fine-tuned",
        tags=("contrastive", "instance discrimination"),
    )

    temperature: Positive = 0.2
    """τ."""
    momentum: Share = 0.99
    """m of the key side at the start; it rises to 1."""
    hidden: Count | None = None
    """Of projector and predictor; None: eight times the encoder's width, at most the paper's 4096."""
    width: Count = 256
    """Of the embeddings."""
    freeze_patches: bool = True
    """A vision transformer's patch projection is not trained."""
    fixed_positions: bool = True
    """A ViT's positions are fixed sines and cosines; False keeps its own, as one that comes trained needs."""
    scale: tuple[SomeShare, SomeShare] | None = None
    """A view's share of the image's area; None: 0.08 to 1, of 16×16 pixels at least."""
    flip: bool = True
    """Mirror half of the views."""
    batch: Several = 256
    """Images a step (two views each)."""
    optimiser: OptimiserName = "adamw"
    """`adamw`, the paper's for vision transformers; `lars` for convolutional networks."""
    learning_rate: Positive | None = None  # type: ignore[assignment]
    """At its peak; None: 2e-3 (paper: 1.5e-4·batch/256), for LARS 0.3 times batch/256."""
    weight_decay: NotNegative = 0.1
    """Of weights (the paper with LARS: 1e-6)."""
    warm_up: Share = 0.13
    """Share of the steps in which the learning rate rises (the paper: 40 of 300 epochs)."""

    def __post_init__(self) -> None:
        self.learning_rate = self.learning_rate or (0.3 if self.optimiser == "lars" else 2e-3)

    def build(self, data: Dataset) -> None:
        encoder = self.model.encoder
        vit = is_vit(encoder)
        if vit:
            self._steady(encoder)
        hidden = self.hidden or min(8 * encoder.width, 4096)
        layers = [hidden] * (2 if vit else 1)
        projector = MLP(widths=[encoder.width, *layers, self.width], last_norm=True, bias=False)
        self.add_head("projector", projector)
        self.predictor = MLP(widths=[self.width, hidden, self.width], last_norm=vit, bias=False)
        self.key_encoder = Teacher(self.model, momentum=self.momentum, warm=False, own_statistics=True)
        scale = self.scale or crop_scale(data.height, data.width)
        self.policies = presets.barlow_pair((data.height, data.width), scale=scale, flip=self.flip)

    def _steady(self, encoder: Any) -> None:
        """Freeze what the paper does not train in a vision transformer: its patch projection and its positions."""
        if self.freeze_patches:
            encoder.model.patch_embed.requires_grad_(False)
        if self.fixed_positions and encoder.model.pos_embed is not None:
            fix_positions(encoder, column_first=False)

    def step(self, batch: Batch) -> Tensor:
        views = self.views(batch)
        one, other = (self.predictor(self.model.logits(view, "projector")) for view in views)
        with torch.no_grad():
            keys = [self.key_encoder.network.logits(view, "projector") for view in views]
        return self.ctr(one, keys[1]) + self.ctr(other, keys[0])

    def ctr(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return the loss of finding each query's own key among the keys of all processes."""
        loss = in_batch_by_blocks if len(queries) ** 2 * self.processes > LARGE else in_batch
        return 2 * self.temperature * loss(queries, keys, temperature=self.temperature)

    def after_step(self) -> None:
        """Update the key side before the next keys are made, with the next step's momentum, as published."""
        self.key_encoder.update(self.model, rising(self.momentum, self.progress))
