"""How images are made ready for an encoder: a contract that is named, so that a comparison of encoders is fair.

What is judged otherwise is the mismatch: an encoder pretrained at 224 pixels reads an image of 28 with strides that
leave nothing of it, and an encoder that expects values around 0 reads bytes as glare. The order is fixed: raw values →
divided by `unit` → resized → clipped where a contract says so → (x − mean)/std → the encoder → pooled. Two flags of a
resize are part of it, since the libraries differ: Kornia aligns corners and has no antialias, torchvision and timm do
not align, and torchvision antialiases when it shrinks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rushlight.run.model import Model

Interpolation = Literal["bilinear", "bicubic", "nearest"]
TIMM = "timm's weights"
"""How the recipe of a model with timm's pretrained weights begins."""


@runtime_checkable
class Unread(Protocol):
    """Images that are read some at a time: a data set's `reader`, or what is computed from it."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def digest(self) -> str: ...

    def split(self, size: int, /) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class Preprocessing:
    """A contract: everything that happens between an image's raw values and an encoder's pooled features.

    Attributes:
        size: the shorter side in pixels that images are brought to; None leaves them as they are.
        interpolation, antialias, align_corners: of the resize. Antialiasing excludes aligned corners.
        unit: raw values are divided by it first (255 for bytes, 10,000 for Sentinel-2).
        mean, std: of each channel after that, subtracted and divided by; None leaves the values.
        pooling: `default`, the encoder's own (a ViT's class token); or `mean`, of its last map.
    """

    size: int | None = None
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    align_corners: bool = False
    unit: float = 255.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pooling: Literal["default", "mean"] = "default"

    def __post_init__(self) -> None:
        if self.antialias and self.align_corners:
            raise ValueError("a resize either antialiases or aligns corners: set antialias=False with align_corners")

    @classmethod
    def of(cls, model: Model) -> Preprocessing:
        """Return a model's own contract: the size that it was trained at, its encoder's mean and standard deviation,
        and for timm's pretrained weights the interpolation that they were evaluated with."""
        encoder: Any = model.encoder
        mean, std = (tuple(round(float(x), 6) for x in v.flatten()) for v in (encoder.mean, encoder.std))
        config = getattr(getattr(encoder, "model", None), "pretrained_cfg", None) or {}
        cubic = model.info.recipe.startswith(TIMM) and config.get("interpolation") == "bicubic"
        return cls(min(model.info.image_size), "bicubic" if cubic else "bilinear", mean=mean, std=std)

    def resize(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels h w"]:
        """Return images with their shorter side at `size`; the same images where it is that already."""
        return resize(images, self.size, self.interpolation, antialias=self.antialias, align_corners=self.align_corners)

    def normalise(self, images: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Return (x − mean) / std, channel by channel."""
        if self.mean is None or self.std is None:
            return images
        mean, std = (images.new_tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (images - mean) / std

    def __call__(self, images: Tensor) -> Float[Tensor, "batch channels h w"]:
        """Convert raw images of any dtype to what the encoder's first layer reads."""
        return self.normalise(self.resize(images.float() / self.unit))

    def __str__(self) -> str:
        size = f"{self.size} px" if self.size else "as it is"
        flags = ["aligned corners"] if self.align_corners else ["antialiased"] if self.antialias else ["no antialias"]
        shift = f"mean {_list(self.mean)}, std {_list(self.std)}" if self.mean and self.std else "not normalised"
        return f"{size} ({', '.join([self.interpolation, *flags])}), /{self.unit:g}, {shift}, {self.pooling} pooling"


def resize(
    images: Float[Tensor, "batch channels height width"],
    size: int | None,
    interpolation: Interpolation = "bilinear",
    *,
    antialias: bool = True,
    align_corners: bool = False,
) -> Float[Tensor, "batch channels h w"]:
    """Bring the shorter side to `size`, keeping proportions; the identity where it is `size` already."""
    height, width = images.shape[-2:]
    if size is None or min(height, width) == size:
        return images
    target = [round(side * size / min(height, width)) for side in (height, width)]
    if interpolation == "nearest":
        return F.interpolate(images, target, mode="nearest-exact")
    return F.interpolate(images, target, mode=interpolation, antialias=antialias, align_corners=align_corners)


class Reader:
    """Reads features under a contract, each set of images once: what was read is kept by the bytes of the images.

    Of images that are not in memory yet, no more than a batch is held.

    Args:
        model: the encoder; its weights must not change while a reader is in use.
        contract: by default the model's own.
        batch: images read at a time.
    """

    def __init__(self, model: Model, contract: Preprocessing | None = None, *, batch: int = 250):
        self.model, self.contract, self.batch = model, contract or Preprocessing.of(model), batch
        self._kept: dict[tuple[str, str, int | None], Tensor] = {}

    def features(self, images: Tensor | Unread) -> Float[Tensor, "n dim"]:
        """Return pooled features, float32 on the CPU."""
        return self._read("features", images, self.contract.size)

    def maps(self, images: Tensor | Unread, *, size: int | None = None) -> Float[Tensor, "n dim h w"]:
        """Return the last feature map; `size` replaces the contract's."""
        return self._read("maps", images, size or self.contract.size)

    def _read(self, what: str, images: Tensor | Unread, size: int | None) -> Tensor:
        key = (what, fingerprint(images), size)
        if key not in self._kept:
            self._kept[key] = self._pass(what, images, replace(self.contract, size=size))
        return self._kept[key]

    @torch.inference_mode()
    def _pass(self, what: str, images: Tensor | Unread, contract: Preprocessing) -> Tensor:
        encoder, mode = self.model.encoder, self.model.training
        device = next(encoder.parameters()).device
        self.model.eval()
        try:
            parts = [self._one(what, part.to(device), contract) for part in images.split(self.batch)]
        finally:
            self.model.train(mode)
        return torch.cat(parts)

    def _one(self, what: str, images: Tensor, contract: Preprocessing) -> Tensor:
        """Return an output of the encoder; its own normalisation is undone, so that the contract's values arrive."""
        encoder: Any = self.model.encoder
        ready = contract(images) * encoder.std + encoder.mean
        ready = ready.contiguous(memory_format=torch.channels_last)
        if what == "maps":
            return encoder.maps(ready).float().cpu()
        pooled = encoder.maps(ready).mean((2, 3)) if contract.pooling == "mean" else encoder(ready)
        return pooled.float().cpu()


def fingerprint(images: Tensor | Unread) -> str:
    """Return the SHA-256 of images on the CPU, with dtype and shape; for images that are not read, their digest."""
    if not isinstance(images, Tensor):
        return images.digest
    images = images.contiguous()
    digest = hashlib.sha256(f"{images.dtype}{tuple(images.shape)}".encode())
    if images.numel():
        digest.update(images.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _list(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:.3g}" for value in values)
