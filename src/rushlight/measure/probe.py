"""Frozen features: read once, then nearest neighbours and linear probes on them. What judges of encoders share.

How the images are made ready is a contract of its own (`engine.preprocessing`); `features` reads them as they are.
Retrieval is in `engine.retrieval`, dense tasks in `engine.dense_probe`, fine-tuning in `engine.few_label`.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.data.edit.split import hold_out
from rushlight.measure.preprocessing import Preprocessing, Reader
from rushlight.nets import encoders
from rushlight.run.model import Model
from rushlight.tasks.scores import mean_average_precision
from rushlight.train import optim

__all__ = [
    "Preprocessing",
    "Reader",
    "divided",
    "euclidean_neighbours",
    "features",
    "knn_accuracy",
    "linear_accuracy",
    "linear_probe",
    "nearest_tags",
    "neighbours",
    "protocol_probe",
    "standardise",
    "tag_probe",
    "untrained",
]  # fmt: skip


def features(
    model: Model, images: UInt8[Tensor, "n 3 height width"] | Dataset, *, batch: int = 500
) -> Float[Tensor, "n dim"]:
    """Return the encoder's pooled features of images (a data set's are read a batch at a time), float32 on the CPU."""
    return model.predict(images, batch=batch, names=["features"])["features"]


def untrained(model: Model, seed: int = 0) -> Model:
    """The model's encoder as nobody trained it, drawn by the seed, without heads."""
    encoder = encoders.create(model.encoder.name, image_size=max(model.info.image_size), seed=seed)
    device = next(model.parameters()).device
    return Model(encoder, {}, replace(model.info, recipe="")).to(device).eval()


def standardise(bank: Float[Tensor, "m dim"], *others: Float[Tensor, "n dim"]) -> tuple[Tensor, ...]:
    """Each set with the bank's mean subtracted and divided by its standard deviation; constant features become 0."""
    mean, std = bank.mean(0), bank.std(0, correction=0)
    std = torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, torch.inf)
    return tuple((values - mean) / std for values in (bank, *others))


def divided(data: Dataset, column: str, seed: int = 0, *, share: float = 0.25) -> tuple[Dataset, Dataset]:
    """The rows whose label is known, as those that probes learn from and those that they are asked about: the data's
    own folds where both hold labels, else a share is held out.

    Raises:
        UserError: fewer than two different images with a known label.
    """
    labelled = data.select(data.known(column))
    parts = (labelled.fold(TRAIN), labelled.fold(TEST))
    if not all(len(part) for part in parts):
        held = hold_out(labelled.without("fold"), share, seed, column)
        parts = (held.fold(TRAIN), held.fold(TEST))
    return parts


# --- nearest neighbours ---


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


def euclidean_neighbours(
    bank: Float[Tensor, "m dim"], labels: Int[Tensor, "m"], queries: Float[Tensor, "n dim"] | None = None, *, k: int = 5
) -> Int[Tensor, "n"]:
    """The commonest class among the k nearest by Euclidean distance; of equally common ones the smallest number, as
    in scikit-learn's KNeighborsClassifier. Without queries the bank asks itself, each image without itself."""
    votes = F.one_hot(labels[_nearest(bank, queries, k)], int(labels.max()) + 1).sum(1)
    return votes.argmax(1)


def nearest_tags(
    bank: Float[Tensor, "m dim"],
    tags: Int[Tensor, "m tags"],
    queries: Float[Tensor, "n dim"] | None = None,
    *,
    k: int = 5,
) -> Float[Tensor, "n tags"]:
    """Of each tag the share of the k nearest images (Euclidean) that bear it, among those where it is known; 0 where
    it is known of none. Without queries the bank asks itself, each image without itself."""
    near = tags[_nearest(bank, queries, k)]
    return (near == 1).sum(1) / (near >= 0).sum(1).clamp(min=1)


def _nearest(bank: Tensor, queries: Tensor | None, k: int) -> Int[Tensor, "n k"]:
    mean = bank.double().mean(0)  # distances come from products, which lose small ones beside a large offset
    bank = bank.double() - mean
    asked, found = bank if queries is None else queries.double() - mean, []
    for rows in torch.arange(len(asked)).split(500):
        far = torch.cdist(asked[rows], bank)
        if queries is None:
            far[torch.arange(len(rows)), rows] = torch.inf
        found.append(far.topk(min(k, len(bank) - (queries is None)), dim=1, largest=False).indices)
    return torch.cat(found)


# --- linear probes ---


