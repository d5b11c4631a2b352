"""The data of a job, read at a size that the device can train on: one rule for Python and the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rushlight.data.dataset import Dataset
from rushlight.data.sources.read import load
from rushlight.run import hardware

CPU_SIDE = 64
"""Side in pixels of the images that a CPU trains on where no size is named."""


def read(source: Any, *, device: str | None = "auto", group: str | None = None, **settings: Any) -> Dataset:
    """Return the data: a `Dataset` unchanged, all other sources by `load`.

    Files that are read for a job on a CPU are packed at 64 × 64 pixels unless a size is named; a line says so.

    Args:
        device: of the job; None for one that trains nothing.
        group: the column of what belongs together in splits.
        settings: as for `load`.
    """
    if isinstance(source, Dataset):
        return source
    if group is not None:
        settings["group"] = group
    if settings.get("size") is None and device is not None and _is_file(source) and hardware.device(device) == "cpu":
        settings["size"] = CPU_SIDE
        say(f"reading images at {CPU_SIDE} × {CPU_SIDE} px, for a CPU; choose another with --size N, or load(size=N)")
    return load(source, **settings)


def no_label(data: Dataset) -> str:
    """Return the sentence on data without any label, up to what else can be done."""
    return (
        f"no label is known in {data.info.source}: put images into a folder a class, or give --labels FILE "
        "(a CSV with the columns image and class)"
    )


def _is_file(source: Any) -> bool:
    return isinstance(source, str | Path) and Path(source).exists()


def say(sentence: str) -> None:
    """Tell the user about a choice that was made."""
    print(f"rushlight: {sentence}", file=sys.stderr)
