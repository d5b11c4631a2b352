"""Predictions as files: a table, or what the model's task writes for each image."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rushlight.core.errors import UserError
from rushlight.core.files import check_file, check_folder, write_whole
from rushlight.data.sources.read import Cache
from rushlight.jobs.predict.run import Folder, ModelLike, batches, pictures, ready

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".csv", ".parquet")


def is_table(out: str | os.PathLike[str]) -> bool:
    """Return whether predictions go into one table: a file, not a folder.

    Raises:
        UserError: a file that ends otherwise.
    """
    suffix = Path(out).suffix
    if suffix and suffix not in TABLES:
        raise UserError(f"--out {out}: predictions are written as {' or '.join(TABLES)}, or into a folder")
    return bool(suffix)


def check(out: str | os.PathLike[str]) -> None:
    """Check that predictions can be written there, before any are made.

    Raises:
        UserError: they cannot.
    """
    (check_file if is_table(out) else check_folder)(Path(out))


def write_table(table: pd.DataFrame, out: str | os.PathLike[str]) -> None:
    """Write predictions as CSV or Parquet, by the file's ending.

    Raises:
        UserError: another ending, or a place that cannot be written.
    """
    out, content = Path(out), BytesIO()
    if not is_table(out):
        raise UserError(f"--out {out}: a table is written as {' or '.join(TABLES)}")
    table.to_csv(content, index=False) if out.suffix == ".csv" else table.to_parquet(content, index=False)
    write_whole(out, content.getvalue())


def write_files(
    model: ModelLike,
    images: Any,
    folder: str | os.PathLike[str],
    *,
    depth: Folder = None,
    device: str = "auto",
    batch: int | None = None,
    cache: Cache = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write what the model's task writes (masks as PNG, …), in the pixels of the user's own images.

    Args:
        model, images, depth, device, batch, cache, workers, progress: as for `predict`.

    Returns:
        The files that were written.

    Raises:
        UserError: the task writes tables alone, or the folder cannot be written.
    """
    model, task = ready(model, device)
    data = pictures(model, images, depth=depth, cache=cache, workers=workers, progress=progress)
    return task.write(batches(model, data, batch, [task.id]), data, Path(folder), model.info)
