"""The catalogue of methods, read from the entry points of the group `rushlight.methods`.

Another package adds a method by declaring an entry point there.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

from rushlight.core import entries as entry_points
from rushlight.core.card import Card, Columns, Service
from rushlight.core.errors import UserError, nearest


def entries() -> dict[str, EntryPoint]:
    """Return every method's entry point by id, unloaded."""
    return entry_points.entries(entry_points.METHODS)


def load_method(name: str) -> Any:
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
    return {name: load_method(name).card for name in entries()}


def fitting(data: Columns, task: str | None) -> list[tuple[Card, str]]:
    """Return each card with why it does not fit the data and the task (empty where it does)."""
    return [(card, card.lacks(data, task)) for card in cards().values()]


def serving(service: Service) -> list[Card]:
    """Return the cards of the methods that jobs take for this, by id; see `Service`."""
    return [card for card in cards().values() if card.serves == service]
