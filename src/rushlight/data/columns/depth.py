"""Distance of each pixel, in whatever unit it came; NaN is unknown."""

from __future__ import annotations

from typing import Any

import torch

from rushlight.data.columns.base import Kind


def _decode(source: Any) -> Any:
    from rushlight.data.pack.rasters import decode_depth

    return decode_depth(source)


KINDS = (
    Kind(
        "depth",
        torch.float32,
        ("H", "W"),
        "nan",
        unknown=float("nan"),
        moves="depth",
        label=False,
        option="depth",
        decode=_decode,
    ),
)
