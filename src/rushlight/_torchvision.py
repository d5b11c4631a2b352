"""Import torchvision also where its compiled operators do not fit the installed PyTorch.

The registry's torchvision for Linux is built against the CUDA build of PyTorch. Beside a CPU build its compiled
library cannot load, and `import torchvision` then fails on an operator that nothing here uses. Declaring those
operators' schemas first lets the pure-Python parts (all that we and timm need; `roi_align` has a Python form)
import as usual. Where torchvision is whole, this file does nothing. Import it before timm or torchvision.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path

import torch

_SCHEMAS = {name: f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms")}
_library: torch.library.Library | None = None


def _compiled_operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(spec.origin).parent / f"_C{suffix}"
        if path.exists():
            try:
                torch.ops.load_library(str(path))
            except OSError:
                return False
            return True
    return False


def ensure() -> None:
    """Make `import torchvision` and `import timm` work; safe to call again."""
    global _library
    if _library is not None or hasattr(torch.ops.torchvision, "nms"):
        return
    if not _compiled_operators_load():
        _library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS.values():
            _library.define(schema)


ensure()
