"""Open-set scores: a test set holds images of classes that no training label names, which a model should reject.

A seen class has an id 0 … K−1, an unseen image the id K (`hide.open_set`). A rejection score is higher the likelier an
image is of no seen class.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.tasks.scores import balanced_accuracy

SEEN_RECALL = 0.95
"""Share of the seen images that must be accepted where the recall of unseen ones is measured."""


def rejection_scores(
    logits: Float[Tensor, "n classes"], open_logits: Float[Tensor, "n one_more"] | None = None
) -> Float[Tensor, "n"]:
    """Return the probability of the last output of an open head; without one, 1 − the largest probability."""
    if open_logits is not None:
        return open_logits.float().softmax(1)[:, -1]
    return 1 - logits.float().softmax(1).amax(1)


def decisions(
    logits: Float[Tensor, "n classes"], open_logits: Float[Tensor, "n one_more"] | None = None
) -> Int[Tensor, "n"]:
    """Return the class of each image, K for a rejection. Without an open head nothing is rejected."""
    return (logits if open_logits is None else open_logits).argmax(1)


def rejection_auroc(scores: Float[Tensor, "n"], unseen: Bool[Tensor, "n"]) -> float:
    """Return the probability that an unseen image has a higher score than a seen one; ties count one half.

    Raises:
        UserError: there are no seen or no unseen images.
    """
    _both(unseen)
    _, inverse, counts = scores.double().unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0).double() - (counts.double() - 1) / 2)[inverse]  # the mean rank of ties
    n, m = int(unseen.sum()), int((~unseen).sum())
    return float((ranks[unseen].sum() - n * (n + 1) / 2) / (n * m))


def unseen_recall(scores: Float[Tensor, "n"], unseen: Bool[Tensor, "n"], *, seen_recall: float = SEEN_RECALL) -> float:
    """Return the share of unseen images that are rejected where at least `seen_recall` of the seen are accepted.

    Raises:
        UserError: there are no seen or no unseen images.
    """
    _both(unseen)
    seen = scores[~unseen].sort().values
    accepted = -int(-seen_recall * len(seen) // 1)  # at least so many
    limit = seen[max(accepted, 1) - 1]
    return float((scores[unseen] > limit).double().mean())


def open_balanced_accuracy(decided: Int[Tensor, "n"], true: Int[Tensor, "n"]) -> float:
    """Return the mean recall over the seen classes that occur and the unseen one."""
    return balanced_accuracy(decided, true)


def _both(unseen: Bool[Tensor, "n"]) -> None:
    if not bool(unseen.any()) or bool(unseen.all()):
        what = "unseen" if not bool(unseen.any()) else "seen"
        raise UserError(f"open-set scores need images of seen and of unseen classes: none here is {what}")
