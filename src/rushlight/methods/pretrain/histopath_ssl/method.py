"""Self-supervision for histology: what tissue looks like, for any joint-embedding learner, and a judge of slides.

Tissue has no upright, no single object, a stain that varies by laboratory, and a meaning that depends on
magnification. So views take all eight symmetries, narrow crops and random stains, and patches are drawn evenly over
studies, slides and magnifications. `Slides` judges features as they are used: only the slide, a bag of patches, has
a label.

Lai et al., 2023, arXiv:2310.13259. RandStainNA: arXiv:2206.12694; HED: arXiv:1902.06543; MIL: arXiv:1802.04712.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from tensordict import TensorDict
from torch import Tensor

from rushlight.augment.policy import Policy
from rushlight.core.arguments import Count, Several, Share, SomeShare, settings
from rushlight.core.card import Card, Needs, known
from rushlight.core.errors import UserError
from rushlight.core.findings import Curves, Findings, Measure, measures
from rushlight.data.dataset import Dataset
from rushlight.data.edit.balance import LEVELS, Balance
from rushlight.data.synthetic import tissue
from rushlight.measure.features import pooled
from rushlight.methods.pretrain.histopath_ssl import slides
from rushlight.methods.pretrain.histopath_ssl import stain as stains
from rushlight.run.context import RunContext
from rushlight.run.model import Model
from rushlight.run.stage import Judge, Outcome
from rushlight.train.joint_embedding import AddOn, joint

STAIN = ("randstain", "hed", "none")
MEASURED = 4000
"""Images that a training set's stain is measured on, at most."""


@settings
class HistopathSSL(AddOn):
    """Views for tissue, added to any joint-embedding learner."""

    card: ClassVar = Card(
        id="histopath-ssl",
        title="Domain-specific optimization and diverse evaluation of self-supervised models for histopathology",
        paper="arXiv:2310.13259",
        family="pretrain",
        role="learner",
        needs=Needs("image"),
        gives="an encoder of tissue trained without labels",
        says="17 tissues, 12 cancers: self-supervision is strong on pathology, and domain-specific changes add to it",
        tags=("contrastive", "instance discrimination of tissue"),
    )

    base: str = "simclr"
    """The learner, written as in a recipe: `"simclr(temperature=0.2)"`, `"msn(focal=2)"`, …."""
    dihedral: bool = True
    """Any of the eight symmetries, instead of a mirror image at most."""
    scale: tuple[SomeShare, SomeShare] | None = (0.4, 1.0)
    """Share of the area that a large view shows; None leaves the base's."""
    stain: str = "randstain"
    """`randstain`, `hed`, or `none`, which keeps the base's colours."""
    stain_probability: Share = 0.8
    """Of each view."""
    stain_spread: float = 0.0
    """H, the virtual slides' extra deviation."""
    distribution: str = "normal"
    """`normal`, `laplace` or `uniform`, of virtual slides."""
    neighbour: Share = 0.0
    """Probability that the last large view shows the same centre at twice the magnification."""
    balanced: bool = True
    """Draw evenly over studies, slides (`domain`) and magnifications, as far as the columns are there."""
    least_tissue: Share = 0.1
    """Share of a patch that shows tissue, at least; else it is left out; 0 keeps all."""

    def __post_init__(self) -> None:
        if self.stain not in STAIN or self.distribution not in ("normal", "laplace", "uniform"):
            raise UserError(f"stain='{self.stain}', distribution='{self.distribution}': a stain is {', '.join(STAIN)}; "
                            "a distribution normal, laplace or uniform")  # fmt: skip
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise UserError(f"scale={self.scale}: give the least share of an image's area that a large view shows, "
                            "then the largest, such as (0.4, 1.0)")  # fmt: skip
        self.learner = joint(self.base)
        self.learner.look = self.look
        self.statistics: stains.Statistics | None = None

    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        """Find the patches with tissue, measure their stain, and train on them."""
        self.measure(data)
        return super().run(data, model, ctx)

    def measure(self, data: Dataset) -> None:
        """Set how the patches are drawn, and measure the statistics of their stain on patches drawn in the same way.

        Raises:
            UserError: no patch shows tissue.
        """
        self.learner.balance = balance = self.balance(data)
        rows = balance.draw(min(len(balance.rows), MEASURED), torch.Generator().manual_seed(0))
        self.statistics = stains.Statistics.of(data.select(rows).reader("image"))

    def balance(self, data: Dataset) -> Balance:
        """Return the patches with tissue, each with its share of the draws."""
        rows = torch.arange(len(data))
        if self.least_tissue:
            rows = rows[tissue.tissue_share(data.reader("image")) >= self.least_tissue]
        if not len(rows):
            raise UserError(f"no image of {data.info.source} shows tissue on {self.least_tissue:.0%} of it: lower "
                            "least_tissue, or 0 keeps all images")  # fmt: skip
        return Balance.of([data[name] for name in LEVELS if name in data and self.balanced], rows)

    def look(self, policies: Sequence[Policy], columns: TensorDict, generator: torch.Generator) -> list[Tensor]:
        """Return the base's views of tissue, in other stains.

        Raises:
            UserError: the stain was not measured, and the batch is a single image.
        """
        images, largest = columns["image"], policies[0].size
        statistics = self.statistics
        if self.stain == "randstain" and statistics is None:
            statistics = measured(images)
        large = [policy.size == largest for policy in policies]
        last = max(number for number, is_large in enumerate(large) if is_large)
        seen = []
        for number, policy in enumerate(policies):
            near = nearer(images, self.neighbour, generator) if self.neighbour and number == last else images
            view = self.adapted(policy, large[number])(near, generator=generator)
            seen.append(self.stained(view, statistics, generator))
        return seen

    def adapted(self, policy: Policy, large: bool) -> Policy:
        """Return a view's policy adapted to tissue."""
        changes: dict = {"turns": True, "flip": 0.5} if self.dihedral else {}
        if self.scale is not None and large:
            changes["crop_scale"] = self.scale
        if self.stain != "none":
            weak = {name: min(getattr(policy, name), 0.2) for name in ("brightness", "contrast")}
            changes |= {**weak, "saturation": 0.0, "hue": 0.0, "grayscale": 0.0, "solarize": 0.0}
        return replace(policy, **changes)

    def stained(self, view: Tensor, statistics: stains.Statistics | None, generator: torch.Generator) -> Tensor:
        """Return a view in another stain; `randstain` draws it from the statistics."""
        if self.stain == "none":
            return view
        if self.stain == "hed":
            return stains.jitter_hed(view, probability=self.stain_probability, generator=generator)
        assert statistics is not None
        drawn: dict = {"spread": self.stain_spread, "distribution": self.distribution}
        return stains.restain(view, statistics, probability=self.stain_probability, generator=generator, **drawn)


