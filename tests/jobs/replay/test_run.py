"""Replaying a step: the file that names it, and what is said of it."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
import torch

from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.jobs.compare.run import compare
from rushlight.jobs.replay.run import replay

RECIPE = "supervised(learning_rate=1e30)"


@pytest.fixture(scope="module")
def failed(photos: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The replay.json of a trial whose loss diverged."""
    out = tmp_path_factory.mktemp("diverged")
    board = compare(photos, [RECIPE], budget="200", seeds=1, out=out, workers=0)
    return next(Path(r.failed.rsplit(" ", 1)[1]) for r in board.failed if "1e+30" in r.trial.recipe)


def test_the_very_step_is_run_again_from_the_state_before_it(failed: Path) -> None:
    step = json.loads(failed.read_text())["step"]
    said = replay(failed)
    found = re.fullmatch(rf"step {step} \(first rows (.*)\): (.*)", said)
    assert found is not None, said
    assert all(rows and max(rows) < 1200 for rows in ast.literal_eval(found[1]).values())
    assert "nan" in found[2].lower() or "weights are not finite" in found[2]
    assert replay(failed) == said


def test_a_step_whose_loss_is_finite_says_so(failed: Path) -> None:
    """The state of the first step is sound: what is said comes from the step, not from the failure."""
    kept = json.loads(failed.read_text())
    state = torch.load(kept["state"], weights_only=True, map_location="cpu")
    sound = {
        name: torch.randn(value.shape, generator=torch.Generator().manual_seed(0)) * 0.01
        if value.is_floating_point() and "running_var" not in name
        else torch.ones_like(value)
        for name, value in state["learner"].items()
        if isinstance(value, torch.Tensor)
    }
    other = Path(kept["state"]).with_name("sound.pt")
    torch.save({**state, "learner": {**state["learner"], **sound}}, other)
    file = failed.with_name("sound.json")
    file.write_text(json.dumps({**kept, "state": str(other)}))
    assert "; 0 weights are not finite; replayed on the CPU" in replay(file)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"trial": {"none": 1}, "step": 0}', '{"trial": {}, "step": "x"}'])
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "replay.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"is no replay\.json that a failed trial wrote"):
        replay(file)
    with pytest.raises(UserError, match=r"nothing\.json does not exist"):
        replay(tmp_path / "nothing.json")
