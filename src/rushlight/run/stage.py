"""Stages, judges and attacks: the three forms that every system has one of.

A stage changes what you have (a learner the model, a curator the data); a judge measures it; an attack is a judge's
instrument. All stages have one form, so they chain: see `rushlight.run.recipe`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rushlight.core.card import Card
from rushlight.core.findings import Findings, side_by_side
from rushlight.data.dataset import Dataset
from rushlight.data.edit.pool import Pool
from rushlight.run.budget import Budget, Spent
from rushlight.run.model import Model


class Diverged(RuntimeError):
    """A loss that is not finite; the state before the step is kept."""

    def __init__(self, stage: str, step: int, checkpoint: Path | None):
        super().__init__(f"{stage}: the loss of step {step} is not finite")
        self.stage, self.step, self.checkpoint = stage, step, checkpoint


@dataclass(frozen=True)
class Progress:
    """How far a stage is: its name, the share done (0 … 1), and the latest logged values."""

    stage: str
    done: float
    logged: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunContext:
    """Where and how a stage runs; nothing of it belongs to the method.

    Attributes:
        seed: of every random draw of the stage.
        task: the column to be predicted: `class`, `tags` or `mask`; None where nothing is.
        device, precision: as `rushlight.run.hardware` names them; devices: how many of them one training uses.
        folder: where checkpoints go; None keeps none.
        checkpoint_seconds: between checkpoints.
        on_progress: called now and then with how far it is.
        on_snapshot: called with the model at a few moments of the training (for learning curves); what it
            measures never returns to the stage.
        snapshots: how many such moments.
        on_start: called with each learner that is ready to train, before its first step; what it raises ends the run.
    """

    seed: int = 0
    task: str | None = "class"
    device: str = "cpu"
    devices: int = 1
    precision: str = "32-true"
    folder: Path | None = None
    checkpoint_seconds: float = 30.0
    on_progress: Callable[[Progress], None] | None = None
    on_snapshot: Callable[[Model, Spent], None] | None = None
    snapshots: int = 0
    on_start: Callable[[Any], None] | None = None


class Stage(ABC):
    """Something that changes the data or the model.

    Attributes:
        card: what it is.
        spends: whether it takes a part of a recipe's budget.
        spent: what the last run really used.
        pool: of a curator's last run: which images it kept, and why the others are gone; else None.
        findings: numbers and notes that the last run has for a report; else None.
    """

    card: ClassVar[Card]
    spends: ClassVar[bool] = True
    spent: Spent = Spent()
    pool: Pool | None = None
    findings: Findings | None = None

    @abstractmethod
    def run(self, data: Dataset, model: Model, budget: Budget, ctx: RunContext = RunContext()) -> tuple[Dataset, Model]:
        """The data and the model after the stage. Neither of the given ones is changed."""


class Judge(ABC):
    """Something that measures a model on data, and changes neither.

    Attributes:
        audits: whether `audit` runs it unasked; not where it trains models of its own (a study).
    """

    card: ClassVar[Card]
    audits: ClassVar[bool] = True

    @abstractmethod
    def judge(self, model: Model, data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        """What it found."""

    def judge_all(self, models: Mapping[str, Model], data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        """Several models side by side. By default each is judged for itself: the numbers stand in one table, and each
        table has a first column that names the model."""
        return side_by_side(self.card.id, {name: self.judge(model, data, ctx) for name, model in models.items()})


@dataclass(frozen=True)
class Threat:
    """What an attacker may do.

    Attributes:
        norm: `inf` or `2`, of the perturbation, images in [0, 1].
        strength: its bound (for Carlini–Wagner, which minimises the norm itself, the largest that counts).
        targeted: towards the given labels instead of away from them.
    """

    norm: str = "inf"
    strength: float = 8 / 255
    targeted: bool = False


class Attack(ABC):
    """Something that perturbs images so that a model errs."""

    card: ClassVar[Card]

    @abstractmethod
    def perturb(
        self,
        logits: Callable[[Tensor], Tensor],
        images: Float[Tensor, "batch 3 height width"],
        target: Int[Tensor, "batch"],
        threat: Threat = Threat(),
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Images in [0, 1] within the threat; where no error was found, the best try or the image itself."""
