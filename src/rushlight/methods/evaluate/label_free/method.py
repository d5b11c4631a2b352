"""Label-free signals: order encoders when not one label is known.

No signal knows what the features are for; each sees a failure that labels would see too: features that use few
directions (RankMe), views of an image that are not each other's nearest neighbours, groups that are not found again in
the other half of the images, and the sum of alignment and uniformity, which contrastive losses minimise. Encoders are
ordered by the mean of their ranks.

RankMe: arXiv:2210.02885; alignment and uniformity: Wang and Isola, 2020, arXiv:2005.10242.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rushlight.augment import presets
from rushlight.core.arguments import Count, settings
from rushlight.core.card import Card, Needs
from rushlight.core.errors import UserError
from rushlight.core.findings import Findings, Table, measures
from rushlight.data.dataset import Dataset
from rushlight.measure import spectrum
from rushlight.measure.features import pooled
from rushlight.methods.evaluate.label_free import signals
from rushlight.run.context import RunContext
from rushlight.run.model import Model
from rushlight.run.stage import Judge
from rushlight.train.joint_embedding import crop_scale

PART = 500
"""Images that are read at once."""
BETTER = {"RankMe": 1, "view retrieval": 1, "cluster stability": 1, "alignment + uniformity": -1}
"""The signals that encoders are ordered by, and their direction."""
MEANING = {
    "RankMe": "how many directions the features use (higher)",
    "view retrieval": "share of images that another view of theirs finds again (higher)",
    "cluster stability": "whether groups found in one half of the images are found in the other (higher)",
    "alignment + uniformity": "views close to each other, different images far apart (lower)",
}


@settings
class LabelFree(Judge):
    """Rank encoders without a single label.

    Attributes:
        better: the signals that encoders are ordered by, and their direction. meaning: of each, for readers.
    """

    better, meaning = BETTER, MEANING
    card = Card(
        id="label-free",
        title="Label-free signals: rank, agreement of views, stability of groups",
        paper="arXiv:2005.10242",
        family="evaluate",
        role="judge",
        serves="signals",
        needs=Needs("image"),
        gives="signals of an encoder's quality that need no label, and the order of several encoders by them",
        says="alignment and uniformity of features go with their accuracy downstream",
    )

    @staticmethod
    def ordered(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Return models by their mean rank, the best first (see the function of this name)."""
        return ordered(found)

    samples: Count = 2000
    """Images drawn by the seed, at most."""
    clusters: Count = 10
    """Groups to look for; about as many as you expect kinds of images."""

    def judge(self, model: Model, data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        """Return the signals of one model.

        Raises:
            UserError: fewer than 20 images, or features that are not finite.
        """
        numbers = self.signals(model, data, ctx.seed)
        note = "Signals without labels compare encoders on the same images; alone they say little."
        return Findings("label-free", measures(numbers), notes=(note,))

    def judge_all(self, models: Mapping[str, Model], data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        """Return the signals of several models on the same images, from the best by their mean rank."""
        found = {name: self.signals(model, data, ctx.seed) for name, model in models.items()}
        order = ordered(found)
        table: dict[str, list] = {"model": list(order), "mean rank": list(order.values())}
        table |= {key: [found[name][key] for name in order] for key in next(iter(found.values()))}
        widths = {model.encoder.width for model in models.values()}
        notes = ["Ordered by the mean rank over " + ", ".join(BETTER) + "; no label was used."]
        if len(widths) > 1:
            said = ", ".join(map(str, sorted(widths)))
            notes.append(f"These encoders have features of {said} dimensions: RankMe does not compare them fairly.")
        return Findings("label-free", tables=(Table.of("models", table),), notes=tuple(notes))

    def signals(self, model: Model, data: Dataset, seed: int) -> dict[str, float]:
        """Return each signal by name."""
        drawn = self._drawn(data, seed)
        one, other = self._features(model, drawn.chunks("image", PART)), self._features(model, _other_view(drawn, seed))
        aligned, uniform = signals.alignment(one, other), signals.uniformity(one)
        return {
            "RankMe": float(spectrum.effective_rank(spectrum.singular_values(one))),
            "view retrieval": signals.view_retrieval(one, other),
            "cluster stability": signals.cluster_stability(one, clusters=self.clusters, seed=seed),
            "alignment + uniformity": aligned + uniform,
            "alignment": aligned,
            "uniformity": uniform,
        }

    def _drawn(self, data: Dataset, seed: int) -> Dataset:
        if len(data) < 20:
            raise UserError(f"{data.info.source} has {len(data)} images: label-free signals need at least 20")
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        return data.select(order[: self.samples].sort().values)

    def _features(self, model: Model, parts: Iterator[Tensor]) -> Float[Tensor, "n dim"]:
        features = torch.cat([pooled(model, images) for images in parts])
        if not features.isfinite().all():
            raise UserError("the features of a model are not finite: it went wrong, train another")
        return features


def ordered(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return models by their mean rank over the signals of `BETTER`, the best (1 at least) first; ties share a rank."""
    names = list(found)
    ranks = dict.fromkeys(names, 0.0)
    for signal, sign in BETTER.items():
        for name, rank in zip(names, _ranks([sign * found[name][signal] for name in names]), strict=True):
            ranks[name] += rank / len(BETTER)
    return dict(sorted(ranks.items(), key=lambda pair: pair[1]))


def _ranks(values: Sequence[float]) -> list[float]:
    from scipy.stats import rankdata

    return [float(rank) for rank in rankdata([-value for value in values])]


def _other_view(data: Dataset, seed: int) -> Iterator[Tensor]:
    """Yield another view of each image, as bytes, some at a time: crop, flip and colours, milder than in training."""
    size = (data.height, data.width)
    view = presets.self_supervised(size, scale=crop_scale(*size, smallest=0.5), jitter=(0.3, 0.3, 0.3, 0.05), blur=0.0)
    generator = torch.Generator().manual_seed(seed)
    for part in data.chunks("image", PART):
        yield (255 * view(part, generator=generator)).round().byte()
