"""`rushlight fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rushlight.cli import options, progress
from rushlight.cli.show import read, show


def fit(
    source: options.Source,
    recipe: Annotated[
        str, typer.Argument(help="Stages in a row, such as 'barlow-twins > iomatch(closed_threshold=0.7)'.")
    ],
    out: Annotated[str, typer.Option(help="Folder for the model.")] = "model",
    labels: options.Labels = None,
    masks: options.Masks = None,
    depth: options.Depth = None,
    group: options.Group = None,
    budget: options.Budget = "200k",
    seed: options.Seed = 0,
    encoder: options.Encoder = "auto",
    weights: options.Weights = None,
    pretrained: options.Pretrained = False,
    task: options.Task = None,
    size: options.Size = None,
    fit: options.Fit = "squash",
    cache: options.Cache = None,
    device: options.Device = "auto",
) -> None:
    """Train one recipe and save the model."""
    import rushlight
    from rushlight.run.budget import Budget
    from rushlight.run.model import check_place
    from rushlight.run.recipe import Recipe

    Budget.parse(budget)
    Recipe.parse(recipe)
    check_place(Path(out))
    data = read(source, labels, masks, depth, group, size, fit, cache, device)
    with progress.bar("training") as tell:
        model = rushlight.fit(
            data,
            recipe,
            budget=budget,
            seed=seed,
            out=out,
            encoder=encoder,
            weights=weights,
            pretrained=pretrained,
            task=task,
            device=device,
            on_progress=lambda done: tell(done.done, progress.words(done)),
        )
    show(f"model: {out}")
    for note in model.info.notes:
        show(f"note: {note}")
