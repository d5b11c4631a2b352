"""Rushlight: teach vision models to see from few, partial, noisy or missing labels.

The public names, and nothing else; each is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rushlight._version import VERSION as __version__

__all__ = [
    "Dataset",
    "Model",
    "UserError",
    "__version__",
    "audit",
    "catalogue",
    "claims",
    "compare",
    "curate",
    "export",
    "fit",
    "judge",
    "load",
    "look",
    "predict",
    "rank_encoders",
    "replay",
]

if TYPE_CHECKING:
    from rushlight.api import (
        audit,
        catalogue,
        claims,
        compare,
        curate,
        export,
        fit,
        judge,
        load,
        look,
        predict,
        rank_encoders,
        replay,
    )
    from rushlight.core.errors import UserError
    from rushlight.data.dataset import Dataset
    from rushlight.run.model import Model

_HOMES = {
    "Dataset": "rushlight.data.dataset",
    "Model": "rushlight.run.model",
    "UserError": "rushlight.core.errors",
}


_FORMER = {"systems": "catalogue"}
"""Names of the first house, which answer with the new ones."""


def __getattr__(name: str) -> Any:
    name = _FORMER.get(name, name)
    if name not in __all__:
        raise AttributeError(f"module 'rushlight' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "rushlight.api")), name)


def __dir__() -> list[str]:
    return __all__
