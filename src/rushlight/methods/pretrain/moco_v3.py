"""MoCo-v3: features without labels, from a slow copy's keys within the batch; made to train vision transformers.

With batches as large as today's the queue of MoCo is not needed: the keys of the other images of the batch are
negatives enough. Two different policies see each image. The query side has a predictor more, q = p(g(f(x))); the key
side is a moving average of the query side without it, k = g′(f′(x)). Both are normalised, and each view asks for the
other (algorithm 1):

    ctr(q, k) = −2τ · mean_i log( exp(⟨qᵢ, kᵢ⟩/τ) / Σ_j exp(⟨qᵢ, k_j⟩/τ) )
    ℓ = ctr(q₁, k₂) + ctr(q₂, k₁)
    θ′ ← m·θ′ + (1 − m)·θ,    m from 0.99 to 1 by half a cosine

The factor 2τ makes the gradient's size independent of τ. Vision transformers trained so have dips of accuracy, which
begin in the first layer: its gradients explode first. So their patch projection stays as it was drawn; their positions
are fixed sines.

Shared: the two policies, the masked log-softmax (keys of all processes), the moving average (of parameters; batch
statistics are each side's own), the MLPs, the fixed positions.
Chen, Xie & He, 2021, arXiv:2104.02057; code: facebookresearch/moco-v3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rushlight.augment import policy
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.contrastive import in_batch
from rushlight.nets.heads import MLP
from rushlight.nets.vit import fix_positions, is_vit
from rushlight.train.joint_embedding import JointEmbedding, crop_scale
from rushlight.train.learner import Batch
from rushlight.train.optim import OptimiserName
from rushlight.train.teacher import Teacher, rising


class MoCoV3(JointEmbedding):
    """Features without labels: each view asks a slow copy's keys for the other view of its image."""

    card = Card(
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

    def __init__(
        self,
        *,
        temperature: Positive = 0.2,
        momentum: Share = 0.99,
        hidden: Count | None = None,
        width: Count = 256,
        freeze_patches: bool = True,
        fixed_positions: bool = True,
        scale: tuple[SomeShare, SomeShare] | None = None,
        flip: bool = True,
        batch: Several = 256,
        optimiser: OptimiserName = "adamw",
        learning_rate: Positive | None = None,
        weight_decay: NotNegative = 0.1,
        warm_up: Share = 0.13,
    ):
        """
        Args:
            temperature: τ.
            momentum: m of the key side at the start; it rises to 1.
            hidden: width of the hidden layers of projector and predictor; None takes eight times the encoder's, at
                most the paper's 4096.
            width: of the embeddings.
            freeze_patches: a vision transformer's patch projection is not trained.
            fixed_positions: a vision transformer's positions are sines and cosines that are not trained; False keeps
                its own, as one that comes trained needs them.
            scale: share of the image's area that a view shows; None takes the paper's 0.08 to 1, but no crop of
                less than 16×16 pixels' area.
            flip: mirror half of the views.
            batch: images a step (two views each).
            optimiser: `adamw`, the paper's for vision transformers; `lars` for convolutional networks.
            learning_rate: at its peak; None takes 2e-3 (the paper: 1.5e-4·batch/256, which is 2.4e-3 at 4096), and for
                LARS 0.3, which is multiplied by batch/256.
            weight_decay: of weights (the paper with LARS: 1e-6).
            warm_up: share of the steps in which the learning rate rises (the paper: 40 of 300 epochs).
        """
        super().__init__()
        self.temperature, self.momentum, self.hidden, self.width = temperature, momentum, hidden, width
        self.freeze_patches, self.fixed_positions = freeze_patches, fixed_positions
        self.scale, self.flip = scale, flip
        self.batch, self.smallest_batch = batch, min(batch, 64)
        self.optimiser, self.weight_decay, self.warm_up = optimiser, weight_decay, warm_up
        self.learning_rate = learning_rate or (0.3 if optimiser == "lars" else 2e-3)

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
        self.policies = policy.barlow_pair((data.height, data.width), scale=scale, flip=self.flip)

    def _steady(self, encoder: Any) -> None:
        """What the paper keeps a vision transformer from training: its patch projection and its positions."""
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
        """Each query is told which of the keys of all processes is its own."""
        return 2 * self.temperature * in_batch(queries, keys, temperature=self.temperature)

    def after_step(self) -> None:
        """The key side follows: before the next keys are made, with the next step's momentum, as published."""
        self.key_encoder.update(self.model, rising(self.momentum, self.progress))
