"""Evasion audits: what attacks do to a classifier, image by image, as a table, curves and a diagnosis.

Only images that the model gets right are attacked; those it gets wrong count as errors at every strength,
never as successes. Every rate carries its count and a Wilson interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from scipy.stats import binomtest
from torch import Tensor

from rushlight.data.dataset import Dataset
from rushlight.methods.robust.fgsm_cw import perturb
from rushlight.run.model import Model
from rushlight.run.stage import Attack, Findings, Threat

Curve = tuple[list[float], list[float]]
PIXELS = 250 * 32 * 32
"""About how many pixels are attacked at once."""


def size(change: Float[Tensor, "batch 3 height width"], norm: str) -> Float[Tensor, "batch"]:
    """The L2 (`2`) or largest (`inf`) size of each image's perturbation."""
    flat = change.flatten(1)
    return flat.abs().amax(1) if norm == "inf" else flat.norm(dim=1)


class Audit:
    """One classifier under attack, on the rows of a data set whose class is known.

    Attributes:
        right: the images that the model classifies rightly; the only ones that are attacked.
        table: a row for the clean images and one for each attack at each strength.
        curves: attack → (L∞ strengths, accuracy).
        distances: attack → each image's L2 to the nearest error found (0 where the model errs anyway, ∞ where
            none was found).
        masking: whether the network hides its gradient, once `diagnose` has been called.
    """

    def __init__(self, model: Model, data: Dataset, device: str = "cpu"):
        data = data.select(data.known("class"))
        self.model = model.copy().to(device).eval().requires_grad_(False)
        self.images, self.labels = data["image"].to(device).float() / 255, data["class"].to(device)
        self.at_once = max(4, PIXELS // (data.height * data.width))
        self.right = self.logits(self.images).argmax(1) == self.labels
        self.table: list[dict[str, Any]] = []
        self.curves: dict[str, Curve] = {}
        self.distances: dict[str, Tensor] = {}
        self.masking: perturb.Masking | None = None
        self.add("clean", Threat(strength=0.0), self.images)

    def logits(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.model.logits(part, "class") for part in images.split(self.at_once)])

    def attacked(self, attack: Attack, threat: Threat, seed: int | None = None) -> Tensor:
        """The images, those that the model gets right perturbed."""
        generator = None if seed is None else torch.Generator(self.images.device).manual_seed(seed)
        result = self.images.clone()
        for rows in self._batches():
            batch = self.images[rows], self.labels[rows]
            result[rows] = attack.perturb(_classifier(self.model), *batch, threat, generator)
        return result

    def curve(self, name: str, attack: Attack, strengths: Sequence[float], seed: int | None = None) -> None:
        """Attack at each L∞ strength."""
        accuracy = [self.table[0]["accuracy"]]
        for threat in (Threat("inf", strength) for strength in strengths):
            accuracy.append(self.add(name, threat, self.attacked(attack, threat, seed)))
        self.curves[name] = ([0.0, *strengths], accuracy)

    def nearest(self, name: str, attack: Attack) -> None:
        """Attack without a bound, by an attack that looks for the nearest error in L2."""
        threat = Threat("2", float("inf"))
        found = self.attacked(attack, threat)
        self.add(name, threat, found)
        distance = size(found - self.images, "2")
        self.distances[name] = torch.where(self.right & (distance == 0), torch.inf, distance).cpu()

    def diagnose(self, *, eps: float, temperature: float) -> None:
        """Does FGSM fail only because the gradient vanishes in float32? Unanswered if no image is right."""
        precise = _classifier(self.model.copy().double())
        parts = [
            perturb.gradient_masking(
                _classifier(self.model),
                self.images[rows],
                self.labels[rows],
                eps=eps,
                temperature=temperature,
                precise_fn=precise,
            )
            for rows in self._batches()
        ]
        self.masking = _together(parts, [len(rows) for rows in self._batches()]) if parts else None

    def add(self, name: str, threat: Threat, images: Tensor) -> float:
        """Add a row to the table; its accuracy, over all images."""
        logits, n, attacked = self.logits(images), len(images), int(self.right.sum())
        stands = logits.argmax(1) == self.labels
        fooled = self.right & ~stands
        change = (images - self.images)[fooled]
        top = (logits.topk(min(5, logits.shape[1]), 1).indices == self.labels[:, None]).any(1)
        interval = binomtest(int(stands.sum()), n).proportion_ci(method="wilson")
        self.table.append(
            {
                "attack": name,
                "norm": threat.norm,
                "strength": threat.strength,
                "images": n,
                "attacked": attacked if name != "clean" else 0,
                "accuracy": float(stands.double().mean()),
                "low": float(interval.low),
                "high": float(interval.high),
                "top-5 error": float((~top).double().mean()),
                "success": len(change) / max(attacked, 1),
                "mean L2": float(size(change, "2").mean()) if len(change) else float("nan"),
                "mean L∞": float(size(change, "inf").mean()) if len(change) else float("nan"),
            }
        )
        return self.table[-1]["accuracy"]

    def _batches(self) -> tuple[Tensor, ...]:
        """The rows that are attacked, as many at once as memory is meant for."""
        rows = self.right.nonzero().squeeze(1)
        return rows.split(self.at_once) if len(rows) else ()


