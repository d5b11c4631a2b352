"""`rushlight predict`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rushlight.cli import options, progress
from rushlight.cli.show import show


def predict(
    model: Annotated[str, typer.Argument(help="The folder of a model.")],
    images: Annotated[str, typer.Argument(help="A folder of images.")],
    out: Annotated[
        str, typer.Option(help="A .csv or .parquet file, or a folder for what is drawn.")
    ] = "predictions.csv",
    depth: options.Depth = None,
    device: options.Device = "auto",
    cache: options.Cache = None,
) -> None:
    """Predict every image of a folder: a table as CSV or Parquet, or files in the images' own pixels (PNG masks)."""
    from rushlight.jobs.predict import run, write
    from rushlight.tasks.base import some

    write.check(out)
    with progress.bar("reading") as tell:

        def read(done: int, n: int) -> None:
            tell(done / n, "")

        trained, _ = run.ready(model, device)
        data = run.pictures(trained, images, depth=depth, cache=cache, progress=read, tell=False)
        if write.is_table(out):
            table = run.predict(trained, data, device=device)
            write.write_table(table, out)
            said = f"{_counted(len(table), 'prediction')}: {out}"
        else:
            said = f"{_counted(len(write.write_files(trained, data, out, device=device)), 'file')}: {out}"
    for entry in data.info.quarantined:
        print(f"rushlight: left out {entry.name}: {entry.reason}", file=sys.stderr)
    names = [entry.name for entry in data.info.quarantined]
    show(said + (f"; {len(names):,} left out: {some(names)}" if names else ""))


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("s" if n != 1 else "")
