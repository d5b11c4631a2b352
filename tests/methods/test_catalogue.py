"""What every method of the catalogue must do, for each task it learns; one that is added is tested without a further
line here."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from cases import (
    ATTACKS,
    BUDGET,
    CARDS,
    JUDGES,
    LEARNERS,
    STAGES,
    Case,
    assert_equal,
    called,
    cases,
    example,
    make,
    prepared,
    run,
    start,
    states,
    trained,
    training,
)
from margins import Margin
from typer.testing import CliRunner

from rushlight import tasks
from rushlight.cli import app
from rushlight.core.arguments import checked
from rushlight.core.catalogue import load_method
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.run import trial
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.stage import Findings, RunContext, Threat
from rushlight.run.store import Store
from rushlight.train.learner import Learner

QUICK = ("barlow-twins",)
"""What stands for all methods that need no labels where a test is long."""

every_stage = pytest.mark.parametrize("case", cases(STAGES), ids=called)
every_learner = pytest.mark.parametrize("case", cases(LEARNERS), ids=called)


SLOW = {"pu-mlc", "supervised-keypoints", "supervised-boxes"}
"""Cases whose networks or targets make them several times slower than others of their kind."""


def the_labelled_first(names: list[str], *quick: str) -> pytest.MarkDecorator:
    """The cases of some methods; the `SLOW` and those that need no labels are slow ones, but for the `quick`."""
    found = [
        pytest.param(case, marks=pytest.mark.slow)
        if called(case) in SLOW or not (CARDS[case[0]].task or case[0] in quick)
        else case
        for case in cases(names)
    ]
    return pytest.mark.parametrize("case", found, ids=called)


@pytest.mark.parametrize("name", CARDS)
def test_its_card_tells_what_it_is(name: str) -> None:
    card = CARDS[name]
    assert card.title
    assert card.gives
    assert card.says
    assert str(card.needs)
    assert card.family == load_method(name).__module__.split(".")[2]


@pytest.mark.parametrize("name", CARDS)
def test_the_command_line_shows_it(name: str) -> None:
    shown = CliRunner().invoke(app.app, ["methods", name])
    assert shown.exit_code == 0, shown.output
    assert name in shown.output


@pytest.mark.parametrize("name", [*STAGES, *JUDGES])
def test_its_arguments_have_types_that_their_defaults_fit(name: str) -> None:
    settings = inspect.signature(load_method(name)).parameters
    defaults = {key: each.default for key, each in settings.items()}
    assert checked(name, load_method(name), defaults) == defaults
    hints = get_type_hints(load_method(name).__init__)
    assert set(settings) <= set(hints) or not settings


def has_a_module(name: str) -> bool:
    """Whether a method stands in a file or folder of its name; others share another one's, and its page."""
    return name.replace("-", "_") in [part.rstrip("_") for part in load_method(name).__module__.split(".")]


@pytest.mark.parametrize("name", [name for name in CARDS if has_a_module(name)])
def test_it_has_a_page_and_a_claim(name: str) -> None:
    root = Path(__file__).parents[2]
    assert (root / "docs" / "methods" / f"{name}.md").read_text().count("## ") >= 3
    if CARDS[name].family != "baseline":
        assert list((root / "claims").glob(f"*/{name.replace('-', '_')}.py"))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@every_learner
def test_a_step_in_each_precision(case: Case, precision: str) -> None:
    learner = prepared(case)
    learner.plan = learner.plan_for(BUDGET)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        loss = learner.step(learner.draw(learner.plan.batch, 0))
    loss.backward()
    gradients = [p.grad for p in learner.model.parameters() if p.grad is not None]
    assert loss.isfinite()
    assert all(bool(g.isfinite().all()) for g in gradients)
    assert any(bool((g != 0).any()) for g in gradients)


@every_stage
def test_saved_and_loaded_it_predicts_the_same(case: Case, tmp_path: Path) -> None:
    data, model, _ = trained(case)
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    assert loaded.info == model.info
    assert_equal(model, loaded)
    before, after = model.predict(data["image"][:16]), loaded.predict(data["image"][:16])
    assert before.keys() == after.keys()
    for output in before:
        torch.testing.assert_close(after[output], before[output])  # kernels differ by where in memory weights lie


@the_labelled_first(STAGES, *QUICK)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(case: Case) -> None:
    one = trained(case)
    again, other = (run(case, seed=seed) for seed in (0, 4))
    assert_equal(one[1], again[1])
    assert one[0].content_hash == again[0].content_hash
    pools = [outcome.pool.to_csv() if outcome.pool is not None else "" for _, _, outcome in (one, again, other)]
    assert pools[0] == pools[1]
    moved = any(not torch.equal(a, b) for a, b in zip(states(one[1]).values(), states(other[1]).values(), strict=True))
    assert moved or one[0].content_hash != other[0].content_hash or pools[0] != pools[2]


class Cut(Exception):
    """Stands for a power cut."""


@the_labelled_first(LEARNERS, *QUICK)
def test_a_cut_run_goes_on_to_the_same_bits(case: Case, tmp_path: Path) -> None:
    _, whole, _ = trained(case)

    def cut(model: Model, spent: object) -> None:
        raise Cut

    with pytest.raises(Cut):
        run(case, folder=tmp_path, checkpoint_seconds=-1.0, on_snapshot=cut, snapshots=2)
    assert list(tmp_path.glob("**/*.ckpt"))
    _, resumed, _ = run(case, folder=tmp_path)
    assert_equal(whole, resumed)


