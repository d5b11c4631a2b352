"""The survey: a place for every member, and one comparison in which all of them start alike and none sees a label."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from margins import Margin
from typer.testing import CliRunner

from rushlight.cli import app
from rushlight.core.catalogue import cards
from rushlight.core.errors import UserError
from rushlight.core.findings import Findings
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.data.edit import hide
from rushlight.data.synthetic import fashion
from rushlight.methods.pretrain.vit_ssl_survey import FAMILIES, MEMBERS, VitSslSurvey, taxonomy
from rushlight.nets import encoders
from rushlight.run.model import Model
from rushlight.run.stage import RunContext
from rushlight.train.joint_embedding import JointEmbedding

SMALL = {"members": ["simclr(batch=16)", "barlow-twins(batch=16)"], "budget": "600", "fine_tuning": "600", "labels": 5}


@pytest.fixture(scope="module")
def labelled() -> Dataset:
    whole = fashion.load()
    test = (whole["fold"] == TEST).nonzero()[:150, 0]
    return hide.per_class(whole.select(torch.cat([torch.arange(600), test])), 20)


def model(seed: int = 0) -> Model:
    return Model(encoders.create("conv16", image_size=28, seed=seed))


class Watched(NamedTuple):
    """A survey's findings, what its members were given, and the model before and after it."""

    found: Findings
    seen: list[Dataset]
    before: dict[str, torch.Tensor]
    given: Model


@pytest.fixture(scope="module")
def survey(labelled: Dataset) -> Watched:
    seen, run, given = [], JointEmbedding.run, model()
    before = {key: value.clone() for key, value in given.state_dict().items()}

    def watched(self, data, *rest):  # type: ignore[no-untyped-def]
        seen.append(data)
        return run(self, data, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JointEmbedding, "run", watched)
        return Watched(VitSslSurvey(**SMALL).judge(given, labelled, RunContext(seed=1)), seen, before, given)


def test_every_pretraining_method_stands_in_one_family() -> None:
    table = taxonomy()
    placed = " ".join(table["methods"])
    names = [family.name for family in FAMILIES]
    for name, card in cards().items():
        if card.tags and card.tags[0] in names:
            assert f"{name} (" in placed
    for name in MEMBERS:
        assert f"{name} (" in placed
    assert table["family"] == names


def test_its_table_has_each_member_beside_the_start(survey: Watched, margin: Margin) -> None:
    found = survey.found
    table = found.table("members")
    assert table["member"] == ["untrained", "simclr(batch=16)", "barlow-twins(batch=16)"]
    assert table["passes"][0] == 0
    assert all(500 < passes <= 600 for passes in table["passes"][1:])
    for what in ("neighbours", "linear", "fine-tuned"):
        margin(f"least accuracy, {what}", min(table[what]), 0.1)
        assert max(table[what]) <= 1
    assert found.numbers["untrained: linear"] == table["linear"][0]


def test_members_see_no_label_and_no_test_image(survey: Watched) -> None:
    assert len(survey.seen) == 2
    for data in survey.seen:
        assert not data.known("class").any()
        assert len(data) == 600


def test_the_model_that_was_given_is_left_alone(survey: Watched) -> None:
    assert all(torch.equal(value, survey.before[key]) for key, value in survey.given.state_dict().items())


def test_a_member_that_does_not_fit_the_encoder_is_named(labelled: Dataset) -> None:
    with pytest.raises(UserError, match="'mae' requires a vision transformer"):
        VitSslSurvey(members=["mae"], budget="600").judge(model(), labelled)


def test_an_unknown_member_is_refused_at_once() -> None:
    with pytest.raises(UserError, match="Did you mean 'simclr'"):
        VitSslSurvey(members=["simcl"])


def test_the_command_line_shows_the_taxonomy() -> None:
    shown = CliRunner().invoke(app.app, ["systems", "--taxonomy"])
    assert shown.exit_code == 0
    assert "contrast" in shown.output
