"""Packs that are kept: whole or not there, and built once."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.data.pack.cache import cached, nameable


class Packer:
    """Writes a data set into a folder, and counts how often."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, folder: Path | None) -> Dataset:
        assert folder is not None
        self.runs += 1
        data = Dataset({"image": torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8).to(torch.uint8)})
        folder.rmdir()  # a data set is saved where nothing is
        data.save(folder)
        return data


def test_a_pack_is_built_once(tmp_path: Path) -> None:
    run = Packer()
    first, again = (cached("key", run, tmp_path / "root") for _ in range(2))
    assert run.runs == 1
    assert first.content_hash == again.content_hash
    cached("other", run, tmp_path / "root")
    assert run.runs == 2


@pytest.mark.parametrize("damage", ["length", "missing", "seal"])
def test_what_is_not_whole_is_built_anew(damage: str, tmp_path: Path) -> None:
    run = Packer()
    expected = cached("key", run, tmp_path).content_hash
    image = next((tmp_path / "key" / "columns").glob("image*"))
    if damage == "length":
        image.write_bytes(image.read_bytes() + b"\0")
    elif damage == "missing":
        image.unlink()
    else:
        (tmp_path / "key" / "whole.json").write_text("{")
    assert cached("key", run, tmp_path).content_hash == expected
    assert run.runs == 2


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def broken(folder: Path | None) -> Dataset:
        assert folder is not None
        (folder / "half").write_text("x")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        cached("key", broken, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_parts_of_the_dead_are_cleared_and_those_of_other_packs_are_not(tmp_path: Path) -> None:
    for name in ("key.part-dead", "other.part-alive"):
        (tmp_path / name).mkdir()
    cached("key", Packer(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["key", "other.part-alive"]


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "its disk is full"), (errno.EDQUOT, "its quota is used up"), (errno.EROFS, "Read-only")],
)
def test_a_folder_that_cannot_be_written_is_named_with_its_reason(number: int, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}' cannot be written: {says}.*--cache"), nameable(tmp_path):
        raise OSError(number, "Read-only file system")