@every_learner
def test_it_spends_its_budget_and_no_more(case: Case) -> None:
    _, _, outcome = trained(case)
    assert outcome.spent.passes <= BUDGET.passes
    step = outcome.spent.passes / outcome.spent.steps
    assert outcome.spent.passes > BUDGET.passes - 2 * step


@every_stage
def test_it_changes_neither_the_data_nor_the_model_it_was_given(case: Case) -> None:
    name, task = case
    data = training(task)
    model, before = start(data, case), data.content_hash
    given = states(model)
    make(name).run(data, model, RunContext(task=task, budget=BUDGET))
    assert data.content_hash == before
    assert all(torch.equal(values, given[key]) for key, values in model.state_dict().items())


@the_labelled_first(STAGES)  # what needs no labels is seldom led astray by them
def test_no_stage_sees_a_test_label(case: Case, tmp_path: Path) -> None:
    """Other test labels, same bits: through the trial that every comparison and command uses."""
    name, task = case
    data = example(task)
    column = tasks.find(task).column
    labels, test = data[column].clone(), data["fold"] == TEST
    labels[test] = labels[test].roll(1, 0)
    assert not torch.equal(labels, data[column])
    recipe = name if CARDS[name].task and name in LEARNERS else f"{name} > supervised"
    spec = trial.Trial(recipe=recipe, seed=0, budget="400", data="", task=task, encoder=start(data, case).encoder.name)
    models = []
    for number, seen in enumerate((data, data.with_columns(**{column: labels}))):
        store = Store(tmp_path / str(number))
        named = replace(spec, data=seen.content_hash)
        result = trial.run(named, seen, store)
        assert not result.failed
        models.append(Model.load(store.model_path(named.key)))
    assert_equal(*models)


@pytest.mark.parametrize("name", [n for n in JUDGES if load_method(n).audits])  # a study's own tests run it, small
def test_a_judge_finds_numbers_and_changes_nothing(name: str, photos: Dataset) -> None:
    _, model, _ = trained(("barlow-twins", "class"))
    _, classifier, _ = trained(("supervised", "class"))
    model = Model(
        classifier.encoder, {"class": classifier.head("class"), "projector": model.head("projector")}, classifier.info
    )
    test = photos.fold(TEST).select(torch.arange(40))
    before = states(model)
    found = load_method(name)().judge(model, test, RunContext())
    assert isinstance(found, Findings)
    assert found.numbers
    assert all(torch.equal(values, before[key]) for key, values in model.state_dict().items())


@cache
def classifier() -> Model:
    """A classifier worth attacking."""
    case, train = ("supervised", "class"), training("class")
    stage = load_method("supervised")()
    return stage.run(train, start(train, case), RunContext(budget=Budget(passes=3000))).model


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "carlini-wagner" else name for name in ATTACKS]
)
def test_an_attack_fools_within_its_threat(name: str, margin: Margin) -> None:
    """It lowers accuracy, stays within its bound, and does nothing at strength 0."""
    model, test = classifier(), example("class").fold(TEST)
    images, labels = test["image"].float() / 255, test["class"]
    right = model.logits(images).argmax(1) == labels
    margin("accuracy before", right.float().mean(), 0.3)
    images, labels = images[right], labels[right]
    attack = load_method(name)()
    norm = "2" if name == "carlini-wagner" else "inf"
    strength = 3.0 if norm == "2" else 0.1
    moved = attack.perturb(model.logits, images, labels, Threat(norm, strength), torch.Generator().manual_seed(0))
    difference = (moved - images).flatten(1)
    size = difference.norm(dim=1) if norm == "2" else difference.abs().amax(1)
    assert bool((size <= strength * 1.0001).all())
    assert bool((moved >= 0).all() & (moved <= 1).all())
    margin("accuracy after", (model.logits(moved).argmax(1) == labels).float().mean(), 0.7, below=True)
    still = attack.perturb(model.logits, images, labels, Threat(norm, 0.0), torch.Generator().manual_seed(0))
    torch.testing.assert_close(still, images, rtol=0, atol=1e-6)


def test_out_of_memory_halves_the_batch_and_keeps_the_budget(photos: Dataset) -> None:
    """The first step that is too large fails as PyTorch fails on a CPU; the training then goes on with half."""
    stage = make("supervised")
    assert isinstance(stage, Learner)
    stage.batch, stage.smallest_batch = 16, 16
    step, sizes = stage.step, []

    def crowded(batch: dict) -> torch.Tensor:
        sizes.append(len(batch["labelled"]))
        if sizes[-1] > 8:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 byte")
        return step(batch)

    stage.step = crowded  # type: ignore[method-assign]
    data = photos.fold(TRAIN)
    with pytest.warns(UserWarning, match="out of memory with a batch of 16; trained with 8"):
        outcome = stage.run(data, start(data, ("supervised", "class")), RunContext(budget=BUDGET))
    assert sizes[-1] == 8
    assert outcome.spent.passes > 0.9 * BUDGET.passes
