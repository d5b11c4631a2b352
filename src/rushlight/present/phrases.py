"""What every report says in the same words: counts, durations, versions, files left out, who made it."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rushlight._version import VERSION
from rushlight.data.dataset import Quarantined
from rushlight.present.page import Block, Listing, Text

PACKAGES = ("torch", "torchvision", "lightning-fabric", "timm", "tensordict", "numpy", "scipy")


def count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def flops(number: float) -> str:
    """Return a number of FLOPs with the letter of its size, such as `2.6 G`."""
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e6:.3g} M"


def versions(python: str, *further: str) -> str:
    """Return the versions of this library, Python, and the packages that figures may depend on."""
    known = (f"{name} {number}" for name in (*PACKAGES, *further) if (number := _version(name)))
    return f"rushlight {VERSION}, Python {python}, " + ", ".join(known)


def host(machine: dict[str, Any]) -> str:
    return f"{platform.system()} {machine['processor']}, {machine['cores']} cores"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def quarantine(left_out: Sequence[Quarantined]) -> list[Block]:
    """Return a block on the files that were left out, and why."""
    if not left_out:
        return [Text("No file was left out.", quiet=True)]
    return [Listing(f"{count(len(left_out), 'file')} left out, and why", [(q.name, q.reason) for q in left_out])]


def footer() -> str:
    made = time.strftime("%Y-%m-%d %H:%M")
    return f"Made by Rushlight {VERSION} on {made}. This page is one file: it loads nothing and runs no scripts."
