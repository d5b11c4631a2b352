"""`rushlight replay`."""

from __future__ import annotations

from typing import Annotated

import typer

from rushlight.cli.show import show


def replay(file: Annotated[str, typer.Argument(help="The replay.json that a failed trial left.")]) -> None:
    """Repeat the one step of a trial whose loss was not finite, and say where it began."""
    from rushlight import api

    show(api.replay(file))
