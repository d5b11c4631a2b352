"""Packs that are kept: a folder named by a hash of all that its content depends on, whole or not there.

It is written beside its place and renamed into it when it is whole; a lock lets a second run wait for the first; a
folder that is not whole is built again.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock

from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset

VERSION = 4
"""Counts changes of what a pack holds: part of the cache's key."""


Cache = str | os.PathLike[str] | Literal[False] | None


Run = Callable[[Path | None], Dataset]
"""Packs into a folder."""


@contextmanager
def nameable(root: Path) -> Iterator[None]:
    """Turn a full disk or a read-only folder into one sentence."""
    try:
        yield
    except OSError as error:
        what = {errno.ENOSPC: "its disk is full", errno.EDQUOT: "its quota is used up"}.get(error.errno or 0)
        what = what or (error.strerror or str(error))
        raise UserError(
            f"the cache folder '{root}' cannot be written: {what}; name another with --cache (cache=…)"
        ) from error


def cached(key: str, run: Run, root: Path) -> Dataset:
    """Return the pack of this name, from the cache if it is there, else by `run`."""
    root.mkdir(parents=True, exist_ok=True)
    found = _whole(root / key)
    if found is not None:
        return found
    with FileLock(root / f"{key}.lock"):
        return _whole(root / key) or _build(key, run, root)


def _build(key: str, run: Run, root: Path) -> Dataset:
    """Build the pack beside the folder's place, then rename it. The lock is held: other parts are of dead processes."""
    for dead in root.glob(f"{key}.part-*"):
        shutil.rmtree(dead, ignore_errors=True)
    shutil.rmtree(root / key, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=f"{key}.part-", dir=root))
    try:
        run(part)
        _seal(part)
        part.rename(root / key)
        _sync(root)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return Dataset.open(root / key)


def _seal(folder: Path) -> None:
    """Record every file's length, and flush all files to the disk."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    lengths = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    (folder / "whole.json").write_text(json.dumps(lengths))
    for path in [*files, folder / "whole.json", folder / "columns", folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _whole(folder: Path) -> Dataset | None:
    """Return the data set of a pack in which nothing is missing, or None."""
    try:
        lengths = json.loads((folder / "whole.json").read_text())
        if any((folder / name).stat().st_size != length for name, length in lengths.items()):
            return None
        return Dataset.open(folder)
    except Exception:  # whatever is wrong with it, it will be built again
        return None
