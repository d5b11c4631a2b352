"""The public functions: what `import rushlight as rl` offers, and what each command line calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rushlight import tasks
from rushlight.core.catalogue import fitting, load_method
from rushlight.core.errors import UserError
from rushlight.data.dataset import Dataset
from rushlight.data.sources.read import Cache, load
from rushlight.run.budget import Budget
from rushlight.run.model import Model
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Progress

if TYPE_CHECKING:
    import pandas as pd

    from rushlight.core.card import Card
    from rushlight.jobs.catalogue.result import Catalogue
    from rushlight.jobs.claims.result import Ledger

__all__ = ["audit", "catalogue", "claims", "compare", "curate", "export", "fit", "judge", "load", "look", "predict"]


def look(source: Any, **settings: Any) -> Any:
    """What is known, unknown, odd and corrupt in a data set, and which systems fit it.

    Args:
        source, settings: as for `load`.
    """
    from rushlight.jobs.look.run import look as seen

    data = load(source, **settings)
    fits = [(card.id, not lacks, lacks or card.gives) for card, lacks in fitting(data, tasks.chosen(data))]
    return seen(data, fits=fits)


def fit(
    data: Any,
    recipe: str | Recipe,
    *,
    budget: str | float | Budget = "200k",
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    encoder: str = "auto",
    weights: str | None = None,
    pretrained: bool = False,
    task: str | None = None,
    device: str = "auto",
    on_progress: Callable[[Progress], None] | None = None,
) -> Model:
    """Train one recipe on all the labels that are known; a test fold is left out, to be audited on.

    Args:
        data: a `Dataset`, or anything that `load` takes.
        recipe: stages in a row, such as `"barlow-twins > iomatch(closed_threshold=0.7)"`.
        budget: image passes (`"200k"`) or time (`"10m"`).
        out: a folder for the model; a training that was killed goes on when it is started again.
        encoder, weights, pretrained, task, device: as for `compare`.

    Raises:
        UserError: the recipe cannot be read or does not fit the data.
    """
    from rushlight.jobs.fit.run import fit as run

    return run(
        load(data),
        recipe,
        budget=budget,
        seed=seed,
        out=Path(out) if out is not None else None,
        encoder=encoder,
        weights=weights,
        pretrained=pretrained,
        task=task,
        device=device,
        on_progress=on_progress,
    )


def predict(
    model: Model | str | os.PathLike[str],
    images: Any,
    *,
    device: str = "auto",
    batch: int | None = None,
    cache: Cache = None,
    workers: int | None = None,
) -> pd.DataFrame:
    """Predict images: one row an image, with the columns of the model's task.

    For classes: the class, its probability, and the probability of each class; for tags the probability of each;
    for masks the share of pixels of each class. A model that can reject unseen classes adds `unknown`, the
    probability that the image is of none.

    Args:
        model: a `Model` or the folder of one.
        images: a `Dataset`, or anything that `load` takes; they are brought to the size that the model knows.
        device: `auto`, `cpu`, `cuda`, `mps`.
        batch: images at a time; None takes as many as their size allows.
        cache, workers: as for `load`.

    Raises:
        UserError: the model predicts nothing, or the images cannot be read.
    """
    from rushlight.jobs.predict import run

    return run.predict(model, images, device=device, batch=batch, cache=cache, workers=workers)


def compare(
    source: Any, methods: str | Sequence[str] = "auto", *, unlabelled_only: bool = False, **settings: Any
) -> Any:
    """Run every recipe that fits, on several seeds, at an equal budget; rank them; write `report.html`.

    Args:
        source: a `Dataset`, or anything that `load` takes.
        methods: recipes (a list, or text separated by commas), or `auto`.
        unlabelled_only: look at no label: pretrain, and rank the encoders by label-free signals.
        settings: as for `rushlight.jobs.compare.run.compare`; or `rushlight.jobs.rank_encoders.run.rank_encoders`.

    Returns:
        A `Board` (a `Ranking` without labels): it shows itself, and has `.verdict`, `.best`, `.best_model()` and
        `.to_pandas()`.
    """
    from rushlight.jobs.compare.page import comparison_report
    from rushlight.jobs.compare.run import compare as run
    from rushlight.present.page import write

    if unlabelled_only:
        from rushlight.jobs.rank_encoders.page import ranking_report
        from rushlight.jobs.rank_encoders.run import rank_encoders

        ranking = rank_encoders(load(source), methods, **settings)
        write(ranking_report(ranking), ranking.out / "report.html")
        return ranking
    board = run(load(source), methods, **settings)
    write(comparison_report(board), board.out / "report.html")
    return board


def audit(model: Model | str | os.PathLike[str], data: Any, *, out: str | Path | None = None, **settings: Any) -> Any:
    """Run every judge that fits: accuracy, calibration, confusions, attacks, rank, label mistakes.

    Args:
        model: a `Model` or the folder of one.
        data: a `Dataset`, or anything that `load` takes; its labels are the truth.
        out: a folder for `audit.html`; None writes none.

    Returns:
        An `Audit`: it shows itself, and has `.findings` and `.to_pandas()`.
    """
    from rushlight.jobs.audit.run import audit as run

    model = model if isinstance(model, Model) else Model.load(model)
    data = data if isinstance(data, Dataset) else load(data, **model.info.canvas)
    found = run(model, data, **settings)
    if out is not None:
        from rushlight.jobs.audit.page import audit_report
        from rushlight.present.page import write

        Path(out).mkdir(parents=True, exist_ok=True)
        write(audit_report(found), Path(out) / "audit.html")
    return found


def judge(
    recipe: str, data: Any, *, models: Any = None, out: str | os.PathLike[str] | None = None, **settings: Any
) -> Any:
    """Run one judge of the catalogue on one model, on several side by side, or on none.

    Args:
        recipe: a judge with its arguments, such as `"backbones(shots=5)"`.
        data: a `Dataset`, or anything that `load` takes; its labels are the truth.
        models: a `Model`; a mapping of names to them; folders, names of encoders or of timm models (a list, or text
            separated by commas; `resnet18@64` reads images of 64 pixels, `resnet18=FILE.safetensors` loads weights);
            or None: the judge gets an untrained encoder that suits the data.
        out: a folder for `judge.html` and a CSV file of each table; None writes none.
        settings: as for `rushlight.jobs.judge.run.judge`: `pretrained`, `encoder`, `seed`, `task`, `device`, …

    Returns:
        A `Judged`: it shows itself, and has `.findings`, `.table(name)` and `.to_pandas()`.

    Raises:
        UserError: no such judge or model, or data that lacks what the judge needs.
    """
    from rushlight.jobs.judge import run as judging

    done = judging.judge(recipe, load(data), models, **settings)
    if out is not None:
        from rushlight.jobs.judge.page import judge_report
        from rushlight.present.page import write

        judging.write(done, Path(out))
        write(judge_report(done), Path(out) / "judge.html")
    return done


def curate(
    data: Any, recipe: str | Recipe, *, out: str | os.PathLike[str] | None = None, copy: bool = False, **settings: Any
) -> Any:
    """Run curators: which images are kept, and why the others are not.

    Args:
        data: a `Dataset`, or anything that `load` takes.
        recipe: one or several curators in a row, such as `"pass(cap=20)"`.
        out: a folder for `curation.csv`, `audit.json`, `review.csv` and `curation.html`; None writes none.
        copy: put the kept files there too, byte for byte.
        settings: as for `rushlight.jobs.curate.run.curate`: `budget` for curators that train, `seed`, …

    Returns:
        A `Curation`: it shows itself, and has `.kept` (a `Dataset`), `.pool`, `.verdict` and `.to_pandas()`.

    Raises:
        UserError: the recipe holds something else than curators, or what they need is missing.
    """
    from rushlight.jobs.curate import run as curation

    data, recipe = load(data), curation.curators(recipe, settings.get("budget"))
    if copy and out is None:
        raise UserError("the kept files are copied into the folder out=…: name one")
    if out is not None:
        curation.check_out(Path(out), data, recipe, copy=copy)
    done = curation.curate(data, recipe, **settings)
    if out is not None:
        from rushlight.jobs.curate.page import curation_report
        from rushlight.present.page import write

        curation.write(done, Path(out), copy=copy)
        write(curation_report(done), Path(out) / "curation.html")
    return done


def export(model: Model | str | os.PathLike[str], out: str | os.PathLike[str], *, tolerance: float = 1e-4) -> float:
    """Write a model as ONNX, and check it against PyTorch.

    The exported graph takes float images in [0, 1], batch × 3 × height × width, and gives the logits of the model's
    task (of a bare encoder: its features). The batch axis is free.

    Returns:
        The largest difference between the two, on noise and on flat images; it is at most `tolerance`.

    Raises:
        UserError: the extra `onnx` is missing. RuntimeError: the two differ by more.
    """
    from rushlight.jobs.export.run import to_onnx

    return to_onnx(model if isinstance(model, Model) else Model.load(model), Path(out), tolerance=tolerance)


def catalogue(name: str | None = None) -> Catalogue | Card:
    """Return the catalogue of methods, or one method's card.

    Raises:
        UserError: there is no method of this name; the nearest is suggested.
    """
    if name is not None:
        kind: Any = load_method(name)
        return kind.card
    from rushlight.jobs.catalogue.run import catalogue as all_methods

    return all_methods()


def claims() -> Ledger:
    """The ledger: for each paper's headline claim, what came out of its small experiment."""
    from rushlight.jobs.claims.result import Ledger
    from rushlight.jobs.claims.run import ledger

    return Ledger(ledger())


def replay(file: str | os.PathLike[str]) -> str:
    """Run again, with PyTorch's anomaly detection, the one step of a trial whose loss was not finite.

    Args:
        file: the `replay.json` that the failed trial left.

    Returns:
        What was found, in a sentence.
    """
    from rushlight.jobs.replay.run import replay as run

    return run(Path(file))
