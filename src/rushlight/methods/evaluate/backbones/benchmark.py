"""What backbones are put through: the same tasks for all, each backbone read by its own contract.

An entrant gives features of images, and where it is a network also maps, and can be tuned. A task takes an entrant and
two parts of the data, and gives one score or several, each 0 … 1, higher is better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rushlight.core.catalogue import cards
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset, Reader
from rushlight.data.synthetic import scenes
from rushlight.measure import knn, linear, preprocessing
from rushlight.measure.features import divided, standardise
from rushlight.measure.preprocessing import Unread, fingerprint
from rushlight.methods.evaluate.backbones import corruptions, dense_probe, few_label, retrieval
from rushlight.nets import baselines
from rushlight.nets.encoders import MEAN
from rushlight.run.model import Model
from rushlight.tasks.scores import mean_average_precision

GROUPS = {
    "neighbours": "classification",
    "linear": "classification",
    "few-label": "few labels",
    "fine-tune": "fine-tuning",
    "retrieval": "retrieval",
    "segmentation": "dense",
    "detection": "dense",
    "scenes": "dense",
    "shift": "shift",
}
"""Each task that can be asked for, and the group whose z-scores are averaged."""
COMMON = tuple(task for task in GROUPS if task != "fine-tune")
"""All but the dearest."""
UNTRAINED = "untrained"
Images = Tensor | Unread
"""Bytes, n×3×height×width, in memory or read some at a time."""
SCENE = ("trouser", "coat", "sneaker", "bag")
"""The classes of the composed scenes."""


class Net:
    """A model's encoder, frozen, by its own contract; what was read is kept."""

    def __init__(self, model: Model):
        self.model, self.reader = model, preprocessing.Reader(model)

    def features(self, images: Images) -> Float[Tensor, "n dim"]:
        return self.reader.features(images)

    def maps(self, images: Images) -> Float[Tensor, "n dim h w"]:
        """Return the last maps, of images no smaller than the contract's where the encoder takes them."""
        own = self.reader.contract.size or min(images.shape[-2:])
        size = max(own, *images.shape[-2:])
        return self.reader.maps(images, size=size if self.model.encoder.takes(size) else own)


class Simple:
    """Features that nobody trained, standardised by those of the bank."""

    def __init__(self, name: str, bank: Tensor | Reader, *, seed: int = 0):
        self.read = baselines.make(bank[:500].float() / 255, seed=seed)[name]
        self.kept: dict[str, Tensor] = {}
        self.bank = self._raw(bank)

    def features(self, images: Images) -> Float[Tensor, "n dim"]:
        return standardise(self.bank, self._raw(images))[1]

    def _raw(self, images: Images) -> Tensor:
        key = fingerprint(images)
        if key not in self.kept:
            self.kept[key] = torch.cat([self.read(part.float() / 255) for part in images.split(250)])
        return self.kept[key]


Entrant = Net | Simple


def pretraining(model: Model) -> str:
    """Return how an encoder was trained: `untrained`, `supervised` (a stage that reads labels), `self-supervised`, or
    the name of its weights."""
    recipe = model.info.recipe
    if not recipe:
        return UNTRAINED
    steps = [step.partition("(")[0].strip() for step in recipe.split(">")]
    known = cards()
    if not all(step in known for step in steps):
        return recipe
    labels = any(need.known != "present" for step in steps for need in known[step].needs.columns)
    return "supervised" if labels else "self-supervised"


def architecture(model: Model) -> str:
    """Return the encoder's name without its pooling."""
    return model.encoder.name.removesuffix(f"+{MEAN}")


def size_of(model: Model) -> int:
    """Return the number of the encoder's parameters."""
    return sum(parameter.numel() for parameter in model.encoder.parameters())


@dataclass(frozen=True)
class Parts:
    """What probes learn from, and what they are scored on, of one task's labels (`class` or `tags`)."""

    train: Dataset
    test: Dataset
    column: str

    @property
    def labels(self) -> Tensor:
        return self.train[self.column]

    @property
    def true(self) -> Tensor:
        return self.test[self.column]

    @property
    def several(self) -> bool:
        return self.column == "tags"

    def few(self, shots: int) -> Tensor:
        """Return the first rows of the training part that show each class (or tag), `shots` of each where there are."""
        bears = self.labels == 1 if self.several else self.labels[:, None] == self.labels.unique()
        return torch.cat([rows.nonzero().squeeze(1)[:shots] for rows in bears.T]).unique()


