"""Many instances, one label: pooling a bag of features, by their mean or by gated attention."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class GatedAttention(nn.Module):
    """A bag's logits from a weighted mean of its instances, whose weights are learned (Ilse et al., 2018,
    arXiv:1802.04712, equations 8 and 9): a = softmax(w·(tanh(V h) ⊙ sigm(U h))).

    Args:
        width: of the features. hidden: of the attention. outputs: classes.
    """

    def __init__(self, *, width: int, outputs: int, hidden: int = 16):
        super().__init__()
        self.value, self.gate = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.score, self.classify = nn.Linear(hidden, 1), nn.Linear(width, outputs)

    def weights(
        self, bags: Float[Tensor, "bags instances width"], there: Bool[Tensor, "bags instances"]
    ) -> Float[Tensor, "bags instances"]:
        """Return each instance's share of its bag; they sum to 1 over those that are there."""
        scores = self.score(self.value(bags).tanh() * self.gate(bags).sigmoid())[..., 0]
        return scores.masked_fill(~there, -torch.inf).softmax(1)

    def forward(
        self, bags: Float[Tensor, "bags instances width"], there: Bool[Tensor, "bags instances"]
    ) -> Float[Tensor, "bags outputs"]:
        return self.classify((bags * self.weights(bags, there)[..., None]).sum(1))


def mean_pooled(
    bags: Float[Tensor, "bags instances width"], there: Bool[Tensor, "bags instances"]
) -> Float[Tensor, "bags width"]:
    """Return the mean of the instances that are there."""
    return (bags * there[..., None]).sum(1) / there.sum(1, keepdim=True).clamp(min=1)
