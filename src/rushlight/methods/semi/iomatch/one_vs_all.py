"""One-versus-all heads: for each class, is this image an inlier? And the open-set target made from them.

The head gives two logits a class, (batch, 2, classes): index 0 of the middle axis says outlier, 1 says
inlier. Of all negatives only the hardest teaches. Multiplied with the closed classifier's probabilities p,
the inlier probabilities o give a distribution over K + 1 classes: qₖ = pₖ oₖ, and what is left, Σₖ pₖ (1 −
oₖ), is *unseen*.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def inlier_probabilities(logits: Float[Tensor, "batch 2 classes"]) -> Float[Tensor, "batch classes"]:
    """Return the probability of being an inlier of each class: a softmax over the pair of logits."""
    return (logits[:, 1] - logits[:, 0]).sigmoid()


def hardest_negative(
    logits: Float[Tensor, "batch 2 classes"], labels: Int[Tensor, "batch"], *, eps: float = 1e-8
) -> Float[Tensor, ""]:
    """Return mean(−log o_y) + mean(max_{k≠y} −log(1 − o_k)): OpenMatch's and IOMatch's multi-binary loss.

    The probabilities get `eps` added before the logarithm, as in the official code (nukezil/IOMatch). A label
    outside the classes (an image of an unseen or unknown class) is an outlier to all of them: it has no
    positive term, and its hardest negative counts.
    """
    outlier, inlier = logits.softmax(1).unbind(1)
    own = labels[:, None] == torch.arange(logits.shape[2], device=labels.device)
    positive = -(inlier + eps).log().where(own, 0).sum(1)
    negative = (-(outlier + eps).log()).masked_fill(own, 0).max(1).values
    return positive.mean() + negative.mean()


def open_set_target(
    closed: Float[Tensor, "batch classes"], inlier: Float[Tensor, "batch classes"]
) -> Float[Tensor, "batch one_more"]:
    """Return IOMatch's fused target (arXiv 2308.13168, equation 6) over K seen classes and, last, the unseen.

    Args:
        closed: probabilities of the K seen classes (aligned, if alignment is used); rows sum to 1.
        inlier: probability of being an inlier of each class.
    """
    unseen = (closed * (1 - inlier)).sum(1, keepdim=True)
    return torch.cat([closed * inlier, unseen], 1)
