"""Frozen features: what judges of encoders share. How images are made ready is `measure.preprocessing`'s."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.data.edit.split import hold_out
from rushlight.nets import encoders
from rushlight.run.model import Model


def pooled(
    model: Model, images: UInt8[Tensor, "n 3 height width"] | Dataset, *, batch: int = 500
) -> Float[Tensor, "n dim"]:
    """Return the encoder's pooled features of images (a data set's are read a batch at a time), float32 on the CPU."""
    return model.predict(images, batch=batch, names=["features"])["features"]


def untrained(model: Model, seed: int = 0) -> Model:
    """Return the model's encoder with new random weights, drawn by the seed, without heads."""
    encoder = encoders.create(model.encoder.name, image_size=max(model.info.image_size), seed=seed)
    device = next(model.parameters()).device
    return Model(encoder, {}, replace(model.info, recipe="")).to(device).eval()


def standardise(bank: Float[Tensor, "m dim"], *others: Float[Tensor, "n dim"]) -> tuple[Tensor, ...]:
    """Return each set less the bank's mean, divided by its standard deviation; constant features become 0."""
    mean, std = bank.mean(0), bank.std(0, correction=0)
    std = torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, torch.inf)
    return tuple((values - mean) / std for values in (bank, *others))


def divided(data: Dataset, column: str, seed: int = 0, *, share: float = 0.25) -> tuple[Dataset, Dataset]:
    """Return the labelled rows as a part to learn from and a part to test on: the data's own folds where both hold
    labels, else a share is held out.

    Raises:
        UserError: fewer than two different images with a known label.
    """
    labelled = data.select(data.known(column))
    parts = (labelled.fold(TRAIN), labelled.fold(TEST))
    if not all(len(part) for part in parts):
        held = hold_out(labelled.without("fold"), share, seed, column)
        parts = (held.fold(TRAIN), held.fold(TEST))
    return parts
