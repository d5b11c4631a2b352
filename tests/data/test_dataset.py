from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST, TRAIN, encode_text, unknown
from rushlight.data.dataset import Dataset, Info, Quarantined


def made(rows: int = 6, seed: int = 0) -> Dataset:
    g = torch.Generator().manual_seed(seed)
    columns = {
        "image": torch.randint(256, (rows, 3, 8, 6), generator=g, dtype=torch.uint8),
        "class": torch.randint(-1, 3, (rows,), generator=g),
        "tags": torch.randint(-1, 2, (rows, 4), generator=g).to(torch.int8),
        "boxes": torch.rand(rows, 2, 6, generator=g),
        "fold": torch.tensor([TRAIN, TEST, -1])[torch.arange(rows) % 3].to(torch.int8),
        "name": encode_text([f"photo {row}.png" for row in range(rows)]),
    }
    info = Info(class_names=("a", "b", "c"), quarantined=(Quarantined("x.png", "truncated"),), keep=5)
    return Dataset(columns, info)


row_lists = st.lists(st.integers(0, 5), max_size=9)


@settings(deadline=None)
@given(row_lists, st.integers(0, 3))
def test_select_takes_each_column_s_rows_in_the_given_order(rows, seed):
    data, wanted = made(seed=seed), torch.tensor(rows, dtype=torch.int64)
    part = data.select(wanted)
    assert len(part) == len(rows)
    assert part.info == data.info
    for name in sorted(data.columns.keys()):
        assert part[name].tolist() == [data[name][row].tolist() for row in rows]
    kept = torch.zeros(6, dtype=torch.bool)
    kept[wanted] = True
    assert torch.equal(
        data.select(kept)["image"], data.select(torch.tensor(sorted(set(rows)), dtype=torch.int64))["image"]
    )


def test_hide_takes_the_labels_and_nothing_else():
    data = made()
    rows = torch.tensor([True, False, True, False, False, False])
    hidden = data.hide(rows)
    for name in ("class", "tags", "boxes"):
        assert not hidden.known(name)[rows].any()
        assert torch.equal(hidden[name][~rows], data[name][~rows])
    for name in ("image", "fold", "name"):
        assert torch.equal(hidden[name], data[name])
    assert torch.equal(data.hide(rows, ["class"])["tags"], data["tags"])
    assert not any(data.hide().known(name).any() for name in data.label_names)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 4), st.integers(0, 100))
def test_saved_and_opened_is_the_same(tmp_path_factory, rows, seed):
    data = made(rows + 1, seed)
    folder = tmp_path_factory.mktemp("saved") / "data"
    data.save(folder)
    again = Dataset.open(folder)
    assert again.content_hash == data.content_hash
    assert again.info == data.info
    assert again.names == data.names
    with pytest.raises(FileExistsError):
        data.save(folder)


def test_the_hash_sees_every_byte_the_names_and_nothing_else():
    data = made()
    assert made().content_hash == data.content_hash
    for name in sorted(data.columns.keys()):
        values = data[name].clone()
        values.view(-1)[-1] += 1
        assert data.with_columns(**{name: values}).content_hash != data.content_hash
    assert data.without("tags").content_hash != data.content_hash
    assert data.with_info(class_names=("a", "b", "d")).content_hash != data.content_hash
    assert data.with_info(source="elsewhere").content_hash == data.content_hash
    strided = data.with_columns(image=data["image"].permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2))
    assert strided.content_hash == data.content_hash


def test_folds_split_the_rows():
    data = made()
    assert data.fold(TEST).names == ["photo 1.png", "photo 4.png"]
    assert data.fold(TRAIN).names == [f"photo {row}.png" for row in (0, 2, 3, 5)]
    assert len(data.without("fold").fold(TRAIN)) == 6
    assert len(data.without("fold").fold(TEST)) == 0


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"class": torch.zeros(2, dtype=torch.int64)}, "needs an input"),
        ({"colour": torch.zeros(2)}, "no kind of column"),
        ({"class": torch.zeros(2)}, "must be torch.int64"),
        ({"class": torch.zeros(2, 1, dtype=torch.int64)}, "axes"),
        ({"class": torch.zeros(3, dtype=torch.int64)}, "has 3 rows"),
    ],
)
def test_a_wrong_column_is_named(columns, words):
    image = {} if "needs" in words else {"image": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)}
    with pytest.raises(ValueError, match=words):
        Dataset({**image, **columns})


def test_a_missing_column_is_named_and_unknown():
    data = made()
    assert not data.known("mask").any()
    with pytest.raises(KeyError, match="mask"):
        data["mask"]
    assert "caption" not in data
    assert "caption" in data.with_columns(caption=unknown("caption", 6, 3))
    assert np.isclose(data.height / data.width, 8 / 6)


def _anonymous() -> int:
    """Bytes of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says what a process holds")
def test_views_of_a_pack_hold_no_second_copy(tmp_path):
    rows, row = 3000, 3 * 64 * 64
    labels = torch.arange(rows) % 5
    image = torch.randint(256, (rows, 3, 64, 64), dtype=torch.uint8)
    Dataset({"image": image, "class": labels, "mask": image[:, 0] % 4, "fold": (labels == 0).to(torch.int8)}).save(
        tmp_path / "pack"
    )
    del image
    data = Dataset.open(tmp_path / "pack")
    before = _anonymous()
    views = []
    for seed in range(10):
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
        views += [data.select(order), data.fold(TRAIN), data.hide(order < 100), data.select(order).fold(TEST)]
    total = sum(int(part.sum()) for view in views for part in view.chunks("image", 100))
    assert total > 0
    assert len({view.content_hash for view in views}) == 31, "ten folds of one seed are one"
    views[0].save(tmp_path / "view", reference=True)
    assert sum(path.stat().st_size for path in (tmp_path / "view").rglob("*") if path.is_file()) < 100_000
    assert _anonymous() - before < rows * row / 2, "40 views hold less than half of one copy"


def test_a_reference_to_data_that_changed_is_refused(tmp_path):
    made().save(tmp_path / "pack")
    Dataset.open(tmp_path / "pack").select([0, 2]).save(tmp_path / "view", reference=True)
    (tmp_path / "pack").rename(tmp_path / "old")
    with pytest.raises(UserError, match="pack"):
        Dataset.open(tmp_path / "view")
    made(seed=1).save(tmp_path / "pack")
    with pytest.raises(UserError, match="has changed"):
        Dataset.open(tmp_path / "view")


def test_what_a_stage_wrote_is_known_without_looking():
    data = made()
    assert data.hide(names=["class"]).changed(data) == ["class"]
    assert data.with_info(keep=3).changed(data) == []
    assert data.with_columns(depth=torch.zeros(6, 8, 6)).changed(data) == ["depth"]
