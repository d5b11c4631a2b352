"""The catalogue and one card, as tables that show themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rushlight.core.arguments import described
from rushlight.core.card import Card
from rushlight.core.catalogue import load_method
from rushlight.core.findings import Table
from rushlight.present.shown import Shown


@dataclass(frozen=True)
class Catalogue(Shown):
    """The methods."""

    cards: tuple[Card, ...]

    def rows(self) -> list[dict[str, str]]:
        """Return what each card says, one row per method."""
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
        """Return the catalogue as a pandas DataFrame."""
        return Table.of_rows("methods", self.rows()).to_pandas()

    def parts(self) -> Iterable[Table]:
        """Return the methods, family by family; `to_pandas` and a method's card say more."""
        families = sorted({card.family for card in self.cards})
        rows = [
            {"family": "" if number else family, "id": card.id, "role": card.role, "gives": card.gives}
            for family in families
            for number, card in enumerate(card for card in self.cards if card.family == family)
        ]
        yield Table.of_rows("methods", rows)


@dataclass(frozen=True)
class Method(Shown):
    """One method: its card, its arguments and the idea."""

    card: Card

    def parts(self) -> Iterable[str | Table]:
        """Return the card as rows, the arguments, and what the module says."""
        card, kind = self.card, load_method(self.card.id)
        said = {
            "id": card.id,
            "title": card.title,
            "paper": card.paper,
            "code": card.code,
            "role": f"{card.role}, family {card.family}",
            "learns": ", ".join(sorted(card.task)),
            "needs": str(card.needs),
            "gives": card.gives,
            "says": card.says,
            "arguments": "\n".join(f"{name}   {says}" for name, says in described(kind).items()),
        }
        yield Table.of_rows(card.id, [{"": key, " ": value} for key, value in said.items() if value])
        yield inspect.cleandoc(inspect.getmodule(kind).__doc__ or "")
