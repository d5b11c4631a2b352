"""Distillation: a student learns a teacher's softened probabilities.

Dividing logits by a temperature T before the softmax spreads the probabilities over the wrong classes,
which say what a class looks like. Knowledge distillation matches them by the Kullback-Leibler divergence,
times T² so that its gradient keeps its size; defensive distillation trains teacher and student at the same
high T and deploys at T = 1.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rushlight.losses.consistency import soft_cross_entropy

Logits = Float[Tensor, "batch classes *space"]


def soften(logits: Logits, *, temperature: float) -> Logits:
    """Return softmax(z / T), without gradient: a teacher's soft labels."""
    return (logits.detach() / temperature).softmax(1)


def defensive(student: Logits, soft_labels: Logits, *, temperature: float = 100.0) -> Float[Tensor, ""]:
    """Return mean(−Σₖ qₖ log softmax(z / T)ₖ): the student's loss of defensive distillation (arXiv 1511.04508).

    With T = 1 and one-hot q it is plain cross-entropy. The gradient shrinks by 1/T: use an optimiser that
    does not mind (Adam) or a rate that makes up for it.

    Args:
        student: logits at T = 1.
        soft_labels: the teacher's probabilities at the same T (`soften`).
    """
    return soft_cross_entropy(student / temperature, soft_labels).mean()


def knowledge(
    student: Logits,
    teacher: Logits,
    labels: Int[Tensor, "batch *space"] | None = None,
    *,
    temperature: float = 4.0,
    alpha: float = 0.9,
) -> Float[Tensor, ""]:
    """Return Hinton et al.'s distillation loss (arXiv 1503.02531): α T² KL(q_T ‖ p_T) + (1 − α) CE(p, labels).

    Averaged over samples (or pixels). No gradient flows to the teacher.

    Args:
        student: logits.
        teacher: logits.
        labels: hard labels; without them the loss is T² KL alone, and `alpha` is not used.
    """
    log_p = (student / temperature).log_softmax(1)
    log_q = (teacher.detach() / temperature).log_softmax(1)
    divergence = F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(1).mean() * temperature**2
    if labels is None:
        return divergence
    return alpha * divergence + (1 - alpha) * soft_cross_entropy(student, labels).mean()
