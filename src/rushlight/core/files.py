"""Files that survive a crash, and their hashes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

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


def plain_json(content: Any, *, indent: int | None = 1) -> bytes:
    """Return JSON that any reader takes: null stands for NaN and infinities, and non-ASCII characters stay."""
    return json.dumps(_finite(content), indent=indent, allow_nan=False, ensure_ascii=False).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_folder(folder: Path) -> None:
    """Check, before a long run, that files can be written into a folder; it is not made.

    Raises:
        UserError: it is a file, or it cannot be made or written.
    """
    place = next((each for each in (folder, *folder.absolute().parents) if each.exists()), folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        reason = f"{place} is a file" if place.is_file() else error.strerror
        raise UserError(f"{folder} cannot be written ({reason}): name another folder with --out") from error


def check_file(path: Path) -> None:
    """Check, before a long run, that a file can be written.

    Raises:
        UserError: it is a folder, or its own folder cannot be written.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file with --out")
    check_folder(path.parent)


def replace_folder(new: Path, place: Path) -> None:
    """Put a folder in the place of another, if there is one; both lie beside each other.

    A kill (or a power cut) at any moment leaves the old folder or the new one, whole: `standing` finds it.
    """
    aside = _aside(place)
    for path in (*sorted(new.rglob("*"), reverse=True), new):
        _flush(path)
    if place.exists():
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)
    new.rename(place)
    _flush(place.parent)
    shutil.rmtree(aside, ignore_errors=True)


def standing(place: Path) -> Path:
    """Return the folder, or the old one set aside where its replacement was interrupted."""
    aside = _aside(place)
    return aside if not place.exists() and aside.exists() else place


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}.replaced")


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    if path.is_dir() and os.name == "nt":  # where folders cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_hash(path: str | os.PathLike[str] | None) -> str:
    """Return the SHA-256 of a file's bytes; empty for none."""
    if path is None:
        return ""
    status = Path(path).stat()
    return _hash_of(Path(path), status.st_mtime_ns, status.st_size)


@lru_cache
def _hash_of(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
