from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import rushlight
from rushlight.cli import app
from rushlight.core.errors import UserError
from rushlight.data.columns import encode_text
from rushlight.data.dataset import Dataset, Info
from rushlight.data.sources.read import load
from rushlight.jobs.curate import run as curation

QUIET = "faces=None, smallest=1"
LICENCES = ["CC BY", "CC BY-NC", "CC BY 4.0", "", "CC BY", "CC BY"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures: two under other licences, one of a single colour, one that cannot be read; and a label file."""
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = rng.integers(256, size=(40, 40, 3), dtype=np.uint8)
        Image.fromarray(np.full_like(pixels, 90) if number == 4 else pixels).save(photos / "deep" / f"{number}.png")
    (photos / "broken.jpg").write_bytes(b"no image")
    rows = [f"deep/{n}.png,{licence},ann {n // 3}\n" for n, licence in enumerate(LICENCES)]
    (photos / "labels.csv").write_text("image,licence,photographer\n" + "".join(rows))
    return photos


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_line_curates(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "kept"
    arguments = ["curate", str(folder), f"pass({QUIET})", "--out", str(out), "--copy", "--cache", str(tmp_path / "c")]
    shown = CliRunner().invoke(app.app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "3 of 6 images are kept" in shown.output
    rows = table(out / "curation.csv")
    assert [row["kept"] for row in rows] == ["1", "0", "1", "0", "0", "1"]
    assert rows[1]["reasons"] == "licence: 'CC BY-NC' is not allowed"
    assert rows[4]["reasons"] == "colour: a single one"
    assert rows[2]["licence"] == "CC BY 4.0"
    assert rows[5]["creator"] == "ann 1"
    copies = sorted(path.relative_to(out / "images") for path in (out / "images").rglob("*.png"))
    assert [str(path) for path in copies] == ["deep/0.png", "deep/2.png", "deep/5.png"]
    for path in copies:
        assert (out / "images" / path).read_bytes() == (folder / path).read_bytes()
    assert not list(out.glob(".*"))


def test_the_account_holds_all_that_matters(folder: Path, tmp_path: Path) -> None:
    done = rushlight.curate(load(folder, cache=False), f"pass({QUIET}, cap=1)", out=tmp_path / "kept", seed=3)
    audit = json.loads((tmp_path / "kept" / "audit.json").read_text())
    assert audit["images"] == 6
    assert audit["kept"] == len(done.kept) == 2
    assert audit["removed by stage"]["licence"] == pytest.approx(2 / 6)
    assert {rate["reason"]: rate["images"] for rate in audit["removed by reason"]}[
        "cap: more than 1 of one creator"
    ] == 1
    settings = audit["settings"][0]
    assert (settings["method"], settings["cap"], settings["licences"]) == ("pass", 1, ["CC BY"])
    assert audit["seed"] == 3
    assert audit["unreadable"] == [{"name": "broken.jpg", "reason": "not an image of a known format"}]
    assert audit["machine"]["rushlight"] == rushlight.__version__
    assert audit["command"].startswith("rushlight curate")
    assert any("Nothing was reviewed" in note for note in audit["notes"])
    page = (tmp_path / "kept" / "curation.html").read_text()
    for text in ("licence: &#39;CC BY-NC&#39; is not allowed (1 of 1)", "broken.jpg", "data:image/png;base64", "ann 1"):
        assert text in page
    assert "cap=1" in page


def test_a_review_bounds_what_is_left_and_is_never_lost(folder: Path, tmp_path: Path) -> None:
    data, out = load(folder, cache=False), tmp_path / "kept"
    rushlight.curate(data, f"pass({QUIET}, review=2)", out=out)
    drawn = table(out / "review.csv")
    assert len(drawn) == 2
    assert {row["verdict"] for row in drawn} == {""}
    filled = f"name,verdict,remark\n{drawn[0]['name']},remove,a badge\n{drawn[1]['name']},keep,\n"
    (out / "review.csv").write_text(filled)
    with pytest.raises(UserError, match="holds verdicts"):
        rushlight.curate(data, f"pass({QUIET}, review=2)", out=out)
    done = rushlight.curate(data, f"pass({QUIET}, review=2, verdicts={str(out / 'review.csv')!r})", out=out)
    assert (out / "review.csv").read_text() == filled
    assert drawn[0]["name"] not in done.kept.names
    assert "2 of 6 images are kept; of those that nobody reviewed, at most 97.5 %" in done.verdict
    assert "A reviewer saw 2 images" in (out / "curation.html").read_text()


def test_curators_in_a_row_see_what_the_one_before_kept(folder: Path) -> None:
    recipe = f"pass({QUIET}, flat=0.0) > pass({QUIET}, licences=None, flat=3.0)"
    done = rushlight.curate(load(folder, cache=False), recipe)
    assert done.kept.names == ["deep/0.png", "deep/2.png", "deep/5.png"]
    assert done.pool.reasons[4] == ("colour: a single one",)
    assert done.pool.reasons[1] == ("licence: 'CC BY-NC' is not allowed",)


def test_two_curators_may_measure_one_thing_twice(folder: Path) -> None:
    done = rushlight.curate(load(folder, cache=False), f"pass({QUIET}, review=3) > pass({QUIET}, review=1)")
    assert len(done.kept) == 3


def test_a_curator_that_trains_needs_a_budget_and_gets_it(photos: Dataset) -> None:
    with pytest.raises(UserError, match=r"'relabel' trains, and needs a budget: add --budget"):
        rushlight.curate(photos.fold(0), "relabel")
    done = rushlight.curate(photos.fold(0), "relabel", budget=800, encoder="conv16")
    assert done.pool.kept.all()
    assert "label_map_values" in done.kept
    assert 0 < done.spent.passes <= 801


def test_what_is_no_curator_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="'supervised' is a learner, not a curator"):
        rushlight.curate(folder, "pass > supervised")
    shown = CliRunner().invoke(app.app, ["curate", str(folder), "iomatch"])
    assert isinstance(shown.exception, UserError)


def test_copies_are_made_of_files_inside_the_folder_only(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    (folder / "deep" / "0.png").rename(secret)
    (folder / "deep" / "0.png").symlink_to(secret)
    (folder / "labels.csv").unlink()
    data = load(folder, cache=False)
    assert "deep/0.png" not in data.names, "reading refuses it already"
    rushlight.curate(data, f"pass({QUIET})", out=tmp_path / "kept", copy=True)
    assert "0.png" not in [path.name for path in (tmp_path / "kept" / "images").rglob("*")]
    for name in ("deep/0.png", "../secret.png", str(secret)):
        crafted = Dataset(
            {"image": data["image"][:1], "name": encode_text([name])}, Info(source=str(folder))
        )  # as a packed data set from elsewhere might be
        with pytest.raises(UserError, match="leads out of it"):
            rushlight.curate(crafted, f"pass({QUIET})", out=tmp_path / "other", copy=True)
    assert not list((tmp_path / "other").rglob("*.png"))


def test_copies_replace_those_of_an_earlier_run_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    data, out = load(folder, cache=False), tmp_path / "kept"
    rushlight.curate(data, f"pass({QUIET}, licences=None)", out=out, copy=True)
    assert len(list((out / "images").rglob("*.png"))) == 5
    rushlight.curate(data, f"pass({QUIET})", out=out, copy=True)
    assert len(list((out / "images").rglob("*.png"))) == 3
    with pytest.raises(UserError, match="holds copies of an earlier run: add --copy"):
        rushlight.curate(data, f"pass({QUIET})", out=out)
    mine = tmp_path / "mine"
    (mine / "images").mkdir(parents=True)
    (mine / "images" / "holiday.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="is no curation's"):
        rushlight.curate(data, f"pass({QUIET})", out=mine, copy=True)
    assert (mine / "images" / "holiday.png").read_bytes() == b"mine"


def test_copies_where_they_cannot_be_made(folder: Path, photos: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lies inside"):
        rushlight.curate(load(folder, cache=False), f"pass({QUIET})", out=folder / "kept", copy=True)
    with pytest.raises(UserError, match="needs a folder of images"):
        rushlight.curate(photos, f"pass({QUIET})", out=tmp_path / "kept", copy=True)
    with pytest.raises(UserError, match="name one"):
        rushlight.curate(photos, f"pass({QUIET})", copy=True)


def test_it_shows_itself(folder: Path) -> None:
    from rich.console import Console

    done = rushlight.curate(load(folder, cache=False), f"pass({QUIET})")
    console = Console(width=120, record=True)
    console.print(done)
    shown = console.export_text()
    assert "licence: none is given" in shown
    assert "Nothing was reviewed" in shown
    assert "3 of 6 images are kept." in done._repr_html_()
    assert list(done.to_pandas()["kept"]) == [True, False, True, False, False, True]


def test_a_pool_that_a_curator_did_not_leave_is_made() -> None:
    data = Dataset({"image": torch.zeros(3, 3, 4, 4, dtype=torch.uint8), "name": encode_text(["a", "b", "c"])})
    pool = curation._missing("other", data, data.select(torch.tensor([0, 2])))
    assert pool.reasons == [(), ("other: not kept",), ()]
