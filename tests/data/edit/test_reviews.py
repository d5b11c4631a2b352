from __future__ import annotations

from pathlib import Path

import pytest

from rushlight.core.errors import UserError
from rushlight.data.edit import reviews


def test_verdicts_are_read_whatever_their_case_and_blanks_left_out(tmp_path: Path) -> None:
    (tmp_path / "review.csv").write_text("Name;Verdict;remark\na.png;Remove;a badge\nb.png; keep ;\nc.png;;later\n")
    assert reviews.verdicts(str(tmp_path / "review.csv")) == {"a.png": 1.0, "b.png": 0.0}


@pytest.mark.parametrize("text", ["a.png\nb.png\n", "name\na.png\n\nb.png\n", "\ufeffimage,why\na.png,asked\nb.png,\n"])
def test_lists_of_names(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    assert reviews.names(str(tmp_path / "list.txt")) == ["a.png", "b.png"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"list\.txt' cannot be read as a list of images"):
        reviews.names(str(tmp_path / "list.txt"))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UserError, match=r"no curation\.csv"):
        reviews.removed(str(tmp_path / "empty.csv"))
