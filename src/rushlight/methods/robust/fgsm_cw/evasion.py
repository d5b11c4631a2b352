"""Evasion audits: what attacks do to a classifier, image by image, as a table, curves and a diagnosis.

Only images that the model gets right are attacked; those it gets wrong count as errors at every strength,
never as successes. Every rate carries its count and a Wilson interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from scipy.stats import binomtest
from torch import Tensor

from rushlight.core.findings import Curves, Findings, Kind, Measure, Table, measures
from rushlight.core.float64 import where_float64
from rushlight.data.dataset import Dataset
from rushlight.methods.robust.fgsm_cw import perturb
from rushlight.run.model import Model
from rushlight.run.stage import Attack, Threat

Curve = tuple[list[float], list[float]]
Images = Float[Tensor, "batch 3 height width"]
Told = dict[str, Tensor]
"""Of each image: whether its class is the model's `first` and among its `first five`; the change's `L2` and `L∞`."""
PIXELS = 250 * 32 * 32
"""About how many pixels are attacked at once."""


def size(change: Images, norm: str) -> Float[Tensor, "batch"]:
    """Return the L2 (`2`) or largest (`inf`) size of each image's perturbation."""
    flat = change.flatten(1)
    return flat.abs().amax(1) if norm == "inf" else flat.norm(dim=1)


