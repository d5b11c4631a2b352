"""Label mistakes: which of the given labels are probably wrong, by confident learning.

A label is suspected when a classifier that never saw it disagrees with it more firmly than it usually does with
that class (cleanlab's `find_label_issues`). The classifier is a logistic regression on the encoder's features,
cross-validated in five folds, so that each probability is out of sample.

Why not the model's own probabilities: it may have been trained on these very labels. Then it repeats their mistakes,
and with confidence, and its probabilities clear the wrong labels and accuse nobody. Its features are less touched
by single labels, though not untouched: mistakes that the encoder has learned by heart are missed.

A suspicion is no more than that: where classes look alike, right labels are suspected too. Those whose out-of-sample
probability is below 0.02 are called *likely* mistakes. On 1,000 of the embedded photos with 50 flipped labels
(`tests/measure/test_mistakes.py`) the features of an untrained `conv16` find 43 among 271 suspects, 29 among 48 likely
ones; without any flip 221 and 25 are named. After 6,000 image passes of training it is 42 of 165 and 28 of 34; without
a flip 111 and 10. Look before you change one.

Reference: Northcutt, Jiang, Chuang, Confident Learning, JAIR 70, 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.core.findings import Findings, Measure, Picture, Pictures, Table
from rushlight.data.dataset import Dataset
from rushlight.measure import linear
from rushlight.run.model import Model
from rushlight.tasks import Task
from rushlight.tasks.base import Question, names_of

FOLDS, C = 5, 0.1
LIKELY = 0.02
"""The label quality below which a suspect is called a likely mistake."""
COLUMNS = ("row", "image", "given", "suggested", "label quality")
"""Of the table of suspects, beside what a question is about."""
SHOWN = 24
"""Suspects that are shown as pictures, at most."""
WIDTH = 256
"""Wider features are brought to so many principal components before the regression."""

Features = Float[np.ndarray, "n dim"]
Labels = Int[np.ndarray, " n"]


def mistakes(
    model: Model, data: Dataset, task: Task | None, *, seed: int = 0, images: int = 20_000, most: int = 1_000
) -> Findings:
    """Return the suspected label mistakes among all known labels, the most suspect first.

    Args:
        task: whose labels are searched, question by question (each tag by itself).
        images: at most so many labelled images are looked at, drawn by the seed.
        most: so many suspects are listed, at most; the measures count all.

    Returns:
        Measures of the labels looked at, suspected ones and likely ones, and the share of labels on which the
        cross-validated classifier agrees. The table `suspects`: row, image, given and suggested label (and what the
        question is about), and cleanlab's label quality, the out-of-sample probability of the given label (near 0:
        probably wrong).

    Raises:
        UserError: too few labels for five folds, or a task whose labels are not searched.
    """
    if task is None:
        raise UserError("needs known labels, and this data has none")
    if not data.known(task.column).any():
        raise UserError(
            f"no label of the model's task ('{task.column}') is known in {data.info.source}: give --labels FILE"
        )
    asked = task.questions(data)
    rows = torch.cat([question.rows for question in asked]).unique()
    if len(rows) < 2 * FOLDS:
        raise UserError(f"needs at least {2 * FOLDS} images whose '{task.column}' is known, and has {len(rows)}")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    rows = rows[order[:images].sort().values]
    features = model.predict(data, rows=rows, names=["features"])["features"].double().numpy()
    found = [answer for question in asked if (answer := _answered(question, features, rows, seed)) is not None]
    if not found:
        raise UserError(f"needs two {_plural(task.noun)} with {FOLDS} labelled images each")
    table = _listed(found, data, task.noun)
    quality = np.array(table["label quality"])
    order_of = np.argsort(quality, kind="stable")[:most]
    listed = {name: [column[i] for i in order_of] for name, column in table.items()}
    counts = (sum(each.looked_at for each in found), len(quality), int(np.sum(quality < LIKELY)))
    agreement = sum(each.agreed for each in found) / counts[0]
    return _findings(listed, data, counts, agreement, _left_out(asked, found, task.noun))


@dataclass(frozen=True)
class Answered:
    """What was found in one question: suspects (positions in the data), their labels as numbers, and the quality."""

    question: Question
    rows: Int[Tensor, "k"]
    given: Labels
    suggested: Labels
    quality: Float[np.ndarray, " k"]
    looked_at: int
    agreed: int
    rare: tuple[str, ...]


def _answered(question: Question, features: Features, rows: Int[Tensor, "n"], seed: int) -> Answered | None:
    """Return suspects among the labels of one question; None where fewer than two answers have a label per fold."""
    place = {row: i for i, row in enumerate(rows.tolist())}
    inside = torch.tensor([row in place for row in question.rows.tolist()], dtype=torch.bool)
    at, labels = question.rows[inside], question.labels[inside].numpy().astype(np.int64)
    counts = np.bincount(labels, minlength=len(question.names))
    kept = np.flatnonzero(counts >= FOLDS)
    if len(kept) < 2:
        return None
    use = np.isin(labels, kept)
    at, labels = at[torch.from_numpy(use)], labels[use]
    seen = features[[place[row] for row in at.tolist()]]
    found, looks, quality = suspects(seen, np.searchsorted(kept, labels), seed=seed)
    rare = tuple(question.names[i] for i in np.flatnonzero((counts > 0) & (counts < FOLDS)))
    agreed = int((kept[looks] == labels).sum())
    return Answered(question, at[found], labels[found], kept[looks[found]], quality[found], len(labels), agreed, rare)


def _listed(found: Sequence[Answered], data: Dataset, noun: str) -> dict[str, list[Any]]:
    names = {"row": [int(row) for each in found for row in each.rows]}
    table: dict[str, list[Any]] = {**names, "image": names_of(data, torch.tensor(names["row"], dtype=torch.int64))}
    if any(each.question.about for each in found):
        table[noun] = [each.question.about for each in found for _ in each.rows]
    table["given"] = [each.question.names[i] for each in found for i in each.given]
    table["suggested"] = [each.question.names[i] for each in found for i in each.suggested]
    table["label quality"] = [float(q) for each in found for q in each.quality]
    return table


def _left_out(asked: Sequence[Question], found: Sequence[Answered], noun: str) -> tuple[str, ...]:
    """Return a sentence on what had too few labels to be searched."""
    answered = {each.question.about for each in found}
    rare = [question.about for question in asked if question.about not in answered]
    rare += [name for each in found for name in each.rare]
    said = f"{_plural(noun).capitalize()} with fewer than {FOLDS} labels of a kind were left out: {', '.join(rare)}."
    return (said,) if rare else ()


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def _findings(
    listed: dict[str, list[Any]], data: Dataset, counts: tuple[int, int, int], agreement: float, notes: tuple[str, ...]
) -> Findings:
    labels, suspected, likely = counts
    said = (
        f"Of {labels:,} labels {suspected:,} are suspected and {likely:,} are likely wrong, by confident learning. A "
        "classifier on the encoder's features, which never saw the label that it judges, agrees with "
        f"{100 * agreement:.1f} % of all labels: the lower that is, the more right labels are suspected. "
        "Look before you change one."
    )
    table = Table.of("suspects", listed, hidden=("row",), folded=True)
    return Findings(
        "label-mistakes",
        (
            Measure("labels", labels, kind="count"),
            Measure("suspected", suspected, kind="count"),
            Measure("likely", likely, kind="count", figure="likely label mistakes"),
            Measure("agreement", agreement, kind="share"),
        ),
        (table,),
        pictures=(_pictures(table, data),) if len(table) else (),
        notes=(said, *notes),
        title="Labels that may be wrong",
        headline=f"{likely:,} of {labels:,} labels are likely wrong" if likely else "no label is likely wrong",
        priority=40,
    )


def _pictures(table: Table, data: Dataset) -> Pictures:
    shown = tuple(
        Picture(data.read("image", row["row"]).movedim(0, -1).numpy(), row["image"], _lines(row))
        for row in table.dicts()[:SHOWN]
    )
    return Pictures("suspects", shown, f"The {len(shown)} most suspect.")


def _lines(row: dict[str, Any]) -> tuple[str, ...]:
    about = [value for name, value in row.items() if name not in COLUMNS]
    if about:
        return f"{about[0]}: {row['given']}", f"looks {row['suggested']}"
    return f"labelled {row['given']}", f"looks like {row['suggested']}"


def suspects(
    features: Features, labels: Labels, *, seed: int = 0
) -> tuple[Int[np.ndarray, " k"], Labels, Float[np.ndarray, " n"]]:
    """Return which labels are suspected, what each image looks like instead, and each label's quality (0 … 1).

    Args:
        labels: 0 … K − 1, each at least five times.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    p = out_of_sample(features, labels, seed=seed)
    found = find_label_issues(labels, p, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(found), p.argmax(1), get_label_quality_scores(labels, p)


def out_of_sample(features: Features, labels: Labels, *, seed: int = 0) -> Float[np.ndarray, "n classes"]:
    """Return each image's class probabilities by a logistic regression that was fitted on the other folds."""
    from sklearn.decomposition import PCA
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    first = [PCA(WIDTH, random_state=seed)] if features.shape[1] > WIDTH < len(features) * (FOLDS - 1) // FOLDS else []
    learner = make_pipeline(*first, linear.regression(c=C))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    with linear.converging(features.shape, C):
        return cross_val_predict(learner, features, labels, cv=folds, method="predict_proba")
