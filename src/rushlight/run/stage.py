"""Stages, judges and attacks: every method has one of these three forms.

A stage changes what you have (a learner the model, a curator the data); a judge measures it; an attack is a judge's
instrument. All stages have one form, so they chain: see `rushlight.run.recipe`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rushlight.core.card import Card
from rushlight.core.findings import Findings, side_by_side
from rushlight.data.dataset import Dataset
from rushlight.data.edit.pool import Pool
from rushlight.run.budget import Spent
from rushlight.run.context import Progress, RunContext
from rushlight.run.model import Model


class Diverged(RuntimeError):
    """A loss that is not finite.

    Attributes:
        stage, step: whose and which. spent: by that training until it was found.
        checkpoint: the last state kept from which the step can be reached again; None where none is kept.
    """

    def __init__(self, stage: str, step: int, checkpoint: Path | None, spent: Spent = Spent()):
        super().__init__(f"{stage}: the loss of step {step} is not finite")
        self.stage, self.step, self.checkpoint, self.spent = stage, step, checkpoint, spent


@dataclass(frozen=True)
class Outcome:
    """What a stage leaves; nothing of it leaves by another way.

    Attributes:
        data, model: after the stage; the ones that came in are unchanged.
        spent: what the stage really used, everything that it computed counted.
        curve: (image passes, value) at a few moments, those of earlier stages of the recipe counted.
        findings: numbers and notes for a report.
        pool: of a curator: which images it kept, and why the others are gone.
        notes: sentences that the record must hold, such as that memory ran out and the batch was halved.
    """

    data: Dataset
    model: Model
    spent: Spent = Spent()
    curve: tuple[tuple[float, float], ...] = ()
    findings: Findings | None = None
    pool: Pool | None = None
    notes: tuple[str, ...] = ()

    def charged(self, paid: Spent, notes: tuple[str, ...] = ()) -> Outcome:
        """Return the same outcome, with what was paid, and noted, before it."""
        return replace(self, spent=paid + self.spent, notes=joined(notes, self.notes))


def joined(*notes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the notes of several stages, each sentence once."""
    return tuple(dict.fromkeys(note for each in notes for note in each))


class Stage(ABC):
    """Something that changes the data or the model.

    Attributes:
        card: what it is.
        spends: whether it takes a part of a recipe's budget.
    """

    card: ClassVar[Card]
    spends: bool = True

    @abstractmethod
    def run(self, data: Dataset, model: Model, ctx: RunContext) -> Outcome:
        """Return the stage's outcome for data and model; neither of them is changed."""

    def lacks(self, data: Dataset) -> str:
        """Return why these data do not do for its arguments, as a card's `lacks` does; empty where they do."""
        return ""


class Judge(ABC):
    """Something that measures a model on data, and changes neither.

    Attributes:
        audits: whether `audit` runs it unasked; not where it trains models of its own (a study).
    """

    card: ClassVar[Card]
    audits: ClassVar[bool] = True

    @abstractmethod
    def judge(self, model: Model, data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        """Return what the judge found."""

    def judge_all(self, models: Mapping[str, Model], data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        """Judge several models side by side. By default each is judged by itself: the numbers stand in one table, and
        each table has a first column that names the model."""
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
        """Return images in [0, 1] within the threat; where no error was found, the best try or the image itself."""


__all__ = ["Attack", "Diverged", "Findings", "Judge", "Outcome", "Progress", "RunContext", "Stage", "Threat"]
