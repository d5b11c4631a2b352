from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from rushlight.core.errors import UserError
from rushlight.core.files import check_file, check_folder, file_hash, plain_json, replace_folder, standing, write_whole


def test_a_file_is_written_whole_into_folders_that_are_not_there_yet(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b.txt", b"one")
    write_whole(tmp_path / "a" / "b.txt", b"two")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "b.txt"
    write_whole(place, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_whole(place, b"new")
    assert place.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


def test_a_files_hash_follows_its_content(tmp_path: Path) -> None:
    place = tmp_path / "b.txt"
    place.write_bytes(b"one")
    assert file_hash(place) == hashlib.sha256(b"one").hexdigest()
    place.write_bytes(b"three")
    assert file_hash(place) == hashlib.sha256(b"three").hexdigest()
    assert file_hash(None) == ""


def folder(place: Path, text: str) -> Path:
    (place / "deep").mkdir(parents=True)
    (place / "deep" / "a.txt").write_text(text)
    return place


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    replace_folder(folder(tmp_path / "first", "one"), tmp_path / "m")
    replace_folder(folder(tmp_path / "second", "two"), tmp_path / "m")
    assert (tmp_path / "m" / "deep" / "a.txt").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert standing(tmp_path / "m") == tmp_path / "m"


def test_everything_is_on_the_disk_before_names_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    sync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("sync"), sync(descriptor))[1])
    monkeypatch.setattr(Path, "rename", lambda self, to: (events.append("rename"), rename(self, to))[1])
    folder(tmp_path / "m", "one")
    replace_folder(folder(tmp_path / "new", "two"), tmp_path / "m")
    assert events == [
        "sync",
        "sync",
        "sync",
        "rename",
        "rename",
        "sync",
    ]


def test_the_old_folder_stands_where_its_replacement_was_cut_short(tmp_path: Path) -> None:
    folder(tmp_path / "m", "one").rename(tmp_path / ".m.replaced")
    assert (standing(tmp_path / "m") / "deep" / "a.txt").read_text() == "one"
    assert standing(tmp_path / "other") == tmp_path / "other"


def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    for place in (file, file / "deeper", Path("/proc/zz")):
        with pytest.raises(UserError, match=r"cannot be written .*name another folder with --out"):
            check_folder(place)
    with pytest.raises(UserError, match="is a folder: name a file"):
        check_file(tmp_path)
    check_folder(tmp_path / "a" / "b")
    check_file(tmp_path / "a" / "b.csv")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_json_for_users_holds_null_for_what_is_no_number() -> None:
    content = plain_json({"a": float("nan"), "b": [1.5, (float("inf"), "×")]}, indent=None)
    assert content.decode() == '{"a": null, "b": [1.5, [null, "×"]]}'
