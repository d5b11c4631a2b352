"""Fine-tuning with few labels: layer-wise decayed learning rates, and a rate chosen on held-out training labels.

The learning rate of layer l of L is rate · decay^(L + 1 − l): the stem is layer 0, blocks are 1 … L, the last norm and
the head are L + 1 (BEiT's and MAE's rule). No one rate suits every backbone, so each gets a small grid, judged on a
part of the *training* labels; then it is trained again on all of them with the best one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from rushlight.augment import mix, presets
from rushlight.data.dataset import Reader
from rushlight.measure.preprocessing import Preprocessing
from rushlight.nets.encoders import Encoder
from rushlight.nets.heads import Linear
from rushlight.nets.layers import decayed_groups
from rushlight.run.model import Model
from rushlight.tasks.scores import mean_average_precision
from rushlight.train import optim


@dataclass(frozen=True)
class Tuning:
    """How a fine-tuning runs.

    Attributes:
        rates: learning rates to choose from, at a batch of `batch`; decay: from layer to layer.
        steps, batch, weight_decay, warm_up: of AdamW with a half cosine.
        strong: the paper's views and targets (RandAugment, mixup 0.8 or cutmix 1, smoothing 0.1) instead of a flip
            and a shift; for thousands of labels.
        held: share of the labels on which the rate is chosen.
    """

    rates: Sequence[float] = (3e-4, 1e-3, 3e-3)
    decay: float = 0.75
    steps: int = 120
    batch: int = 32
    weight_decay: float = 0.05
    warm_up: float = 0.05
    strong: bool = False
    held: float = 0.25


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned network (images in [0, 1] → logits), the rate that was chosen, and each rate's held-out score."""

    network: nn.Module
    rate: float
    held_out: dict[float, float]


class _Network(nn.Module):
    """An encoder under its contract, and a linear head."""

    def __init__(self, encoder: Encoder, contract: Preprocessing, outputs: int):
        super().__init__()
        self.encoder, self.contract = copy.deepcopy(encoder), contract
        self.head = Linear(width=encoder.width, outputs=outputs)

    def forward(self, images: Tensor) -> Tensor:
        images = self.contract.resize(images)
        pooled = self.encoder.maps(images).mean((2, 3)) if self.contract.pooling == "mean" else self.encoder(images)
        return self.head(pooled)


