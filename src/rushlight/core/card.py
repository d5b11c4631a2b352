"""Cards: what a method is, what it needs, what it gives and what it claims.

A card alone decides which methods fit which data: `Needs` names the columns and how unknown they may be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch

from rushlight.core.entries import TASKS, entries


@runtime_checkable
class Columns(Protocol):
    """What a card reads of a data set: which columns there are, and where they are known."""

    def __contains__(self, name: str) -> bool: ...

    def known(self, name: str) -> torch.Tensor: ...


Role = Literal["learner", "curator", "judge", "attack", "defence", "generator"]
Service = Literal["reference", "baseline", "pretraining", "encoder", "signals"]
"""What a job takes a method for: `reference`, the baseline that gains are measured against; `baseline`, one that always
runs beside others; `pretraining`, what a comparison pretrains with unasked (it is an `encoder` too); `encoder`, what a
ranking of encoders without labels trains unasked; `signals`, the judge that ranks them."""
TARGET = "target"
"""In a card's needs: the column that is to be predicted, whichever task's it is."""


def target_column(data: Columns, task: str | None) -> str | None:
    """Return the column that a task predicts; without a task, that of the first one whose labels are known."""
    if task is not None:
        return entries(TASKS)[task].load().column if task in entries(TASKS) else task
    found = sorted((entry.load() for entry in entries(TASKS).values()), key=lambda kind: (kind.place, kind.id))
    return next((kind.column for kind in found if data.known(kind.column).any()), None)


@dataclass(frozen=True)
class Need:
    """One column, and how much of it must be known.

    Attributes:
        known: `some`: some rows known and some not; `any`: at least one row known; `present`: the column is there.
    """

    column: str
    known: Literal["some", "any", "present"] = "present"


def some(column: str) -> Need:
    """Require some known and some unknown rows: the method learns from both."""
    return Need(column, "some")


def known(column: str) -> Need:
    """Require at least some known rows; unknown rows are ignored."""
    return Need(column, "any")


@dataclass(frozen=True, init=False)
class Needs:
    """The columns a method needs, e.g. `Needs("image", some(TARGET))`."""

    columns: tuple[Need, ...]

    def __init__(self, *columns: str | Need):
        needs = tuple(Need(column) if isinstance(column, str) else column for column in columns)
        object.__setattr__(self, "columns", needs)

    def lacks(self, data: Columns, task: str | None) -> str:
        """Return why the data do not meet these needs, in a few words; empty where they do."""
        for need in self.columns:
            column = target_column(data, task) if need.column == TARGET else need.column
            if column is None:
                return "needs known labels"
            if column not in data:
                return f"needs the column '{column}'"
            known_rows = data.known(column)
            if need.known != "present" and not known_rows.any():
                return f"needs some known '{column}'"
            if need.known == "some" and known_rows.all():
                return f"needs images whose '{column}' is unknown"
        return ""

    def __str__(self) -> str:
        words = {"some": "some {}, some unknown", "any": "known {}", "present": "{}"}
        return "; ".join(words[need.known].format(need.column) for need in self.columns)


@dataclass(frozen=True)
class Card:
    """What a method is.

    Attributes:
        task: ids of the tasks it can learn; empty for one that predicts nothing.
        needs: the columns it reads and how unknown they may be.
        gives: what one has afterwards, in a few words.
        says: the paper's headline, with its figures.
        extra: the extra of this package that it needs, if any.
        encoder: `vit` for one that works on tokens, and so needs a vision transformer.
        serves: what jobs take it for without being asked, see `Service`.
        tags: where it stands among methods of its kind (see `methods.pretrain.vit_ssl_survey`).
    """

    id: str
    title: str
    family: str
    role: Role
    needs: Needs
    gives: str
    says: str
    paper: str = ""
    code: str = ""
    task: frozenset[str] = field(default_factory=frozenset)
    extra: str = ""
    encoder: Literal["any", "vit"] = "any"
    serves: Service | Literal[""] = ""
    tags: tuple[str, ...] = ()

    def lacks(self, data: Columns, task: str | None) -> str:
        """Return why the method does not fit the data, in a few words; empty where it fits."""
        if self.task and task not in self.task:
            return f"predicts {' or '.join(sorted(self.task))}" + (f", not {task}" if task else "")
        return self.needs.lacks(data, task)
