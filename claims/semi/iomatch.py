"""IOMatch: open-set semi-supervised learning on photos, against FixMatch and against detecting and excluding."""

from __future__ import annotations

import torch
from torch import Tensor

from rushlight.augment import presets
from rushlight.core.card import Card, Needs, some
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.data.edit import hide
from rushlight.data.synthetic import fashion
from rushlight.jobs.claims.run import Claim, Effect
from rushlight.losses import consistency, supervised
from rushlight.methods.baseline.fixmatch import FixMatch
from rushlight.methods.semi.iomatch.method import IOMatch
from rushlight.methods.semi.iomatch.one_vs_all import hardest_negative, inlier_probabilities
from rushlight.nets import encoders
from rushlight.nets.heads import Linear
from rushlight.run.budget import Budget
from rushlight.run.hardware import precision
from rushlight.run.model import Model
from rushlight.run.stage import RunContext
from rushlight.tasks.scores import balanced_accuracy
from rushlight.train.learner import Batch, Learner
from rushlight.train.teacher import Teacher

UNSEEN = ("T-shirt", "coat", "shirt", "ankle boot")
SEEN, LABELS, UNLABELLED, RATIO, BATCH = 6, 25, 6000, 3, 32
BUDGET = Budget(passes=100_000)


class Exclude(Learner):
    """Detect and exclude: detectors on the features; only what they call an inlier teaches the classifier."""

    card = Card(id="exclude", title="Detect and exclude", family="claim", role="learner", task=frozenset({"class"}),
                needs=Needs("image", some("class")), gives="", says="")  # fmt: skip
    parts = {"labelled": 1, "unlabelled": RATIO}
    batch = BATCH

    def build(self, data: Dataset) -> None:
        super().build(data)
        self.model.heads.update({"detectors_head": Linear(width=self.model.encoder.width, outputs=2 * SEEN)})
        size = (data.height, data.width)
        self.weak, self.strong = presets.weak(size), presets.randaugment(size)
        self.teacher = Teacher(self.model)

    def step(self, batch: Batch) -> Tensor:
        labelled, unlabelled, generator = batch["labelled"], batch["unlabelled"], self.generator()
        weak = self.weak(torch.cat([labelled["image"], unlabelled["image"]]), generator=generator)
        strong = self.strong(unlabelled["image"], generator=generator)
        n, m = len(labelled), len(unlabelled)
        with torch.no_grad():
            guess, judged = self._heads(self.model.encoder(weak[n:]))
            confidence, target = guess.softmax(1).max(1)
            inlier = inlier_probabilities(judged).gather(1, target[:, None])[:, 0]
            trusted = (confidence >= 0.95) & (inlier >= 0.5)
        answers, detected = self._heads(self.model.encoder(torch.cat([weak[:n], strong])))
        known, asked = answers.split([n, m])
        loss = supervised.classes(known, labelled["class"]) + hardest_negative(detected[:n], labelled["class"])
        return loss + consistency.masked_cross_entropy(asked, target, trusted)

    def _heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the classes, and the detectors' (batch, 2, classes)."""
        detected = self.model.head("detectors")(features).float().unflatten(1, (2, SEEN))
        return self.model.head("class")(features).float(), detected


def run(seed: int) -> dict[str, float]:
    whole = hide.open_set(fashion.load(), UNSEEN)
    train = hide.per_class(whole.fold(TRAIN).select(torch.arange(UNLABELLED)), LABELS, seed=seed)
    test = whole.fold(TEST)
    arms: dict[str, Learner] = {
        "iomatch": IOMatch(ratio=RATIO, batch=BATCH, alignment=0),
        "fixmatch": FixMatch(ratio=RATIO, batch=BATCH),
        "exclude": Exclude(),
    }
    found: dict[str, float] = {}
    for name, learner in arms.items():
        model = Model(encoders.create("conv16", seed=seed, image_size=28))
        model = learner.run(train, model, RunContext(seed=seed, precision=precision("cpu"), budget=BUDGET)).model
        closed, opened = _scores(model, test)
        found |= {f"{name}_closed": closed, f"{name}_open": opened}
    return {
        "open": 100 * (found["iomatch_open"] - found["exclude_open"]),
        "closed": 100 * (found["iomatch_closed"] - found["exclude_closed"]),
        "closed_fixmatch": 100 * (found["iomatch_closed"] - found["fixmatch_closed"]),
        **found,
    }


def _scores(model: Model, test: Dataset) -> tuple[float, float]:
    """Return the accuracy of the seen classes, and balanced accuracy over them and the unseen as one more."""
    outputs, true = model.predict(test["image"]), test["class"]
    closed = outputs["class"].argmax(1)
    seen = true < SEEN
    accuracy = float((closed == true)[seen].double().mean())
    if "open" in outputs:
        predicted = outputs["open"].argmax(1)
    elif "detectors" in outputs:
        inlier = inlier_probabilities(outputs["detectors"].unflatten(1, (2, SEEN))).gather(1, closed[:, None])[:, 0]
        predicted = torch.where(inlier >= 0.5, closed, SEEN)
    else:
        predicted = closed
    return accuracy, balanced_accuracy(predicted, true)


CLAIM = Claim(
    id="iomatch",
    headline="CIFAR-10, 6 seen and 4 unseen classes, 4 labels a class: 89.68 % of the seen (FixMatch 81.58), 75.08 % "
    "open-set balanced accuracy (OpenMatch, which detects and excludes, 14.37)",
    data="6,000 embedded Fashion-MNIST photos: 6 seen classes with 25 labels each, 4 unseen (T-shirt, coat, shirt, "
    "ankle boot, near outliers); 2,000 test photos",
    baseline="detect and exclude (detectors on the features; pseudo-labels of what they accept; IOMatch's views), and "
    "FixMatch as it is here; with the same encoder, batch, ratio, optimiser and 100,000 image passes",
    metric="balanced accuracy over 7 classes (the seventh: unseen); accuracy on the seen classes",
    effects=(
        Effect("open", "open-set balanced accuracy is above that of detecting and excluding"),
        Effect("closed", "accuracy on the seen classes is above that of detecting and excluding"),
        Effect("closed_fixmatch", "accuracy on the seen classes is at most two points below FixMatch's", margin=-2.0),
    ),
    seeds=5,
    run=run,
    note="No arm rejects many photos at this budget: FixMatch, which never rejects, has 80 % balanced accuracy too, so "
    "the open-set gap of the paper's 256 × 1,024 iterations cannot show. On the seen classes all are within a point.",
)
