"""Data that many tests share: real photos and scenes, small."""

from __future__ import annotations

import warnings

import hypothesis
import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what other libraries warn of while they are imported is not ours to mend

    import lightning_fabric  # noqa: F401  # isort: skip
    import timm  # noqa: F401  # isort: skip

from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.data.edit import hide
from rushlight.data.synthetic import fashion

pytest_plugins = ("margins",)
hypothesis.settings.register_profile("busy", deadline=None)  # a slow machine is no failure
hypothesis.settings.load_profile("busy")


@pytest.fixture(scope="session")
def photos() -> Dataset:
    """1,200 embedded photos with 10 labels a class known, and 300 for the test."""
    whole = fashion.load()
    train = whole.fold(0).select(torch.arange(1200))
    test = whole.fold(TEST).select(torch.arange(300))
    columns = {name: torch.cat([train[name], test[name]]) for name in train.columns.keys()}  # noqa: SIM118
    return hide.per_class(Dataset(columns, whole.info), 10)


@pytest.fixture(scope="session")
def scenes() -> Dataset:
    """80 scenes of 32×32 with masks, tags and classes; the masks of 50 and the negatives of all are unknown."""
    from rushlight.data.synthetic import scenes as composed

    data = composed.compose(80, size=32, seed=5)
    unlabelled = torch.arange(80) >= 30
    data = data.hide(unlabelled, ["mask"])
    return hide.positives_only(data, 0.5)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=20, help="how often tests/test_kill.py kills a comparison")
