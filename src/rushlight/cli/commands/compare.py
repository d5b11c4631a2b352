"""`rushlight compare`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rushlight.cli import options, progress
from rushlight.cli.show import command, read, show


def compare(
    source: options.Source,
    labels: options.Labels = None,
    masks: options.Masks = None,
    depth: options.Depth = None,
    group: options.Group = None,
    methods: Annotated[str, typer.Option(help="Recipes separated by commas, or auto: every one that fits.")] = "auto",
    budget: options.Budget = "200k",
    seeds: Annotated[
        int | None, typer.Option(help="How many seeds; by default 5, and 3 with --unlabelled-only.")
    ] = None,
    keep: Annotated[int | None, typer.Option(help="Keep this many labels a class, to see what few labels do.")] = None,
    test_share: Annotated[float, typer.Option(help="Share of the labelled images held out for the test.")] = 0.25,
    out: Annotated[str, typer.Option(help="Folder for trials, models and the report.")] = "rushlight-out",
    encoder: options.Encoder = "auto",
    weights: options.Weights = None,
    pretrained: options.Pretrained = False,
    task: options.Task = None,
    size: options.Size = None,
    fit: options.Fit = "squash",
    cache: options.Cache = None,
    device: options.Device = "auto",
    workers: options.Workers = None,
    unlabelled_only: Annotated[
        bool, typer.Option("--unlabelled-only", help="Look at no label: pretrain, and rank encoders without labels.")
    ] = False,
) -> None:
    """Run every fitting recipe at an equal budget, rank them, and write a report and the best model."""
    import rushlight
    from rushlight.core.errors import UserError
    from rushlight.core.files import check_folder
    from rushlight.run.budget import Budget
    from rushlight.run.store import Store

    Budget.parse(budget)
    check_folder(Store(out).folder)
    if unlabelled_only and (task is not None or keep is not None):
        raise UserError("--unlabelled-only looks at no label: leave --task and --keep away")
    data = read(source, labels, masks, depth, group, size, fit, cache, device)
    run: Any = rushlight.rank_encoders if unlabelled_only else rushlight.compare
    chosen = {} if unlabelled_only else {"keep": keep, "task": task}
    with progress.comparison() as watch:
        board = run(
            data,
            methods,
            budget=budget,
            seeds=seeds if seeds is not None else 3 if unlabelled_only else 5,
            test_share=test_share,
            out=out,
            encoder=encoder,
            weights=weights,
            pretrained=pretrained,
            device=device,
            workers=workers,
            command=command(),
            on_update=watch,
            **chosen,
        )
    show(board)
    show(f"report: {board.store.where('report.html')}")
