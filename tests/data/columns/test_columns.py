from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rushlight.data.columns import KINDS, Column, decode_text, encode_text, unknown

DENSE = [name for name, kind in KINDS.items() if kind.form == "dense"]
HIDEABLE = [name for name in DENSE if KINDS[name].where != "never"]
SHAPES = {"": (), "3": 3, "2": 2, "6": 6}


def shape(name: str, rows: int) -> tuple[int, ...]:
    """A small shape for a column of this kind: fixed axes as they are, all others 4."""
    return (rows, *(int(axis) if axis.isdigit() else 4 for axis in KINDS[name].axes))


def filled(name: str, rows: int) -> Column:
    """A column in which everything is known."""
    return Column(KINDS[name], torch.ones(shape(name, rows), dtype=KINDS[name].dtype))


@pytest.mark.parametrize("name", HIDEABLE)
def test_nothing_is_known_of_the_unknown(name):
    column = Column(KINDS[name], unknown(name, *shape(name, 3)))
    assert column.values.dtype == KINDS[name].dtype
    assert not column.known.any()
    assert column.known_rows.shape == (3,)


@pytest.mark.parametrize("name", HIDEABLE)
@settings(deadline=None)
@given(rows=arrays(bool, st.integers(1, 8)))
def test_hide_makes_exactly_the_given_rows_unknown(name, rows):
    rows = torch.from_numpy(rows)
    column = filled(name, len(rows))
    hidden = Column(column.kind, column.hide(rows))
    assert column.known_rows.all(), "the original must stay as it was"
    assert torch.equal(hidden.known_rows, ~rows)
    assert torch.equal(hidden.values[~rows], column.values[~rows])
    assert torch.equal(hidden.values[rows].nan_to_num(7), unknown(name, *shape(name, int(rows.sum()))).nan_to_num(7))


@pytest.mark.parametrize("name", sorted(set(DENSE) - set(HIDEABLE)))
def test_what_is_always_known_cannot_be_hidden(name):
    column = filled(name, 2)
    assert column.known.all()
    with pytest.raises(ValueError, match=name):
        column.hide(torch.tensor([True, False]))


def test_a_tag_a_pixel_and_a_box_are_each_known_for_themselves():
    tags = Column(KINDS["tags"], torch.tensor([[1, -1, 0], [-1, -1, -1]], dtype=torch.int8))
    assert tags.known.tolist() == [[True, False, True], [False, False, False]]
    assert tags.known_rows.tolist() == [True, False]
    boxes = Column(KINDS["boxes"], torch.tensor([[[0, 0, 2, 2, 1, 1.0], [0, 0, 0, 0, 0, -1]]]))
    assert boxes.known.tolist() == [[True, False]]
    empty = Column(KINDS["boxes"], torch.zeros(1, 1, 6))
    assert empty.known.all(), "a slot without a box is known to be empty"


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_texts_come_back_as_they_were(texts):
    values = encode_text(texts)
    assert values.shape[0] == len(texts)
    assert decode_text(values) == texts
    assert Column(KINDS["caption"], values).known.tolist() == [text != "" for text in texts]
