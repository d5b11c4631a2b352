"""The command that repeats a job: everything that was chosen, as it would be typed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from rushlight.data.dataset import Dataset

DATA = "DATA"
"""Stands for data that were made in Python, which no command can read again."""
DEFAULTS = {"fit": "squash"}


def repeat(job: str, data: Dataset, *arguments: str, before: Sequence[str] = (), **options: Any) -> str:
    """Return the command line of a job on this data, as it was given to the job.

    Where the data were made or changed in Python, `DATA` stands for them, and a comment says how to write them.

    Args:
        before, arguments: what stands before and after the source, such as a recipe.
        options: by name; those that are None or False are left out, True is a flag.
    """
    loaded = dict(data.loaded or {"source": DATA})
    words = ["rushlight", job, *before, str(loaded.pop("source")), *arguments]
    loaded["size"] = _size(loaded.get("size"))
    read = {name: value for name, value in loaded.items() if value != DEFAULTS.get(name)}
    for name, value in {**options, **read}.items():
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", str(value)]
    remark = "" if data.loaded else f"  # {DATA}: a folder that data.save('{DATA}') wrote"
    return shlex.join(words) + remark


def _size(size: Any) -> str | None:
    """Return a canvas in the form of `--size`: a side, or HEIGHTxWIDTH."""
    if size is None:
        return None
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return str(height) if height == width else f"{height}x{width}"
