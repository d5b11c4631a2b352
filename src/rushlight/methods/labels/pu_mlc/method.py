"""PU-MLC: learn several labels an image from the positives alone; negatives are thrown away.

In multi-label data most wrong labels are false negatives. So every entry that is not a known positive, absent or
unknown, counts as unlabelled, and each class c is learned from its positives and from the whole batch of B images:

    T_c   = min(1, α std_B(f_c)),   φ_ic = sigmoid(f_ic / T_c)           adaptive temperature, no gradient
    w_c   = (mean_i φ_ic)^γ                                              adaptive re-balance, no gradient
    L_var = Σ_c [ w_c log mean_i φ_ic − mean_{i: y_ic = 1} log φ_ic ]    variational PU loss
    x̃, q̃  = mixtures of the batch's halves, λ ~ Beta(0.3, 0.3);  q = 1 where y = 1, else sigmoid(f)
    L_reg = Σ_c mean_i (log q̃_ic − log sigmoid(f(x̃)_ic))²               consistency under mix-up
    L     = L_var + L_reg

Local-global convolution adds to each 3×3 convolution a branch that gathers from the whole map and gives back to
each place; it starts at nothing. The head is linear, or decouples a vector for each class (semantic attention,
then a gated graph network over the classes' co-occurrence).

Shared: the PU losses, local-global convolution, the decoupling head, views, the averaged teacher (handed on).
Yuan et al., 2023, arXiv:2306.16016; code: TAKELAMAG/PU-MLC. The variational loss: Chen et al., arXiv:1906.02696.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rushlight.augment import mix, policy
from rushlight.core.arguments import Count, NotNegative, Positive, Share
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

    def __init__(
        self,
        *,
        alpha: Positive = 1.0,
        gamma: NotNegative = 0.55,
        mixup: NotNegative = 0.3,
        consistency: NotNegative = 1.0,
        convolution: Literal["local-global", "plain"] = "local-global",
        head: Literal["linear", "decoupling"] = "linear",
        frozen: bool = False,
        momentum: Share = 0.9997,
        batch: Count = 64,
        optimiser: OptimiserName = "adam",
        schedule: ScheduleName = "one-cycle",
        learning_rate: Positive = 2e-3,
        weight_decay: NotNegative = 1e-4,
    ):
        """
        Args:
            alpha: of the adaptive temperature (the paper: 1 on MS-COCO, 2 on VOC).
            gamma: of the adaptive re-balance (0.55 on MS-COCO, 0.85 on VOC).
            mixup: of Beta(mixup, mixup), from which λ is drawn once a batch.
            consistency: weight of L_reg.
            convolution: `local-global` or `plain`, in place of each 3×3 convolution of the encoder.
            head: `linear` on pooled features, or `decoupling`.
            frozen: train only the encoder's last stage, the global branches and the head, and leave batch norms
                in evaluation mode: for pretrained encoders, as in the paper.
            momentum: of the averaged weights (0.9997 on MS-COCO, 0.991 on VOC).
            batch: images a step.
            optimiser, schedule: Adam on one cycle, as in the paper.
            learning_rate: at its peak (1e-4 on MS-COCO, 4e-5 on VOC, from pretrained weights).
            weight_decay: as an L2 penalty.
        """
        super().__init__()
        self.alpha, self.gamma, self.mixup, self.consistency = alpha, gamma, mixup, consistency
        self.convolution, self.head_kind, self.frozen, self.momentum = convolution, head, frozen, momentum
        self.batch, self.optimiser, self.schedule = batch, optimiser, schedule
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.parts = {"all": 1}

    def build(self, data: Dataset) -> None:
        if self.convolution == "local-global":
            self.model.encoder = local_global.widen(self.model.encoder)
        self.add_head("tags", self._head(data))
        if self.frozen:
            self._freeze(data)
        self.weak = policy.weak((data.height, data.width))
        self.teacher = Teacher(self.model, momentum=self.momentum)

    def step(self, batch: Batch) -> Tensor:
        rows, generator = batch["all"], self.generator()
        images, positives = self.weak(rows["image"], generator=generator), rows["tags"] == 1
        logits = self.model.logits(images).float()
        joined, marked = all_gather(logits), all_gather(positives.to(logits.dtype)) > 0  # means are of the joined batch
        variational = pu.variational_multi_label(joined, marked, alpha=self.alpha, gamma=self.gamma)
        regular = self._regular(images, pu.log_targets(logits, positives), generator)
        self.log(variational=variational, regular=regular)
        return variational + self.consistency * regular

    def _regular(self, images: Tensor, log_q: Tensor, generator: torch.Generator) -> Tensor:
        """Mix the first half of the batch, permuted, with the second; an odd batch leaves out the middle image."""
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
        if self.head_kind == "linear":
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
        """Training mode; in the frozen setting batch norms stay in evaluation mode, those of new branches too."""
        super().train(mode)
        if self.frozen and getattr(self, "model", None) is not None:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def above(encoder: Encoder, size: tuple[int, int]) -> list[nn.Parameter]:
    """The encoder's last stage (a ResNet's layer4): the parameters that its second-last level does not depend on."""
    mode = encoder.training
    parameters = list(encoder.eval().requires_grad_(True).parameters())
    level = encoder.pyramid(torch.zeros(1, 3, *size, device=encoder.mean.device))[-2]
    used = torch.autograd.grad(level.sum(), parameters, allow_unused=True)
    encoder.train(mode)
    return [parameter for parameter, gradient in zip(parameters, used, strict=True) if gradient is None]
