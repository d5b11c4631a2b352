"""How far a model can be trusted on this data: every judge that fits, and what was left out and why.

First what is measured of every model: how often it is right, whether its confidence can be believed, where it errs, and
which labels may be wrong. Then every judge of the catalogue whose card fits. Judges that need labels get the test
fold, where there is one; those that need none get every image.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rushlight import tasks
from rushlight._version import VERSION
from rushlight.core.card import Card
from rushlight.core.catalogue import cards, load_method
from rushlight.core.errors import UserError
from rushlight.core.findings import Findings
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.jobs.audit.result import Audit
from rushlight.jobs.command import repeat
from rushlight.measure import atlas
from rushlight.measure.accuracy import accuracy
from rushlight.measure.calibration import calibration
from rushlight.measure.examples import examples
from rushlight.measure.mistakes import mistakes
from rushlight.run import hardware
from rushlight.run.evaluate import GROUP, batches, groups
from rushlight.run.model import Model
from rushlight.run.stage import Progress, RunContext
from rushlight.run.trial import machine
from rushlight.tasks import Task
from rushlight.tasks.base import Confidence

Plan = dict[str, Callable[[], list[Findings]]]
MODEL = "MODEL"
"""Stands for the folder of a model that was given as an object."""


@dataclass(frozen=True)
class Answers:
    """What a model answers on the labelled rows, as its task scores it, batch after batch."""

    rows: Tensor
    parts: dict[str, Tensor]
    confidences: list[Confidence]


def audit(
    model: Model,
    data: Dataset,
    *,
    seed: int = 0,
    device: str = "auto",
    attack_images: int = 200,
    label_images: int = 20_000,
    place: str | None = None,
    command: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Audit:
    """Run every judge that fits the model and the data.

    Args:
        model: what is audited; it is not changed.
        data: images, with whatever labels exist; their labels are the truth. Where they have a test fold, whatever
            needs labels is measured on it; only the label mistakes are looked for among all labels.
        seed: of every random draw.
        device: where the model runs.
        attack_images: how many labelled images at most for judges that limit them, such as attacks.
        label_images: how many labelled images at most are searched for label mistakes.
        place: the model's folder. command: what repeats this; by default it is written from the arguments.
        on_progress: called before each judge.

    Raises:
        UserError: there are no images, or the labels are of other classes than the model's.
    """
    if not len(data):
        raise UserError(f"{data.info.source} holds no image: there is nothing to audit on")
    began, device = time.monotonic(), hardware.device(device)
    model = model.copy().to(device).eval()
    task = tasks.find(model.info.task) if model.info.task in model.head_names and model.info.task else None
    own, (data, notes) = data, _aligned(data, model, task)
    ctx = RunContext(seed=seed, task=task.id if task else None, device=device)
    rows, about = _judged(data, task)
    left_out = [] if task and len(rows) else [("accuracy and calibration", _unanswered(data, task))]
    plan = _of_answers(task, _answers(model, data, rows, task, seed), data, model, seed) if task and len(rows) else {}
    plan |= _of_catalogue(model, data, rows, ctx, attack_images)
    plan["label-mistakes"] = lambda: [mistakes(model, own, task or tasks.of(own), seed=seed, images=label_images)]
    done: list[Findings] = []
    for name, found, why in _each(plan, on_progress):
        done += found
        left_out += [(name, why)] if why else []
    return Audit(
        findings=done,
        left_out=tuple(left_out),
        task=task.id if task else None,
        model=model.info,
        encoder=model.encoder.name,
        parameters=sum(p.numel() for p in model.parameters()),
        data=data,
        notes=(*notes, *about),
        command=command or _command(own, place or MODEL, seed, device, attack_images, label_images),
        seconds=time.monotonic() - began,
        machine={**machine(), "device": device, "rushlight": VERSION},
        atlas=atlas.chart(model, data, seed=seed) if len(data) >= atlas.FEWEST else None,
    )


def _command(data: Dataset, place: str, seed: int, device: str, attack_images: int, label_images: int) -> str:
    settings = {"seed": seed, "attack_images": attack_images, "label_images": label_images}
    usual = {name: inspect.signature(audit).parameters[name].default for name in settings}
    chosen = {name: value for name, value in settings.items() if value != usual[name]}
    fit = (data.loaded or {}).get("fit")  # always said: a model brings its own
    return repeat("audit", data, before=[place], device=device, fit=fit, **chosen)


def _each(plan: Plan, on_progress: Callable[[Progress], None] | None) -> Iterator[tuple[str, list[Findings], str]]:
    """Run each judge; yield its name, its findings, and why it does not fit where it does not."""
    for i, (name, judge) in enumerate(plan.items()):
        if on_progress is not None:
            on_progress(Progress(name, i / len(plan)))
        try:
            yield name, judge(), ""
        except UserError as error:
            yield name, [], str(error)


# --- what is measured of every model ---


def _answers(model: Model, data: Dataset, rows: Tensor, task: Task, seed: int) -> Answers:
    """Ask the model for its answers, a batch at a time."""
    _check(model, data, task)
    generator = torch.Generator().manual_seed(seed)
    parts: list[dict[str, Tensor]] = []
    confidences: list[Confidence] = []
    for _, outputs, columns in batches(model, data, rows, task):
        parts.append({name: values.cpu() for name, values in task.parts(outputs, columns).items()})
        found = task.confidence(outputs, columns, generator)
        if found is not None:
            confidences.append(Confidence(found.p.cpu(), found.right.cpu(), found.nll.cpu(), found.brier.cpu()))
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Answers(rows, whole | ({GROUP: groups(data)[rows]} if GROUP in data else {}), confidences)


def _check(model: Model, data: Dataset, task: Task) -> None:
    """Check that every label is an output of the model.

    Raises:
        UserError: a label is none.
    """
    wanted = task.presence(data).any(0).nonzero()
    largest = int(wanted.max()) if len(wanted) else 0
    outputs = model.predict(data, rows=torch.zeros(1, dtype=torch.int64), names=[task.id])[task.id].shape[1]
    if largest >= outputs:
        raise UserError(
            f"{data.info.source} has the {task.id} number {largest}, and the model answers with {outputs} of them: "
            "audit it on data whose names it knows"
        )


def _of_answers(task: Task, answers: Answers, data: Dataset, model: Model, seed: int) -> Plan:
    def confidence() -> list[Findings]:
        if not answers.confidences:
            raise UserError(f"a model of this task ('{task.id}') gives no probabilities")
        whole = task.confidences(answers.confidences)
        return [calibration(whole, words=task.confidence_words, independent=task.independent, seed=seed)]

    return {
        "accuracy": lambda: [accuracy(task, answers.parts)],
        "calibration": confidence,
        "classes": lambda: task.findings(answers.parts, data, answers.rows, task.names(model.info)),
        "examples": lambda: _examples(task, answers, data, model),
    }


def _examples(task: Task, answers: Answers, data: Dataset, model: Model) -> list[Findings]:
    drawn = examples(model, data, answers.rows, task, answers.parts)
    return [drawn] if drawn.pictures else []


def _unanswered(data: Dataset, task: Task | None) -> str:
    if task is None:
        return "the model predicts nothing: it is a bare encoder"
    return f"needs images whose '{task.column}' is known, and {data.info.source} has none"


# --- the catalogue's judges ---


def _of_catalogue(model: Model, data: Dataset, rows: Tensor, ctx: RunContext, images: int) -> Plan:
    plan: Plan = {}
    for card in (card for card in cards().values() if card.role == "judge" and _audits(card)):
        limited = "images" in inspect.signature(load_method(card.id)).parameters
        plan[card.id] = _from_catalogue(card, {"images": images} if limited else {}, model, data, rows, ctx)
    return plan


def _audits(card: Card) -> bool:
    kind: Any = load_method(card.id)
    return kind.audits


def _from_catalogue(
    card: Card, arguments: dict[str, Any], model: Model, data: Dataset, rows: Tensor, ctx: RunContext
) -> Callable[[], list[Findings]]:
    """Return a function that runs a judge of the catalogue: on the judged rows if it needs labels, else on all."""

    def run() -> list[Findings]:
        needs_labels = any(need.known != "present" for need in card.needs.columns)
        given = data.select(rows) if needs_labels else data
        lacks = card.lacks(given, ctx.task)
        if lacks:
            raise UserError(lacks)
        return [load_method(card.id)(**arguments).judge(model, given, ctx)]

    return run


# --- rows and names ---


def _judged(data: Dataset, task: Task | None) -> tuple[Tensor, tuple[str, ...]]:
    """Return the rows on which measures that need labels are taken, and a sentence about them."""
    known = data.known(task.column) if task else torch.zeros(len(data), dtype=torch.bool)
    test = known & (data["fold"] == TEST) if "fold" in data else torch.zeros_like(known)
    if test.any():
        rows = test.nonzero()[:, 0]
        return rows, (f"Measured on the {len(rows):,} labelled images of the data's own test fold.",)
    rows = known.nonzero()[:, 0]
    if not len(rows):
        return rows, ()
    return rows, (
        f"Measured on all {len(rows):,} labelled images: if the model was trained on them, the figures flatter it.",
    )


def _aligned(data: Dataset, model: Model, task: Task | None) -> tuple[Dataset, tuple[str, ...]]:
    """Return the data with its labels in the model's numbers, and sentences about what did not match."""
    data, notes = task.align(data, model.info) if task is not None else (data, ())
    if (data.height, data.width) != tuple(model.info.image_size):
        height, width = model.info.image_size
        said = f"The images are {data.height}×{data.width}; the model was trained on {height}×{width}."
        notes = (said, *notes)
    return data, notes
