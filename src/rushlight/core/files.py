"""Files that survive a crash, and their hashes."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from rushlight.core.errors import UserError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise UserError(
            f"{path} could not be written ({error.strerror}): make room there, or name another folder with --out"
        ) from error


def file_hash(path: str | os.PathLike[str] | None) -> str:
    """SHA-256 of a file's bytes; empty for none."""
    if path is None:
        return ""
    status = Path(path).stat()
    return _hash_of(Path(path), status.st_mtime_ns, status.st_size)


@lru_cache
def _hash_of(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
