"""The systems: one folder a family, one file a system, named by its id.

The public function `rushlight.systems()` bears this package's name; so that both are the same thing whichever was
imported first, the package can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from rushlight import card


class _Systems(ModuleType):
    def __call__(self, name: str | None = None) -> Any:
        return card.systems(name)


sys.modules[__name__].__class__ = _Systems
