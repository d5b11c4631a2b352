"""Tasks of whole slides on frozen features of their patches: weak labels, multiple instances, intervals over slides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rushlight.measure import linear
from rushlight.methods.pretrain.histopath_ssl.mil import GatedAttention, mean_pooled

Pooling = Literal["mean", "attention"]


@dataclass(frozen=True)
class Bags:
    """Slides as bags of features.

    Attributes:
        features: padded with zeros; there: which instances are real. labels: of the slides.
    """

    features: Float[Tensor, "bags instances width"]
    there: Bool[Tensor, "bags instances"]
    labels: Int[Tensor, "bags"]

    @classmethod
    def of(cls, features: Float[Tensor, "n width"], slide: Int[Tensor, "n"], labels: Int[Tensor, "n"]) -> Bags:
        """Return one bag per slide, in the order of their numbers; a slide's label is that of its known patches.

        Raises:
            ValueError: patches of one slide have different labels.
        """
        rows = [(slide == number).nonzero()[:, 0] for number in slide.unique().tolist()]
        names = [labels[r][labels[r] >= 0].unique() for r in rows]
        if any(len(name) != 1 for name in names):
            raise ValueError("a slide's patches must have one label, the slide's")
        padded = torch.nn.utils.rnn.pad_sequence([features[r] for r in rows], batch_first=True)
        there = torch.arange(padded.shape[1]) < torch.tensor([len(r) for r in rows])[:, None]
        return cls(padded, there, torch.cat(names))

    def select(self, rows: Tensor) -> Bags:
        return Bags(self.features[rows], self.there[rows], self.labels[rows])


def labelled(labels: Int[Tensor, "n"], share: float, *, seed: int = 0) -> Int[Tensor, "m"]:
    """Draw a share of the slides of each label, at least one slide; a larger share includes a smaller one's."""
    generator, chosen = torch.Generator().manual_seed(seed), []
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        mixed = own[torch.randperm(len(own), generator=generator)]
        chosen.append(mixed[: max(round(share * len(own)), 1)])
    return torch.cat(chosen).sort().values


def scores(train: Bags, test: Bags, classes: int, *, pooling: Pooling = "attention", seed: int = 0) -> Tensor:
    """Return class probabilities of the test slides, learned from the training slides: by a logistic regression on
    means, or by the mean of three gated attentions (each 200 steps of AdamW on all slides at once)."""
    mean, std = _moments(train)
    train, test = (Bags((b.features - mean) / std * b.there[..., None], b.there, b.labels) for b in (train, test))
    if pooling == "mean":
        return _regressed(train, test, classes)
    return torch.stack([_attended(train, test, classes, seed * 8 + number) for number in range(3)]).mean(0)


def _attended(train: Bags, test: Bags, classes: int, seed: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = GatedAttention(width=train.features.shape[2], outputs=classes)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.5)
    for _ in range(200):
        optimiser.zero_grad()
        F.cross_entropy(network(train.features, train.there), train.labels).backward()
        optimiser.step()
    with torch.no_grad():
        return network(test.features, test.there).softmax(1)


def _regressed(train: Bags, test: Bags, classes: int) -> Tensor:
    fitted = linear.fit(mean_pooled(train.features, train.there), train.labels, scaled=False)
    told = fitted.predict_proba(mean_pooled(test.features, test.there).double().numpy())
    found = torch.zeros(len(test.labels), classes)
    found[:, torch.from_numpy(fitted.classes_)] = torch.from_numpy(told).float()
    return found


def _moments(bags: Bags) -> tuple[Tensor, Tensor]:
    values = bags.features[bags.there]
    return values.mean(0), values.std(0).clamp(min=1e-6)


def macro_auc(probabilities: Float[Tensor, "n classes"], labels: Int[Tensor, "n"]) -> float:
    """Return the mean area under the one-against-rest curve over the classes that occur and are not alone."""
    from sklearn.metrics import roc_auc_score

    areas = []
    for one in range(probabilities.shape[1]):
        own = labels == one
        if own.any() and not own.all():
            areas.append(roc_auc_score(own.numpy(), probabilities[:, one].numpy()))
    return float(np.mean(areas)) if areas else float("nan")


def bootstrap(
    probabilities: Float[Tensor, "n classes"],
    labels: Int[Tensor, "n"],
    groups: Int[Tensor, "n"] | None = None,
    *,
    draws: int = 500,
    seed: int = 0,
) -> tuple[float, float]:
    """Return a 95 % interval of the macro AUC by drawing groups (slides) with replacement; without groups, rows."""
    groups = torch.arange(len(labels)) if groups is None else groups
    members = [(groups == group).nonzero()[:, 0] for group in groups.unique().tolist()]
    generator, found = torch.Generator().manual_seed(seed), []
    for _ in range(draws):
        chosen = torch.randint(len(members), (len(members),), generator=generator).tolist()
        rows = torch.cat([members[i] for i in chosen])
        found.append(macro_auc(probabilities[rows], labels[rows]))
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)
