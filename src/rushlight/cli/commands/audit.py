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
    attack_images: Annotated[int, typer.Option(help="Labelled images at most for judges such as attacks.")] = 200,
    label_images: Annotated[int, typer.Option(help="Labelled images at most searched for label mistakes.")] = 20_000,
    size: options.Size = None,
    fit: Annotated[
        str,
        typer.Option(help="squash, crop or pad; by default as the model's images were.", rich_help_panel=options.DATA),
    ] = "",
    cache: options.Cache = None,
    device: options.Device = "auto",
) -> None:
    """Run every judge that fits a model: how often it is right, whether to believe it, what attacks do, whose labels
    may be wrong."""
    import rushlight
    from rushlight.core.files import check_folder

    check_folder(Path(out))
    trained = rushlight.Model.load(model)
    canvas = trained.info.canvas
    data = read(source, labels, masks, depth, group, size or canvas["size"], fit or canvas["fit"], cache, device)
    with progress.bar("auditing") as tell:
        found = rushlight.audit(
            trained,
            data,
            out=out,
            seed=seed,
            device=device,
            attack_images=attack_images,
            label_images=label_images,
            command=command(),
            on_progress=lambda done: tell(done.done, done.stage),
        )
    show(found)
    show(f"report: {Path(out) / 'audit.html'}")