class Audit:
    """One classifier under attack, on the rows of a data set whose class is known; a batch of them is held at a time.

    Attributes:
        clean: what the model says of the images as they are.
        right: the images that the model classifies rightly; the only ones that are attacked.
        table: a row for the clean images and one for each attack at each strength.
        curves: attack → (L∞ strengths, accuracy).
        distances: attack → each image's L2 to the nearest error found (0 where the model errs anyway, ∞ where
            none was found).
        masking: whether the network hides its gradient, once `diagnose` has been called.
    """

    def __init__(self, model: Model, data: Dataset, device: str = "cpu"):
        self.data = data.select(data.known("class"))
        self.model = model.copy().to(device).eval().requires_grad_(False)
        self.labels = self.data["class"].to(device)
        self.at_once = max(4, PIXELS // (data.height * data.width))
        self.clean = self._asked()
        self.right = self.clean["first"]
        self.table: list[dict[str, Any]] = []
        self.curves: dict[str, Curve] = {}
        self.distances: dict[str, Tensor] = {}
        self.masking: perturb.Masking | None = None
        self.add("clean", Threat(strength=0.0), self.clean)

    def attacked(self, attack: Attack, threat: Threat, seed: int | None = None) -> Told:
        """Return the model's answers after those images that it gets right are perturbed."""
        generator = None if seed is None else torch.Generator(self.labels.device).manual_seed(seed)
        told = {name: values.clone() for name, values in self.clean.items()}
        for rows in self._batches():
            images, labels = self._images(rows), self.labels[rows]
            found = attack.perturb(_classifier(self.model), images, labels, threat, generator)
            for name, values in self._told(found, labels, found - images).items():
                told[name][rows] = values
        return told

    def curve(self, name: str, attack: Attack, strengths: Sequence[float], seed: int | None = None) -> None:
        """Attack at each L∞ strength."""
        accuracy = [self.table[0]["accuracy"]]
        for threat in (Threat("inf", strength) for strength in strengths):
            accuracy.append(self.add(name, threat, self.attacked(attack, threat, seed)))
        self.curves[name] = ([0.0, *strengths], accuracy)

    def nearest(self, name: str, attack: Attack) -> None:
        """Attack without a bound, by an attack that looks for the nearest error in L2."""
        threat = Threat("2", float("inf"))
        told = self.attacked(attack, threat)
        self.add(name, threat, told)
        self.distances[name] = torch.where(self.right & (told["L2"] == 0), torch.inf, told["L2"]).cpu()

    def diagnose(self, *, eps: float, temperature: float) -> None:
        """Test whether FGSM fails only because the gradient vanishes in float32; no answer if no image is right."""
        precise = _classifier(self.model.copy().to(where_float64(self.labels).device).double())
        parts = [
            perturb.gradient_masking(
                _classifier(self.model),
                self._images(rows),
                self.labels[rows],
                eps=eps,
                temperature=temperature,
                precise_fn=precise,
            )
            for rows in self._batches()
        ]
        self.masking = _together(parts, [len(rows) for rows in self._batches()]) if parts else None

    def add(self, name: str, threat: Threat, told: Told) -> float:
        """Add a row to the table; its accuracy, over all images."""
        n, attacked, stands = len(self.labels), int(self.right.sum()), told["first"]
        fooled = self.right & ~stands
        changed = {norm: told[norm][fooled] for norm in ("L2", "L∞")}
        interval = binomtest(int(stands.sum()), n).proportion_ci(method="wilson")
        self.table.append(
            {
                "attack": name,
                "norm": threat.norm,
                "strength": threat.strength,
                "images": n,
                "attacked": attacked if name != "clean" else 0,
                "accuracy": perturb.share(stands),
                "low": float(interval.low),
                "high": float(interval.high),
                "top-5 error": perturb.share(~told["first five"]),
                "success": int(fooled.sum()) / max(attacked, 1),
                **{
                    f"mean {norm}": float(sizes.mean()) if len(sizes) else float("nan")
                    for norm, sizes in changed.items()
                },
            }
        )
        return self.table[-1]["accuracy"]

    def _asked(self) -> Told:
        """Return the model's answers on all images as they are."""
        parts = []
        for rows in torch.arange(len(self.labels)).split(self.at_once):
            images = self._images(rows)
            parts.append(self._told(images, self.labels[rows], torch.zeros_like(images)))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    @torch.no_grad()
    def _told(self, images: Images, labels: Int[Tensor, "batch"], change: Images) -> Told:
        logits = self.model.logits(images, "class")
        best = logits.topk(min(5, logits.shape[1]), 1).indices == labels[:, None]
        return {"first": logits.argmax(1) == labels, "first five": best.any(1),
                "L2": size(change, "2"), "L∞": size(change, "inf")}  # fmt: skip

    def _images(self, rows: Int[Tensor, "batch"]) -> Images:
        return self.data.read("image", rows).to(self.labels.device).float() / 255

    def _batches(self) -> tuple[Tensor, ...]:
        """Return the rows that are attacked, in batches of the size that memory is planned for."""
        rows = self.right.nonzero().squeeze(1)
        return rows.split(self.at_once) if len(rows) else ()


def _classifier(model: Model) -> Callable[[Tensor], Tensor]:
    return lambda images: model.logits(images, "class")


def _together(parts: list[perturb.Masking], counts: list[int], jump: float = 0.1) -> perturb.Masking:
    """Join the diagnosis of several batches."""
    shares = torch.tensor([[part.zero, part.plain, part.scaled, part.precise] for part in parts])
    weights = torch.tensor(counts, dtype=shares.dtype) / sum(counts)
    zero, plain, scaled, precise = (weights @ shares).tolist()
    return perturb.Masking(zero, plain, scaled, precise, max(scaled, precise) - plain >= jump)


def findings(judge: str, audits: dict[str, Audit]) -> Findings:
    """Return the findings of the audits of several models (or of one); with several, each name leads its entries."""
    measured: list[Measure] = []
    notes: list[str] = []
    warnings: list[str] = []
    steps: dict[str, Curve] = {}
    distances: dict[str, Curve] = {}
    for name, audit in audits.items():
        label = f"{name}: " if len(audits) > 1 else ""
        measured += [replace(each, name=label + each.name) for each in _measures(audit)]
        notes.append(f"{label}{int(audit.right.sum())} of {len(audit.right)} images are classified rightly, and were "
                     "attacked.")  # fmt: skip
        warnings += [label + warning for warning in _warnings(audit)]
        steps |= {label + attack: curve for attack, curve in audit.curves.items()}
        distances |= {label + attack: _beyond(values) for attack, values in audit.distances.items()}
    rows = [{"model": name, **row} for name, audit in audits.items() for row in audit.table]
    return Findings(
        judge=judge,
        measures=tuple(measured),
        tables=(_table(rows),),
        curves=(
            Curves(
                "accuracy against L∞ strength",
                "strength (L∞)",
                "accuracy",
                steps,
                y_kind="share",
                note="Each pixel may change by at most the strength; images are in [0, 1] (8/255 is 0.031).",
            ),
            Curves(
                "accuracy against L2 strength",
                "strength (L2)",
                "accuracy",
                distances,
                y_kind="share",
                note="The share of images whose nearest error found lies further away.",
            ),
        ),
        notes=tuple(notes),
        warnings=tuple(warnings),
        title="Under attack",
        headline=_headline(next(iter(audits.values()))) if len(audits) == 1 else "",
        priority=30,
    )


def _table(rows: list[dict[str, Any]]) -> Table:
    shares: dict[str, Kind] = dict.fromkeys(("accuracy", "low", "high", "top-5 error", "success"), "share")
    return Table.of_rows(
        "attacks",
        rows,
        kinds=shares,
        intervals={"accuracy": ("low", "high")},
        hidden=() if len({row["model"] for row in rows}) > 1 else ("model",),
        caption="Accuracy counts images that the model gets wrong anyway as errors; mean L2 and L∞ are the sizes of "
        "the changes that fooled it. Images are in [0, 1].",
    )


def _beyond(distances: Tensor) -> Curve:
    """Return the share of images whose nearest error lies beyond each of 21 distances."""
    found = distances[distances.isfinite()]
    grid = torch.linspace(0, max(float(found.max()) if len(found) else 1.0, 1e-6), 21)
    return grid.tolist(), [float((distances > distance).double().mean()) for distance in grid]


def _at_8(audit: Audit) -> dict[str, float]:
    """Return each bounded attack's accuracy at 8/255, the strength at which models are compared."""
    rows = [row for row in audit.table[1:] if row["attack"] not in audit.distances]
    return {row["attack"]: row["accuracy"] for row in rows if abs(row["strength"] - 8 / 255) < 1e-9}


def _measures(audit: Audit) -> list[Measure]:
    n, at_8 = len(audit.right), _at_8(audit)
    found = [Measure("clean accuracy", audit.table[0]["accuracy"], kind="share", n=n)]
    for name, accuracy in at_8.items():
        strongest = name == list(at_8)[-1]
        figure = f"accuracy under {name} at 8/255" if strongest else ""
        found.append(Measure(f"{name} accuracy at 8/255", accuracy, kind="share", n=n, figure=figure))
    for row in (row for row in audit.table[1:] if row["attack"] in audit.distances):
        found.append(Measure(f"{row['attack']} success", row["success"], kind="share"))
        found.append(Measure(f"{row['attack']} mean L2", row["mean L2"]))
    if audit.masking is not None:
        shares = {
            "images without gradient": audit.masking.zero,
            "FGSM success": audit.masking.plain,
            "FGSM success on z/T": audit.masking.scaled,
            "FGSM success in float64": audit.masking.precise,
        }
        found += [*measures(shares, "share"), Measure("gradient masking", float(audit.masking.masked))]
    return found


def _headline(audit: Audit) -> str:
    at_8 = _at_8(audit)
    if not at_8:
        return ""
    hides = " and it hides its gradient" if audit.masking is not None and audit.masking.masked else ""
    name, accuracy = list(at_8.items())[-1]
    return f"{100 * accuracy:.0f} % under attack ({name} at 8/255){hides}"


def _warnings(audit: Audit) -> list[str]:
    if audit.masking is None or not audit.masking.masked:
        return []
    return [
        f"Gradient masking: FGSM fools {audit.masking.plain:.0%}, but {audit.masking.scaled:.0%} on z/T "
        f"and {audit.masking.precise:.0%} in float64. The network hides its gradient; it does not resist."
    ]
