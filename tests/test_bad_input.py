"""What a person gets for bad input: one sentence that names the culprit and the remedy, and exit code 2."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rushlight.cli import app


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def photos_folder(tmp_path: Path) -> Path:
    """Eight photos in two folders."""
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str, code: int = 2) -> str:
    """What a command that fails prints: one line without a traceback, beside what it chose for the user."""
    monkeypatch.setattr(sys, "argv", ["rushlight", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        app.main()
    said = capsys.readouterr().err
    assert ended.value.code == code, said
    assert "Traceback" not in said
    lines = [line for line in said.strip().splitlines() if line.startswith("rushlight:")]
    assert len([line for line in lines if "reading images at" not in line]) == 1
    return said


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    return lambda *arguments, **settings: say(capsys, monkeypatch, *arguments, **settings)


def test_a_wrong_path(fails, photos_folder: Path) -> None:
    said = fails("look", str(photos_folder.parent / "photoes"))
    assert "photoes" in said
    assert "photos" in said.replace("photoes", "")


def test_an_empty_folder(fails, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    assert "nothing" in fails("look", str(tmp_path / "nothing"))


def test_a_table_that_names_missing_files(fails, photos_folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("image,class\ncats/0.png,cat\ncats/77.png,cat\n")
    said = fails("look", str(photos_folder), "--labels", str(table))
    assert "labels.csv" in said
    assert "77.png" in said
    assert "3" in said


def test_two_labels_for_one_image(fails, photos_folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("image,class\ncats/0.png,cat\ncats/0.png,dog\n")
    said = fails("look", str(photos_folder), "--labels", str(table))
    assert "cats/0.png" in said
    assert "cat" in said
    assert "dog" in said


def test_a_mask_of_another_size(fails, tmp_path: Path) -> None:
    (tmp_path / "p" / "images").mkdir(parents=True)
    (tmp_path / "p" / "masks").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "p" / "images" / "a.png")
    Image.new("L", (30, 20)).save(tmp_path / "p" / "masks" / "a.png")
    assert "a.png" in fails("look", str(tmp_path / "p"))


@pytest.mark.parametrize(
    ("recipe", "near"),
    [("iomach", "iomatch"), ("barlow-twin > supervised", "barlow-twins"), ("fixmatch(treshold=1)", "threshold")],
)
def test_a_recipe_with_a_typo(fails, photos_folder: Path, tmp_path: Path, recipe: str, near: str) -> None:
    assert f"Did you mean '{near}'?" in fails("fit", str(photos_folder), recipe, "--out", str(tmp_path / "m"))


@pytest.mark.parametrize("recipe", ["supervised >", "supervised(", "supervised(5)", "supervised(batch=print)", "pgd"])
def test_a_recipe_that_cannot_be_read(fails, photos_folder: Path, tmp_path: Path, recipe: str) -> None:
    assert recipe.split("(")[0].split(" ")[0] in fails("fit", str(photos_folder), recipe, "--out", str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("budget", "word"), [("0", "zero"), ("0m", "zero"), ("ten", "ten"), ("-5k", "-5k"), ("", "''")]
)
def test_a_budget_that_is_none(fails, photos_folder: Path, tmp_path: Path, budget: str, word: str) -> None:
    said = fails("fit", str(photos_folder), "supervised", f"--budget={budget}", "--out", str(tmp_path / "m"))
    assert word in said


def test_no_labels_where_labels_are_needed(fails, photos_folder: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(photos_folder.glob("*/*.png"))):
        path.rename(flat / f"{number}.png")
    said = fails("compare", str(flat), "--out", str(tmp_path / "out"))
    assert "no label" in said
    assert "--labels" in said
    said = fails("fit", str(flat), "supervised", "--out", str(tmp_path / "m"))
    assert "supervised" in said


def test_a_method_that_does_not_fit(fails, photos_folder: Path, tmp_path: Path) -> None:
    said = fails("compare", str(photos_folder), "--methods", "cw-bass", "--out", str(tmp_path / "out"))
    assert "cw-bass" in said
    assert "mask" in said


def test_an_output_folder_that_cannot_be_written(fails, photos_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = fails("compare", str(photos_folder), "--out", str(tmp_path / "file" / "out"))
    assert "file" in said
    assert "--out" in said


def test_a_full_disk(fails, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a full disk does to a write, at the place where results are written."""
    import os

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = fails("fit", "fashion", "supervised", "--budget", "50", "--out", str(tmp_path / "m"))
    assert "No space left on device" in said


def test_two_runs_in_one_folder(fails, photos_folder: Path, tmp_path: Path) -> None:
    from rushlight.run.store import Store

    with Store(tmp_path / "out").lock():
        said = fails("compare", str(photos_folder), "--methods", "supervised", "--out", str(tmp_path / "out"))
    assert "another comparison is running" in said


def test_a_folder_that_holds_no_model(fails, photos_folder: Path) -> None:
    assert "holds no model" in fails("predict", str(photos_folder), str(photos_folder))
    assert "holds no model" in fails("audit", str(photos_folder), str(photos_folder))


def test_predictions_of_another_kind(fails, photos_folder: Path) -> None:
    assert ".csv or .parquet" in fails("predict", "model", str(photos_folder), "--out", "out.xlsx")


@pytest.mark.parametrize(
    "content", [b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins", b"", b"PK\x03\x04"]
)
def test_weights_that_are_a_pickle(fails, photos_folder: Path, tmp_path: Path, content: bytes) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(content)
    said = fails("fit", str(photos_folder), "supervised", "--weights", str(weights), "--out", str(tmp_path / "m"))
    assert "weights.safetensors" in said
    assert "pickle" in said


def test_a_model_whose_config_names_other_code(fails, photos_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "config.json").write_text(
        '{"encoders": {"image": "conv16"}, "info": {"image_size": [28, 28], "names": {}}, '
        '"heads": {"class": {"kind": "os:system"}}}'
    )
    assert "is no head of this library" in fails("predict", str(folder), str(photos_folder))


def test_a_claim_or_system_that_is_none(fails) -> None:
    assert "Did you mean 'iomatch'?" in fails("systems", "iomatsh")
    assert "Did you mean" in fails("claims", "run", "iomatsh")
