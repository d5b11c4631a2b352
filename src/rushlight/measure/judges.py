"""What every model is asked: how often it is right, whether its confidence can be believed, and where it errs.

Plain functions of a model's `Answers` beside the truth; each gives `Findings` that a report prints. They hold for
classes, for tags and for masks (there a sample of pixels stands for all of them where confidence is concerned).

Calibration: with confidences p and outcomes y sorted into bins B of equal width,

    ECE = Σ |B|/n |mean_B(y) − mean_B(p)|        MCE = max |mean_B(y) − mean_B(p)|

A calibrated model has no ECE of 0 on n images, since each bin's share varies by chance. So the outcomes are drawn
anew from the confidences themselves, and a model is called over- or under-confident only where its ECE lies above
95 % of those draws.

References: Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (ECE); Bröcker and Smith, Weather and
Forecasting 22, 2007 (consistency resampling).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

import rushlight._torchvision  # noqa: F401  (torchmetrics imports torchvision)
from rushlight.core.errors import UserError
from rushlight.data.columns import decode_text
from rushlight.data.dataset import Dataset
from rushlight.measure import stats
from rushlight.run.model import Model
from rushlight.run.stage import Findings
from rushlight.tasks import scores

BINS = 15
"""Bins of confidence, as in Guo et al. and in torchmetrics."""
BLOCKS = 50
"""Blocks of images whose jackknife pseudo-values stand for a metric that is no mean over images."""
PIXELS = 64
"""Pixels of each image that stand for all of them in the calibration of masks."""
MOST = 100
"""Confusion pairs and confident errors that are listed, at most."""


@dataclass(frozen=True)
class Answers:
    """What a model answers on images whose label is known, beside that label.

    Attributes:
        task: `class`, `tags` or `mask`; names: of the classes or tags.
        rows: which rows of the data these are.
        true: the class; the tags (1, 0, −1 unknown); or the class of each sampled pixel (255 unknown).
        probabilities: of each class, each tag, or each class at each sampled pixel.
        confusion: of a mask's pixels, true × predicted, an image; empty for other tasks.
        border: mean IoU within two pixels of the true borders (masks only).
    """

    task: str
    names: tuple[str, ...]
    rows: Int[Tensor, "n"]
    true: Tensor
    probabilities: Tensor
    confusion: Tensor
    border: float = float("nan")

    @property
    def predicted(self) -> Tensor:
        """The answer: a class, tags at one half, or a class a pixel."""
        return self.probabilities.argmax(1) if self.task != "tags" else (self.probabilities >= 0.5).long()

    @property
    def confidence(self) -> Tensor:
        """The probability of the answer."""
        p = self.probabilities
        return p.amax(1) if self.task != "tags" else torch.maximum(p, 1 - p)


def answers(model: Model, data: Dataset, task: str, rows: Int[Tensor, "n"], *, seed: int = 0) -> Answers:
    """Ask a model for its answers on the given rows.

    Raises:
        UserError: a label is no output of the model.
    """
    if task == "mask":
        return _of_masks(model, data, rows, seed)
    truth = data[task][rows]
    logits = model.predict(data.select(rows), names=[task])[task].double()
    names = _named(model, task, logits.shape[1])
    _check(int(truth.max()) if task == "class" else truth.shape[1] - 1, len(names), task, data)
    probabilities = logits.softmax(1) if task == "class" else logits.sigmoid()
    return Answers(task, names, rows, truth.long(), probabilities, torch.zeros(0))


def _of_masks(model: Model, data: Dataset, rows: Tensor, seed: int, batch: int = 50) -> Answers:
    """Masks are asked for in parts: the logits of all pixels at once would not fit."""
    generator = torch.Generator().manual_seed(seed)
    true, probabilities, confusions = [], [], []
    border = torch.zeros(1, 1, dtype=torch.int64)
    for part in rows.split(batch):
        logits, masks = model.predict(data.select(part), names=["mask"])["mask"], data.read("mask", part)
        classes = logits.shape[1]
        _check(_largest(masks), classes, "mask", data)
        predicted, near = logits.argmax(1), torch.where(scores.border_band(masks), masks, 255)
        confusions.append(scores.confusion(predicted, masks, classes))
        border = border + scores.confusion(predicted, near, classes).sum(0)
        chosen = torch.randint(masks[0].numel(), (len(part), PIXELS), generator=generator)
        true.append(masks.flatten(1).gather(1, chosen))
        every = chosen[:, None].expand(-1, classes, -1)
        probabilities.append(logits.flatten(2).gather(2, every).double().softmax(1))
    return Answers(
        "mask",
        _named(model, "mask", probabilities[0].shape[1]),
        rows,
        torch.cat(true).long(),
        torch.cat(probabilities),
        torch.cat(confusions),
        scores.mean_iou(border),
    )


def _largest(masks: Tensor) -> int:
    known = masks[masks != 255]
    return int(known.max()) if len(known) else 0


def _named(model: Model, task: str, outputs: int) -> tuple[str, ...]:
    info = model.info
    mask_names = info.mask_names or info.class_names
    names = {"class": info.class_names, "tags": info.tag_names, "mask": mask_names}[task]
    return tuple(names) if len(names) == outputs else tuple(str(i) for i in range(outputs))


def _check(largest: int, outputs: int, task: str, data: Dataset) -> None:
    if largest >= outputs:
        raise UserError(
            f"{data.info.source} has the {task} number {largest}, and the model answers with {outputs} of them: "
            "audit it on data whose names it knows"
        )


def names_of(data: Dataset, rows: Int[Tensor, "n"]) -> list[str]:
    """The names of some images."""
    return decode_text(data["name"][rows]) if "name" in data else [str(row) for row in rows.tolist()]


# --- how often it is right ---


def accuracy(found: Answers) -> Findings:
    """The task's metric with its 95 % interval over images, and what belongs beside it."""
    return {"class": _of_classes, "tags": _of_tags, "mask": _of_pixels}[found.task](found)


