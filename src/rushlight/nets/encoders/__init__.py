"""Encoders: any timm model by its name, and a few small ones for small machines.

An image encoder takes images in [0, 1] and normalises them itself. It gives pooled features, the last feature map, and
a pyramid of maps for dense heads. An encoder of another input says what it reads and gives an example of it.

Installed packages add their own by the entry point group `rushlight.encoders`: a name, and a function of it and of the
side of the images that returns an `Encoder`.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from rushlight.core.entries import ENCODERS, entries
from rushlight.core.errors import UserError, nearest
from rushlight.nets import local_global
from rushlight.nets.encoders.base import Encoder, ImageEncoder, arrange
from rushlight.nets.encoders.small import SMALL, VITS, Conv, small_transformer, small_vit
from rushlight.nets.encoders.text import TEXTS, NGrams
from rushlight.nets.encoders.timm import MEAN, Timm
from rushlight.nets.encoders.weights import load_weights

__all__ = [
    "MEAN",
    "SMALL",
    "TEXTS",
    "VITS",
    "Conv",
    "Encoder",
    "ImageEncoder",
    "NGrams",
    "Timm",
    "arrange",
    "create",
    "load_weights",
    "small_transformer",
]


def create(
    name: str,
    *,
    image_size: int = 32,
    seed: int | None = None,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
) -> Encoder:
    """Return an encoder by its name.

    Args:
        name: `conv16`, `conv32`, `vit64`, `vit96` (`vit96-p7`: with patches of 7 pixels), or any timm model;
            `ngram64` reads captions; or one that an installed package adds;
            `+local-global` after it widens its 3×3 convolutions (see `nets.local_global`), `+mean` pools a timm
            model's features by their mean, `+image+depth` or `+depth` lets a vision transformer read these columns.
        image_size: side of the images in pixels (a ViT's position grid is made for it).
        seed: of the initial weights; None draws from PyTorch's global generator.
        pretrained: fetch timm's pretrained weights from the Hub.
        weights: a local safetensors file with the encoder's weights.

    Raises:
        UserError: no such encoder; weights that cannot be read, or that do not fit.
    """
    name, plus, addition = name.partition("+")
    from rushlight.nets.encoders.multimodal import MultiModal, columns_in  # it stands on `nets.vit`, and that on this

    columns = columns_in(addition)
    if plus and not columns and addition not in (local_global.SUFFIX, MEAN):
        raise UserError(
            f"there is no encoder '{name}+{addition}': "
            f"what can be added to one is '+{local_global.SUFFIX}' or '+{MEAN}', "
            "and to a vision transformer '+image+depth' or '+depth'"
        )
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if name in ("conv16", "conv32"):
            encoder: Encoder = Conv(name, int(name.removeprefix("conv")), image_size)
        elif small_transformer(name):
            encoder = small_vit(name, image_size)
        elif name in TEXTS:
            encoder = NGrams(name, int(name.removeprefix("ngram")))
        elif name in entries(ENCODERS):
            encoder = entries(ENCODERS)[name].load()(name, image_size)
        else:
            _check_known(name)
            encoder = Timm(name, image_size, pretrained)
        if columns:
            encoder = MultiModal(encoder, columns)
    if weights is not None:
        load_weights(encoder, Path(weights))
    if addition == MEAN:
        if not isinstance(encoder, Timm):
            raise UserError(f"'{name}' pools by the mean already: leave '+{MEAN}' away")
        encoder.pool_by_mean()
    elif plus and not columns:
        encoder = _widen(encoder, seed)
    return encoder


def _check_known(name: str) -> None:
    import timm

    if not timm.is_model(name.removeprefix("timm/")):
        ours = (*SMALL, *TEXTS, *entries(ENCODERS))
        hint = nearest(name, [*ours, *timm.list_models()])
        raise UserError(f"there is no encoder '{name}'.{hint} timm's models and {', '.join(ours)} can be named.")


def _widen(encoder: Encoder, seed: int | None) -> Encoder:
    """Return the encoder with local-global convolutions, the branches' weights drawn by the seed."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return local_global.widen(encoder)
