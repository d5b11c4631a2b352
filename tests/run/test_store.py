from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
import torch

from rushlight.nets import encoders
from rushlight.run.model import Model
from rushlight.run.store import Store

RECORD, MEASURED = {"value": 0.5}, {"seconds": 1.0}
PARTS = {"predicted": torch.tensor([1, 0, 2])}


@pytest.fixture
def model() -> Model:
    return Model(encoders.create("conv16", image_size=8))


def test_a_finished_trial_is_found_with_its_model(tmp_path: Path, model: Model) -> None:
    store = Store(tmp_path)
    assert not store.has("k")
    store.work("k").mkdir(parents=True)
    store.put("k", RECORD, PARTS, MEASURED, model)
    record, parts, measured = store.get("k")
    assert (record, measured) == (RECORD, MEASURED)
    assert torch.equal(parts["predicted"], PARTS["predicted"])
    assert Model.load(store.model_path("k")).info == model.info
    assert not store.work("k").exists()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("rushlight.run.store.user_cache_path", lambda name: tmp_path / "mirror")
    fsspec.filesystem("memory").store.clear()
    return "memory://runs/one"


def test_what_lies_elsewhere_is_found_from_another_machine(elsewhere: str, tmp_path: Path, model: Model) -> None:
    Store(elsewhere).put("k", RECORD, PARTS, MEASURED, model)
    (tmp_path / "mirror").rename(tmp_path / "another machine's")
    store = Store(elsewhere)
    assert store.has("k")
    assert store.get("k")[0] == RECORD
    assert Model.load(store.model_path("k")).info == model.info
    assert not [name for name in fsspec.filesystem("memory").find("/runs") if name.endswith("partial")]


def test_a_trial_whose_file_did_not_arrive_is_not_there(
    elsewhere: str, tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial's own file comes last, and is renamed when it is whole."""
    store = Store(elsewhere)
    move = type(store.remote).mv

    def broken(self: object, source: str, target: str, **rest: object) -> None:
        if target.endswith("trials/k.safetensors"):
            raise OSError("the line is down")
        move(self, source, target, **rest)

    monkeypatch.setattr(type(store.remote), "mv", broken)
    with pytest.raises(OSError, match="line"):
        store.put("k", RECORD, PARTS, MEASURED, model)
    (tmp_path / "mirror").rename(tmp_path / "another machine's")
    assert not Store(elsewhere).has("k")
