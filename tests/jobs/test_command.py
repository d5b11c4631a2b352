"""The command of a report repeats the job: the command line, given it, reads the same data and passes the same on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import rushlight
from rushlight.cli.app import app
from rushlight.data.dataset import Dataset
from rushlight.jobs.command import DATA, repeat

SMALL: dict[str, Any] = {"budget": "40", "encoder": "conv16"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 pictures of 20×28 and a table elsewhere, with classes, patients and the ward."""
    place, rng = tmp_path_factory.mktemp("some photos"), np.random.default_rng(0)
    lines = ["image,class,patient,ward"]
    for i in range(32):
        Image.fromarray(rng.integers(0, 255, (20, 28, 3), dtype=np.uint8)).save(place / f"{i:02}.png")
        lines.append(f"{i:02}.png,{'ab'[i % 2]},p{i // 4},w{i // 8}")
    (place.parent / "table of labels.csv").write_text("\n".join(lines))
    return place


@pytest.fixture(scope="module")
def data(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    cache = tmp_path_factory.mktemp("cache")
    labels = folder.parent / "table of labels.csv"
    return rushlight.load(folder, labels=labels, group="patient", size=(24, 32), fit="pad", cache=cache)


def repeated(command: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Dataset, dict[str, Any]]:
    """Give a command to the command line, and return the data and the settings that reach the job."""
    job, *_ = words = shlex.split(command, comments=True)[1:]
    job = "rank_encoders" if "--unlabelled-only" in words else job
    reached: list[Any] = []

    class Reached(Exception):
        pass

    def stop(*arguments: Any, **settings: Any) -> None:
        reached.append((next(one for one in arguments if isinstance(one, Dataset)), settings))
        raise Reached

    with monkeypatch.context() as patch:
        patch.setattr(rushlight, job, stop)
        result = CliRunner().invoke(app, words)
    assert reached, result.output
    return reached[0]


def test_compare(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = rushlight.compare(data, "supervised", seeds=1, keep=6, test_share=0.3, out=tmp_path, workers=0, **SMALL)
    again, settings = repeated(board.command, monkeypatch)
    assert again.content_hash == data.content_hash
    assert (settings["seeds"], settings["keep"], settings["test_share"]) == (1, 6, 0.3)
    assert board.command in (tmp_path / "leaderboard.json").read_text().replace("\\u00d7", "×")
    assert "--group patient" in board.command
    assert "--size 24x32" in board.command


def test_rank_encoders(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = rushlight.rank_encoders(data, "simclr(batch=8)", seeds=1, test_share=0.7, out=tmp_path, workers=0, **SMALL)
    again, settings = repeated(many.command, monkeypatch)
    assert again.content_hash == data.content_hash
    assert settings["test_share"] == 0.7


def test_judge_and_audit(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = rushlight.fit(data, "supervised", out=tmp_path / "my model", **SMALL)
    done = rushlight.judge("rankme", data, models=str(tmp_path / "my model"), seed=3)
    again, settings = repeated(done.command, monkeypatch)
    assert again.content_hash == data.content_hash
    assert (settings["seed"], settings["models"]) == (3, str(tmp_path / "my model"))
    audited = rushlight.audit(tmp_path / "my model", data, seed=2, attack_images=5, label_images=30)
    again, settings = repeated(audited.command, monkeypatch)
    assert again.content_hash == data.content_hash
    assert (settings["seed"], settings["attack_images"], settings["label_images"]) == (2, 5, 30)
    assert "MODEL" in rushlight.audit(model, data, attack_images=5).command


def test_curate(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    done = rushlight.curate(
        data, "pass(smallest=8, licences=None, attribution=False, faces=None)", seed=3, encoder="conv16"
    )
    again, settings = repeated(done.command, monkeypatch)
    assert again.content_hash == data.content_hash
    assert (settings["seed"], settings["encoder"]) == (3, "conv16")
    assert "pass(smallest=8, licences=None, attribution=False, faces=None)" in done.command


def test_a_folder_alone_is_read_at_the_size_that_it_was_read_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python packs at the images' own size, a job on a CPU at 64 × 64: the command says which."""
    data = rushlight.load(folder, labels=str(folder.parent / "table of labels.csv"), cache=False)
    command = repeat("fit", data, "supervised", out="model")
    again, _ = repeated(command, monkeypatch)
    assert again.content_hash == data.content_hash


def test_data_of_a_name_need_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    data = rushlight.load("fashion")
    command = repeat("compare", data, methods="supervised")
    assert command == "rushlight compare fashion --methods supervised"


def test_what_was_made_or_changed_in_python_is_said_and_can_be_saved(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for changed in (data.select(torch.arange(10)), data.hide(), data.with_info(class_names=("x", "y"))):
        assert changed.loaded is None
        command = repeat("fit", changed, "supervised")
        assert command.startswith(f"rushlight fit {DATA} supervised  # {DATA}: ")
    monkeypatch.chdir(tmp_path)
    changed.save(DATA)
    again, _ = repeated(command, monkeypatch)
    assert again.content_hash == changed.content_hash
    assert data.fold(0).loaded == data.loaded, "without a fold, the training rows are all"


@pytest.mark.parametrize("size", ["x", "64x", "4x4x4", "-3", "wide"])
def test_a_size_that_cannot_be_read_is_said(folder: Path, size: str) -> None:
    result = CliRunner().invoke(app, ["look", str(folder), "--size", size])
    assert result.exit_code != 0
