"""Layer-wise learning rates: the depth of each parameter, and optimiser groups whose rate falls towards the input.

Clark et al., "ELECTRA", 2020; in vision BEiT's and MAE's fine-tuning: layer l of L learns at rate · decay^(L + 1 − l).
"""

from __future__ import annotations

from typing import Any

from torch import nn

from rushlight.nets.encoders.base import Encoder
from rushlight.nets.encoders.multimodal import MultiModal
from rushlight.nets.encoders.timm import Timm

TOP = ("norm", "fc_norm", "head")
"""Modules of a timm model that stand after its blocks, and learn at the head's rate."""


def depths(encoder: Encoder) -> tuple[dict[str, int], int]:
    """Return (each parameter's layer, the head's layer L + 1): 0 the stem, 1 … L the blocks."""
    if isinstance(encoder, Timm | MultiModal):
        return _timm_depths(encoder)
    order: dict[str, int] = {}
    found = {name: 1 + order.setdefault(_block(name), len(order)) for name, _ in encoder.named_parameters()}
    return found, len(order) + 1


def _timm_depths(encoder: Timm | MultiModal) -> tuple[dict[str, int], int]:
    from timm.models._manipulate import group_parameters

    model = encoder.model
    found = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    last = max((layer for name, layer in found.items() if not name.startswith(TOP)), default=0) + 1
    inside = {f"model.{name}": last if name.startswith(TOP) else layer for name, layer in found.items()}
    return {name: inside.get(name, 0) for name, _ in encoder.named_parameters()}, last  # an adapter is part of the stem


def _block(name: str) -> str:
    """Return the block that a parameter belongs to: `stages.2` of `stages.2.0.weight`, `embedding` of others."""
    first, *others = name.split(".")
    return f"{first}.{others[0]}" if others[0].isdecimal() and len(others) > 2 else first


def undecayed(encoder: Encoder) -> set[str]:
    """Return the parameters that the architecture spares from weight decay, such as a ViT's positions and tokens."""
    named = getattr(encoder.model, "no_weight_decay", None) if isinstance(encoder, Timm | MultiModal) else None
    return {f"model.{name}" for name in named()} if named is not None else set()


def decayed_groups(module: nn.Module, encoder: Encoder, *, decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """Return optimiser groups of all that is trained in `module`, whose `scale` multiplies the learning rate.

    The encoder's parameters of layer l have the scale decay^(L + 1 − l); all others (heads) have 1. Biases, norms and
    what the architecture spares have no weight decay (`plain`).

    Args:
        module: holds the encoder and whatever else is trained.
    """
    layers, last = depths(encoder)
    spared = undecayed(encoder)
    names = {id(parameter): name for name, parameter in encoder.named_parameters()}
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for parameter in module.parameters():
        name = names.get(id(parameter), "")
        layer, plain = layers.get(name, last), parameter.ndim <= 1 or name in spared
        if parameter.requires_grad:
            group = groups.setdefault((layer, plain), _group(decay ** (last - layer), weight_decay, plain))
            group["params"].append(parameter)
    return list(groups.values())


def _group(scale: float, weight_decay: float, plain: bool) -> dict[str, Any]:
    return {"params": [], "scale": scale, "weight_decay": 0.0 if plain else weight_decay, "plain": plain}
