"""Frozen features: read once, then k nearest neighbours and linear probes on them. What judges of encoders share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from rushlight.engine.model import Model


def features(model: Model, images: UInt8[Tensor, "n 3 height width"], *, batch: int = 500) -> Float[Tensor, "n dim"]:
    """The encoder's pooled features of images, in evaluation mode, float32 on the CPU."""
    return model.predict(images, batch=batch, names=["features"])["features"]


def neighbours(
    bank: Float[Tensor, "m dim"],
    labels: Int[Tensor, "m"],
    queries: Float[Tensor, "n dim"],
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> Float[Tensor, "n classes"]:
    """Weighted k-nearest-neighbour votes by cosine (Wu et al., 2018; DINO's judge): each of the k neighbours votes
    for its class with weight exp(cosine/τ)."""
    bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
    votes = []
    for part in queries.split(1000):
        cosine, nearest = (part @ bank.T).topk(min(k, len(bank)), dim=1)
        vote = torch.zeros(len(part), int(labels.max()) + 1)
        votes.append(vote.scatter_add_(1, labels[nearest], (cosine / temperature).exp()))
    return torch.cat(votes)


def knn_accuracy(
    bank: Tensor, labels: Tensor, queries: Tensor, true: Tensor, *, k: int = 20, temperature: float = 0.07
) -> float:
    """Share (0 … 1) of queries whose class `neighbours` names."""
    votes = neighbours(bank, labels, queries, k=k, temperature=temperature)
    return float((votes.argmax(1) == true).float().mean())


def linear_probe(features: Float[Tensor, "n dim"], labels: Int[Tensor, "n"], *, c: float = 1.0) -> Any:
    """L2-regularised logistic regression on standardised features (a fitted scikit-learn pipeline)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500)).fit(features.numpy(), labels.numpy())


def linear_accuracy(features: Tensor, labels: Tensor, test_features: Tensor, true: Tensor, *, c: float = 1.0) -> float:
    """Share (0 … 1) of test images that a linear probe names rightly."""
    predicted: np.ndarray = linear_probe(features, labels, c=c).predict(test_features.numpy())
    return float((predicted == true.numpy()).mean())
