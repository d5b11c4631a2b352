"""The catalogue of methods, read from the entry points of the group `rushlight.methods`.

Another package adds a method by declaring an entry point there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

from rushlight.core import entries as entry_points
from rushlight.core.card import Card, Columns
from rushlight.core.errors import UserError, nearest


def entries() -> dict[str, EntryPoint]:
    """Return every method's entry point by id, unloaded."""
    return entry_points.entries(entry_points.METHODS)


def load_method(name: str) -> type:
    """Return the class of the method with this id.

    Raises:
        UserError: there is none (the nearest name is suggested), or an extra is missing (it is named).
    """
    entry = entries().get(name)
    if entry is None:
        hint = nearest(name, entries())
        raise UserError(f"there is no method '{name}'.{hint} `rushlight methods` lists all of them")
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        if error.name and not error.name.startswith("rushlight"):
            raise UserError(f"'{name}' needs the package '{error.name}': pip install {error.name}") from error
        raise


def cards() -> dict[str, Card]:
    """Return every method's card by id."""
    return {name: load_method(name).card for name in entries()}  # type: ignore[attr-defined]


def fitting(data: Columns, task: str | None) -> list[tuple[Card, str]]:
    """Return each card with why it does not fit the data and the task (empty where it does)."""
    return [(card, card.lacks(data, task)) for card in cards().values()]


@dataclass(frozen=True)
class Catalogue:
    """The methods, as a table that shows itself."""

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
        """Family by family; what else a card says is in `to_pandas` and `rushlight methods ID`."""
        families = dict.fromkeys(card.family for card in self.cards)
        rows = [
            {"family": "" if number else family, "id": card.id, "role": card.role, "gives": card.gives}
            for family in sorted(families)
            for number, card in enumerate(card for card in self.cards if card.family == family)
        ]
        return table(rows)


def catalogue(name: str | None = None) -> Any:
    """Return the catalogue of methods, or one method's card."""
    if name is not None:
        return load_method(name).card  # type: ignore[attr-defined]
    known = cards()
    return Catalogue(tuple(known[key] for key in entries()))


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