def _of_classes(found: Answers) -> Findings:
    right = found.predicted == found.true
    numbers = _interval("accuracy", right.double().numpy())
    numbers["balanced accuracy"] = scores.balanced_accuracy(found.predicted, found.true)
    numbers["always the commonest class"] = float(found.true.bincount().max() / len(right))
    if len(found.names) > 10:
        among = found.probabilities.topk(5, 1).indices == found.true[:, None]
        numbers["top-5 accuracy"] = float(among.any(1).double().mean())
    return Findings("accuracy", numbers)


def _of_tags(found: Answers) -> Findings:
    absent = bool((found.true == 0).any())
    if not absent:
        note = "No tag is known to be absent, so that neither precision nor mAP can be told: recall alone is."
        hits = found.predicted[found.true == 1].double()
        return Findings(
            "accuracy", {"recall at 0.5": float(hits.mean()), "images": float(len(found.rows))}, notes=(note,)
        )
    p, true = found.probabilities, found.true

    def metric(rows: Any) -> float:
        return scores.mean_average_precision(p[np.asarray(rows)], true[np.asarray(rows)])

    best, (overall, per_class) = scores.best_f1(p, true), scores.f1_at(p, true, 0.5)
    numbers = _jackknifed("mAP", metric, len(true)) | {
        "OF1 at 0.5": overall,
        "CF1 at 0.5": per_class,
        "OF1 at its best threshold": best.overall,
        "CF1 at its best threshold": best.per_class,
    }
    return Findings("accuracy", numbers, notes=("The best thresholds were chosen on these images: they flatter.",))


def _of_pixels(found: Answers) -> Findings:
    def metric(rows: Any) -> float:
        return scores.mean_iou(found.confusion[np.asarray(rows)].sum(0))

    whole = found.confusion.sum(0)
    numbers = _jackknifed("mIoU", metric, len(found.rows)) | {
        "pixel accuracy": float(whole.diagonal().sum() / whole.sum()),
        "mIoU within 2 pixels of borders": found.border,
    }
    return Findings("accuracy", numbers)


def _interval(name: str, values: np.ndarray) -> dict[str, float]:
    """A mean over images with its interval, which one image alone does not have."""
    if len(values) < 2:
        return {name: float(values.mean()), f"{name}, low": 0.0, f"{name}, high": 1.0, "images": float(len(values))}
    found = stats.single(values[None])
    return {name: found.mean, f"{name}, low": found.low, f"{name}, high": found.high, "images": float(len(values))}


def _jackknifed(name: str, metric: Any, images: int) -> dict[str, float]:
    """The metric of all images; its interval from the pseudo-values of blocks of them."""
    value, rows = metric(np.arange(images)), np.arange(images)
    numbers = {name: value, f"{name}, low": 0.0, f"{name}, high": 1.0, "images": float(images)}
    if images >= 2:
        pseudo = stats.pseudo_values(metric, rows, min(BLOCKS, images))
        if np.isfinite(pseudo).all():
            found = stats.single(pseudo[None])
            margin = (found.high - found.low) / 2
            numbers |= {f"{name}, low": max(0.0, value - margin), f"{name}, high": min(1.0, value + margin)}
    return numbers


# --- whether its confidence can be believed ---


