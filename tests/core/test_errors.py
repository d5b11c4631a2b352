from __future__ import annotations

from rushlight.core.errors import UserError, nearest


def test_a_near_name_is_suggested_and_a_far_one_is_not() -> None:
    assert nearest("iomach", ["iomatch", "mae"]) == " Did you mean 'iomatch'?"
    assert nearest("zzz", ["iomatch", "mae"]) == ""
    assert nearest("mae", []) == ""


def test_it_is_a_value_error_that_prints_its_sentence() -> None:
    assert isinstance(UserError("so"), ValueError)
    assert str(UserError("so")) == "so"
