"""`rushlight predict`."""

from __future__ import annotations

from pathlib import Path
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
    from rushlight.core.files import check_file, check_folder
    from rushlight.jobs.predict import run, write

    (check_file if write.is_table(out) else check_folder)(Path(out))
    with progress.bar("reading") as tell:

        def read(done: int, n: int) -> None:
            tell(done / n, "")

        if write.is_table(out):
            table = run.predict(model, images, depth=depth, device=device, cache=cache, progress=read)
            write.write_table(table, out)
            said = f"{len(table):,} predictions: {out}"
        else:
            files = write.write_files(model, images, out, depth=depth, device=device, cache=cache, progress=read)
            said = f"{len(files):,} files: {out}"
    show(said)
