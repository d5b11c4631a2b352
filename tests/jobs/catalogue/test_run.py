"""What there is, as tables."""

from __future__ import annotations

import pytest

from rushlight.core.catalogue import cards, entries
from rushlight.core.errors import UserError
from rushlight.jobs.catalogue.run import catalogue, method, taxonomy


def test_the_catalogue_has_a_row_a_card() -> None:
    found = catalogue()
    assert [row["id"] for row in found.rows()] == list(entries())
    table = found.to_pandas().set_index("id")
    for name, card in cards().items():
        assert table.loc[name, "role"] == card.role
        assert table.loc[name, "gives"] == card.gives
        assert table.loc[name, "paper"] == card.paper


def test_it_shows_each_method_once_under_its_family() -> None:
    (table,) = catalogue().parts()
    families = {card.family for card in cards().values()}
    assert sorted(table["id"]) == sorted(entries())
    assert [family for family in table["family"] if family] == sorted(families)


def test_one_method_shows_its_arguments_and_its_module() -> None:
    table, text = method("fixmatch").parts()
    said = dict(zip(table[""], table[" "], strict=True))
    assert said["paper"] == "arXiv:2001.07685"
    assert "threshold" in said["arguments"]
    assert text.startswith("FixMatch: ")
    with pytest.raises(UserError, match="fixmatch"):
        method("fixmach")


def test_the_taxonomy_names_families_and_their_methods() -> None:
    table = taxonomy()
    assert set(table.names) == {"family", "methods", "strong", "weak"}
    named = " ".join(table["methods"])
    assert all(name in named for name in ("dino", "mae", "ibot"))
