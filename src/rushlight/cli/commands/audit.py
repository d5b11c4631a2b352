"""`rushlight audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rushlight.cli import options, progress
from rushlight.cli.show import command, read, show


def audit(
    model: Annotated[str, typer.Argument(help="The folder of a model.")],
    source: options.Source,
    labels: options.Labels = None,
    masks: options.Masks = None,
    depth: options.Depth = None,
    group: options.Group = None,
    out: Annotated[str, typer.Option(help="Folder for audit.html.")] = "rushlight-audit",
    seed: options.Seed = 0,
    cache: options.Cache = None,
    device: options.Device = "auto",
) -> None:
    """Run every judge that fits a model: how often it is right, whether to believe it, what attacks do, whose labels
    may be wrong."""
    import rushlight

    trained = rushlight.Model.load(model)
    canvas = trained.info.canvas
    data = read(source, labels, masks, depth, group, canvas["size"], canvas["fit"], cache, device)
    with progress.bar("auditing") as tell:
        found = rushlight.audit(
            trained,
            data,
            out=out,
            seed=seed,
            device=device,
            command=command(),
            on_progress=lambda done: tell(done.done, done.stage),
        )
    show(found)
    show(f"report: {Path(out) / 'audit.html'}")
