"""What MultiMAE's reconstructions err: squares for images, absolute depth, cross-entropy of classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rushlight.core.distributed import all_sum
from rushlight.methods.pretrain.multimae.multimodal import UNKNOWN, label_stride
from rushlight.nets.vit import normalised_patches, patchify


def errors(
    target: str, said: Float[Tensor, "batch tokens outputs"], values: Tensor, known: Tensor, *, patch: int
) -> tuple[Float[Tensor, "batch tokens values"], Float[Tensor, "batch tokens values"]]:
    """Return each value's error, and 1 where it is known.

    Args:
        target: `image`, `normalised` (by patch), `depth` or `mask`.
        values: of its modality: normalised images, standardised depth, or class numbers. known: which of their pixels.
        patch: side of a patch in pixels.
    """
    if target in ("image", "normalised"):
        patches = patchify(values, patch)
        patches = normalised_patches(patches) if target == "normalised" else patches
        return (said - patches).square(), torch.ones_like(said)
    if target == "depth":
        return (said - patchify(values[:, None], patch)).abs(), patchify(known[:, None].float(), patch)
    stride = label_stride(patch)
    coarse = patchify(values[:, None, ::stride, ::stride].float(), patch // stride).long()
    logits = said.view(*coarse.shape, -1)
    error = F.cross_entropy(logits.flatten(0, 2), coarse.flatten(), ignore_index=UNKNOWN, reduction="none")
    return error.view_as(coarse), (coarse != UNKNOWN).float()


def over_images(
    error: Float[Tensor, "batch tokens values"], counts: Float[Tensor, "batch tokens values"]
) -> Float[Tensor, ""]:
    """Return each image's mean over what counts, then the mean over the images of all processes that have any; 0 if
    none has. (A 0/0 is never formed: its value could be left out, its gradient could not.)"""
    sums, n = (error * counts).flatten(1).sum(1), counts.flatten(1).sum(1)
    some = n > 0
    means = sums / n.clamp(min=1)
    return all_sum((means * some).sum()) / all_sum(some.sum().to(means.dtype)).clamp(min=1)
