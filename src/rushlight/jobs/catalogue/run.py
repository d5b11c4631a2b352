"""What there is: all methods, or the families of those that learn without labels."""

from __future__ import annotations

from rushlight.core.catalogue import cards, entries, load_method
from rushlight.core.findings import Table
from rushlight.jobs.catalogue.result import Catalogue


def catalogue() -> Catalogue:
    """Return the catalogue of methods."""
    known = cards()
    return Catalogue(tuple(known[name] for name in entries()))


def taxonomy() -> Table:
    """Return how methods without labels are related, by the first judge that has a taxonomy of them."""
    kinds = (load_method(name) for name in entries())
    columns = next(kind.taxonomy() for kind in kinds if hasattr(kind, "taxonomy"))
    shown = ("family", "systems", "strong", "weak")
    return Table.of("taxonomy", {name: columns[name] for name in shown})
