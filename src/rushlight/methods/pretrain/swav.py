"""SwAV: views predict each other's assignment to prototypes.

A view's embedding is assigned to K prototypes by a code: softly, and such that each prototype gets an equal share of
the batch, which rules out collapse. Each view predicts the codes of the large views of its image. Small views are
predicted from, not assigned; small batches take past embeddings from a memory bank into the assignment.

Caron et al., 2020, arXiv:2006.09882; code: facebookresearch/swav.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rushlight.augment import presets
from rushlight.augment.policy import Policy
from rushlight.core.arguments import Count, NotNegative, Positive, Several, Share, SomeShare, Whole, settings
from rushlight.core.card import Card, Needs
from rushlight.data.dataset import Dataset
from rushlight.losses.self_distillation import across_views
from rushlight.losses.transport import sinkhorn
from rushlight.nets.heads import MLP, Prototypes
from rushlight.train.joint_embedding import JointEmbedding, crop_scale, local_scale, local_size, prototypes_for
from rushlight.train.learner import Batch
from rushlight.train.memory_bank import MemoryBank, sized
from rushlight.train.optim import OptimiserName

LARGE = 2
"""How many views are assigned to prototypes."""


@settings
class SwAV(JointEmbedding):
    """Features without labels: views predict each other's assignment to prototypes."""

    card: ClassVar = Card(
        id="swav",
        title="Unsupervised Learning of Visual Features by Contrasting Cluster Assignments",
        paper="arXiv:2006.09882",
        code="facebookresearch/swav",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="an encoder trained without labels, and its projector",
        says="ImageNet, ResNet-50, 800 epochs: 75.3 % top-1 by a linear probe",
        tags=("clustering", "swapped assignments"),
    )
    smallest_batch = 32

    prototypes: Count | None = None
    """K; None: the paper's 3000, or one for about 16 images of a smaller set, 256 at least."""
    temperature: Positive = 0.1
    """τ."""
    epsilon: Positive = 0.05
    """Of Sinkhorn–Knopp."""
    iterations: Count = 3
    """Of it."""
    memory_bank_size: Whole | None = None
    """Past embeddings assigned with the batch; None: 3840, at most one for four images; 0 is none."""
    memory_bank_from: Share = 0.15
    """Share of the training after which the memory bank is used (the paper: 15 of 100 epochs and more)."""
    freeze: Share = 0.005
    """Share of the training in which the prototypes rest (the paper: 313 steps)."""
    projector: Sequence[Count] | None = None
    """Widths of its layers; None takes the encoder's width, then 128."""
    local: Whole = 6
    """Small views."""
    scale: tuple[SomeShare, SomeShare] | None = None
    """A large view's share of the image's area; None: 0.14 to 1, of 16×16 pixels at least."""
    small_scale: tuple[SomeShare, SomeShare] | None = None
    """A small view's share of the image's area; None: 0.05 to 0.14, of 8×8 pixels at least."""
    flip: bool = True
    """Mirror half of the views."""
    batch: Several = 256
    """Images a step."""
    optimiser: OptimiserName = "adamw"
    """`adamw`; `lars` is the paper's."""
    learning_rate: Positive | None = None  # type: ignore[assignment]
    """At its peak; None: 2e-3, for LARS 0.3 times batch/256 (the paper: 4.8 at 4096)."""
    weight_decay: NotNegative = 1e-06
    """Of weights."""
    warm_up: Share = 0.05
    """Share of the steps in which the learning rate rises (the paper: 10 epochs)."""

    def __post_init__(self) -> None:
        self.learning_rate = self.learning_rate or (0.3 if self.optimiser == "lars" else 2e-3)

    def build(self, data: Dataset) -> None:
        encoder, size = self.model.encoder, (data.height, data.width)
        widths = list(self.projector or [encoder.width, 128])
        self.add_head("projector", MLP(widths=[encoder.width, *widths]))
        self.centres = Prototypes(width=widths[-1], outputs=self.prototypes or prototypes_for(len(data), 3000))
        wanted = self.memory_bank_size
        length = 0 if wanted == 0 else sized(wanted, len(data) // 4, self.batch, largest=3840)
        self.memory_banks = nn.ModuleList(MemoryBank(length, widths[-1]) for _ in range(LARGE if length else 0))
        self.policies = views(
            size,
            local_size(encoder, *size),
            local=self.local,
            scale=self.scale or crop_scale(*size, smallest=0.14),
            small_scale=self.small_scale or local_scale(*size, largest=0.14),
            flip=self.flip,
        )

    def step(self, batch: Batch) -> Tensor:
        embeddings = self.embed(self.views(batch))
        scores = [self.centres(each) for each in embeddings]
        self.past = [each.detach() for each in embeddings[:LARGE]]
        codes = [self.code(view, scores[view].detach()) for view in range(LARGE)]
        return across_views(scores, codes, temperature=self.temperature)

    @torch.no_grad()
    def code(self, view: int, scores: Tensor) -> Tensor:
        """Return the assignment of a large view's embeddings, computed per view, together with its memory bank where
        that is in use (each process takes its share of it into the joined batch). Where a view has one style, past
        embeddings of other styles stay out."""
        together = scores
        past: Any = self.memory_banks[view] if len(self.memory_banks) and not self.per_view else None
        if past is not None and past.full and self.progress >= self.memory_bank_from:
            together = torch.cat([scores, self.centres(self.local_rows(past.values)).to(scores.dtype)])
        return sinkhorn(together, epsilon=self.epsilon, iterations=self.iterations)[: len(scores)]

    def clip_gradients(self, groups: list[dict]) -> None:
        if self.progress < self.freeze:
            self.centres.weight.grad = None
        super().clip_gradients(groups)

    def after_step(self) -> None:
        """Add past embeddings to the memory banks, and scale the prototypes back to length 1."""
        banks: Any = self.memory_banks
        for memory_bank, embeddings in zip(banks, self.past, strict=False):
            memory_bank.push(F.normalize(embeddings, dim=1))
        with torch.no_grad():
            self.centres.weight.copy_(F.normalize(self.centres.weight, dim=1))


def views(
    size: tuple[int, int],
    small: tuple[int, int],
    *,
    local: int,
    scale: tuple[float, float],
    small_scale: tuple[float, float],
    flip: bool,
) -> list[Policy]:
    """Return SwAV's multi-crop: all views have one kind of jitter and blur."""
    large = presets.self_supervised(size, scale=scale, flip=flip, jitter=(0.8, 0.8, 0.8, 0.2))
    part = presets.self_supervised(small, scale=small_scale, flip=flip, jitter=(0.8, 0.8, 0.8, 0.2))
    return [replace(large), replace(large), *[part] * local]
