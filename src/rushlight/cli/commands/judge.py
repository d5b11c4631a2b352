"""`rushlight judge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rushlight.cli import options, progress
from rushlight.cli.show import command, read, show


def judge(
    recipe: Annotated[str, typer.Argument(help="A judge with its arguments, such as 'backbones(shots=5)'.")],
    source: options.Source,
    models: Annotated[
        str | None,
        typer.Option(help="Folders of models, encoders or timm models, separated by commas: 'model/, resnet18@64'."),
    ] = None,
    out: Annotated[str, typer.Option(help="Folder for judge.html and a CSV file of each table.")] = "judged",
    labels: options.Labels = None,
    masks: options.Masks = None,
    depth: options.Depth = None,
    group: options.Group = None,
    seed: options.Seed = 0,
    encoder: options.Encoder = "auto",
    pretrained: options.Pretrained = False,
    task: options.Task = None,
    size: options.Size = None,
    fit: options.Fit = "squash",
    cache: options.Cache = None,
    device: options.Device = "auto",
) -> None:
    """Run one judge on one model, on several side by side, or on none, and write what it found."""
    import rushlight
    from rushlight.core.files import check_folder
    from rushlight.jobs.judge import run as judging
    from rushlight.run import recipe as recipes

    recipes.judge(recipe)
    judging.check(models)
    check_folder(Path(out))
    data = read(source, labels, masks, depth, group, size, fit, cache, device)
    with progress.bar("judging") as tell:
        done = rushlight.judge(
            recipe,
            data,
            models=models,
            out=out,
            seed=seed,
            encoder=encoder,
            pretrained=pretrained,
            task=task,
            device=device,
            command=command(),
            on_progress=lambda done: tell(done.done, progress.words(done)),
        )
    show(done)
    show(f"report: {Path(out) / 'judge.html'}")
