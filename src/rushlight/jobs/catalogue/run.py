"""What there is: all methods, one of them, or the families of those that learn without labels."""

from __future__ import annotations

from typing import Any

from rushlight.core.catalogue import cards, entries, load_method
from rushlight.core.findings import Table
from rushlight.jobs.catalogue.result import Catalogue, Method


def catalogue() -> Catalogue:
    """Return the catalogue of methods."""
    known = cards()
    return Catalogue(tuple(known[name] for name in entries()))


def method(name: str) -> Method:
    """Return one method.

    Raises:
        UserError: there is none of this name; the nearest is suggested.
    """
    kind: Any = load_method(name)
    return Method(kind.card)


def taxonomy() -> Table:
    """Return how methods without labels are related, by the first judge that has a taxonomy of them."""
    kinds: Any = (load_method(name) for name in entries())
    columns = next(kind.taxonomy() for kind in kinds if hasattr(kind, "taxonomy"))
    shown = ("family", "methods", "strong", "weak")
    return Table.of("taxonomy", {name: columns[name] for name in shown})