def parts(data: Dataset, column: str, images: int, seed: int) -> Parts:
    """Draw at most `images` labelled images to learn from and half as many to test on, by the seed."""
    generator = torch.Generator().manual_seed(seed)
    both = divided(data, column, seed)
    drawn = [
        part.select(torch.randperm(len(part), generator=generator)[:most])
        for part, most in zip(both, (images, images // 2), strict=True)
    ]
    return Parts(drawn[0], drawn[1], column)


# --- whole images ---


def neighbours(entrant: Entrant, given: Parts) -> float:
    """Return the score of 20 nearest neighbours by cosine, weighted; for tags, mAP of the share among 5 by distance."""
    bank, asked = (entrant.features(part.reader("image")) for part in (given.train, given.test))
    if given.several:
        return mean_average_precision(knn.tag_shares(bank, given.labels, asked), given.true)
    return knn.accuracy(bank, given.labels, asked, given.true)


def linear_score(entrant: Entrant, given: Parts) -> Callable[[Images], float]:
    """Return a linear probe's function from images of the test part, as they are or corrupted, to its score."""
    bank = entrant.features(given.train.reader("image"))
    if given.several:
        tagger = linear.protocol(bank, given.labels)

        def tagged(images: Images) -> float:
            with torch.inference_mode():
                return mean_average_precision(tagger(entrant.features(images)).sigmoid(), given.true)

        return tagged
    classifier, true = linear.fit(bank, given.labels), given.true.numpy()
    return lambda images: float((classifier.predict(entrant.features(images).double().numpy()) == true).mean())


def shifted(ask: Callable[[Images], float], images: Images, *, severity: int, seed: int) -> dict[str, float]:
    """Return a probe's score on corrupted images after training on clean ones, corruption by corruption."""
    return {kind: ask(corruptions.Corrupted(images, kind, severity, seed)) for kind in corruptions.CORRUPTIONS}


def few_label_score(entrant: Entrant, given: Parts, rows: Tensor, tuning: few_label.Tuning, seed: int) -> float:
    """Return the score after fine-tuning on some training rows; a simple baseline gets a linear probe instead."""
    few = Parts(given.train.select(rows), given.test, given.column)
    if isinstance(entrant, Simple):
        return linear_score(entrant, few)(given.test.reader("image"))
    tuned = few_label.fine_tune(entrant.model, few.train.reader("image"), few.labels, tuning, seed=seed)
    return few_label.score(tuned.network, given.test.reader("image"), given.true)


def found(entrant: Entrant, given: Parts) -> float:
    """Return mAP of retrieval: for each test image, the training images of its class (or that share a tag)."""
    gallery, queries = (entrant.features(part.reader("image")) for part in (given.train, given.test))
    if not given.several:
        return retrieval.by_label(gallery, given.labels, queries, given.true).mean_ap
    shared = (given.true == 1).float() @ (given.labels == 1).float().T > 0
    return retrieval.retrieve(gallery, queries, shared).mean_ap


# --- maps ---


def composed(count: int, size: int, seed: int) -> tuple[Dataset, Dataset]:
    """Return scenes with exact masks and boxes: (to learn from, half as many to test on)."""
    made = [
        scenes.compose(n, size=size, classes=SCENE, objects=(1, 3), seed=seed, fold=fold)
        for n, fold in ((count, TRAIN), (max(count // 2, 1), TEST))
    ]
    return made[0], made[1]


def masks_score(net: Net, train: Dataset, test: Dataset, *, seed: int = 0) -> float:
    """Return the mean IoU of a linear decoder of the frozen maps."""
    known = train["mask"][train["mask"] != 255]
    classes = max(len(train.info.mask_names), int(known.max()) + 1)
    decoder = dense_probe.segmentation(net.maps(train.reader("image")), train["mask"], classes, seed=seed)
    return dense_probe.mask_score(decoder, net.maps(test.reader("image")), test["mask"], classes)


def boxes_score(net: Net, train: Dataset, test: Dataset, *, seed: int = 0) -> float:
    """Return AP50 of a centre head on the frozen maps. (AP over 0.5 … 0.95 is too coarse for few, small images.)"""
    classes = max(len(train.info.box_names), int(train["boxes"][..., 4].max()) + 1)
    size = (train.height, train.width)
    head = dense_probe.detection(net.maps(train.reader("image")), train["boxes"], size, classes, seed=seed)
    return dense_probe.box_score(head, net.maps(test.reader("image")), test["boxes"], size)["AP50"]


# --- all of them ---


@dataclass(frozen=True)
class Course:
    """Which tasks are measured, and how.

    Attributes:
        tasks: of `GROUPS`.
        shots: labels a class of `few-label`; few, all: how it and `fine-tune` run.
        images: labelled images to learn from, at most.
        severity: of the shift.
    """

    tasks: tuple[str, ...]
    shots: int
    images: int
    severity: int
    few: few_label.Tuning
    all: few_label.Tuning

    def parts(self, data: Dataset, seed: int) -> list[Parts]:
        """Return the labels that can be tested, each in two parts."""
        wanted = {"mask": "segmentation", "boxes": "detection"}
        columns = ["class", "tags", *(column for column, task in wanted.items() if task in self.tasks)]
        return [parts(data, column, self.images, seed) for column in columns if _tells(data, column)]

    def scores(
        self, entrant: Entrant, given: Sequence[Parts], scenes: tuple[Dataset, Dataset] | None, seed: int
    ) -> Iterator[tuple[str, float]]:
        """Yield each task's name and score; dense tasks are for networks only."""
        for part in given:
            if part.column in ("class", "tags"):
                yield from self._whole(entrant, part, seed)
            elif isinstance(entrant, Net):
                ask = {"mask": masks_score, "boxes": boxes_score}[part.column]
                name = {"mask": "segmentation", "boxes": "detection"}[part.column]
                yield name, ask(entrant, part.train, part.test, seed=seed)
        if scenes is not None and isinstance(entrant, Net):
            yield "scene segmentation", masks_score(entrant, *scenes, seed=seed)
            yield "scene detection", boxes_score(entrant, *scenes, seed=seed)

    def _whole(self, entrant: Entrant, part: Parts, seed: int) -> Iterator[tuple[str, float]]:
        suffix = " of tags" if part.several else ""
        if "neighbours" in self.tasks:
            yield f"neighbours{suffix}", neighbours(entrant, part)
        ask = linear_score(entrant, part) if {"linear", "shift"} & set(self.tasks) else None
        if ask is not None and "linear" in self.tasks:
            yield f"linear{suffix}", ask(part.test.reader("image"))
        if "few-label" in self.tasks:
            yield f"few-label{suffix}", few_label_score(entrant, part, part.few(self.shots), self.few, seed)
        if "fine-tune" in self.tasks and isinstance(entrant, Net):
            rows = torch.arange(len(part.train))
            yield f"fine-tune{suffix}", few_label_score(entrant, part, rows, self.all, seed)
        if "retrieval" in self.tasks:
            yield f"retrieval{suffix}", found(entrant, part)
        if ask is not None and "shift" in self.tasks:
            for kind, score in shifted(ask, part.test.reader("image"), severity=self.severity, seed=seed).items():
                yield f"shift by {kind}{suffix}", score


def _tells(data: Dataset, column: str) -> bool:
    """Return whether a column's known labels can be split and told apart."""
    known = data.known(column)
    return int(known.sum()) > 1 and (column != "class" or len(data[column][known].unique()) > 1)


def group_of(task: str) -> str:
    """Return the group of a task's score, by its name."""
    return next((group for name, group in GROUPS.items() if task.startswith(name)), "dense")


def mean_scores(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the means of scores over several seeds."""
    return {key: sum(run[key] for run in runs) / len(runs) for key in runs[0]}
