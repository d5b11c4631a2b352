"""The command that repeats a job: everything that was chosen, as it would be typed."""

from __future__ import annotations

import shlex
from typing import Any

from rushlight.data.dataset import Dataset


def repeat(job: str, data: Dataset, *arguments: str, **options: Any) -> str:
    """Return the command line of a job on this data.

    Args:
        arguments: what follows the source, such as a recipe.
        options: by name; those that are None or False are left out, True is a flag.
    """
    settings = data.info.settings
    packed = {**settings.get("given", {}), "fit": settings.get("fit")}
    packed["size"] = _side(settings.get("size"))
    packed = {name: value for name, value in packed.items() if value not in (None, "squash")}
    words = ["rushlight", job, data.info.source, *arguments]
    for name, value in {**options, **packed}.items():
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _side(size: Any) -> int | None:
    """The side of a square canvas, which is what `--size` takes."""
    sides = set(size) if isinstance(size, list | tuple) else {size}
    return int(sides.pop() or 0) or None if len(sides) == 1 else None