def measured(images: Tensor) -> stains.Statistics:
    """Return the stain's statistics of a batch, for views outside `run`; those of one image would change nothing."""
    if len(images) < 2:
        raise UserError("'histopath-ssl' takes stains from several images, and the batch is one: call measure(data)")
    return stains.Statistics.of(images)


def nearer(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Show some of the images from half the distance: the middle of half the side, enlarged; float in [0, 1]."""
    values = images.float() / 255 if not images.is_floating_point() else images
    height, width = values.shape[-2:]
    middle = values[..., height // 4 : height - height // 4, width // 4 : width - width // 4]
    close = F.interpolate(middle, size=(height, width), mode="bilinear", align_corners=False)
    drawn = torch.rand(len(values), generator=generator, device=values.device) < probability
    return torch.where(drawn[:, None, None, None], close, values)


@settings
class Slides(Judge):
    """Tasks of whole slides: frozen features of patches, labels of slides alone."""

    audits = False
    card: ClassVar = Card(
        id="slides",
        title="Weakly supervised slide-level tasks by multiple-instance learning",
        paper="arXiv:1802.04712",
        family="pretrain",
        role="judge",
        needs=Needs("image", known("class"), known("domain")),
        gives="the area under the curve for labels of slides (`domain`), with intervals, and by the number of labels",
        says="attention finds the instances that decide a bag's label",
    )

    folds: Several = 4
    """Parts that the slides are divided into; each is predicted from the others."""
    draws: Count = 500
    """Of the bootstrap over slides."""
    titration: Sequence[SomeShare] = (0.25, 0.5, 1.0)
    """Shares of each label's training slides that are labelled; of each at least one slide."""

    def judge(self, model: Model, data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        """Return the macro one-against-rest AUC by mean pooling and by gated attention.

        Raises:
            UserError: patches of one slide have different labels, or there are too few slides.
        """
        rows = data.known("class") & data.known("domain")
        data = data.select(rows)
        try:
            bags = slides.Bags.of(pooled(model, data), data["domain"], data["class"])
        except ValueError as error:
            raise UserError(f"{data.info.source}: {error}; `domain` tells the slide, `class` its label") from error
        classes = max(int(bags.labels.max()) + 1, 2)
        if int(bags.labels.bincount(minlength=classes).min()) < self.folds:
            raise UserError(f"{data.info.source} has {len(bags.labels)} slides: each label needs {self.folds} at least")
        measured: list[Measure] = []
        for pooling in ("mean", "attention"):
            found = self.predicted(bags, classes, pooling, 1.0, ctx.seed)
            low, high = slides.bootstrap(found, bags.labels, draws=self.draws, seed=ctx.seed)
            auc = slides.macro_auc(found, bags.labels)
            measured.append(Measure(f"AUC, {pooling}", auc, low, high, n=len(bags.labels)))
        measured += measures({"slides": len(bags.labels), "patches": len(data)}, "count")
        by_labels = {p: self.titrated(bags, classes, p, ctx.seed) for p in ("mean", "attention")}
        curve = Curves("label titration", "labelled slides", "macro AUC", by_labels)
        return Findings("slides", tuple(measured), curves=(curve,), notes=("Divided by slides, not by patches.",))

    def titrated(
        self, bags: slides.Bags, classes: int, pooling: slides.Pooling, seed: int
    ) -> tuple[list[float], list[float]]:
        """Return (labelled slides of a fold's training, in the mean; AUC) for each share."""
        folds = list(self.divided(bags, seed))
        counts = [
            [len(slides.labelled(bags.labels[train], s, seed=seed)) for train, _ in folds] for s in self.titration
        ]
        areas = [slides.macro_auc(self.predicted(bags, classes, pooling, s, seed), bags.labels) for s in self.titration]
        return [sum(each) / len(each) for each in counts], areas

    def predicted(self, bags: slides.Bags, classes: int, pooling: slides.Pooling, share: float, seed: int) -> Tensor:
        """Return each slide's probabilities, predicted from slides of the other folds, of which a share is labelled."""
        found = torch.zeros(len(bags.labels), classes)
        for train, test in self.divided(bags, seed):
            some = train[slides.labelled(bags.labels[train], share, seed=seed)]
            found[test] = slides.scores(bags.select(some), bags.select(test), classes, pooling=pooling, seed=seed)
        return found

    def divided(self, bags: slides.Bags, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the slides to learn from and to predict, fold by fold; each label is spread over all folds."""
        from sklearn.model_selection import StratifiedKFold

        labels = bags.labels.numpy()
        for train, test in StratifiedKFold(self.folds, shuffle=True, random_state=seed).split(labels, labels):
            yield torch.from_numpy(train), torch.from_numpy(test)