def linear_probe(features: Float[Tensor, "n dim"], labels: Int[Tensor, "n"], *, c: float = 1.0) -> Any:
    """L2-regularised logistic regression on standardised features (a fitted scikit-learn pipeline)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # on wide features; what it says hardly changes any more
        return fitted.fit(features.numpy(), labels.numpy())


def linear_accuracy(features: Tensor, labels: Tensor, test_features: Tensor, true: Tensor, *, c: float = 1.0) -> float:
    """Share (0 … 1) of test images that a linear probe names rightly."""
    predicted: np.ndarray = linear_probe(features, labels, c=c).predict(test_features.numpy())
    return float((predicted == true.numpy()).mean())


def tag_probe(
    features: Float[Tensor, "n dim"],
    tags: Int[Tensor, "n tags"],
    test_features: Float[Tensor, "m dim"],
    true: Int[Tensor, "m tags"],
) -> float:
    """Mean average precision (0 … 1) of the paper's linear probe for several tags an image."""
    with torch.no_grad():
        return mean_average_precision(protocol_probe(features, tags)(test_features).sigmoid(), true)


def protocol_probe(
    features: Float[Tensor, "n dim"],
    targets: Int[Tensor, "n"] | Int[Tensor, "n tags"],
    *,
    optimiser: Literal["lars", "adamw"] = "adamw",
    learning_rate: float | None = None,
    epochs: int = 90,
    warm_up: float = 1 / 9,
    batch: int = 256,
    least_steps: int = 1000,
    seed: int = 0,
) -> nn.Sequential:
    """A linear probe by the Battle of the Backbones' protocol, on cached features: batch norm without affine
    parameters (ε = 1e-6), a linear layer (normal weights of 0.01), no weight decay, warm-up, then a half cosine.

    Cached features carry no augmentation, and a hundredth of ImageNet's images takes a hundredth of its steps: there
    LARS at 0.1/256, the paper's, has hardly moved when 90 epochs are over; so AdamW is the default, and small sets get
    more epochs.

    Args:
        targets: classes, or tags (1, 0, −1 unknown, which count for nothing).
        learning_rate: at a batch of 256 (it is scaled by the batch); by default 0.1 for LARS, 0.003 for AdamW.
        warm_up: share of the epochs (the paper: 10 of 90). least_steps: more epochs are taken until there are so many.

    Returns:
        Features → logits, in evaluation mode.
    """
    outputs = targets.shape[1] if targets.ndim == 2 else int(targets.max()) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = nn.Linear(features.shape[1], outputs)
        nn.init.trunc_normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
    probe = nn.Sequential(nn.BatchNorm1d(features.shape[1], eps=1e-6, affine=False), linear)
    batch = min(batch, len(features))
    rate = (learning_rate or {"lars": 0.1, "adamw": 3e-3}[optimiser]) * batch / 256
    epochs = max(epochs, -(-least_steps // max(len(features) // batch, 1)))
    with torch.inference_mode(False), torch.enable_grad():
        _train(probe, features.clone(), targets, optimiser, rate, epochs, warm_up, batch, seed)
    return probe.eval()


def _train(
    probe: nn.Sequential,
    features: Tensor,
    targets: Tensor,
    name: Literal["lars", "adamw"],
    rate: float,
    epochs: int,
    warm_up: float,
    batch: int,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimiser = optim.optimiser(name, optim.parameter_groups(probe, 0.0), learning_rate=rate)
    steps = max(len(features) // batch, 1)
    for epoch in range(epochs):
        order = torch.randperm(len(features), generator=generator)[: steps * batch].view(steps, batch)
        for step, rows in enumerate(order):
            progress = (epoch + step / steps) / epochs
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * optim.schedule("cosine", progress, warm_up=warm_up)
            optimiser.zero_grad()
            _loss(probe(features[rows]), targets[rows]).backward()
            optimiser.step()


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets)
    known = targets >= 0
    every = F.binary_cross_entropy_with_logits(logits, targets.clamp(min=0).float(), reduction="none")
    return (every * known).sum() / known.sum().clamp(min=1)


def purity(features: Float[Tensor, "n dim"], groups: Int[Tensor, "n"], *, k: int = 20) -> float:
    """The mean share (0 … 1) of an image's k nearest neighbours by cosine that are of its own group (its domain)."""
    features = F.normalize(features, dim=1)
    shares = []
    for rows in torch.arange(len(features)).split(1000):
        cosine = features[rows] @ features.T
        cosine[torch.arange(len(rows)), rows] = -torch.inf
        nearest = cosine.topk(min(k, len(features) - 1), dim=1).indices
        shares.append((groups[nearest] == groups[rows, None]).float().mean(1))
    return float(torch.cat(shares).mean())
