"""How far a model can be trusted on this data: every judge that fits, and what was left out and why.

First what every model is asked (`bench.judges`): how often it is right, whether its confidence can be believed,
where it errs. Then the label mistakes (`bench.mistakes`). Then every judge of the catalogue whose card fits: attacks,
rank, and whatever another package adds. Judges that need labels get the test fold, where there is one; those that
need none get every image.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from rushlight import tasks
from rushlight._version import VERSION
from rushlight.core.card import Card
from rushlight.core.catalogue import cards, load_method
from rushlight.core.errors import UserError
from rushlight.data.columns import TEST
from rushlight.data.dataset import Dataset
from rushlight.measure import atlas, judges, mistakes
from rushlight.measure.atlas import Atlas
from rushlight.measure.judges import Answers
from rushlight.run import hardware
from rushlight.run.model import Model, ModelInfo
from rushlight.run.stage import Findings, Progress, RunContext
from rushlight.run.trial import machine

UNKNOWN = {"class": -1, "tags": -1, "mask": 255}


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        findings: of each judge, in the order in which a reader wants them.
        left_out: (judge, why) of those that did not fit.
        task: what the model predicts, or None; model: what it knows of itself; encoder: its name; parameters: its size.
        data: what it was audited on, with the labels in the model's own names.
        answers: the model's, beside the truth; None where nothing could be asked.
        notes: sentences on what was audited.
        command: what repeats the audit. seconds: it took. machine: what it ran on.
        atlas: a map of the images by the model's features; None for fewer images than it needs.
    """

    findings: list[Findings]
    left_out: tuple[tuple[str, str], ...]
    task: str | None
    model: ModelInfo
    encoder: str
    parameters: int
    data: Dataset = field(repr=False)
    answers: Answers | None = field(repr=False)
    notes: tuple[str, ...]
    command: str
    seconds: float
    machine: dict[str, Any] = field(repr=False)
    atlas: Atlas | None = field(default=None, repr=False)

    def of(self, judge: str) -> Findings | None:
        """One judge's findings, or None if it was left out."""
        return next((found for found in self.findings if found.judge == judge), None)

    def number(self, judge: str, name: str) -> float | None:
        """One number, or None where it was not measured."""
        found = self.of(judge)
        return found.numbers.get(name) if found else None

    @property
    def metric(self) -> str:
        """The name of the task's metric; empty where nothing is predicted."""
        return tasks.find(self.task).metric.name if self.task else ""

    @property
    def verdict(self) -> str:
        """The audit in one sentence."""
        parts = [says for part in (_right, _believed, _robust, _wrong_labels, _ranked) if (says := part(self))]
        sentence = "; ".join(parts) or "nothing could be measured on this data"
        capital = sentence[0].upper() if sentence[1].islower() else sentence[0]  # mIoU and mAP keep their names
        return capital + sentence[1:] + "."

    def rows(self) -> list[dict[str, Any]]:
        """Every number: judge, what, value."""
        return [
            {"judge": found.judge, "what": name, "value": value}
            for found in self.findings
            for name, value in found.numbers.items()
        ]

    def to_pandas(self) -> Any:
        """Every number, as a pandas DataFrame: judge, what, value."""
        import pandas as pd

        return pd.DataFrame(self.rows(), columns=["judge", "what", "value"])

    def table(self, judge: str, name: str) -> Any:
        """One of a judge's tables, as a pandas DataFrame.

        Raises:
            KeyError: the judge was left out, or has no such table (those there are, are named).
        """
        import pandas as pd

        tables = {(found.judge, title): table for found in self.findings for title, table in found.tables.items()}
        if (judge, name) not in tables:
            raise KeyError(f"no table ({judge!r}, {name!r}); there are {sorted(tables)}")
        return pd.DataFrame(tables[judge, name])

    def _repr_html_(self) -> str:
        import html

        left_out = "".join(f"<li>{html.escape(f'{judge}: {why}')}</li>" for judge, why in self.left_out)
        table = self.to_pandas().to_html(index=False, float_format="%.4g")
        return f"<p>{html.escape(self.verdict)}</p>{table}" + (f"<ul>left out:{left_out}</ul>" if left_out else "")

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        notes = [*self.notes, *(note for found in self.findings for note in found.notes)]
        left_out = [f"left out: {judge}: {why}" for judge, why in self.left_out]
        return Group(
            _shown(self.rows()), Text(self.verdict, style="bold"), *(Text(line) for line in (*notes, *left_out))
        )


