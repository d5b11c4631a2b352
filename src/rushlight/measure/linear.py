"""Linear probes on frozen features: logistic regression, and the protocol of the Battle of the Backbones."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from rushlight.core.errors import UserError
from rushlight.tasks.scores import mean_average_precision
from rushlight.train import optim

ITERATIONS = 5000


def regression(*, c: float = 1.0, iterations: int = ITERATIONS, scaled: bool = True) -> Any:
    """Return an L2-regularised logistic regression (a scikit-learn estimator), on standardised features if `scaled`.

    Fit it where `converging` watches.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(*[StandardScaler()] * scaled, LogisticRegression(C=c, max_iter=iterations))


@contextmanager
def converging(shape: tuple[int, ...], c: float, iterations: int = ITERATIONS) -> Iterator[None]:
    """Raise an error if a regression on features of this shape ends before it has converged.

    Raises:
        UserError: one has not after so many iterations of L-BFGS; its numbers would mean nothing.
    """
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            yield
        except ConvergenceWarning:
            raise UserError(
                f"the linear probe on {shape[0]:,}×{shape[1]} features did not converge in {iterations:,} iterations: "
                f"choose a smaller C than {c:g}"
            ) from None


def fit(
    features: Float[Tensor, "n dim"],
    labels: Int[Tensor, "n"],
    *,
    c: float = 1.0,
    iterations: int = ITERATIONS,
    scaled: bool = True,
) -> Any:
    """Return a fitted `regression`.

    Raises:
        UserError: it has not converged.
    """
    with converging(tuple(features.shape), c, iterations):
        return regression(c=c, iterations=iterations, scaled=scaled).fit(features.double().numpy(), labels.numpy())


def folded_accuracy(
    features: Float[Tensor, "n dim"], labels: Int[Tensor, "n"], *, c: float = 1.0, folds: int = 5
) -> float:
    """Return the share (0 … 1) of each fold that a probe on the others classifies rightly, in the mean over folds."""
    from sklearn.model_selection import cross_val_score

    with converging(tuple(features.shape), c):
        given = features.double().numpy(), labels.numpy()
        return float(cross_val_score(regression(c=c), *given, cv=folds, error_score="raise").mean())


def accuracy(
    features: Float[Tensor, "n dim"],
    labels: Int[Tensor, "n"],
    test_features: Float[Tensor, "m dim"],
    true: Int[Tensor, "m"],
    *,
    c: float = 1.0,
) -> float:
    """Return the share (0 … 1) of test images that a linear probe classifies rightly."""
    predicted = torch.from_numpy(fit(features, labels, c=c).predict(test_features.double().numpy()))
    return float((predicted == true).double().mean())


def tag_score(
    features: Float[Tensor, "n dim"],
    tags: Int[Tensor, "n tags"],
    test_features: Float[Tensor, "m dim"],
    true: Int[Tensor, "m tags"],
) -> float:
    """Return the mean average precision (0 … 1) of `protocol`'s probe for several tags an image."""
    with torch.no_grad():
        return mean_average_precision(protocol(features, tags)(test_features).sigmoid(), true)


def protocol(
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
    """Return a linear probe by the Battle of the Backbones' protocol, on cached features: batch norm without affine
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
