"""Segmentation near boundaries: where a label map changes, and losses weighted by confidence and boundary.

CW-BASS' loss on pseudo-labels (arXiv 2502.15152) is a mean over kept pixels of confidence^γ times
cross-entropy, plus half the plain mean over kept pixels at borders, so that borders, few and uncertain, are
not swamped. Means are over the joined batch of all processes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from rushlight.core.distributed import all_sum, share_of_count, world_size

IGNORE = 255
"""The label of a pixel that counts nowhere."""

LabelMap = Integer[Tensor, "batch h w"]
PixelLogits = Float[Tensor, "batch classes h w"]
Confidence = Float[Tensor, "batch h w"]


def boundary_mask(labels: LabelMap, *, classes: int, zero_padding: bool = False) -> Bool[Tensor, "batch h w"]:
    """Return where the 3×3 Sobel response of any class's indicator is not 0.

    Take it from pseudo-labels before unsure pixels are dropped, or the holes' edges count as borders. Ignored
    pixels count as the last class, as in the official code.

    Args:
        labels: class ids.
        classes: how many classes there are.
        zero_padding: as in the official code, which so marks the whole frame of the image (all of it but
            where class indicators cancel); by default the border is replicated and the frame is no boundary.
    """
    indicator = F.one_hot(labels.long().clamp(0, classes - 1), classes).movedim(-1, 1).float()
    indicator = F.pad(indicator, (1, 1, 1, 1), mode="constant" if zero_padding else "replicate")
    across = indicator[..., 2:] - indicator[..., :-2]
    across = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    down = indicator[..., 2:, :] - indicator[..., :-2, :]
    down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return ((across != 0) | (down != 0)).any(1)


def confidence_cross_entropy(
    logits: PixelLogits, targets: LabelMap, confidence: Confidence, *, gamma: float = 1.0
) -> Float[Tensor, ""]:
    """Return L_cw = Σ c^γ·CE / number of pixels that are not ignored (0 if all are)."""
    kept = targets != IGNORE
    return (confidence**gamma * _pixel_cross_entropy(logits, targets) * kept).sum() / share_of_count(kept.sum())


def boundary_cross_entropy(
    logits: PixelLogits, targets: LabelMap, boundary: Bool[Tensor, "batch h w"]
) -> Float[Tensor, ""]:
    """Return L_b, the mean cross-entropy of boundary pixels that are not ignored (0 if there are none)."""
    kept = boundary & (targets != IGNORE)
    return (_pixel_cross_entropy(logits, targets) * kept).sum() / share_of_count(kept.sum())


def confidence_floors(
    confidence: Confidence, labels: LabelMap, *, classes: int, scale: float = 0.95
) -> Float[Tensor, "classes"]:
    """Return each class's floor s·c̄·c̄_k / max_j c̄_j, c̄ the batch's mean confidence, c̄_k that of pixels labelled k.

    At the start a teacher calls nearly every pixel background, and is surest of it; a single threshold keeps those
    alone (the collapse that CW-BASS-v2 reports). A class that does not occur gets the floor of the least sure one.
    """
    each = F.one_hot(labels.long().flatten(), classes).to(confidence.dtype)
    counts = all_sum(each.sum(0))
    means = all_sum(confidence.flatten() @ each) / counts.clamp(min=1)
    means = torch.where(counts > 0, means, torch.where(counts > 0, means, torch.inf).amin())
    mean = all_sum(confidence.mean()) / world_size()
    return scale * mean * means / means.amax()


def decay_confidence(confidence: Confidence, *, factor: float = 0.9, epoch: int | None = None) -> Confidence:
    """Return δ·c as in the official code, or δ^epoch·c, the paper's progressive decay, if an epoch is given."""
    return confidence * (factor if epoch is None else factor**epoch)


def _pixel_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets.long(), reduction="none", ignore_index=IGNORE)