def calibration(found: Answers, *, bins: int = BINS, seed: int = 0) -> Findings:
    """ECE, MCE, NLL and Brier score; the reliability diagram; and whether chance explains the ECE.

    Of classes and masks the confidence is the answer's probability and the outcome whether it is right; of tags
    the probability of each known entry and whether it is present.

    Raises:
        UserError: no tag is known to be absent: nothing can be said of its probability.
    """
    p, y = outcomes(found)
    table = reliability(p, y, bins=bins)
    numbers = _summary(p, y, bins) | _proper(found, _known(found))
    if found.task != "mask":  # pixels of one image are not drawn alone
        numbers["ECE, 95 % of calibrated models below"] = ece_by_chance(p.numpy(), bins=bins, seed=seed)
    words = ("probability", "share present") if found.task == "tags" else ("confidence", "share right")
    curve = (*words, {"this model": (table["confidence"], table["right"])})
    return Findings("calibration", numbers, {"reliability": table}, {"reliability": curve})


def outcomes(found: Answers) -> tuple[Float[Tensor, "n"], Bool[Tensor, "n"]]:
    """Each known label's confidence and whether it came true; see `calibration`.

    Raises:
        UserError: no tag is known to be absent.
    """
    known = _known(found)
    if found.task != "tags":
        return found.confidence[known], (found.predicted == found.true)[known]
    if not bool((found.true == 0).any()):
        raise UserError("needs tags that are known to be absent: these labels name present ones only")
    return found.probabilities[known], found.true[known] == 1


def _known(found: Answers) -> Bool[Tensor, "..."]:
    return found.true != (255 if found.task == "mask" else -1)


def _summary(p: Tensor, y: Tensor, bins: int) -> dict[str, float]:
    from torchmetrics.functional.classification import binary_calibration_error

    error = {
        norm: float(binary_calibration_error(p, y.int(), n_bins=bins, norm=norm, validate_args=False))
        for norm in ("l1", "max")
    }
    return {
        "ECE": error["l1"],
        "MCE": error["max"],
        "mean confidence": float(p.mean()),
        "confidence − truth": float(p.mean() - y.double().mean()),
    }


def _proper(found: Answers, known: Tensor) -> dict[str, float]:
    """The negative log-likelihood (nats) and the Brier score, of each known label."""
    p = found.probabilities
    if found.task == "tags":
        p, y = p[known], found.true[known].double()
        of_truth, brier = torch.where(y == 1, p, 1 - p), (p - y) ** 2
    else:
        p, y = p.movedim(1, -1)[known], found.true[known]
        of_truth = p.gather(1, y[:, None])[:, 0]
        brier = (p - torch.nn.functional.one_hot(y, p.shape[1])).square().sum(1)
    return {"NLL": float(-of_truth.clamp(min=1e-12).log().mean()), "Brier score": float(brier.mean())}


def reliability(p: Float[Tensor, "n"], y: Bool[Tensor, "n"], *, bins: int = BINS) -> dict[str, list[Any]]:
    """One row a bin that is not empty: its edges, mean confidence, share right with a Wilson interval, and count."""
    from scipy.stats import binomtest

    edges = torch.linspace(0, 1, bins + 1, dtype=p.dtype)
    bin_of = (torch.bucketize(p, edges, right=True) - 1).clamp(0, bins - 1)
    rows = []
    for b in bin_of.unique().tolist():
        inside = bin_of == b
        hits, n = int(y[inside].sum()), int(inside.sum())
        interval = binomtest(hits, n).proportion_ci(method="wilson")
        rows.append((b / bins, (b + 1) / bins, float(p[inside].mean()), hits / n, interval.low, interval.high, n))
    names = ("from", "to", "confidence", "right", "low", "high", "n")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def ece_by_chance(
    p: Float[np.ndarray, " n"], *, bins: int = BINS, draws: int = 200, level: float = 0.95, seed: int = 0
) -> float:
    """The ECE below which `level` of the models lie that have these confidences and are calibrated."""
    generator = np.random.default_rng(seed)
    bin_of = np.clip((p * bins).astype(int), 0, bins - 1)
    said = np.bincount(bin_of, weights=p, minlength=bins)
    values = [
        np.abs(np.bincount(bin_of, weights=generator.random(len(p)) < p, minlength=bins) - said).sum() / len(p)
        for _ in range(draws)
    ]
    return float(np.quantile(values, level))


def leaning(numbers: dict[str, float]) -> str:
    """What the calibration comes to, in a few words."""
    gap, ece = numbers["confidence − truth"], numbers["ECE"]
    if ece <= numbers.get("ECE, 95 % of calibrated models below", 0.0):
        return "its confidence can be believed"
    if abs(gap) < ece / 2:
        return f"badly calibrated, too sure here and too unsure there (ECE {100 * ece:.1f} points)"
    return f"{'over' if gap > 0 else 'under'}-confident (ECE {100 * ece:.1f} points)"


# --- where it errs ---


