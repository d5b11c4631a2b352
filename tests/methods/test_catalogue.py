"""What every system of the catalogue must do; a system that is added to it is tested here without a further line."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from typer.testing import CliRunner

from rushlight.cli import app
from rushlight.core.arguments import checked
from rushlight.core.catalogue import cards, load_method
from rushlight.data.columns import TEST, TRAIN
from rushlight.data.dataset import Dataset
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.model import Model, ModelInfo
from rushlight.run.stage import Attack, Findings, Judge, RunContext, Stage, Threat
from rushlight.train.joint_embedding import AddOn
from rushlight.train.learner import Learner

CARDS = cards()
STAGES = [name for name in CARDS if issubclass(load_method(name), Stage)]
LEARNERS = [name for name in STAGES if issubclass(load_method(name), Learner | AddOn)]
JUDGES = [name for name in CARDS if issubclass(load_method(name), Judge)]
ATTACKS = [name for name in CARDS if issubclass(load_method(name), Attack)]
BUDGET = Budget(passes=400)


def make(name: str) -> Stage:
    """A system with its defaults, its batch small enough for a test."""
    stage = load_method(name)()
    if isinstance(stage, Learner | AddOn):
        learner = learner_of(stage)
        learner.batch, learner.smallest_batch, learner.enough_steps = min(learner.batch, 8), 4, 8
    return stage


def learner_of(stage: Stage) -> Learner:
    """The learner itself, or the one that an add-on adds itself to."""
    learner = stage.learner if isinstance(stage, AddOn) else stage
    assert isinstance(learner, Learner)
    return learner


def task_for(name: str) -> str:
    return sorted(CARDS[name].task)[0] if CARDS[name].task else "class"


def data_for(name: str, photos: Dataset, scenes: Dataset) -> Dataset:
    return photos.fold(TRAIN) if task_for(name) == "class" else scenes


def start(data: Dataset, name: str, seed: int = 0) -> Model:
    """A model to start from, of the kind that the system works on."""
    task, vit = task_for(name), CARDS[name].encoder == "vit"
    encoder = encoders.create(f"vit64-p{data.height // 4}" if vit else "conv16", image_size=data.height, seed=seed)
    return Model(encoder, {}, ModelInfo.of(data.info, (data.height, data.width), task))


def run(name: str, data: Dataset, **settings: object) -> tuple[Dataset, Model, Stage]:
    stage = make(name)
    ctx = RunContext(task=task_for(name), **settings)  # type: ignore[arg-type]
    data, model = stage.run(data, start(data, name), BUDGET, ctx)
    return data, model, stage


TRAINED: dict[str, tuple[Dataset, Model, Stage]] = {}


def run_once(name: str, photos: Dataset, scenes: Dataset) -> tuple[Dataset, Model, Stage]:
    """`run` at seed 0, shared by the tests that only look at what came out."""
    if name not in TRAINED:
        TRAINED[name] = run(name, data_for(name, photos, scenes))
    return TRAINED[name]


def states(model: Model) -> dict[str, torch.Tensor]:
    return {name: values.clone() for name, values in model.state_dict().items()}


def assert_equal(one: Model, other: Model) -> None:
    first, second = states(one), states(other)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, msg=lambda m, name=name: f"{name}: {m}")


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


@pytest.mark.parametrize("name", [n for n in CARDS if n == _home(n)])
def test_it_has_a_page_and_a_claim(name: str) -> None:
    root = Path(__file__).parents[2]
    assert (root / "docs" / "methods" / f"{name}.md").read_text().count("## ") >= 3
    if CARDS[name].family != "baseline":
        assert list((root / "claims").glob(f"*/{name.replace('-', '_')}.py"))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", LEARNERS)
def test_a_step_in_each_precision(name: str, precision: str, photos: Dataset, scenes: Dataset) -> None:
    data = data_for(name, photos, scenes)
    learner = learner_of(make(name))
    learner.prepare(data, start(data, name), RunContext(task=task_for(name)))
    learner.plan = learner.plan_for(BUDGET)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        loss = learner.step(learner.draw(learner.plan.batch, 0))
    loss.backward()
    gradients = [p.grad for p in learner.model.parameters() if p.grad is not None]
    assert loss.isfinite()
    assert all(bool(g.isfinite().all()) for g in gradients)
    assert any(bool((g != 0).any()) for g in gradients)


@pytest.mark.parametrize("name", STAGES)
def test_saved_and_loaded_it_predicts_the_same(name: str, photos: Dataset, scenes: Dataset, tmp_path: Path) -> None:
    data, model, _ = run_once(name, photos, scenes)
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    assert loaded.info == model.info
    before, after = model.predict(data["image"][:16]), loaded.predict(data["image"][:16])
    assert before.keys() == after.keys()
    for output in before:
        assert torch.equal(before[output], after[output])


@pytest.mark.parametrize("name", STAGES)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(name: str, photos: Dataset, scenes: Dataset) -> None:
    one, data = run_once(name, photos, scenes), data_for(name, photos, scenes)
    again, other = (run(name, data, seed=seed) for seed in (0, 4))
    assert_equal(one[1], again[1])
    assert one[0].content_hash == again[0].content_hash
    pools = [stage.pool.to_csv() if stage.pool is not None else "" for _, _, stage in (one, again, other)]
    assert pools[0] == pools[1]
    moved = any(not torch.equal(a, b) for a, b in zip(states(one[1]).values(), states(other[1]).values(), strict=True))
    assert moved or one[0].content_hash != other[0].content_hash or pools[0] != pools[2]


class Cut(Exception):
    """Stands for a power cut."""


@pytest.mark.parametrize("name", LEARNERS)
def test_a_cut_run_goes_on_to_the_same_bits(name: str, photos: Dataset, scenes: Dataset, tmp_path: Path) -> None:
    data = data_for(name, photos, scenes)
    _, whole, _ = run_once(name, photos, scenes)

    def cut(model: Model, spent: object) -> None:
        raise Cut

    try:
        run(name, data, folder=tmp_path, checkpoint_seconds=-1.0, on_snapshot=cut, snapshots=2)
    except Cut:
        pass
    else:
        pytest.fail("the run was not cut")
    assert list(tmp_path.glob("**/*.ckpt"))
    _, resumed, _ = run(name, data, folder=tmp_path)
    assert_equal(whole, resumed)


@pytest.mark.parametrize("name", LEARNERS)
def test_it_spends_its_budget_and_no_more(name: str, photos: Dataset, scenes: Dataset) -> None:
    _, _, stage = run_once(name, photos, scenes)
    assert stage.spent.passes <= BUDGET.passes
    step = stage.spent.passes / stage.spent.steps
    assert stage.spent.passes > BUDGET.passes - 2 * step


@pytest.mark.parametrize("name", STAGES)
def test_it_changes_neither_the_data_nor_the_model_it_was_given(name: str, photos: Dataset, scenes: Dataset) -> None:
    data = data_for(name, photos, scenes)
    model, before = start(data, name), data.content_hash
    given = states(model)
    make(name).run(data, model, BUDGET, RunContext(task=task_for(name)))
    assert data.content_hash == before
    assert all(torch.equal(values, given[key]) for key, values in model.state_dict().items())


@pytest.mark.parametrize("name", [n for n in STAGES if "class" in CARDS[n].task])
def test_no_stage_sees_a_test_label(name: str, photos: Dataset, tmp_path: Path) -> None:
    """Other test labels, same bits: through the trial that every comparison and command uses."""
    from rushlight.run import trial
    from rushlight.run.store import Store

    labels = photos["class"].clone()
    test = photos["fold"] == TEST
    labels[test] = (labels[test] + 1) % 10
    recipe = f"{name} > supervised" if name not in LEARNERS else name
    encoder = start(photos, name).encoder.name
    spec = trial.Trial(recipe=recipe, seed=0, budget="400", data="", encoder=encoder)
    models = []
    for number, data in enumerate((photos, photos.with_columns(**{"class": labels}))):
        store = Store(tmp_path / str(number))
        told = replace(spec, data=data.content_hash)
        result = trial.run(told, data, store)
        assert not result.failed
        models.append(Model.load(store.model_path(told.key)))
    assert_equal(*models)


@pytest.mark.parametrize("name", [n for n in JUDGES if load_method(n).audits])  # a study's own tests run it, small
def test_a_judge_finds_numbers_and_changes_nothing(name: str, photos: Dataset) -> None:
    _, model, _ = run("barlow-twins", photos.fold(TRAIN))
    _, classifier, _ = run("supervised", photos.fold(TRAIN))
    model = Model(
        classifier.encoder, {"class": classifier.head("class"), "projector": model.head("projector")}, classifier.info
    )
    test = photos.fold(TEST).select(torch.arange(40))
    before = states(model)
    found = load_method(name)().judge(model, test, RunContext())
    assert isinstance(found, Findings)
    assert found.numbers
    assert all(torch.equal(values, before[key]) for key, values in model.state_dict().items())


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_fools_within_its_threat(name: str, photos: Dataset) -> None:
    """It lowers accuracy, stays within its bound, and does nothing at strength 0."""
    train = photos.fold(TRAIN)
    stage = load_method("supervised")()
    _, model = stage.run(train, start(train, "supervised"), Budget(passes=3000), RunContext())
    test = photos.fold(TEST).select(torch.arange(60))
    images, labels = test["image"].float() / 255, test["class"]
    right = model.logits(images).argmax(1) == labels
    images, labels = images[right], labels[right]
    assert right.float().mean() > 0.3
    attack = load_method(name)()
    norm = "2" if name == "carlini-wagner" else "inf"
    strength = 3.0 if norm == "2" else 0.1
    moved = attack.perturb(model.logits, images, labels, Threat(norm, strength), torch.Generator().manual_seed(0))
    difference = (moved - images).flatten(1)
    size = difference.norm(dim=1) if norm == "2" else difference.abs().amax(1)
    assert bool((size <= strength * 1.0001).all())
    assert bool((moved >= 0).all() & (moved <= 1).all())
    assert (model.logits(moved).argmax(1) == labels).float().mean() < 0.7
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
    with pytest.warns(UserWarning, match="out of memory; going on with a batch of 8, the same budget"):
        stage.run(data, start(data, "supervised"), BUDGET, RunContext())
    assert sizes[-1] == 8
    assert stage.spent.passes > 0.9 * BUDGET.passes
