"""Looking: what is counted, found twice, suspected, and shown."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hostile import corpus, photo, save
from rich.console import Console

from rushlight.data.sources.arrays import from_arrays
from rushlight.jobs.look.result import Count
from rushlight.jobs.look.run import look


def stack(*seeds: int) -> np.ndarray:
    return np.stack([np.asarray(photo(seed, 32, 32)) for seed in seeds])


def test_counts_of_every_column():
    data = from_arrays(
        stack(0, 1, 2, 3),
        [0, 0, 1, -1],
        class_names=("cat", "dog"),
        fold=[0, 1, 0, 0],
        domain=[0, 0, 0, -1],
        tags=[[1, 0], [1, -1], [0, -1], [-1, -1]],
        mask=np.stack([np.zeros((32, 32)), np.ones((32, 32)), np.full((32, 32), 255), np.full((32, 32), 255)]),
        boxes=[[[0, 0, 9, 9, 1, 1]], [[0, 0, 9, 9, 0, 1]], [[0] * 6], [[0, 0, 0, 0, 0, -1]]],
    )
    seen = look(data)
    assert seen.counts == [
        Count("class", "cat", 2, None, 1, 1),
        Count("class", "dog", 1, None, 1, 0),
        Count("tags", "0", 2, 1, 1, 1),
        Count("tags", "1", 0, 1, 3, 0),
        Count("mask", "cat", 1, None, 2, 0, 0.5),
        Count("mask", "dog", 1, None, 2, 1, 0.5),
        Count("boxes", "cat", 1, None, 1, 1),
        Count("boxes", "dog", 1, None, 1, 0),
        Count("domain", "0", 3, None, 1, 1),
    ]
    assert seen.columns == {"class": (3, 1), "tags": (3, 1), "mask": (2, 2), "boxes": (3, 1), "domain": (3, 1)}
    assert seen.folds == {"train": 3, "test": 1}


def test_sizes_and_files_left_out(tmp_path):
    words = corpus(tmp_path)
    for number, (height, width) in enumerate([(40, 50), (300, 200), (60, 60)]):
        save(tmp_path / f"good{number}.png", number, height, width)
    seen = look(tmp_path, cache=False)
    assert seen.sizes == {"smallest": (40, 50), "median": (60, 60), "largest": (300, 200), "different": 3}
    assert {entry.name for entry in seen.quarantined} == set(words)
    shown = str(seen)
    assert all(name in shown for name in words)
    assert "300×200" in shown


def test_exact_duplicates_contradictions_and_leaks():
    data = from_arrays(stack(0, 1, 0, 2, 1, 3, 3), [0, 1, 0, 1, 0, 1, -1], fold=[0, 0, 1, 0, 0, 0, 0])
    seen = look(data)
    assert seen.exact == [[0, 2], [1, 4], [5, 6]]
    assert seen.contradictions == [[1, 4]]
    assert seen.leaks == [[0, 2]]
    assert any("labelled differently" in warning for warning in seen.warnings)
    assert any("in training and in test" in warning for warning in seen.warnings)


def test_tags_contradict_only_where_both_are_known():
    data = from_arrays(stack(0, 0, 1, 1), [[1, -1], [-1, 0], [1, 0], [0, 0]])
    assert look(data).contradictions == [[2, 3]]


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["sandal"] * 3 + ["sandel"], "was 'sandal' meant"),
        (["Cat", "cat", "cat", "dog"], "differ only in case or spaces"),
        (["=cmd()", "=cmd()", "dog", "dog"], "formula"),
    ],
)
def test_suspicious_names(names, word):
    warnings = look(from_arrays(stack(0, 1, 2, 3), names)).warnings
    assert len(warnings) == 1
    assert word in warnings[0]


def test_names_that_are_not_suspicious():
    assert look(from_arrays(stack(0, 1, 2, 3), ["cat", "zebra", "dog", "11"])).warnings == []


def test_what_the_reader_decided_is_said(tmp_path):
    for number in range(2):
        save(tmp_path / f"{number}.png", number)
    (tmp_path / "labels.csv").write_text("image,class,owner\n0.png,cat,ann\n0.png,cat,ann\n1.png,dog,ben\n")
    warnings = look(tmp_path, cache=False).warnings
    assert any("1 rows more than once" in warning for warning in warnings)
    assert any("owner" in warning for warning in warnings)


def test_it_shows_itself():
    data = from_arrays(stack(0, 1, 1), ["<b>cat</b>", "[red]dog", "[red]dog"], source="photos")
    seen = look(data, fits=[("iomatch", True, "labels are few"), ("pu-mlc", False, "needs tags")])
    console = Console(file=io.StringIO(), width=100)
    console.print(seen)
    text = console.file.getvalue()
    for word in ("photos", "<b>cat</b>", "[red]dog", "iomatch", "needs tags", "Duplicates: 1 equal"):
        assert word in text
    page = seen._repr_html_()
    assert "&lt;b&gt;cat" in page
    assert "<b>" not in page
    frame = seen.to_pandas()
    assert frame[["name", "present"]].to_dict("list") == {"name": ["<b>cat</b>", "[red]dog"], "present": [1, 2]}


def test_without_labels_there_is_an_empty_table():
    seen = look(from_arrays(stack(0, 1)))
    assert seen.to_pandas().empty
    assert "photos" not in str(seen)
    assert seen.fits is None


def test_groups_are_said_and_those_on_both_sides_named():
    data = from_arrays(stack(0, 1, 2, 3), [0, 1, 0, 1], fold=[0, 0, 1, 1], group=[0, 1, 1, -1])
    seen = look(data)
    assert [count.present for count in seen.counts if count.column == "group"] == [1, 2]
    assert any("1 groups have rows in training and in test" in warning for warning in seen.warnings)
