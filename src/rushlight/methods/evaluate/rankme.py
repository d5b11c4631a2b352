"""RankMe: judge features without labels, by how many directions their embeddings use.

A network whose embeddings have collapsed onto few directions may have a fine loss, and no linear probe can do more than
the rank of what it reads allows. The smooth rank of the projector's outputs, in evaluation mode, neither centred nor
normalised, tells good runs of one method and one width from collapsed ones. A high rank is necessary, not sufficient.

Garrido et al., 2023, arXiv:2210.02885.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rushlight.core.arguments import Count, NotNegative, settings
from rushlight.core.card import Card, Needs
from rushlight.core.errors import UserError
from rushlight.core.findings import Curves, Findings, Measure, Table
from rushlight.data.dataset import Dataset
from rushlight.measure import spectrum
from rushlight.run.context import RunContext
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Judge

UNTRAINED = "untrained"
POINTS = 500
"""At most so many points of a spectrum are drawn, evenly on a log scale."""


@settings
class RankMe(Judge):
    """Effective rank of embeddings: features judged without labels."""

    card = Card(
        id="rankme",
        title="RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised Representations "
        "by Their Rank",
        paper="arXiv:2210.02885",
        family="evaluate",
        role="judge",
        needs=Needs("image"),
        gives="the effective rank of a model's embeddings, to choose among runs of one method without labels",
        says="over hundreds of runs, choosing by RankMe loses almost nothing against choosing by labels",
    )

    samples: Count = 25_600
    """Images drawn by the seed, at most."""
    epsilon: NotNegative = 1e-7
    """ε, added to each share of the spectrum."""
    head: str = "projector"
    """The head whose outputs are the embeddings; a model without it is judged by its features."""

    def judge(self, model: Model, data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        """Return RankMe, the classical rank, α and the spectrum of the model's embeddings of the data's images."""
        read = self.head if self.head in model.head_names else "features"
        embeddings = self.embeddings(model, data, read, ctx.seed)
        n, width = embeddings.shape
        values = spectrum.singular_values(embeddings)
        rank = float(spectrum.effective_rank(values, eps=self.epsilon))
        measured = (
            Measure("RankMe", rank, figure=f"RankMe, of {width}"),
            Measure("RankMe / width", rank / width, kind="share"),
            Measure("classical rank", float(spectrum.threshold_rank(values)), kind="count"),
            Measure("alpha-ReQ", _alpha(embeddings)),
            Measure("embeddings", n, kind="count"),
            Measure("width", width, kind="count"),
        )
        return Findings(
            "rankme",
            measured,
            curves=(_spectra({read: _drawn(values)}),),
            notes=tuple(self._notes(read, n, width)),
            title="Features",
            headline=f"its embeddings use {rank:.0f} of {width} directions (RankMe)",
            priority=60,
        )

    def judge_all(self, models: Mapping[str, Model], data: Dataset, ctx: RunContext = RunContext()) -> Findings:
        """Compare several runs, and say which one to take among runs of one method with embeddings of one width.

        Returns:
            One table: model, method, what was read, its measures, and whether it is the choice of its method; methods
            one after another, each from the highest rank. The first notes say what to take, and what not to compare.
        """
        found = {name: self.judge(model, data, ctx) for name, model in models.items()}
        kinds = {name: (method(models[name]), *_read(found[name])) for name in models}
        order = sorted(models, key=lambda name: (list(kinds.values()).index(kinds[name]), -_rank(found[name])))
        groups: dict[tuple[str, str, int], list[str]] = {}
        for name in order:
            groups.setdefault(kinds[name], []).append(name)
        chosen = {names[0] for kind, names in groups.items() if len(names) > 1 and kind[0] != UNTRAINED}
        table: dict[str, list] = {"model": order}
        table |= {key: [kinds[name][i] for name in order] for i, key in enumerate(("method", "read"))}
        measured = found[order[0]].measures
        table |= {each.name: [found[name].numbers[each.name] for name in order] for each in measured}
        table["choice"] = ["take this one" if name in chosen else "" for name in order]
        advice = [_advice(kind, {name: _rank(found[name]) for name in names}) for kind, names in groups.items()]
        advice += [_apart(list(groups))] if len(groups) > 1 else []
        notes = dict.fromkeys([*filter(None, advice), *(note for each in found.values() for note in each.notes)])
        curves = _spectra({name: next(iter(each.curves[0].series.values())) for name, each in found.items()})
        shown = Table.of("models", table, kinds={each.name: each.kind for each in measured})
        return Findings("rankme", tables=(shown,), curves=(curves,), notes=tuple(notes))

    def embeddings(self, model: Model, data: Dataset, read: str, seed: int = 0) -> Float[Tensor, "n dim"]:
        """Return the outputs of a head (or `features`), in evaluation mode, for images drawn by the seed.

        Raises:
            UserError: there are no images, or outputs that are not finite.
        """
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(data), generator=generator)[: self.samples].sort().values
        if len(rows) == 0:
            raise UserError("there is no image to measure RankMe on: give it some, with or without labels")
        values = model.predict(data, rows=rows, names=[read])[read].flatten(1)
        if not values.isfinite().all():
            raise UserError(f"the outputs of '{read}' are not finite: this model went wrong, train another")
        return values

    def _notes(self, read: str, n: int, width: int) -> list[str]:
        notes = ["RankMe compares runs of one method with embeddings of one width, and no others."]
        if read != self.head:
            notes.append(f"The model has no head '{self.head}', so its features were measured; "
                         "the paper measures the projector's outputs.")  # fmt: skip
        if n < 4 * width:
            notes.append(f"{n} images for a width of {width} hold the value down: give more images.")
        return notes


def method(model: Model) -> str:
    """Return the methods that a model came from, without their arguments; `untrained` if it came from none."""
    steps = Recipe.parse(model.info.recipe).steps if model.info.recipe else []
    return " > ".join(step.name for step in steps) or UNTRAINED


def _read(found: Findings) -> tuple[str, int]:
    """Return what was measured, and its width."""
    return next(iter(found.curves[0].series)), int(found.numbers["width"])


def _spectra(series: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Curves:
    note = (
        "A curve that falls early is of features that use few directions; it bounds what any linear classifier can "
        "read from them."
    )
    return Curves("spectrum", "k", "σₖ / σ₁", series, style="spectrum", note=note)


def _rank(found: Findings) -> float:
    return found.numbers["RankMe"]


def _advice(kind: tuple[str, str, int], ranks: Mapping[str, float]) -> str:
    """Return what to take among comparable runs, given from the highest rank; nothing for one run or untrained ones."""
    if len(ranks) < 2 or kind[0] == UNTRAINED:
        return ""
    first = next(iter(ranks))
    near = [name for name, rank in ranks.items() if rank >= 0.98 * ranks[first] and name != first]
    rest = f"; within 2 % of it: {', '.join(near)}" if near else ""
    return (f"Of {len(ranks)} runs of {kind[0]} ({kind[1]}, width {kind[2]}), take {first}: "
            f"its rank of {ranks[first]:.3g} is the highest{rest}.")  # fmt: skip


def _apart(kinds: Sequence[tuple[str, str, int]]) -> str:
    said = "; ".join(f"{name} ({read}, width {width})" for name, read, width in kinds)
    return f"Not comparable with each other by their rank: {said}. Choose between them by labels, or by `label-free`."


def select(
    values: Sequence[float | int], ranks: Sequence[float | int], tolerance: float = 0.02, *, largest: bool = False
) -> float | int:
    """Return the value of a hyper-parameter to take, from the RankMe of each run (the paper's algorithm 1).

    Among the values whose RankMe lies within `tolerance` (a share) of the highest, the smallest one, or the
    largest.

    Args:
        values: of the hyper-parameter, one a run of the same method and width.
        ranks: RankMe of each run; a run that failed has NaN and is passed over.

    Raises:
        ValueError: not one rank a value, no finite rank, or a tolerance outside 0 … 1.
    """
    if len(values) != len(ranks):
        raise ValueError(f"{len(values)} values need as many ranks, not {len(ranks)}")
    if not 0 <= tolerance < 1:
        raise ValueError(f"the tolerance is a share from 0 up to 1, not {tolerance}")
    finite = [rank for rank in ranks if math.isfinite(rank)]
    if not finite:
        raise ValueError("no run has a finite RankMe: there is nothing to choose from")
    good = [value for value, rank in zip(values, ranks, strict=True) if rank >= (1 - tolerance) * max(finite)]
    return max(good) if largest else min(good)


def _alpha(embeddings: Tensor) -> float:
    """Return α-ReQ's slope; NaN for embeddings along one direction, which have none."""
    try:
        return spectrum.alpha_req(spectrum.covariance_eigenvalues(embeddings))
    except ValueError:
        return math.nan


def _drawn(values: Tensor) -> tuple[list[float], list[float]]:
    """Return the spectrum as points: k, and σₖ as a share of the largest."""
    last = len(values)
    steps = torch.logspace(0, math.log10(last), min(last, POINTS)).round().long().clamp(1, last)
    k = torch.arange(1, last + 1) if last <= POINTS else steps.unique()
    shares = values.cpu()[k - 1] / values.max().cpu().clamp(min=torch.finfo(torch.float64).tiny)
    return k.double().tolist(), shares.tolist()
