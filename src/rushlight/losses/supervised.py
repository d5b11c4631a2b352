"""The loss of known labels, for each kind of label; what is unknown does not count.

Means are over what is known in the joined batch of all processes.
"""

from __future__ import annotations

from jaxtyping import Float, Int, Integer
from torch import Tensor
from torch.nn import functional as F

from rushlight.core.distributed import share_of_count


def classes(logits: Float[Tensor, "batch classes"], target: Int[Tensor, "batch"]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over the known classes (−1 is unknown; 0 if none is known)."""
    losses = F.cross_entropy(logits, target, ignore_index=-1, reduction="sum")
    return losses / share_of_count((target >= 0).sum())


def tags(logits: Float[Tensor, "batch tags"], target: Int[Tensor, "batch tags"]) -> Float[Tensor, ""]:
    """Return the mean binary cross-entropy over the known entries (−1 is unknown; 0 if none is known)."""
    known = target >= 0
    losses = F.binary_cross_entropy_with_logits(logits, target.clamp(min=0).to(logits.dtype), reduction="none")
    return (losses * known).sum() / share_of_count(known.sum())


def masks(logits: Float[Tensor, "batch classes h w"], target: Integer[Tensor, "batch h w"]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over the known pixels (255 is unknown; 0 if none is known)."""
    losses = F.cross_entropy(logits, target.long(), ignore_index=255, reduction="sum")
    return losses / share_of_count((target != 255).sum())
