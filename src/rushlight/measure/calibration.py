"""Whether a model's confidence can be believed.

With confidences p and outcomes y sorted into bins B of equal width,

    ECE = Σ |B|/n |mean_B(y) − mean_B(p)|        MCE = max |mean_B(y) − mean_B(p)|

A calibrated model has no ECE of 0 on n images, since each bin's share varies by chance. So outcomes are drawn from
the confidences themselves, and a model is called over- or under-confident only where its ECE lies above 95 % of
those draws.

References: Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (ECE); Bröcker and Smith, Weather and
Forecasting 22, 2007 (consistency resampling).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rushlight.core.findings import Curves, Findings, Kind, Measure, Table
from rushlight.tasks.base import Confidence

BINS = 15
"""Bins of confidence, as in Guo et al. and in torchmetrics."""
BY_CHANCE = "ECE, 95 % of calibrated models below"


def calibration(
    found: Confidence,
    *,
    words: tuple[str, str] = ("confidence", "share right"),
    independent: bool = True,
    bins: int = BINS,
    seed: int = 0,
) -> Findings:
    """Return ECE, MCE, NLL and Brier score, and the reliability diagram.

    Args:
        words: axes of the diagram.
        independent: whether the entries were drawn independently (pixels of one image are not), so that chance can be
            told apart.
    """
    p, y = found.p, found.right
    table = reliability(p, y, bins=bins)
    measured = _errors(p, y, bins)
    if independent:
        measured.insert(1, Measure(BY_CHANCE, ece_by_chance(p.numpy(), bins=bins, seed=seed), kind="share"))
    measured.append(Measure("NLL", float(found.nll.mean()), unit="nats"))
    measured.append(Measure("Brier score", float(found.brier.mean())))
    return Findings(
        "calibration",
        tuple(measured),
        (table,),
        (_diagram(table, words),),
        title="Confidence",
        headline=leaning(measured),
        priority=10,
    )


def _diagram(table: Table, words: tuple[str, str]) -> Curves:
    return Curves(
        "reliability",
        *words,
        {"this model": (table["confidence"], table["right"])},
        style="reliability",
        x_kind="share",
        y_kind="share",
        counts=table["n"],
        note="Bars on the dashed line: what it says with 80 % confidence is right in 80 % of cases. Bars below it are "
        "over-confident. Above each bar: how many answers.",
    )


def _errors(p: Float[Tensor, "n"], y: Bool[Tensor, "n"], bins: int) -> list[Measure]:
    from torchmetrics.functional.classification import binary_calibration_error

    error = {
        norm: float(binary_calibration_error(p, y.int(), n_bins=bins, norm=norm, validate_args=False))
        for norm in ("l1", "max")
    }
    return [
        Measure("ECE", error["l1"], kind="share", figure="expected calibration error"),
        Measure("MCE", error["max"], kind="share", remark="the largest error of a bin"),
        Measure("mean confidence", float(p.mean()), kind="share"),
        Measure("confidence − truth", float(p.mean() - y.double().mean()), kind="points"),
    ]


def reliability(p: Float[Tensor, "n"], y: Bool[Tensor, "n"], *, bins: int = BINS) -> Table:
    """Return one row per bin that is not empty: edges, mean confidence, share right with a Wilson interval, count."""
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
    kinds: dict[str, Kind] = dict.fromkeys(names[:-1], "share")
    values = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return Table.of("reliability", values, kinds=kinds, intervals={"right": ("low", "high")}, folded=True)


def ece_by_chance(
    p: Float[np.ndarray, " n"], *, bins: int = BINS, draws: int = 200, level: float = 0.95, seed: int = 0
) -> float:
    """Return the ECE that a share `level` of calibrated models with these confidences would not exceed."""
    generator = np.random.default_rng(seed)
    bin_of = np.clip((p * bins).astype(int), 0, bins - 1)
    expected = np.bincount(bin_of, weights=p, minlength=bins)
    values = [
        np.abs(np.bincount(bin_of, weights=generator.random(len(p)) < p, minlength=bins) - expected).sum() / len(p)
        for _ in range(draws)
    ]
    return float(np.quantile(values, level))


def leaning(measured: Sequence[Measure]) -> str:
    """Return what the calibration amounts to, in a few words."""
    found = {measure.name: measure.value for measure in measured}
    ece, gap = found["ECE"], found["confidence − truth"]
    if ece <= found.get(BY_CHANCE, 0.0):
        return "its confidence can be believed"
    if abs(gap) < ece / 2:
        return f"badly calibrated, over-confident here and under-confident there (ECE {100 * ece:.1f} points)"
    return f"{'over' if gap > 0 else 'under'}-confident (ECE {100 * ece:.1f} points)"
