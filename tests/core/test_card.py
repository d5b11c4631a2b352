from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from rushlight.core.card import TARGET, Card, Needs, known, some


@dataclass
class Columns:
    """Columns of which some rows are known."""

    rows: dict[str, list[bool]] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.rows

    def known(self, name: str) -> torch.Tensor:
        return torch.tensor(self.rows[name])


ALL, PART, NONE = [True, True], [True, False], [False, False]


@pytest.mark.parametrize(
    ("needs", "rows", "words"),
    [
        (Needs("image"), {"image": ALL}, ""),
        (Needs("image", "depth"), {"image": ALL}, "needs the column 'depth'"),
        (Needs(known("tags")), {"tags": NONE}, "needs some known 'tags'"),
        (Needs(known("tags")), {"tags": ALL}, ""),
        (Needs(some("tags")), {"tags": ALL}, "needs images whose 'tags' is unknown"),
        (Needs(some("tags")), {"tags": PART}, ""),
        (Needs(known(TARGET)), {"mask": NONE}, "needs some known 'mask'"),
    ],
)
def test_what_data_lacks_is_said_in_a_few_words(needs: Needs, rows: dict[str, list[bool]], words: str) -> None:
    assert needs.lacks(Columns(rows), "mask") == words


def test_a_card_names_the_tasks_that_it_can_learn() -> None:
    card = Card("x", "X", "semi", "learner", Needs("image"), "a model", "X wins", task=frozenset({"mask", "tags"}))
    assert card.lacks(Columns({"image": ALL}), "class") == "predicts mask or tags, not class"
    assert card.lacks(Columns({"image": ALL}), "mask") == ""


def test_needs_are_printed() -> None:
    assert str(Needs("image", some("class"), known("tags"))) == "image; some class, some unknown; known tags"
