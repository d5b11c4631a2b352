"""The methods of the catalogue, each with every task that it learns, small data for each task, and how to run them."""

from __future__ import annotations

from functools import cache

import torch

from rushlight import tasks
from rushlight.core.catalogue import cards, load_method
from rushlight.data.columns import TRAIN
from rushlight.data.dataset import Dataset
from rushlight.nets import encoders
from rushlight.run.budget import Budget
from rushlight.run.model import Model, ModelInfo
from rushlight.run.stage import Attack, Judge, Outcome, RunContext, Stage
from rushlight.train.joint_embedding import AddOn
from rushlight.train.learner import Learner

CARDS = cards()
STAGES = [name for name in CARDS if issubclass(load_method(name), Stage)]
LEARNERS = [name for name in STAGES if issubclass(load_method(name), Learner | AddOn)]
JUDGES = [name for name in CARDS if issubclass(load_method(name), Judge)]
ATTACKS = [name for name in CARDS if issubclass(load_method(name), Attack)]
BUDGET = Budget(passes=400)

Case = tuple[str, str]
"""A method and the task it learns; `class` for one that learns none."""


def cases(names: list[str]) -> list[Case]:
    return [(name, task) for name in names for task in sorted(CARDS[name].task) or ["class"]]


def called(case: Case) -> str:
    name, task = case
    return name if len(CARDS[name].task) < 2 else f"{name}-{task}"


@cache
def example(task: str) -> Dataset:
    """The task's own example: every fourth of its training images is labelled, and every test image."""
    found = tasks.find(task)
    data = found.example()
    return data.hide((data["fold"] == TRAIN) & (torch.arange(len(data)) % 4 > 0), [found.column])


def training(task: str) -> Dataset:
    return example(task).fold(TRAIN)


def make(name: str) -> Stage:
    """A method with its defaults, its batch small enough for a test."""
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


def start(data: Dataset, case: Case, seed: int = 0) -> Model:
    """A model to start from, of the kind that the method works on."""
    name, task = case
    kind = f"vit64-p{data.height // 4}" if CARDS[name].encoder == "vit" else "conv16"
    encoder = encoders.create(kind, image_size=data.height, seed=seed)
    return Model(encoder, {}, ModelInfo.of(data.info, (data.height, data.width), task))


def prepared(case: Case, **settings: object) -> Learner:
    """A learner that is ready for its first step."""
    name, task = case
    learner, data = learner_of(make(name)), training(task)
    learner.prepare(data, start(data, case), RunContext(task=task, **settings))  # type: ignore[arg-type]
    return learner


def run(case: Case, **settings: object) -> tuple[Dataset, Model, Outcome]:
    name, task = case
    stage, data = make(name), training(task)
    ctx = RunContext(task=task, budget=BUDGET, **settings)  # type: ignore[arg-type]
    outcome = stage.run(data, start(data, case), ctx)
    return outcome.data, outcome.model, outcome


@cache
def trained(case: Case) -> tuple[Dataset, Model, Outcome]:
    """`run` at seed 0, shared by the tests that only look at what came out."""
    return run(case)


def states(model: Model) -> dict[str, torch.Tensor]:
    return {name: values.clone() for name, values in model.state_dict().items()}


def assert_equal(one: Model, other: Model) -> None:
    first, second = states(one), states(other)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, msg=lambda m, name=name: f"{name}: {m}")
