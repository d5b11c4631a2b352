"""Training one recipe: what it leaves, and what a loss that is not finite leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from rushlight.api import replay
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.jobs.fit.run import fit
from rushlight.methods.baseline.supervised import Supervised
from rushlight.run.hardware import precision
from rushlight.run.model import Model

DIVERGING = "supervised(learning_rate=1e30, batch=8)"
SMALL = {"budget": 100, "encoder": "conv16", "device": "cpu"}


@pytest.fixture(scope="module")
def few(photos: Dataset) -> Dataset:
    return photos.select(photos.known("class").nonzero()[:64, 0])


def test_the_model_is_handed_out_and_no_work_is_left(few: Dataset, tmp_path: Path) -> None:
    model = fit(few, "supervised", out=tmp_path / "model", **SMALL)
    kept = Model.load(tmp_path / "model")
    assert kept.info == model.info
    assert all(torch.equal(value, kept.state_dict()[name]) for name, value in model.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_diverging_loss_leaves_a_replay_and_one_sentence(few: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finite; replay that step with: rushlight replay ") as raised:
        fit(few, DIVERGING, out=tmp_path / "model", **SMALL)
    said = str(raised.value)
    assert "\n" not in said
    file = Path(said.rsplit(" ", 1)[1])
    step = json.loads(file.read_text())["step"]
    assert f"step {step} " in said
    assert replay(file).startswith(f"step {step} (first rows ")
    assert f"replayed on the CPU in {precision('cpu', 'conv16')}" in replay(file)
    assert not (tmp_path / "model").exists()


def test_a_step_is_replayed_by_the_plan_that_memory_allowed(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Supervised.step

    def crowded(self: Supervised, batch: Any) -> torch.Tensor:
        if len(batch["labelled"]) > 4:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return step(self, batch)

    monkeypatch.setattr(Supervised, "step", crowded)
    with pytest.warns(UserWarning, match="trained with 4"), pytest.raises(UserError, match="not finite") as raised:
        fit(few, DIVERGING, out=tmp_path / "model", **SMALL)
    monkeypatch.undo()
    said = replay(Path(str(raised.value).rsplit(" ", 1)[1]))
    rows = re.search(r"'labelled': \[([^]]*)\]", said)
    assert rows is not None
    assert len(rows[1].split(",")) == 4


def test_with_no_folder_it_says_what_would_keep_the_step(few: Dataset) -> None:
    with pytest.raises(UserError, match="lower the learning rate; with --out the step can be replayed"):
        fit(few, DIVERGING, **SMALL)


def test_a_model_that_cannot_be_written_is_named(few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Model.save

    def full(self: Model, folder: Path) -> None:
        if folder == tmp_path / "model":
            raise OSError(28, "No space left on device")
        save(self, folder)

    monkeypatch.setattr(Model, "save", full)
    with pytest.raises(UserError, match=r"model could not be written \(No space left on device\): make room"):
        fit(few, "supervised", out=tmp_path / "model", **SMALL)


def test_a_learner_without_any_label_is_told_what_to_give(few: Dataset) -> None:
    with pytest.raises(UserError, match=r"no label is known in .* give --labels FILE"):
        fit(few.hide(), "supervised", **SMALL)


def test_a_file_that_is_no_replay_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nope\.json does not exist"):
        replay(tmp_path / "nope.json")
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(UserError, match=r"c\.json is no replay\.json that a failed trial wrote"):
        replay(tmp_path / "c.json")
