"""`rushlight methods`."""

from __future__ import annotations

from typing import Annotated

import typer

from rushlight.cli.show import show


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[ID]", help="A method, for its whole card.")] = None,
    taxonomy: Annotated[
        bool, typer.Option("--taxonomy", help="Show how methods without labels are related, family by family.")
    ] = False,
) -> None:
    """List the methods, or show one."""
    from rushlight.jobs.catalogue import run

    if taxonomy:
        from rushlight.present.table import terminal

        show(terminal(run.taxonomy()))
    else:
        show(run.catalogue() if name is None else run.method(name))