def classes(found: Answers) -> Findings:
    """One row a class or tag."""
    table = {"class": _per_class, "tags": _per_tag, "mask": _per_mask_class}[found.task](found)
    return Findings("classes", tables={"classes": table})


def _per_class(found: Answers) -> dict[str, list[Any]]:
    from scipy.stats import binomtest

    counts = matrix(found)
    hits, n, said = counts.diagonal(), counts.sum(1), counts.sum(0)
    at = [i for i in range(len(counts)) if n[i] or said[i]]
    wilson = [binomtest(int(hits[i]), int(n[i])).proportion_ci(method="wilson") if n[i] else None for i in at]
    return {
        "class": [found.names[i] for i in at],
        "n": [int(n[i]) for i in at],
        "predicted": [int(said[i]) for i in at],
        "recall": [_ratio(hits[i], n[i]) for i in at],
        "recall, low": [w.low if w else float("nan") for w in wilson],
        "recall, high": [w.high if w else float("nan") for w in wilson],
        "precision": [_ratio(hits[i], said[i]) for i in at],
        "F1": [_ratio(2 * hits[i], n[i] + said[i]) for i in at],
    }


def _ratio(part: Tensor, whole: Tensor) -> float:
    return float(part) / float(whole) if whole else float("nan")


def _per_tag(found: Answers) -> dict[str, list[Any]]:
    known, there, said = found.true >= 0, found.true == 1, found.predicted == 1
    hits, n, says = ((known & x).sum(0) for x in (there & said, there, said))
    at = range(len(found.names))
    return {
        "tag": list(found.names),
        "known": known.sum(0).tolist(),
        "present": n.tolist(),
        "predicted": says.tolist(),
        "AP": [scores.mean_average_precision(found.probabilities[:, i : i + 1], found.true[:, i : i + 1])
               if (found.true[:, i] == 0).any() else float("nan") for i in at],
        "recall": [_ratio(hits[i], n[i]) for i in at],
        "precision": [_ratio(hits[i], says[i]) for i in at],
        "F1": [_ratio(2 * hits[i], n[i] + says[i]) for i in at],
    }  # fmt: skip


def _per_mask_class(found: Answers) -> dict[str, list[Any]]:
    counts = matrix(found)
    hits, n, said = counts.diagonal(), counts.sum(1), counts.sum(0)
    at = [i for i in range(len(counts)) if n[i] or said[i]]
    return {
        "class": [found.names[i] for i in at],
        "images": [int((found.confusion[:, i].sum(1) > 0).sum()) for i in at],
        "share of pixels": [_ratio(n[i], counts.sum()) for i in at],
        "IoU": [_ratio(hits[i], n[i] + said[i] - hits[i]) for i in at],
        "recall": [_ratio(hits[i], n[i]) for i in at],
        "precision": [_ratio(hits[i], said[i]) for i in at],
    }


def matrix(found: Answers) -> Int[Tensor, "classes classes"]:
    """True × predicted counts, of images or of pixels."""
    if found.task == "mask":
        return found.confusion.sum(0)
    k = len(found.names)
    return torch.bincount(found.true * k + found.predicted, minlength=k * k).view(k, k)


def confusions(found: Answers, data: Dataset, *, most: int = MOST) -> Findings:
    """What is taken for what, the commonest first; and, of images with a class, the most confident errors.

    `share` is of the true class.
    """
    counts = matrix(found)
    off = counts - torch.diag(counts.diagonal())
    order = off.flatten().argsort(descending=True, stable=True)[:most].tolist()
    pairs = [divmod(cell, len(counts)) for cell in order if off.flatten()[cell] > 0]
    table = {
        "true": [found.names[t] for t, _ in pairs],
        "predicted": [found.names[p] for _, p in pairs],
        "count": [int(off[t, p]) for t, p in pairs],
        "share": [_ratio(off[t, p], counts[t].sum()) for t, p in pairs],
    }
    tables: dict[str, dict[str, list[Any]]] = {"confusions": table}
    if found.task == "class":
        tables["confident errors"] = _confident_errors(found, data, most)
    return Findings("confusions", {"errors": float(off.sum())}, tables)


def _confident_errors(found: Answers, data: Dataset, most: int) -> dict[str, list[Any]]:
    wrong = (found.predicted != found.true).nonzero()[:, 0]
    wrong = wrong[found.confidence[wrong].argsort(descending=True, stable=True)[:most]]
    return {
        "row": found.rows[wrong].tolist(),
        "image": names_of(data, found.rows[wrong]),
        "true": _names_at(found.names, found.true[wrong]),
        "predicted": _names_at(found.names, found.predicted[wrong]),
        "confidence": found.confidence[wrong].tolist(),
    }


def _names_at(names: Sequence[str], which: Tensor) -> list[str]:
    return [names[i] for i in which.tolist()]
