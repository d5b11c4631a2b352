"""`rushlight curate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rushlight.cli import options, progress
from rushlight.cli.show import command, read, show


def curate(
    source: options.Source,
    recipe: Annotated[str, typer.Argument(help="Curators in a row, such as 'pass(cap=20)'.")],
    out: Annotated[
        str, typer.Option(help="Folder for curation.csv, audit.json, review.csv and curation.html.")
    ] = "kept",
    copy: Annotated[bool, typer.Option("--copy", help="Put the kept files there too, byte for byte.")] = False,
    labels: options.Labels = None,
    masks: options.Masks = None,
    depth: options.Depth = None,
    group: options.Group = None,
    budget: Annotated[
        str | None, typer.Option(help="Image passes (200k) or time (10m), for curators that train.")
    ] = None,
    seed: options.Seed = 0,
    encoder: options.Encoder = "auto",
    weights: options.Weights = None,
    pretrained: options.Pretrained = False,
    size: options.Size = None,
    fit: options.Fit = "squash",
    cache: options.Cache = None,
    device: options.Device = "auto",
) -> None:
    """Keep the images that may be used and are wanted: a reason for each one that is gone, and an account."""
    import rushlight
    from rushlight.core.files import check_folder
    from rushlight.jobs.curate.run import curators

    curators(recipe, budget)
    check_folder(Path(out))
    data = read(source, labels, masks, depth, group, size, fit, cache, device)
    with progress.bar("curating") as tell:
        done = rushlight.curate(
            data,
            recipe,
            out=out,
            copy=copy,
            budget=budget,
            seed=seed,
            encoder=encoder,
            weights=weights,
            pretrained=pretrained,
            device=device,
            command=command(),
            on_progress=lambda done: tell(done.done, progress.words(done)),
        )
    show(done)
    show(f"report: {Path(out) / 'curation.html'}")
