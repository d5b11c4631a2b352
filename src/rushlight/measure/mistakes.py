"""Label mistakes: which of the given labels are probably wrong, by confident learning.

A label is suspected when a classifier that never saw it disagrees with it more firmly than it usually does with
that class (cleanlab's `find_label_issues`). The classifier is a logistic regression on the encoder's features,
cross-validated in five folds, so that each probability is out of sample.

Why not the model's own probabilities: it may have been trained on these very labels. Then it repeats their mistakes,
and with confidence, and its probabilities clear the wrong labels and accuse nobody. Its features are less touched
by single labels, though not untouched: mistakes that the encoder has learned by heart are missed.

A suspicion is no more than that: where classes look alike, right labels are suspected too. Those whose out-of-sample
probability is below 0.02 are called *likely* mistakes. On 1,000 of the embedded photos with 50 flipped labels
(`tests/bench/test_audit.py`) the features of an untrained `conv16` find 43 among 271 suspects and 29 among 48 likely
ones; without any flip 221 and 25 are named. After 6,000 image passes of training it is 42 of 165 and 28 of 34; without
a flip 111 and 10. Look before you change one.

Reference: Northcutt, Jiang, Chuang, Confident Learning, JAIR 70, 2021.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.measure.judges import names_of
from rushlight.run.model import Model
from rushlight.run.stage import Findings

FOLDS = 5
LIKELY = 0.02
"""The label quality below which a suspect is called a likely mistake."""
WIDTH = 256
"""Wider features are brought to so many principal components before the regression."""

Features = Float[np.ndarray, "n dim"]
Labels = Int[np.ndarray, " n"]


def mistakes(
    model: Model, data: Dataset, task: str, *, seed: int = 0, images: int = 20_000, most: int = 1_000
) -> Findings:
    """The suspected label mistakes among all known labels, the most suspect first.

    Args:
        task: `class` or `tags` (each tag by itself, among the images of which it is known).
        images: at most so many labelled images are looked at, drawn by the seed.
        most: so many suspects are listed, at most; the numbers count all.

    Returns:
        Numbers of the labels looked at, suspected ones and likely ones, and the share of labels on which the
        cross-validated classifier agrees. The table `suspects`: row, image, given and suggested label (and the tag),
        and cleanlab's label quality, the out-of-sample probability of the given label (near 0: probably wrong).

    Raises:
        UserError: too few labels for five folds, or masks.
    """
    if task not in ("class", "tags"):
        raise UserError(f"label mistakes are looked for among classes and tags, not in a {task}")
    rows = data.known(task).nonzero()[:, 0]
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:images].sort().values
    rows = rows[chosen]
    if len(rows) < 2 * FOLDS:
        raise UserError(f"needs at least {2 * FOLDS} images whose '{task}' is known, and has {len(rows)}")
    features = model.predict(data.select(rows), names=["features"])["features"].double().numpy()
    find = _among_classes if task == "class" else _among_tags
    table, looked_at, agreed, notes = find(features, data, rows, seed)
    order = np.argsort(table["label quality"], kind="stable")[:most]
    listed = {name: [column[i] for i in order] for name, column in table.items()}
    numbers = {
        "labels": float(looked_at),
        "suspected": float(len(table["row"])),
        "likely": float(np.sum(np.array(table["label quality"]) < LIKELY)),
        "agreement": agreed / looked_at,
    }
    return Findings("label-mistakes", numbers, {"suspects": listed}, notes=tuple(notes))


def suspects(
    features: Features, labels: Labels, *, seed: int = 0
) -> tuple[Int[np.ndarray, " k"], Labels, Float[np.ndarray, " n"]]:
    """Which labels are suspected, what each image looks like instead, and each label's quality (0 … 1).

    Args:
        labels: 0 … K − 1, each at least five times.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    p = out_of_sample(features, labels, seed=seed)
    found = find_label_issues(labels, p, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(found), p.argmax(1), get_label_quality_scores(labels, p)


def out_of_sample(features: Features, labels: Labels, *, seed: int = 0) -> Float[np.ndarray, "n classes"]:
    """Each image's class probabilities by a logistic regression that was fitted on the other folds."""
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    first = [PCA(WIDTH, random_state=seed)] if features.shape[1] > WIDTH < len(features) * (FOLDS - 1) // FOLDS else []
    learner = make_pipeline(*first, StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # probabilities that are nearly final serve as well
        return cross_val_predict(learner, features, labels, cv=folds, method="predict_proba")


def _among_classes(features: Features, data: Dataset, rows: torch.Tensor, seed: int) -> Any:
    labels = data["class"][rows].numpy()
    counts = np.bincount(labels)
    kept = np.flatnonzero(counts >= FOLDS)
    if len(kept) < 2:
        raise UserError(f"needs at least two classes with {FOLDS} labelled images each")
    use = np.isin(labels, kept)
    found, looks, quality = suspects(features[use], np.searchsorted(kept, labels[use]), seed=seed)
    at, name = rows[torch.from_numpy(use)][found], _namer(data.info.class_names)
    table = {
        "row": at.tolist(),
        "image": names_of(data, at),
        "given": [name(i) for i in labels[use][found]],
        "suggested": [name(i) for i in kept[looks[found]]],
        "label quality": quality[found].tolist(),
    }
    rare = [name(i) for i in np.flatnonzero((counts > 0) & (counts < FOLDS))]
    notes = [f"Classes with fewer than {FOLDS} labelled images were left out: {', '.join(rare)}."] if rare else []
    agreed = int((kept[looks] == labels[use]).sum())
    return table, int(use.sum()), agreed, notes


def _among_tags(features: Features, data: Dataset, rows: torch.Tensor, seed: int) -> Any:
    tags, name = data["tags"][rows].numpy(), _namer(data.info.tag_names)
    table: dict[str, list[Any]] = {key: [] for key in ("row", "image", "tag", "given", "suggested", "label quality")}
    looked_at, agreed, rare = 0, 0, []
    for tag in range(tags.shape[1]):
        use = tags[:, tag] >= 0
        labels = tags[use, tag].astype(np.int64)
        if np.bincount(labels, minlength=2).min() < FOLDS:
            rare.append(name(tag))
            continue
        looked_at += len(labels)
        found, looks, quality = suspects(features[use], labels, seed=seed)
        agreed += int((looks == labels).sum())
        at, given = rows[torch.from_numpy(use)][found], labels[found]
        table["row"] += at.tolist()
        table["image"] += names_of(data, at)
        table["tag"] += [name(tag)] * len(found)
        table["given"] += ["present" if y else "absent" for y in given]
        table["suggested"] += ["absent" if y else "present" for y in given]
        table["label quality"] += quality[found].tolist()
    if not looked_at:
        raise UserError(f"needs a tag that is known to be present in {FOLDS} images and absent in {FOLDS}")
    notes = [f"Tags with fewer than {FOLDS} present and absent were left out: {', '.join(rare)}."] if rare else []
    return table, looked_at, agreed, notes


def _namer(names: tuple[str, ...]) -> Any:
    return lambda i: names[i] if i < len(names) else str(i)
