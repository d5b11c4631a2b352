"""A data set in a report: where it comes from, how much of it is known, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rushlight.data.dataset import Dataset
from rushlight.present.page import Block, FactSheet
from rushlight.present.phrases import quarantine

NAMES = 30
"""Names that are listed, at most."""


def blocks(data: Dataset, further: Mapping[str, str] | None = None) -> list[Block]:
    """Return the data set's facts, `further` ones, and the files that were left out."""
    known = ", ".join(f"{int(data.known(name).sum()):,} of {name}" for name in data.label_names)
    sheet = {
        "source": data.info.source,
        "images": f"{len(data):,} of {data.height} × {data.width} pixels",
        "labels known": known or "none",
        **(further or {}),
    }
    if group := data.info.settings.get("group"):
        sheet["groups"] = str(group)
    if data.info.licence:
        sheet["licence"] = data.info.licence
    return [FactSheet(sheet), *quarantine(data.info.quarantined)]


def listed(names: Iterable[str], most: int = NAMES) -> str:
    """Return how many names there are, and the first of them."""
    names = list(names)
    return f"{len(names)}: {', '.join(names[:most])}" + (", …" if len(names) > most else "")
