"""`rushlight judge` and `rl.judge`: one judge, any models, and what is written."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import rushlight
from rushlight.cli import app
from rushlight.core.catalogue import load_method
from rushlight.core.errors import UserError
from rushlight.core.findings import Curves, Findings, Measure, Table
from rushlight.data.dataset import Dataset
from rushlight.jobs.judge import run as judging
from rushlight.nets import encoders
from rushlight.run import recipe
from rushlight.run.model import Model, ModelInfo
from rushlight.run.stage import Judge, Progress, RunContext


@pytest.fixture(scope="module")
def small(photos: Dataset) -> Dataset:
    return photos.select(torch.arange(60))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Model(encoders.create("conv16", image_size=28, seed=3), {}, ModelInfo(image_size=(28, 28))).save(tmp_path / "model")
    return tmp_path / "model"


def test_the_command_line_judges_models_side_by_side(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "judged"
    arguments = ["judge", "rankme(samples=50)", "fashion", "--models", f"{folder}, conv16", "--out", str(out)]
    shown = CliRunner().invoke(app.app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "RankMe" in shown.output
    with (out / "models.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} == {str(folder), "conv16"}
    assert float(rows[0]["RankMe"]) >= float(rows[1]["RankMe"]) > 1
    page = (out / "judge.html").read_text()
    assert "RankMe" in page
    assert "embeddings of one width" in page
    assert "72,304 parameters" in page


def test_one_model_is_judged_for_itself(small: Dataset, folder: Path, tmp_path: Path) -> None:
    heard: list[Progress] = []
    done = rushlight.judge("rankme", small, models=str(folder), out=tmp_path / "o", on_progress=heard.append)
    assert done.findings.numbers["embeddings"] == 60
    assert (tmp_path / "o" / "numbers.csv").read_text().startswith("what,value,low,high\nRankMe,")
    assert "spectrum" in (tmp_path / "o" / "judge.html").read_text()
    assert done.command.startswith("rushlight judge rankme")
    assert next(iter(done.to_pandas()["what"])) == "RankMe"
    assert "RankMe" in done._repr_html_()


def test_models_are_given_as_they_come(small: Dataset) -> None:
    model = Model(encoders.create("conv16", seed=0, image_size=28), {}, ModelInfo(image_size=(28, 28)))
    before = {name: values.clone() for name, values in model.state_dict().items()}
    alone, two = (rushlight.judge("rankme", small, models=models) for models in (model, {"a": model, "b": model}))
    table = two.table("models")
    assert list(table["model"]) == ["a", "b"]
    assert table["RankMe"][0] == table["RankMe"][1] == alone.findings.numbers["RankMe"]
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    with pytest.raises(KeyError, match="there are"):
        two.table("ranks")


def test_without_a_model_the_judge_gets_an_untrained_encoder(small: Dataset) -> None:
    done = rushlight.judge("rankme(samples=30)", small)
    assert list(done.models) == ["conv16"]
    assert "untrained" in done.models["conv16"]
    assert done.findings.numbers["width"] == 64


def test_timms_models_keep_their_own_size_and_take_a_file_of_weights(small: Dataset, tmp_path: Path) -> None:
    found = judging.named("resnet18, resnet18@64, vit64", small)
    assert [model.info.image_size for model in found.values()] == [(224, 224), (64, 64), (28, 28)]
    weights = found["resnet18"].encoder.model.state_dict()
    save_file({name: values.contiguous() for name, values in weights.items()}, tmp_path / "r18.safetensors")
    (given,) = judging.named([f"resnet18@64={tmp_path / 'r18.safetensors'}"], small, seed=9).values()
    assert given.info.recipe == "weights of r18.safetensors"
    assert torch.equal(given.encoder.model.conv1.weight, weights["conv1.weight"])


def test_models_come_from_the_hub(small: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def local(repo_id: str, filename: str, **_: object) -> str:
        return str(folder / filename)

    for place in ("huggingface_hub.hf_hub_download", "huggingface_hub.hub_mixin.hf_hub_download"):
        monkeypatch.setattr(place, local)
    (model,) = judging.named("hf:someone/model", small).values()
    assert torch.equal(model.encoder.stages[0][0][0].weight, Model.load(folder).encoder.stages[0][0][0].weight)

    def unreachable(*_: object, **__: object) -> str:
        raise OSError("no network")

    for place in ("huggingface_hub.hf_hub_download", "huggingface_hub.hub_mixin.hf_hub_download"):
        monkeypatch.setattr(place, unreachable)
    with pytest.raises(UserError, match="'someone/other' could be fetched"):
        judging.named("hf:someone/other", small)


class Uneven(Judge):
    """Gives a table more for the second model than for the first."""

    card = load_method("rankme").card

    def judge(self, model: Model, data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        second = model.info.seed == 1
        tables = [Table.of("a", {"x": [1, 2], **({"y": [3, 4]} if second else {})})]
        tables += [Table.of("b", {"z": [5]})] if second else []
        curves = (Curves("c", "x", "y", {}),)
        return Findings("uneven", (Measure("n", 1.0),), tuple(tables), curves, notes=("note",))


def test_tables_of_several_models_stand_below_each_other(small: Dataset) -> None:
    model = Model(encoders.create("conv16"), {}, ModelInfo())
    found = Uneven().judge_all({"p": model, "q": model.with_info(seed=1)}, small)
    assert found.table("models").dicts() == [{"model": "p", "n": 1.0}, {"model": "q", "n": 1.0}]
    assert found.table("a").names == ["model", "x", "y"]
    assert found.table("a").rows == (("p", 1, ""), ("p", 2, ""), ("q", 1, 3), ("q", 2, 4))
    assert found.table("b").dicts() == [{"model": "q", "z": 5}]
    assert [curve.name for curve in found.curves] == ["c: p", "c: q"]
    assert found.notes == ("note",)


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ("resnet81", "Did you mean 'resnet"),
        ("conv61", "Did you mean 'conv16'"),
        ("conv16, conv16", "named twice"),
        ("nowhere/", "holds no model"),
        ("a=b=@", "cannot read|neither"),
        ("conv16=missing.safetensors", "not a readable safetensors"),
        (" , ", "no model is named"),
    ],
)
def test_models_that_are_none_are_named(small: Dataset, models: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        judging.named(models, small)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rankem", "Did you mean 'rankme'"),
        ("rankme(sample=3)", "Did you mean 'samples'"),
        ("rankme(samples=3", "name=value"),
        ("supervised", "is a learner, not a judge: `rushlight fit`"),
        ("fgsm", "not a judge"),
        ("rankme > rankme", "name one"),
        ("rankme(share=0.5)", "no share"),
    ],
)
def test_what_is_no_judge_is_refused(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        recipe.judge(text)


def test_data_that_does_not_fit_is_refused(small: Dataset) -> None:
    bare = small.without("class")
    with pytest.raises(UserError, match="needs the column 'class'"):
        rushlight.judge("vit-ssl-survey(members=['simclr'])", bare)
    with pytest.raises(UserError, match="holds no image"):
        rushlight.judge("rankme", small.select(torch.arange(0)))


def test_the_command_line_refuses_before_it_reads(tmp_path: Path) -> None:
    for arguments in (["rankem", "nowhere"], ["rankme", "nowhere", "--models", "resnet81"]):
        shown = CliRunner().invoke(app.app, ["judge", *arguments])
        assert isinstance(shown.exception, UserError)
        assert "Did you mean" in str(shown.exception)


def test_tables_become_files_with_plain_names() -> None:
    assert judging.file_name("z-scores (per task)") == "z-scores-per-task"
    assert judging.file_name("—") == "table"