def _shown(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    shown, before = Table(header_style="bold"), ""
    for column in ("judge", "what", "value"):
        shown.add_column(column, justify="right" if column == "value" else "left")
    for row in rows:
        shown.add_row(
            Text(row["judge"] if row["judge"] != before else ""), Text(row["what"]), Text(_number(row["value"]))
        )
        before = row["judge"]
    return shown


def _number(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"


# --- the audit ---


def audit(
    model: Model,
    data: Dataset,
    *,
    seed: int = 0,
    device: str = "auto",
    attack_images: int = 200,
    label_images: int = 20_000,
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
        attack_images: at most so many labelled images are attacked.
        label_images: at most so many labelled images are searched for label mistakes.
        command: what repeats this; by default it is guessed.
        on_progress: called before each judge.

    Raises:
        UserError: there are no images, or the labels are of other classes than the model's.
    """
    if not len(data):
        raise UserError(f"{data.info.source} holds no image: there is nothing to audit on")
    began, device = time.monotonic(), hardware.device(device)
    model = model.copy().to(device).eval()
    task = model.info.task if model.info.task in model.head_names else None
    own, (data, notes) = data, aligned(data, model, task)
    ctx = RunContext(seed=seed, task=task, device=device)
    rows, about = _judged(data, task)
    answers = judges.answers(model, data, task, rows, seed=seed) if task and len(rows) else None
    done: list[Findings] = []
    left_out = [] if answers is not None else [("accuracy and calibration", _unanswered(model, data, task))]
    planned = _planned(model, own, data, answers, ctx, attack_images=attack_images, label_images=label_images)
    for i, (name, judge) in enumerate(planned.items()):
        if on_progress is not None:
            on_progress(Progress(name, i / len(planned)))
        try:
            done.append(judge())
        except UserError as error:
            left_out.append((name, str(error)))
    return Audit(
        findings=done,
        left_out=tuple(left_out),
        task=task,
        model=model.info,
        encoder=model.encoder.name,
        parameters=sum(p.numel() for p in model.parameters()),
        data=data,
        answers=answers,
        notes=(*notes, *about),
        command=command or shlex.join(["rushlight", "audit", "model/", data.info.source]),
        seconds=time.monotonic() - began,
        machine={**machine(), "device": device, "rushlight": VERSION},
        atlas=atlas.chart(model, data, seed=seed) if len(data) >= atlas.FEWEST else None,
    )


def _planned(
    model: Model,
    own: Dataset,
    data: Dataset,
    answers: Answers | None,
    ctx: RunContext,
    *,
    attack_images: int,
    label_images: int,
) -> dict[str, Callable[[], Findings]]:
    """Each judge by name, not yet run: what every model is asked, label mistakes, and the catalogue's judges."""
    plan: dict[str, Callable[[], Findings]] = {}
    if answers is not None:
        plan |= {
            "accuracy": lambda: judges.accuracy(answers),
            "calibration": lambda: judges.calibration(answers, seed=ctx.seed),
            "classes": lambda: judges.classes(answers),
        }
        if ctx.task != "tags":
            plan["confusions"] = lambda: judges.confusions(answers, data)
    arguments = {"fgsm-cw": {"images": attack_images}}
    for card in (card for card in cards().values() if card.role == "judge" and load_method(card.id).audits):
        plan[card.id] = _from_catalogue(card, arguments.get(card.id, {}), model, data, ctx)
    label = ctx.task or tasks.chosen(own)
    plan["label-mistakes"] = lambda: mistakes.mistakes(model, own, label, seed=ctx.seed, images=label_images)
    return plan


def _from_catalogue(
    card: Card, arguments: dict[str, Any], model: Model, data: Dataset, ctx: RunContext
) -> Callable[[], Findings]:
    """A judge of the catalogue: if it needs labels it gets the rows that are judged, else every image."""

    def run() -> Findings:
        needs_labels = any(need.known != "present" for need in card.needs.columns)
        given = data.select(_judged(data, ctx.task)[0]) if needs_labels else data
        lacks = card.lacks(given, ctx.task)
        if lacks:
            raise UserError(lacks)
        return load_method(card.id)(**arguments).judge(model, given, ctx)

    return run


def _judged(data: Dataset, task: str | None) -> tuple[torch.Tensor, tuple[str, ...]]:
    """The rows on which whatever needs labels is measured, and a sentence about them."""
    known = data.known(task) if task else torch.zeros(len(data), dtype=torch.bool)
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


def _unanswered(model: Model, data: Dataset, task: str | None) -> str:
    if task is None:
        return "the model predicts nothing: it is a bare encoder"
    return f"needs images whose '{task}' is known, and {data.info.source} has none"


def aligned(data: Dataset, model: Model, task: str | None) -> tuple[Dataset, tuple[str, ...]]:
    """The data with its labels in the model's numbers, matched by name; and sentences about what did not match.

    A class (or tag) that the model does not know becomes unknown. Data or models without names are taken as they are.

    Raises:
        UserError: not one name is common to both.
    """
    notes: list[str] = []
    if (data.height, data.width) != tuple(model.info.image_size):
        height, width = model.info.image_size
        notes.append(f"The images are {data.height}×{data.width}; the model was trained on {height}×{width}.")
    if task is None or task not in data:
        return data, tuple(notes)
    own, theirs = _names(data.info, task), _names(model.info, task)
    if not own or not theirs or own == theirs:
        return data, tuple(notes)
    strange = [name for name in own if name not in theirs]
    if len(strange) == len(own):
        raise UserError(
            f"the model answers with {_some(theirs)}, and {data.info.source} is labelled {_some(own)}: "
            "not one name is common to both; rename the labels"
        )
    if strange:
        notes.append(f"The model does not know {_some(strange)}: these labels were passed over.")
    changed = {task: _renumbered(data[task], task, own, theirs)}
    return data.with_columns(**changed).with_info(**{_FIELD[task]: theirs}), tuple(notes)


_FIELD = {"class": "class_names", "tags": "tag_names", "mask": "mask_names"}


def _names(info: Any, task: str) -> tuple[str, ...]:
    return tuple(getattr(info, _FIELD[task]) or (info.class_names if task == "mask" else ()))


def _renumbered(values: torch.Tensor, task: str, own: tuple[str, ...], theirs: tuple[str, ...]) -> torch.Tensor:
    unknown = UNKNOWN[task]
    if task == "tags":
        column = {name: values[:, i] for i, name in enumerate(own)}
        empty = torch.full_like(values[:, 0], unknown)
        return torch.stack([column.get(name, empty) for name in theirs], 1)
    number = {name: i for i, name in enumerate(theirs)}
    table = torch.tensor([number.get(name, unknown) for name in own], dtype=values.dtype)
    known = values != unknown
    return torch.where(known, table[torch.where(known, values, 0).long().clamp(max=len(own) - 1)], unknown)


def _some(names: Any, most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# --- the verdict, part by part ---


def _right(audit: Audit) -> str:
    found = audit.of("accuracy")
    metric = audit.metric
    if found is None or metric not in found.numbers:
        return ""
    value, low, high = (100 * found.numbers[name] for name in (metric, f"{metric}, low", f"{metric}, high"))
    n = int(found.numbers["images"])
    return f"{metric} {value:.1f} % ({low:.1f} to {high:.1f}) on {n:,} images"


def _believed(audit: Audit) -> str:
    found = audit.of("calibration")
    return judges.leaning(found.numbers) if found else ""


def _robust(audit: Audit) -> str:
    under = audit.number("fgsm-cw", "PGD accuracy at 8/255")
    if under is None:
        return ""
    hides = " and it hides its gradient" if audit.number("fgsm-cw", "gradient masking") else ""
    return f"{100 * under:.0f} % under attack (PGD at 8/255){hides}"


def _wrong_labels(audit: Audit) -> str:
    likely, labels = audit.number("label-mistakes", "likely"), audit.number("label-mistakes", "labels")
    if likely is None or labels is None:
        return ""
    return f"{int(likely):,} of {int(labels):,} labels are likely wrong" if likely else "no label is likely wrong"


def _ranked(audit: Audit) -> str:
    """What is said of a bare encoder, of which nothing else can be."""
    rank, width = audit.number("rankme", "RankMe"), audit.number("rankme", "width")
    if rank is None or width is None or audit.answers is not None:
        return ""
    return f"its embeddings use {rank:.0f} of {width:.0f} directions (RankMe)"