def fine_tune(
    model: Model,
    images: UInt8[Tensor, "n 3 height width"] | Reader,
    targets: Int[Tensor, "n"] | Int[Tensor, "n tags"],
    tuning: Tuning = Tuning(),
    contract: Preprocessing | None = None,
    *,
    seed: int = 0,
) -> Tuned:
    """Train a copy of the encoder and a linear head on the given labels.

    Args:
        targets: classes, or tags (1, 0, −1 unknown).
        contract: its size and pooling are used (the encoder normalises as it was built to).
    """
    contract = contract or Preprocessing.of(model)
    outputs = targets.shape[1] if targets.ndim == 2 else int(targets.max()) + 1
    learn, held = _parted(targets, tuning.held, seed)
    found: dict[float, float] = {}
    for rate in tuning.rates if len(tuning.rates) > 1 and len(held) else ():
        network = _trained(model, images, targets, learn, outputs, tuning, contract, rate, seed)
        found[rate] = score(network, images, targets, held)
    # Of equal ones the smallest: it moves the least from what was pretrained.
    best = max(sorted(found), key=lambda rate: found[rate]) if found else sorted(tuning.rates)[len(tuning.rates) // 2]
    every = torch.arange(len(targets))
    return Tuned(_trained(model, images, targets, every, outputs, tuning, contract, best, seed), best, found)


@torch.inference_mode()
def score(
    network: nn.Module,
    images: UInt8[Tensor, "n 3 height width"] | Reader,
    targets: Tensor,
    rows: Int[Tensor, "m"] | None = None,
    *,
    batch: int = 250,
) -> float:
    """Return accuracy, or mean average precision for tags (0 … 1), on some rows (all by default)."""
    device = next(network.parameters()).device
    rows = torch.arange(len(targets)) if rows is None else rows
    parts = (images[part].to(device).float() / 255 for part in rows.split(batch))
    logits, targets = torch.cat([network(part).float().cpu() for part in parts]), targets[rows]
    if targets.ndim == 2:
        return mean_average_precision(logits.sigmoid(), targets)
    return float((logits.argmax(1) == targets).double().mean())


def _parted(targets: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return (rows to learn from, rows to choose by): a share of each class, where it has two labels at least."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(targets), generator=generator)
    if targets.ndim == 2:
        n = round(share * len(targets))
        return order[n:], order[:n]
    held = []
    for label in targets.unique():
        rows = order[targets[order] == label]
        held.append(rows[: max(round(share * len(rows)), 1) if len(rows) > 1 else 0])
    chosen = torch.cat(held)
    return order[~torch.isin(order, chosen)], chosen


def _trained(
    model: Model,
    images: Tensor | Reader,
    targets: Tensor,
    learn: Tensor,
    outputs: int,
    tuning: Tuning,
    contract: Preprocessing,
    rate: float,
    seed: int,
) -> nn.Module:
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _Network(model.encoder, contract, outputs).to(device).train()
        groups = decayed_groups(network, network.encoder, decay=tuning.decay, weight_decay=tuning.weight_decay)
        optimiser = optim.optimiser("adamw", groups, learning_rate=rate)
        generator = torch.Generator(device).manual_seed(seed)
        size = (images.shape[-2], images.shape[-1])
        views = presets.randaugment(size, n=2, m=9) if tuning.strong else presets.weak(size)
        for step, drawn in enumerate(_batches(len(learn), tuning.batch, tuning.steps, seed)):
            rows = learn[drawn]
            for group in optimiser.param_groups:
                factor = optim.schedule("cosine", step / tuning.steps, warm_up=tuning.warm_up)
                group["lr"] = group["peak"] * factor
            pixels = views(images[rows].to(device), generator=generator)
            goal = _goal(targets[rows].to(device), outputs, 0.1 if tuning.strong else 0.0)
            if tuning.strong:
                mixed = _mixed(len(rows), size, generator)
                pixels, goal = mixed.images(pixels), mixed.targets(goal)
            optimiser.zero_grad()
            _loss(network(pixels), goal, targets[rows].to(device)).backward()
            optimiser.step()
    return network.eval()


def _batches(n: int, batch: int, steps: int, seed: int) -> list[Tensor]:
    """Return batches of rows from successive permutations; never of a single image, which batch norm refuses."""
    batch = max(min(batch, n), 2)
    generator = torch.Generator().manual_seed(seed)
    epochs = -(-steps * batch // n)
    return list(
        torch.cat([torch.randperm(n, generator=generator) for _ in range(epochs)])[: steps * batch].split(batch)
    )


def _goal(targets: Tensor, outputs: int, smoothing: float) -> Tensor:
    if targets.ndim == 2:
        return targets.clamp(min=0).float()
    return F.one_hot(targets, outputs).float() * (1 - smoothing) + smoothing / outputs


def _mixed(n: int, size: tuple[int, int], generator: torch.Generator) -> mix.Mix:
    coin = torch.rand(1, generator=generator, device=generator.device) < 0.5
    return mix.mixup(n, alpha=0.8, generator=generator) if coin else mix.cutmix(n, size, generator=generator)


def _loss(logits: Tensor, goal: Tensor, targets: Tensor) -> Tensor:
    if targets.ndim == 1:
        return F.cross_entropy(logits, goal)
    known = (targets >= 0).float()
    every = F.binary_cross_entropy_with_logits(logits, goal, reduction="none")
    return (every * known).sum() / known.sum().clamp(min=1)
