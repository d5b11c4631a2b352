"""Cards: what a system is, what it needs, what it gives and what it claims; and the catalogue of them.

A card alone decides which systems fit which data: `Needs` names the columns and how unknown they may be.
The catalogue is read from the entry points of the group `rushlight.systems`, so another package adds a system by
declaring one there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from rushlight.data.dataset import Dataset
from rushlight.errors import UserError, nearest

Role = Literal["learner", "curator", "judge", "attack", "defence", "generator"]
TARGET = "target"
"""In a card's needs: the column that is to be predicted, whichever it is (`class`, `tags` or `mask`)."""
TASKS = ("class", "tags", "mask")
METRICS = {"class": "accuracy", "tags": "mAP", "mask": "mIoU"}


@dataclass(frozen=True)
class Need:
    """One column, and how much of it must be known.

    Attributes:
        known: `some`: some rows known and some not; `any`: at least one row known; `present`: the column is there.
    """

    column: str
    known: Literal["some", "any", "present"] = "present"


def some(column: str) -> Need:
    """Some rows known, some unknown: the method learns from both."""
    return Need(column, "some")


def known(column: str) -> Need:
    """At least some rows known; unknown rows are passed over."""
    return Need(column, "any")


@dataclass(frozen=True, init=False)
class Needs:
    """The columns a system needs, e.g. `Needs("image", some(TARGET))`."""

    columns: tuple[Need, ...]

    def __init__(self, *columns: str | Need):
        needs = tuple(Need(column) if isinstance(column, str) else column for column in columns)
        object.__setattr__(self, "columns", needs)

    def lacks(self, data: Dataset, task: str | None) -> str:
        """Why these needs are not met by the data, in a few words; empty where they are."""
        for need in self.columns:
            column = (task or "class") if need.column == TARGET else need.column
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
    """What a system is.

    Attributes:
        task: the columns it can learn to predict (of `class`, `tags`, `mask`); empty for one that predicts none.
        needs: the columns it reads and how unknown they may be.
        gives: what one has afterwards, in a few words.
        says: the paper's headline, with its figures.
        extra: the extra of this package that it needs, if any.
        encoder: `vit` for one that works on tokens, and so needs a vision transformer.
        tags: where it stands among methods of its kind (see `systems.pretrain.vit_ssl_survey`).
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
    tags: tuple[str, ...] = ()

    def lacks(self, data: Dataset, task: str | None) -> str:
        """Why the system does not fit the data, in a few words; empty where it fits."""
        if self.task and task not in self.task:
            return f"predicts {' or '.join(sorted(self.task))}" + (f", not {task}" if task else "")
        return self.needs.lacks(data, task)


def task_of(data: Dataset) -> str | None:
    """What is to be learned here: the first of `class`, `tags`, `mask` of which anything is known."""
    return next((task for task in TASKS if data.known(task).any()), None)


@cache
def catalogue() -> dict[str, EntryPoint]:
    """Every system by its id, unloaded."""
    found = entry_points(group="rushlight.systems")
    return {entry.name: entry for entry in sorted(found, key=lambda entry: entry.name)}


def system(name: str) -> type:
    """The class of the system with this id.

    Raises:
        UserError: there is none (the nearest name is suggested), or an extra is missing (it is named).
    """
    entry = catalogue().get(name)
    if entry is None:
        hint = nearest(name, catalogue())
        raise UserError(f"there is no system '{name}'.{hint} `rushlight systems` lists all of them.")
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        if error.name and not error.name.startswith("rushlight"):
            raise UserError(f"'{name}' needs the package '{error.name}': pip install {error.name}") from error
        raise


def cards() -> dict[str, Card]:
    """Every system's card by id."""
    return {name: system(name).card for name in catalogue()}  # type: ignore[attr-defined]


def fitting(data: Dataset, task: str | None = None) -> list[tuple[Card, str]]:
    """Each card with why it does not fit the data (empty where it does)."""
    task = task or task_of(data)
    return [(card, card.lacks(data, task)) for card in cards().values()]


@dataclass(frozen=True)
class Catalogue:
    """The systems, as a table that shows itself."""

    cards: tuple[Card, ...]

    def rows(self) -> list[dict[str, str]]:
        return [
            {
                "id": card.id,
                "family": card.family,
                "role": card.role,
                "kind": card.tags[0] if card.tags else "",
                "needs": str(card.needs),
                "gives": card.gives,
                "paper": card.paper,
            }
            for card in self.cards
        ]

    def to_pandas(self) -> Any:
        """The catalogue as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def _repr_html_(self) -> str:
        return self.to_pandas().to_html(index=False)

    def __rich__(self) -> Any:
        """Family by family; what else a card says is in `to_pandas` and `rushlight systems ID`."""
        families = dict.fromkeys(card.family for card in self.cards)
        rows = [
            {"family": "" if number else family, "id": card.id, "role": card.role, "gives": card.gives}
            for family in sorted(families)
            for number, card in enumerate(card for card in self.cards if card.family == family)
        ]
        return table(rows)


def systems(name: str | None = None) -> Any:
    """The catalogue of systems, or one system's card."""
    if name is not None:
        return system(name).card  # type: ignore[attr-defined]
    known = cards()
    return Catalogue(tuple(known[key] for key in catalogue()))


def transposed(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Columns of equal length as rows."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def table(rows: Iterable[dict[str, Any]]) -> Any:
    """Rows as a table for the terminal."""
    from rich.table import Table

    shown, rows = Table(header_style="bold"), list(rows)
    for column in rows[0] if rows else ():
        shown.add_column(column, no_wrap=column == "id", overflow="fold")
    for row in rows:
        shown.add_row(*(str(value).replace("[", r"\[") for value in row.values()))
    return shown
