"""Files that mean harm or are simply broken, and plain ones to stand beside them."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def photo(seed: int = 0, height: int = 40, width: int = 56) -> Image.Image:
    """A smooth picture that no other seed gives."""
    small = np.random.default_rng(seed).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def save(path: Path, seed: int = 0, height: int = 40, width: int = 56) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(seed, height, width).save(path)
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes) -> bytes:
    """A grey PNG whose header says what it likes."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


class Bomb:
    """Unpickling this makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def bomb(path: Path) -> bytes:
    return pickle.dumps(Bomb(path))


def jpeg(seed: int = 0, **size: int) -> bytes:
    buffer = io.BytesIO()
    photo(seed, **size).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def corpus(folder: Path) -> dict[str, str]:
    """Write hostile images into a folder; each file's name with a word that its reason must contain."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, tuple[bytes, str]] = {
        "truncated.jpg": (jpeg()[:-400], "truncated"),
        "half.jpg": (jpeg()[:300], ""),
        "text.jpg": (b"I am no image at all", "not an image"),
        "empty.png": (b"", "empty"),
        "one.png": (png(1, 1, b"\0\0"), "smaller"),
        "thin.png": (png(3, 500, b"\0\0\0\0" * 500), "smaller"),
        "bomb.png": (png(20_000, 20_000, bytes(20_001) * 400), "million pixels"),
        "large.png": (png(11_000, 11_000, bytes(11_001) * 1500), "million pixels"),
        "giant.png": (png(2**31 - 1, 2**31 - 1, b"\0"), ""),
        "lying.png": (png(9_000, 9_000, b"\0" * 64), "cannot hold"),
        "short.png": (png(400, 400, b"\0" * 64), ""),
        "postscript.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) print\n", "not an image"),
        "pickle.png": (bomb(folder / "executed"), "not an image"),
        "svg.png": (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "not an image"),
        "phone.heic": (b"\0\0\0\x18ftypheic", "HEIC"),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: word for name, (_, word) in files.items()}
