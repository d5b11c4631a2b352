from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushlight.data import rows as at
from rushlight.data.columns import Ragged
from rushlight.data.columns.base import induced, neighbours
from rushlight.data.dataset import Dataset

ROWS = 7
some_rows = st.lists(st.integers(0, ROWS - 1), unique=True, max_size=ROWS)


def made(seed: int = 0) -> Dataset:
    """A graph of nodes that are clouds, with short and long rows, known and unknown."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 5, (ROWS,), generator=g).tolist()
    clouds = [torch.rand(n, 3, generator=g) for n in lengths]
    return Dataset(
        {
            "points": Ragged.of(clouds),
            "point_class": Ragged.of([torch.randint(-1, 3, (n,), generator=g) for n in lengths]),
            "edges": torch.randint(ROWS, (2, 12), generator=g),
            "mask": torch.randint(256, (ROWS, 9, 9), generator=g, dtype=torch.uint8),
            "class": torch.randint(-1, 3, (ROWS,), generator=g),
        }
    )


def values(data: Dataset) -> dict[str, list]:
    """All that a data set shows."""
    shown = {name: data[name] for name in data.columns}
    return {n: [row.tolist() for row in v] if isinstance(v, Ragged) else v.tolist() for n, v in shown.items()}


def copied(data: Dataset) -> Dataset:
    """The same content, gathered into memory of its own."""
    columns = dict(data.columns.items())
    own = {
        n: Ragged(v.values.clone(), v.offsets.clone()) if isinstance(v, Ragged) else v.clone()
        for n, v in columns.items()
    }
    return Dataset(own, data.info)


@settings(deadline=None, max_examples=40)
@given(st.lists(some_rows, min_size=1, max_size=3), st.integers(0, 3), st.booleans())
def test_a_view_is_the_same_as_a_copy(selections, seed, hide):
    view, copy = made(seed), copied(made(seed))
    for rows in selections:
        chosen = [row for row in rows if row < len(view)]
        view, copy = view.select(chosen), copied(copy.select(torch.tensor(chosen, dtype=torch.int64)))
        if hide and len(view):
            rows = torch.arange(len(view)) % 2 == 0
            view, copy = view.hide(rows), copied(copy.hide(rows))
    assert values(view) == values(copy)
    assert view.content_hash == copy.content_hash
    for name in ("mask", "class", "point_class"):
        assert torch.equal(view.known(name), copy.known(name))


@settings(deadline=None, max_examples=20)
@given(some_rows, st.integers(0, 3), st.booleans())
def test_saved_whole_or_by_reference_it_is_the_same(tmp_path_factory, rows, seed, hide):
    folder = tmp_path_factory.mktemp("saved")
    made(seed).save(folder / "pack")
    view = Dataset.open(folder / "pack").select(rows)
    view = view.hide(torch.arange(len(view)) % 2 == 0) if hide else view
    view.save(folder / "whole")
    view.save(folder / "reference", reference=True)
    for name in ("whole", "reference"):
        again = Dataset.open(folder / name)
        assert values(again) == values(view)
        assert again.content_hash == view.content_hash
        assert again.select(slice(0, 2)).content_hash == view.select(slice(0, 2)).content_hash


@settings(deadline=None)
@given(some_rows)
def test_a_batch_has_a_row_for_each(rows):
    data = made()
    batch = data.batch(rows)
    assert batch.batch_size == (len(rows),)
    part = data.select(rows)
    for place, row in enumerate(rows):
        length = int(batch["points_length"][place])
        assert torch.equal(batch["points"][place, :length], data["points"][row])
        assert not batch["points"][place, length:].any()
        near = batch["edges"][place]
        pairs = [rows[int(other)] for other in near if other >= 0]
        own = [int(b) for a, b in data["edges"].T.tolist() if a == row and b in rows]
        assert sorted(pairs) == sorted(own)
    assert torch.equal(batch["class"], part["class"])


def test_selecting_rows_of_a_relation_induces_the_subgraph():
    edges = torch.tensor([[0, 1, 2, 3, 3], [1, 2, 3, 0, 3]])
    assert induced(edges, torch.tensor([3, 0]), 4).tolist() == [[0, 0], [1, 0]]
    assert induced(edges, slice(1, 3), 4).tolist() == [[0], [1]]
    assert neighbours(edges, 4).tolist() == [[1, -1], [2, -1], [3, -1], [0, 3]]


@given(st.lists(st.integers(0, 9), max_size=6), st.lists(st.integers(0, 5), max_size=6))
def test_rows_compose_as_indices_do(outer, inner):
    first = at.normal(outer, 10)
    second = at.normal([row for row in inner if row < len(outer)], len(outer))
    expected = torch.tensor(outer, dtype=torch.int64)[second]
    assert torch.equal(torch.arange(10)[at.compose(first, second)], expected)


def test_contiguous_rows_are_a_slice_that_shares_the_values():
    data = Dataset({"image": torch.zeros(6, 3, 4, 4, dtype=torch.uint8)})
    part = data.select(torch.tensor([False, True, True, True, False, False])).select([1, 2])
    assert part["image"].data_ptr() == data["image"][2].data_ptr()
