"""Battle of the Backbones: the same tasks for all pretrained feature extractors, so that their figures can be compared.

Every backbone is read by its own contract (size, mean, standard deviation, pooling) and goes through neighbours, a
linear probe, few labels, fine-tuning, retrieval, segmentation and detection on frozen maps, and a shift of the test
images. z-scores over the backbones, averaged over tasks, rank them; the correlation between tasks says how far one
order stands for all. Untrained encoders and baselines that nobody trained run along.

Goldblum et al., 2023, arXiv:2310.19909; code: hsouri/Battle-of-the-Backbones, hsouri/bob-classification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rushlight.core.arguments import Count, Positive, settings
from rushlight.core.card import Card, Needs
from rushlight.core.errors import UserError, nearest
from rushlight.core.findings import Curves, Findings, Measure, Table, measures
from rushlight.data.dataset import Dataset
from rushlight.measure.features import untrained
from rushlight.measure.preprocessing import Preprocessing
from rushlight.methods.evaluate.backbones import benchmark
from rushlight.methods.evaluate.backbones.benchmark import COMMON, GROUPS, UNTRAINED, Course, Entrant, Net, Simple
from rushlight.methods.evaluate.backbones.few_label import Tuning
from rushlight.methods.evaluate.backbones.zscore_ranking import Ranking, zscore_ranking
from rushlight.run.context import Progress, RunContext
from rushlight.run.model import Model
from rushlight.run.stage import Judge

BASELINES = ("image statistics", "RCF", "MOSAIKS")


@settings
class Backbones(Judge):
    """Backbones ranked by the same tasks on the data at hand."""

    audits = False
    card = Card(
        id="backbones",
        title="Battle of the Backbones: A Large-Scale Comparison of Pretrained Models across Computer Vision Tasks",
        paper="arXiv:2310.19909",
        code="hsouri/Battle-of-the-Backbones",
        family="evaluate",
        role="judge",
        needs=Needs("image"),
        gives="a ranking of backbones on your images: scores, z-scores, ranks, and how alike the tasks order them",
        says="over 1,500 runs supervised ConvNeXt and SwinV2 lead, SSL is competitive at equal architecture and data, "
        "and performance across tasks is strongly correlated",
    )

    tasks: Sequence[str] = COMMON
    """Which to run; `segmentation` and `detection` read the data's masks and boxes, `scenes` composed ones."""
    seeds: Count = 1
    """Draws of images, few labels, heads and scenes; scores are their means."""
    shots: Count = 5
    """Labels a class (or tag) of `few-label`."""
    images: Count = 2000
    """Labelled images to learn from, at most; half as many for the test."""
    scenes: Count = 300
    """Composed scenes to learn from."""
    scene_size: Count = 48
    """Their side in pixels."""
    rates: Sequence[Positive] = (3e-4, 1e-3, 3e-3)
    """Learning rates that a fine-tuning chooses from, on held-out training labels."""
    steps: Count = 50
    """Of each few-label fine-tuning."""
    tuning_steps: Count = 200
    """Of each fine-tuning with all labels."""
    strong: bool = False
    """The paper's views for `fine-tune` (RandAugment, mixup, cutmix, smoothing)."""
    severity: Count = 3
    """Of the shift, 1 … 5."""
    small: Count = 30_000_000
    """Backbones of at most so many parameters are ranked apart, too."""

    def __post_init__(self) -> None:
        for task in self.tasks:
            if task not in GROUPS:
                raise UserError(f"there is no task '{task}'.{nearest(task, GROUPS)} They are {', '.join(GROUPS)}")
        if not self.tasks:
            raise UserError("'backbones' needs at least one task")
        few = Tuning(rates=tuple(self.rates), steps=self.steps)
        self.course = Course(
            tasks=tuple(self.tasks),
            shots=self.shots,
            images=self.images,
            severity=self.severity,
            few=few,
            all=replace(few, steps=self.tuning_steps, strong=self.strong),
        )

    def judge(self, model: Model, data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        """Judge one model beside its own encoder untrained and the simple baselines."""
        name = model.encoder.name
        found = self.judge_all({name: model}, data, ctx)
        rivals = found.table("ranking")
        rows = {row.pop("backbone"): row for row in found.table("scores").dicts()}
        numbers = dict(rows[name])
        blank = f"{UNTRAINED} {benchmark.architecture(model)}"
        if blank in rows:
            numbers |= {f"{task}, gain over untrained": score - rows[blank][task] for task, score in rows[name].items()}
        numbers["mean z"] = rivals["mean z"][rivals["backbone"].index(name)]
        return replace(found, measures=measures(numbers))

    def judge_all(self, models: Mapping[str, Model], data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        """Judge every model, an untrained encoder of each architecture that has none, and the baselines.

        Raises:
            UserError: no model, or no task fits the data's labels.
        """
        if not models:
            raise UserError("'backbones' asks about models: name some with --models")
        models = dict(models) | self._untrained(models, ctx.seed)
        runs = [self._run(models, data, ctx, seed) for seed in range(self.seeds)]
        scores = {name: benchmark.mean_scores([run[name] for run in runs]) for name in runs[0]}
        tasks = list(dict.fromkeys(task for each in scores.values() for task in each))
        if not tasks:
            raise UserError(f"no task of {', '.join(self.course.tasks)} fits the labels of {data.info.source}")
        columns = {task: [each.get(task, float("nan")) for each in scores.values()] for task in tasks}
        result = zscore_ranking(list(scores), columns)
        tables: dict[str, dict[str, list[Any]]] = {
            "ranking": self._ranking(result, models),
            "scores": {"backbone": list(scores), **columns},
            "z": {"backbone": list(scores), **_by_task(result, result.z)},
            "same architecture": _apples(result, models),
            "spearman": {"task": list(result.tasks), **_by_task(result, result.spearman)},
            "pearson": {"task": list(result.tasks), **_by_task(result, result.pearson)},
            "backbones": _records(models),
        }
        shown = tuple(Table.of(name, table) for name, table in tables.items() if len(next(iter(table.values()))))
        counts = measures({"backbones": len(scores), "tasks": len(tasks)}, "count")
        measured = (*counts, Measure("agreement", result.agreement))
        z = dict(zip(result.names, result.mean.tolist(), strict=True))
        points = {name: ([float(benchmark.size_of(model))], [z[name]]) for name, model in models.items()}
        curves = (Curves("mean z by size", "parameters", "mean z", points, x_kind="count"),)
        return Findings("backbones", measured, shown, curves, notes=self._notes(result, models))

    def _run(
        self, models: Mapping[str, Model], data: Dataset, ctx: RunContext, number: int
    ) -> dict[str, dict[str, float]]:
        """Return every entrant's scores at one seed."""
        seed = ctx.seed + number
        given = self.course.parts(data, seed)
        bank = (given[0].train if given else data.select(slice(self.images))).reader("image")
        scenes = benchmark.composed(self.scenes, self.scene_size, seed) if "scenes" in self.course.tasks else None
        entrants: dict[str, Entrant] = {name: Net(model) for name, model in models.items()}
        entrants |= {name: Simple(name, bank, seed=seed) for name in BASELINES}
        found: dict[str, dict[str, float]] = {}
        for at, (name, entrant) in enumerate(entrants.items()):
            found[name] = {}
            for task, score in self.course.scores(entrant, given, scenes, seed):
                found[name][task] = score
                if ctx.on_progress is not None:
                    done = (number + (at + len(found[name]) / 12) / len(entrants)) / self.seeds
                    ctx.on_progress(Progress(f"{name}: {task}", min(done, 1.0), {task: score}))
        return found

    def _untrained(self, models: Mapping[str, Model], seed: int) -> dict[str, Model]:
        """Return an untrained encoder of each architecture for which only trained ones were given."""
        kinds = {benchmark.architecture(model): model for model in models.values()}
        blank = {benchmark.architecture(m) for m in models.values() if benchmark.pretraining(m) == UNTRAINED}
        return {f"{UNTRAINED} {name}": untrained(kinds[name], seed) for name in kinds if name not in blank}

    # The tables -------------------------------------------------------------------------------------------------------

    def _ranking(self, result: Ranking, models: Mapping[str, Model]) -> dict[str, list[Any]]:
        order = result.rank.argsort()
        groups: dict[str, list[str]] = {}
        for task in result.tasks:
            groups.setdefault(benchmark.group_of(task), []).append(task)
        names = [result.names[i] for i in order]
        small = [name for name in names if name in models and benchmark.size_of(models[name]) <= self.small]
        table: dict[str, list[Any]] = {
            "rank": list(range(1, len(names) + 1)),
            "backbone": names,
            "pretraining": [benchmark.pretraining(models[name]) if name in models else "none" for name in names],
            "parameters": [benchmark.size_of(models[name]) if name in models else 0 for name in names],
            "mean z": [float(result.mean[i]) for i in order],
        }
        table |= {group: result.of_group(members)[order].tolist() for group, members in groups.items()}
        return table | {
            "rank among small": [small.index(name) + 1 if name in small else float("nan") for name in names]
        }

    def _notes(self, result: Ranking, models: Mapping[str, Model]) -> tuple[str, ...]:
        order = [result.names[i] for i in result.rank.argsort()]
        below = [name for name in order[order.index(next(n for n in order if n in BASELINES)) :] if name in models]
        leads = f"{order[0]} leads {len(order)} backbones with a mean z of {result.mean.max():+.2f}"
        alike = (
            f"; the tasks order them alike (mean Spearman {result.agreement:.2f})" if result.agreement >= 0.5 else ""
        )
        return (
            f"{leads}{alike}.",
            f"Below the best simple baseline: {', '.join(below) or 'no encoder'}.",
            f"Means of {self.seeds} seed{'s' if self.seeds > 1 else ''}; differences within a seed's noise rank "
            "nothing, and another set of backbones gives other z-scores.",
        )


def _by_task(result: Ranking, values: Any) -> dict[str, list[float]]:
    return dict(zip(result.tasks, values.T.tolist(), strict=True))


def _records(models: Mapping[str, Model]) -> dict[str, list[Any]]:
    info = {name: model.info for name, model in models.items()}
    return {
        "backbone": list(models),
        "architecture": [benchmark.architecture(model) for model in models.values()],
        "parameters": [benchmark.size_of(model) for model in models.values()],
        "pretraining": [info[name].recipe or UNTRAINED for name in models],
        "budget": [info[name].budget or "unknown" if info[name].recipe else "none" for name in models],
        "contract": [str(Preprocessing.of(model)) for model in models.values()],
    }


def _apples(result: Ranking, models: Mapping[str, Model]) -> dict[str, list[Any]]:
    """Return a table of trained backbones by architecture, with their lead over its untrained encoder, in mean z."""
    z = dict(zip(result.names, result.mean.tolist(), strict=True))
    rows = [
        (benchmark.architecture(model), model.info.budget or "unknown", benchmark.pretraining(model), name)
        for name, model in models.items()
    ]
    blank = {row[0]: z[row[3]] for row in rows if row[2] == UNTRAINED}
    told = [(*row, z[row[3]] - blank[row[0]]) for row in sorted(rows) if row[2] != UNTRAINED]
    keys = ("architecture", "budget", "pretraining", "backbone", "lead in z")
    return {key: [row[i] for row in told] for i, key in enumerate(keys)}
