"""PU-MLC: learn several labels an image from the positives alone; negatives are thrown away.

In multi-label data most wrong labels are false negatives. So every entry that is not a known positive counts as
unlabelled, and each class is learned from its positives and from the whole batch, by a variational PU loss and by
consistency under mix-up. Local-global convolution adds to each 3×3 convolution a branch that gathers from the whole map
and gives back to each place; it starts at nothing.

Yuan et al., 2023, arXiv:2306.16016; code: TAKELAMAG/PU-MLC. The variational loss: Chen et al., arXiv:1906.02696.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rushlight.augment import mix, presets
from rushlight.core.arguments import Count, NotNegative, Positive, Share, settings
from rushlight.core.card import Card, Needs, known
from rushlight.core.distributed import all_gather
from rushlight.data.dataset import Dataset
from rushlight.methods.labels.pu_mlc import positive_unlabelled as pu
from rushlight.methods.labels.pu_mlc.decoupling import Decoupling, cooccurrence
from rushlight.nets import local_global
from rushlight.nets.encoders import Encoder
from rushlight.train.learner import Batch, Learner
from rushlight.train.optim import OptimiserName, ScheduleName
from rushlight.train.teacher import Teacher


@settings
class PUMLC(Learner):
    """Several labels an image from positives and unlabelled entries only."""

    card = Card(
        id="pu-mlc",
        title="Positive Label Is All You Need for Multi-Label Classification",
        paper="arXiv:2306.16016",
        code="TAKELAMAG/PU-MLC",
        family="labels",
        role="learner",
        task=frozenset({"tags"}),
        needs=Needs("image", known("tags")),
        gives="a tagger trained on the known positives alone",
        says="MS-COCO and VOC: higher mAP than methods that use negatives, with all labels and with 10–90 %",
    )
    smallest_batch = 32  # the temperature and the means are of a batch

    alpha: Positive = 1.0
    """α, of the adaptive temperature (the paper: 1 on MS-COCO, 2 on VOC)."""
    gamma: NotNegative = 0.55
    """γ, of the adaptive re-balance (0.55 on MS-COCO, 0.85 on VOC)."""
    mixup: NotNegative = 0.3
    """Of Beta(mixup, mixup), from which λ is drawn once a batch."""
    consistency: NotNegative = 1.0
    """Weight of L_reg."""
    convolution: Literal["local-global", "plain"] = "local-global"
    """What stands in place of each 3×3 convolution of the encoder."""
    head: Literal["linear", "decoupling"] = "linear"
    """`linear` on pooled features, or `decoupling` (semantic attention and a graph of the classes)."""
    frozen: bool = False
    """Train only the last stage, the global branches and the head, batch norms in evaluation mode, as the paper."""
    warm_start: Share = 0.2
    """Share of the training that tells positives from the batch first, or "yes to all" is soon reached (paper: 0)."""
    momentum: Share = 0.9997
    """Of the averaged weights (0.9997 on MS-COCO, 0.991 on VOC)."""
    batch: Count = 64
    """Images a step."""
    optimiser: OptimiserName = "adam"
    """Adam, as in the paper."""
    schedule: ScheduleName = "one-cycle"
    """One cycle, as in the paper."""
    learning_rate: Positive = 2e-3
    """At its peak (1e-4 on MS-COCO, 4e-5 on VOC, from pretrained weights)."""
    weight_decay: NotNegative = 1e-4
    """As an L2 penalty."""

    def __post_init__(self) -> None:
        self.parts = {"all": 1}

    def build(self, data: Dataset) -> None:
        if self.convolution == "local-global":
            self.model.encoder = local_global.widen(self.model.encoder)
        self.add_head("tags", self._head(data))
        if self.frozen:
            self._freeze(data)
        self.weak = presets.weak((data.height, data.width))
        self.teacher = Teacher(self.model, momentum=self.momentum)

    def step(self, batch: Batch) -> Tensor:
        rows, generator = batch["all"], self.generator()
        images, positives = self.weak(rows["image"], generator=generator), rows["tags"] == 1
        logits = self.model.logits(images).float()
        joined, marked = all_gather(logits), all_gather(positives.to(logits.dtype)) > 0  # means are of the joined batch
        if self.progress < self.warm_start:
            balanced = pu.balanced_cross_entropy(joined, marked)
            self.log(balanced=balanced)
            return balanced
        # L_var = Σ_c [w_c·log mean_i φ_ic − mean_{i: y_ic = 1} log φ_ic]
        variational = pu.variational_multi_label(joined, marked, alpha=self.alpha, gamma=self.gamma)
        regular = self._regular(images, pu.log_targets(logits, positives), generator)
        self.log(variational=variational, regular=regular)
        return variational + self.consistency * regular

    def _regular(self, images: Tensor, log_q: Tensor, generator: torch.Generator) -> Tensor:
        """Return L_reg = Σ_c mean_i (log q̃_ic − log sigmoid(f(x̃)_ic))² of mixtures x̃ of the batch's halves.

        The first half, permuted, is mixed with the second; an odd batch leaves out the middle image.
        """
        half = len(images) // 2
        if not half:
            return log_q.sum() * 0
        first = torch.randperm(half, generator=generator, device=generator.device)
        # Drawn on the CPU: a number that decides nothing about shapes must not make a GPU wait.
        share = float(mix.beta(self.mixup, 1, torch.Generator().manual_seed(generator.initial_seed())))
        mixed = torch.lerp(images[-half:], images[first], share)
        target = pu.mix_log(log_q[first], log_q[-half:], share)
        return pu.mixed_consistency(self.model.logits(mixed).float(), target)

    def _head(self, data: Dataset) -> nn.Module:
        if self.head == "linear":
            return self.classifier(data)
        graph = cooccurrence(data["tags"] == 1)
        return Decoupling(width=self.model.encoder.width, outputs=data["tags"].shape[1], graph=graph)

    # The paper's setting for pretrained encoders -------------------------------------------------------------------

    def _freeze(self, data: Dataset) -> None:
        encoder = self.model.encoder
        last = above(encoder, (data.height, data.width))
        branches = [p for branch in local_global.branches(encoder) for p in branch.parameters()]
        encoder.requires_grad_(False)
        for parameter in [*last, *branches]:
            parameter.requires_grad_(True)
        self.train()

    def train(self, mode: bool = True) -> PUMLC:
        """Set training mode; in the frozen setting batch norms stay in evaluation mode, those of new branches too."""
        super().train(mode)
        if self.frozen and getattr(self, "model", None) is not None:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def above(encoder: Encoder, size: tuple[int, int]) -> list[nn.Parameter]:
    """Return the encoder's last stage (a ResNet's layer4): parameters that its second-last level does not depend on."""
    mode = encoder.training
    parameters = list(encoder.eval().requires_grad_(True).parameters())
    level = encoder.pyramid(torch.zeros(1, 3, *size, device=parameters[0].device))[-2]
    used = torch.autograd.grad(level.sum(), parameters, allow_unused=True)
    encoder.train(mode)
    return [parameter for parameter, gradient in zip(parameters, used, strict=True) if gradient is None]
