from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight.core.errors import UserError
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset, Info
from rushlight.data.edit import hide


def made(rows: int = 60, classes: int = 4, seed: int = 0) -> Dataset:
    """Every third row is a test row; some classes and tags are unknown from the start."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) // 3 % classes
    labels[torch.rand(rows, generator=g) < 0.1] = -1
    columns = {
        "image": torch.zeros(rows, 3, 4, 4, dtype=torch.uint8),
        "class": labels,
        "tags": torch.randint(-1, 2, (rows, 5), generator=g).to(torch.int8),
        "fold": (torch.arange(rows) % 3 == 2).to(torch.int8),
    }
    return Dataset(columns, Info(class_names=tuple("abcdefgh"[:classes])))


def training(data: Dataset, column: str = "class") -> torch.Tensor:
    return data[column][data["fold"] != TEST]


WAYS = {
    "per_class": lambda data, seed: hide.per_class(data, 2, seed=seed),
    "fraction": lambda data, seed: hide.fraction(data, 0.4, seed=seed),
    "fraction of tags": lambda data, seed: hide.fraction(data, 0.4, "tags", seed=seed),
    "positives_only": lambda data, seed: hide.positives_only(data, 0.5, seed=seed),
    "tagwise": lambda data, seed: hide.tagwise(data, 0.5, seed=seed),
    "noise": lambda data, seed: hide.noise(data, 0.3, seed=seed),
}


@pytest.mark.parametrize("way", WAYS)
def test_test_rows_and_the_original_stay_and_the_seed_decides(way):
    data, before = made(), made().content_hash
    changed = WAYS[way](data, 1)
    assert data.content_hash == before
    for name in sorted(data.columns.keys()):
        assert torch.equal(changed.fold(TEST)[name], data.fold(TEST)[name])
    assert changed.content_hash != before
    assert WAYS[way](data, 1).content_hash == changed.content_hash
    assert WAYS[way](data, 2).content_hash != changed.content_hash


@settings(deadline=None)
@given(st.integers(0, 6), st.integers(0, 10_000))
def test_per_class_keeps_n_true_labels_of_each_class(n, seed):
    data = made()
    kept = training(hide.per_class(data, n, seed=seed))
    assert torch.bincount(kept[kept >= 0], minlength=4).tolist() == [n] * 4
    assert torch.equal(kept[kept >= 0], training(data)[kept >= 0])


@settings(deadline=None)
@given(st.integers(0, 5), st.integers(0, 100))
def test_more_labels_contain_fewer(n, seed):
    data = made()
    few, more = (hide.per_class(data, k, seed=seed).known("class") for k in (n, n + 1))
    assert (more | ~few).all()
    few, more = (hide.fraction(data, k / 6, seed=seed).known("class") for k in (n, n + 1))
    assert (more | ~few).all()


def test_per_class_says_which_class_has_how_many():
    with pytest.raises(UserError, match=r"class 'c' has only \d+ .*ask for at most"):
        hide.per_class(made().select(made()["class"] != 2).with_columns(), 1)
    with pytest.raises(UserError, match="no one class a row"):
        hide.per_class(made(), 1, "tags")
    with pytest.raises(UserError, match="no column 'domain'"):
        hide.per_class(made(), 1, "domain")


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_fraction_keeps_its_share_in_proportion(share, seed):
    data = made(rows=150)
    before, after = training(data), training(hide.fraction(data, share, seed=seed))
    known = int((before >= 0).sum())
    assert int((after >= 0).sum()) == (max(round(share * known), 4) if share > 0 else 0)
    for c in range(4):
        of_class = int((before == c).sum())
        assert abs(int((after == c).sum()) - share * of_class) <= 1.5
    assert torch.equal(after[after >= 0], before[after >= 0])


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_positives_only_keeps_a_share_of_the_ones(share, seed):
    data = made()
    before, after = training(data, "tags"), training(hide.positives_only(data, share, seed=seed), "tags")
    assert int((after == 1).sum()) == round(share * int((before == 1).sum()))
    assert not (after == 0).any()
    assert (before[after == 1] == 1).all()


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_tagwise_keeps_a_share_of_the_entries(share, seed):
    data = made()
    before, after = training(data, "tags"), training(hide.tagwise(data, share, seed=seed), "tags")
    assert int((after != -1).sum()) == round(share * int((before != -1).sum()))
    assert torch.equal(after[after != -1], before[after != -1])


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_symmetric_noise_changes_exactly_its_share(rate, seed):
    data = made()
    before, after = training(data), training(hide.noise(data, rate, seed=seed))
    assert int((before != after).sum()) == round(rate * int((before >= 0).sum()))
    assert torch.equal(before < 0, after < 0)
    assert after.max() < 4


def test_a_matrix_says_what_becomes_of_a_label():
    data = made(rows=6000)
    swap = torch.eye(4)[[1, 0, 2, 3]]
    before, after = training(data), training(hide.noise(data, 1, swap))
    assert torch.equal(after[before >= 0], torch.tensor([1, 0, 2, 3])[before[before >= 0]])
    matrix = torch.tensor([[0.5, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 0.2, 0.8], [0, 0, 0, 1.0]])
    after = training(hide.noise(data, 1, matrix))
    for label in range(4):
        shares = torch.bincount(after[before == label], minlength=4) / (before == label).sum()
        assert torch.allclose(shares, matrix[label], atol=0.06)
    for bad in (torch.eye(3), torch.ones(4, 4), "asymmetric"):
        with pytest.raises(UserError):
            hide.noise(data, 0.5, bad)


@settings(deadline=None)
@given(st.sets(st.integers(0, 3), max_size=3))
def test_open_set_renumbers_the_seen_and_rejects_the_unseen(unseen):
    data = made()
    opened = hide.open_set(data, [data.info.class_names[c] if c % 2 else c for c in unseen])
    seen = [c for c in range(4) if c not in unseen]
    assert opened.info.class_names == tuple("abcd"[c] for c in seen)
    assert hide.unknown_class(opened) == len(seen)
    assert hide.unknown_class(data) is None
    assert Info.from_json(opened.info.to_json()) == opened.info
    for before, after, fold in zip(data["class"].tolist(), opened["class"].tolist(), data["fold"].tolist()):
        expected = seen.index(before) if before in seen else -1
        assert after == (len(seen) if fold == TEST and before in unseen else expected)


def test_open_set_names_a_class_that_does_not_exist():
    with pytest.raises(UserError, match="no class 'e'"):
        hide.open_set(made(), ["e"])
    with pytest.raises(UserError, match="every class"):
        hide.open_set(made(), list("abcd"))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_lies_between_0_and_1(share):
    for way in (hide.fraction, hide.positives_only, hide.tagwise, hide.noise):
        with pytest.raises(UserError, match="between 0 and 1"):
            way(made(), share)
