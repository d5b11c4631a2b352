"""The class of each pixel; 255 is unknown."""

from __future__ import annotations

from typing import Any

import torch

from rushlight.data.columns.base import Kind


def _decode(source: Any) -> Any:
    from rushlight.data.pack.rasters import decode_mask

    return decode_mask(source)


KINDS = (Kind("mask", torch.uint8, ("H", "W"), unknown=255, moves="masks", option="masks", decode=_decode),)