def _classifier(model: Model) -> Callable[[Tensor], Tensor]:
    return lambda images: model.logits(images, "class")


def _together(parts: list[perturb.Masking], counts: list[int], jump: float = 0.1) -> perturb.Masking:
    """The diagnosis over several batches."""
    shares = torch.tensor([[part.zero, part.plain, part.scaled, part.precise] for part in parts])
    weights = torch.tensor(counts, dtype=shares.dtype) / sum(counts)
    zero, plain, scaled, precise = (weights @ shares).tolist()
    return perturb.Masking(zero, plain, scaled, precise, max(scaled, precise) - plain >= jump)


def findings(judge: str, audits: dict[str, Audit]) -> Findings:
    """What the audits of several models (or of one) found; with several, each name leads its entries."""
    numbers: dict[str, float] = {}
    notes: list[str] = []
    steps: dict[str, Curve] = {}
    distances: dict[str, Curve] = {}
    for name, audit in audits.items():
        label = f"{name}: " if len(audits) > 1 else ""
        numbers |= {label + key: value for key, value in _numbers(audit).items()}
        notes += [label + note for note in _notes(audit)]
        steps |= {label + attack: curve for attack, curve in audit.curves.items()}
        distances |= {label + attack: _beyond(values) for attack, values in audit.distances.items()}
    rows = [{"model": name, **row} for name, audit in audits.items() for row in audit.table]
    return Findings(
        judge=judge,
        numbers=numbers,
        tables={"attacks": {key: [row[key] for row in rows] for key in rows[0]}},
        curves={
            "accuracy against L∞ strength": ("strength (L∞)", "accuracy", steps),
            "accuracy against L2 strength": ("strength (L2)", "accuracy", distances),
        },
        notes=tuple(notes),
    )


def _beyond(distances: Tensor) -> Curve:
    """The share of images whose nearest error lies beyond each of 21 distances."""
    found = distances[distances.isfinite()]
    grid = torch.linspace(0, max(float(found.max()) if len(found) else 1.0, 1e-6), 21)
    return grid.tolist(), [float((distances > distance).double().mean()) for distance in grid]


def _numbers(audit: Audit) -> dict[str, float]:
    numbers = {"clean accuracy": audit.table[0]["accuracy"]}
    for row in audit.table[1:]:
        if row["attack"] in audit.distances:
            numbers |= {
                f"{row['attack']} success": row["success"],
                f"{row['attack']} mean L2": row["mean L2"],
            }
        elif abs(row["strength"] - 8 / 255) < 1e-9:
            numbers[f"{row['attack']} accuracy at 8/255"] = row["accuracy"]
    if audit.masking is not None:
        numbers |= {
            "images without gradient": audit.masking.zero,
            "FGSM success": audit.masking.plain,
            "FGSM success on z/T": audit.masking.scaled,
            "FGSM success in float64": audit.masking.precise,
            "gradient masking": float(audit.masking.masked),
        }
    return numbers


def _notes(audit: Audit) -> list[str]:
    notes = [f"{int(audit.right.sum())} of {len(audit.right)} images are classified rightly, and were attacked."]
    if audit.masking is not None and audit.masking.masked:
        notes.append(
            f"Gradient masking: FGSM fools {audit.masking.plain:.0%}, but {audit.masking.scaled:.0%} on z/T "
            f"and {audit.masking.precise:.0%} in float64. The network hides its gradient; it does not resist."
        )
    return notes
