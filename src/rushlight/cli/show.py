"""What a command prints, and the line that repeats it."""

from __future__ import annotations

import sys
from typing import Any

from rushlight.cli import progress


def show(what: Any) -> None:
    """Print a result or a sentence."""
    from rich.console import Console

    Console(soft_wrap=isinstance(what, str), markup=False, highlight=False).print(what)


def command() -> str:
    """Return what was typed, as it would be typed again."""
    import shlex

    return "rushlight " + shlex.join(argument for argument in sys.argv[1:] if argument != "--debug")


def read(
    source: str,
    labels: str | None,
    masks: str | None,
    depth: str | None,
    group: str | None,
    size: str | tuple[int, int] | None,
    fit: str,
    cache: str | None,
    device: str | None = "auto",
) -> Any:
    """Read the data of a job; `device` None reads it at its own size."""
    from rushlight.core.errors import UserError
    from rushlight.jobs import source as sources

    if fit not in ("squash", "crop", "pad"):
        raise UserError(f"--fit {fit}: use squash, crop or pad")
    with progress.bar("reading") as tell:
        return sources.read(
            source,
            device=device,
            labels=labels,
            masks=masks,
            depth=depth,
            group=group,
            size=_canvas(size) if isinstance(size, str) else size,
            fit=fit,
            cache=cache,
            progress=lambda done, n: tell(done / n, ""),
        )


def _canvas(size: str) -> int | tuple[int, int]:
    """Read a side, or HEIGHTxWIDTH."""
    from rushlight.core.errors import UserError

    sides = size.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        raise UserError(f"--size {size}: give a side in pixels, such as 64, or HEIGHTxWIDTH, such as 48x64")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))
