"""Choose an encoder by what is there: the input, the device, the images' size, and weights that are on the disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rushlight.core.catalogue import load_method
from rushlight.core.errors import UserError
from rushlight.nets.encoders import SMALL
from rushlight.nets.vit import vit_needed
from rushlight.run.recipe import Recipe

PREFERRED = {
    "cpu": ("mobilenetv4_conv_small.e2400_r224_in1k", "resnet18.a1_in1k"),
    "gpu": (
        "vit_small_patch14_dinov2.lvd142m",
        "convnext_tiny.fb_in22k",
        "resnet50.a1_in1k",
        "resnet18.a1_in1k",
    ),
}
"""Encoders worth taking where their weights have been downloaded already, best first."""
OTHERS = {"caption": "ngram64"}
"""Encoders of inputs that are no images, by the column."""


def needs_vit(name: str) -> bool:
    """Return whether a method works on the tokens of a vision transformer, by its card."""
    return load_method(name).card.encoder == "vit"


@dataclass(frozen=True)
class Choice:
    """An encoder, weights to start from (a file on this disk, or None), and why, in a sentence."""

    name: str
    weights: str | None
    why: str


def encoder(image_size: int, device: str = "cpu", *, recipes: Iterable[Recipe] = ()) -> Choice:
    """Return the encoder of images that `--encoder auto` takes. Nothing is ever downloaded for it.

    Args:
        recipes: what will be trained: where one of them works on tokens, all get a vision transformer.
    """
    kind = "cpu" if device == "cpu" else "gpu"
    tokens = next((step.name for recipe in recipes for step in recipe.steps if needs_vit(step.name)), None)
    if tokens is not None:
        name = "vit96" if kind == "cpu" or image_size <= 64 else "vit_small_patch16_224"
        return Choice(name, None, f"{vit_needed(tokens)}; the images are {image_size} px")
    if image_size >= 96:
        for name in PREFERRED[kind]:
            path = _cached(name)
            if path is not None:
                return Choice(
                    name, path, f"its pretrained weights are on this disk, and the images are {image_size} px"
                )
    if kind == "cpu":
        name = "conv16" if image_size <= 64 else "conv32"
        return Choice(name, None, f"small enough to train on a CPU at {image_size} px (of {', '.join(SMALL)})")
    name = "resnet18" if image_size <= 96 else "resnet50"
    return Choice(name, None, f"no pretrained weights are on this disk, and a GPU trains it at {image_size} px")


def of_column(column: str) -> str:
    """Return the encoder of another input column where none is named.

    Raises:
        UserError: no encoder of this library reads it.
    """
    if column not in OTHERS:
        raise UserError(f"no encoder reads the column '{column}', only 'image' and {', '.join(map(repr, OTHERS))}")
    return OTHERS[column]


def _cached(name: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(f"timm/{name}", "model.safetensors")
    return path if isinstance(path, str) else None
