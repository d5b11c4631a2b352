"""The judge that orders encoders without labels, and how far the ledger says that its order can be trusted."""

from __future__ import annotations

from typing import Any

import numpy as np

from rushlight.core.catalogue import load_method, serving
from rushlight.core.errors import UserError
from rushlight.jobs.claims import run as claims


def signals() -> Any:
    """Return the class of the judge whose card serves `signals`.

    Raises:
        UserError: none is installed.
    """
    found = serving("signals")
    if not found:
        raise UserError("no installed judge ranks encoders without labels: a card must say serves='signals'")
    return load_method(found[0].id)


def trust() -> str:
    """Return what the ledger measured of rankings without labels; a figure is only given where it was measured."""
    name = signals().card.id
    entry = claims.ledger().get(name)
    if entry is None:
        return "How far an order without labels can be trusted has not been measured here: rushlight claims run " + name
    order, chosen = entry["effects"][0], 2.0 - next(e["mean"] for e in entry["effects"] if e["name"] == "saved")
    models = round(float(np.mean(entry["recorded"]["models"])))
    return (
        f"How far this order can be trusted: over {models} small encoders on the embedded photos it correlated with "
        f"the order by labels by ρ = {order['mean']:.2f} ({order['low']:.2f} … {order['high']:.2f}, {entry['seeds']} "
        f"seeds), and its first choice cost {chosen:.1f} points of accuracy against the best one. "
        "A few labels tell more."
    )
