"""Optimisers and schedules, by name; LARS, which PyTorch has not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

OptimiserName = Literal["adamw", "adam", "sgd", "lars"]
ScheduleName = Literal["cosine", "fixmatch", "poly", "one-cycle", "constant"]


def parameter_groups(module: nn.Module, weight_decay: float, *, exclude: bool = True) -> list[dict]:
    """Return weights with decay, and biases and norms (one axis or none) without, unless `exclude` is off."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not exclude:
        return [{"params": trained, "weight_decay": weight_decay}]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "plain": True},
    ]


def optimiser(
    name: OptimiserName, groups: list[dict], *, learning_rate: float, momentum: float = 0.9, nesterov: bool = True
) -> torch.optim.Optimizer:
    """Return an optimiser over parameter groups; a group's `lr` is `learning_rate` times its `scale`, if any."""
    for group in groups:
        group["lr"] = learning_rate * group.get("scale", 1.0)
        group["peak"] = group["lr"]
    match name:
        case "adamw":
            return torch.optim.AdamW(groups, fused=True)
        case "adam":
            return torch.optim.Adam(groups, fused=True)
        case "sgd":
            return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=nesterov)
        case "lars":
            return LARS(groups, momentum=momentum)
    raise ValueError(f"no optimiser '{name}': adamw, adam, sgd and lars are known")


def schedule(name: ScheduleName, progress: float, *, warm_up: float = 0.0) -> float:
    """Return the factor on the learning rate at `progress` (0 … 1) of the training.

    `cosine` falls to 0.001 (Barlow Twins' floor); `fixmatch` is cos(7π/16 · progress); `poly` is (1 − progress)^0.9;
    `one-cycle` rises over the first fifth and falls to nothing, by cosines (Smith & Topin, 2018).
    """
    if name == "one-cycle":
        rise = 0.2
        if progress < rise:
            return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / rise)) / 2
        return (1 + math.cos(math.pi * (progress - rise) / (1 - rise))) / 2
    if progress < warm_up:
        return progress / warm_up
    done = (progress - warm_up) / (1 - warm_up)
    match name:
        case "cosine":
            return 0.001 + 0.999 * (1 + math.cos(math.pi * done)) / 2
        case "fixmatch":
            return math.cos(7 * math.pi / 16 * done)
        case "poly":
            return (1 - min(done, 1.0)) ** 0.9
    return 1.0


def rate_for_batch(name: OptimiserName, share: float) -> float:
    """Return the factor on the learning rate of a batch that is `share` of the planned one.

    Linear for SGD (Goyal et al., 2017), the square root for Adam's kind (Malladi et al., 2022); LARS' rate follows
    the batch by its groups' scale.
    """
    match name:
        case "sgd":
            return share
        case "adam" | "adamw":
            return math.sqrt(share)
    return 1.0


def half_cosine(progress: float) -> float:
    """Return half a cosine that falls from 1 to 0, as `progress` goes from 0 to 1."""
    return (1 + math.cos(math.pi * min(progress, 1.0))) / 2


@torch.no_grad()
def clip_each(parameters: Iterable[Tensor], largest: float) -> None:
    """Scale the gradient of each parameter by itself to a norm of at most `largest` (DINO's and iBOT's clipping)."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        norms = torch._foreach_norm(gradients)
        torch._foreach_mul_(gradients, [(largest / (norm + 1e-6)).clamp(max=1) for norm in norms])


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (You et al., 2017), as Barlow Twins uses it.

    Groups marked `plain` (biases, norms) are neither decayed nor scaled.
    """

    def __init__(self, groups: Iterable[dict], momentum: float = 0.9, trust: float = 0.001):
        super().__init__(list(groups), {"momentum": momentum, "trust": trust, "weight_decay": 0.0, "plain": False})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict) -> None:
        change = parameter.grad
        assert change is not None
        if not group["plain"]:
            change = change.add(parameter, alpha=group["weight_decay"])
            size, pull = parameter.norm(), change.norm()
            usable = (size > 0) & (pull > 0)
            change = change * torch.where(usable, group["trust"] * size / pull, torch.ones_like(size))
        state = self.state[parameter]
        velocity = state.setdefault("velocity", torch.zeros_like(parameter))
        velocity.mul_(group["momentum"]).add_(change)
        parameter.add_(velocity, alpha=-group["lr"])
