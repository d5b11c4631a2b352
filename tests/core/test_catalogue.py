from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from rushlight.core import catalogue
from rushlight.core.catalogue import cards, entries, load_method
from rushlight.core.errors import UserError


def test_entries_are_in_order_and_their_names_are_the_cards() -> None:
    assert list(entries()) == sorted(entries())
    assert {name: card.id for name, card in cards().items()} == {name: name for name in entries()}


def test_an_unknown_method_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'supervised'"):
        load_method("supervisd")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = EntryPoint("lost", "a_package_that_is_not_there:Lost", "rushlight.methods")
    monkeypatch.setattr(catalogue, "entries", lambda: {"lost": lost})
    with pytest.raises(UserError, match="'lost' needs the package 'a_package_that_is_not_there'"):
        load_method("lost")
