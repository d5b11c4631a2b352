"""The public functions: what `import rushlight as rl` offers, and what each command calls.

Each takes a `Dataset`, or anything that `load` takes; files are then read at a size that suits the device (see
`rushlight.jobs.source`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rushlight import tasks
from rushlight.core.catalogue import fitting, load_method
from rushlight.core.errors import UserError
from rushlight.core.files import check_file, check_folder
from rushlight.data.dataset import Dataset
from rushlight.data.sources.read import Cache, Size, load
from rushlight.jobs.source import read
from rushlight.run.budget import Budget
from rushlight.run.model import Model, check_place
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Progress

if TYPE_CHECKING:
    import pandas as pd

    from rushlight.core.card import Card
    from rushlight.jobs.audit.result import Audit
    from rushlight.jobs.catalogue.result import Catalogue
    from rushlight.jobs.claims.result import Ledger
    from rushlight.jobs.compare.result import Board
    from rushlight.jobs.curate.result import Curation
    from rushlight.jobs.judge.result import Judged
    from rushlight.jobs.judge.run import Models
    from rushlight.jobs.look.run import Look
    from rushlight.jobs.rank_encoders.result import Ranking
    from rushlight.jobs.trials import ComparisonState

__all__ = [
    "audit",
    "catalogue",
    "claims",
    "compare",
    "curate",
    "export",
    "fit",
    "judge",
    "load",
    "look",
    "predict",
    "rank_encoders",
    "replay",
]

Folder = str | os.PathLike[str]
OnProgress = Callable[[Progress], None]


def look(
    source: Any,
    *,
    labels: Any = None,
    masks: Folder | None = None,
    depth: Folder | None = None,
    group: str | None = None,
    size: Size = None,
    fit: str = "squash",
    cache: Cache = None,
    workers: int | None = None,
) -> Look:
    """Show what is known, unknown, odd and corrupt in a data set, and which methods fit it.

    Args:
        source, labels, masks, depth, group, size, fit, cache, workers: as for `load`.
    """
    from rushlight.jobs.look.run import look as run

    data = load(
        source,
        labels=labels,
        masks=masks,
        depth=depth,
        group=group,
        size=size,
        fit=fit,
        cache=cache,
        workers=workers,
    )
    fits = [(card.id, not lacks, lacks or card.gives) for card, lacks in fitting(data, tasks.chosen(data))]
    return run(data, fits=fits)


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
        out: a folder for the model; a training that was interrupted continues when it is started again.
        encoder, weights, pretrained, task, device: as for `compare`.

    Raises:
        UserError: the recipe cannot be read or does not fit the data.
    """
    from rushlight.jobs.fit.run import fit as run

    if out is not None:
        check_place(Path(out))
    return run(
        read(data, device=device),
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
    out: Folder | None = None,
    depth: Folder | None = None,
    device: str = "auto",
    batch: int | None = None,
    cache: Cache = None,
    workers: int | None = None,
) -> pd.DataFrame:
    """Predict images: one row per image, with the columns of the model's task.

    For classes: the class, its probability, and the probability of each class; for tags the probability of each;
    for masks the share of pixels of each class. A model that can reject unseen classes adds `unknown`, the
    probability that the image is of none. A warning names the files that could not be read.

    Args:
        model: a `Model` or the folder of one.
        images: a `Dataset`, or anything that `load` takes; they are brought to the size that the model knows.
        out: a .csv or .parquet file for the table, or a folder for the files of the model's task (PNG masks, COCO
            JSON) in the images' own pixels; None writes nothing.
        depth: the folder with a depth map for each image, for a model that reads depth.
        device: `auto`, `cpu`, `cuda`, `mps`.
        batch: images at a time; None takes as many as their size allows.
        cache, workers: as for `load`.

    Raises:
        UserError: the model predicts nothing, the images cannot be read, or `out` cannot be written.
    """
    from rushlight.jobs.predict import run, write

    if out is not None:
        write.check(out)
    trained, _ = run.ready(model, device)
    data = run.pictures(trained, images, depth=depth, cache=cache, workers=workers)
    table = run.predict(trained, data, device=device, batch=batch)
    if out is not None and write.is_table(out):
        write.write_table(table, out)
    elif out is not None:
        write.write_files(trained, data, out, device=device, batch=batch)
    return table


def compare(
    source: Any,
    methods: str | Sequence[str] = "auto",
    *,
    budget: str | float | Budget = "200k",
    seeds: int = 5,
    out: Folder = "rushlight-out",
    encoder: str = "auto",
    weights: str | None = None,
    pretrained: bool = False,
    task: str | None = None,
    keep: int | None = None,
    test_share: float = 0.25,
    device: str = "auto",
    workers: int | None = None,
    command: str | None = None,
    on_update: Callable[[ComparisonState], None] | None = None,
) -> Board:
    """Run every recipe that fits, on several seeds, at an equal budget; rank them; write `report.html`.

    Args:
        source: a `Dataset`, or anything that `load` takes.
        methods: recipes (a list, or text separated by commas), or `auto`: every one that fits. The baselines that
            fit always run.
        budget: image passes (`"200k"`) or time (`"10m"`) for each trial.
        seeds: how many; they are 0 … seeds − 1.
        out: folder for trials, models and the report, or any URL that fsspec opens (`s3://bucket/run`); a comparison
            that was interrupted continues there.
        encoder: a name, or `auto`. weights: a safetensors file to start from. pretrained: fetch timm's.
        task: what to learn; by default what is known.
        keep: known labels a class, drawn by each seed; by default all that are known (the embedded photos keep 10).
        test_share: of the labelled images that are held out, where the data has no test fold.
        device: `auto`, `cpu`, `cuda`, `mps`.
        workers: trials side by side; by default one a core on a CPU; 0 runs them in this process, one after another.
        command: what repeats this, for the report.
        on_update: called about twice a second with how far it is.

    Returns:
        A `Board`: it shows itself, and has `.verdict`, `.ship` (the recipe that the verdict names), `.best_model()`
        (that recipe's), `.best` (the highest mean) and `.to_pandas()`.

    Raises:
        UserError: nothing to learn from, a recipe that does not fit, an output folder that is in use, …
    """
    from rushlight.jobs.compare.page import comparison_report
    from rushlight.jobs.compare.run import compare as run
    from rushlight.present.page import render

    board = run(
        read(source, device=device),
        methods,
        budget=budget,
        seeds=seeds,
        out=out,
        encoder=encoder,
        weights=weights,
        pretrained=pretrained,
        task=task,
        keep=keep,
        test_share=test_share,
        device=device,
        workers=workers,
        command=command,
        on_update=on_update,
    )
    board.store.write("report.html", render(comparison_report(board)).encode())
    return board


def rank_encoders(
    source: Any,
    methods: str | Sequence[str] = "auto",
    *,
    budget: str | float | Budget = "200k",
    seeds: int = 3,
    out: Folder = "rushlight-out",
    encoder: str = "auto",
    weights: str | None = None,
    pretrained: bool = False,
    test_share: float = 0.25,
    device: str = "auto",
    workers: int | None = None,
    command: str | None = None,
    on_update: Callable[[ComparisonState], None] | None = None,
) -> Ranking:
    """Pretrain by several methods, rank their encoders by signals that need no label, and write `report.html`.

    Args:
        source: a `Dataset`, or anything that `load` takes; whatever labels it has are not looked at.
        methods: recipes of learners without labels, or `auto`.
        budget, seeds, out, encoder, weights, pretrained, device, workers, command, on_update: as for `compare`.
        test_share: of the images that are held out for the signals, where the data has no test fold.

    Returns:
        A `Ranking`: it shows itself, and has `.verdict`, `.trust`, `.best`, `.best_model()` and `.to_pandas()`.

    Raises:
        UserError: a recipe that needs labels, too few images, no trial finished, …
    """
    from rushlight.jobs.rank_encoders.page import ranking_report
    from rushlight.jobs.rank_encoders.run import rank_encoders as run
    from rushlight.present.page import render

    ranking = run(
        read(source, device=device),
        methods,
        budget=budget,
        seeds=seeds,
        out=out,
        encoder=encoder,
        weights=weights,
        pretrained=pretrained,
        test_share=test_share,
        device=device,
        workers=workers,
        command=command,
        on_update=on_update,
    )
    ranking.store.write("report.html", render(ranking_report(ranking)).encode())
    return ranking


def audit(
    model: Model | Folder,
    data: Any,
    *,
    out: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    attack_images: int = 200,
    label_images: int = 20_000,
    command: str | None = None,
    on_progress: OnProgress | None = None,
) -> Audit:
    """Run every judge that fits a model: how often it is right, whether to believe it, attacks, label mistakes, …

    Args:
        model: a `Model` or the folder of one.
        data: a `Dataset`, or anything that `load` takes; its labels are the truth.
        out: a folder for `audit.html`; None writes none.
        seed: of every random draw. device: where the model runs.
        attack_images: how many labelled images at most for judges that limit them, such as attacks.
        label_images: how many labelled images at most are searched for label mistakes.
        command: what repeats this, for the report. on_progress: called before each judge.

    Returns:
        An `Audit`: it shows itself, and has `.findings` and `.to_pandas()`.

    Raises:
        UserError: there are no images, or the labels are of other classes than the model's.
    """
    from rushlight.jobs.audit.run import audit as run

    if out is not None:
        check_folder(Path(out))
    place = None if isinstance(model, Model) else os.fspath(model)
    model = model if isinstance(model, Model) else Model.load(model)
    data = data if isinstance(data, Dataset) else load(data, **model.info.canvas)
    found = run(
        model,
        data,
        seed=seed,
        device=device,
        attack_images=attack_images,
        label_images=label_images,
        place=place,
        command=command,
        on_progress=on_progress,
    )
    if out is not None:
        from rushlight.jobs.audit.page import audit_report
        from rushlight.present.page import write

        write(audit_report(found), Path(out) / "audit.html")
    return found


def judge(
    recipe: str,
    data: Any,
    *,
    models: Models = None,
    out: Folder | None = None,
    seed: int = 0,
    encoder: str = "auto",
    pretrained: bool = False,
    task: str | None = None,
    device: str = "auto",
    command: str | None = None,
    on_progress: OnProgress | None = None,
) -> Judged:
    """Run one judge of the catalogue on one model, on several side by side, or on none.

    Args:
        recipe: a judge with its arguments, such as `"backbones(shots=5)"`.
        data: a `Dataset`, or anything that `load` takes; its labels are the truth.
        models: a `Model`; a mapping of names to them; folders, names of encoders or of timm models (a list, or text
            separated by commas; `resnet18@64` reads images of 64 pixels, `resnet18=FILE.safetensors` loads weights);
            or None: the judge gets an untrained encoder that suits the data.
        out: a folder for `judge.html` and a CSV file of each table; None writes none.
        seed: of every random draw.
        encoder: which one, where no model is named. pretrained: give timm's models their pretrained weights.
        task: what is judged; by default what is known. device: where the models run.
        command: what repeats this, for the report. on_progress: called now and then.

    Returns:
        A `Judged`: it shows itself, and has `.findings`, `.table(name)` and `.to_pandas()`.

    Raises:
        UserError: no such judge or model, or data that lacks what the judge needs.
    """
    from rushlight.jobs.judge import run as judging

    if out is not None:
        check_folder(Path(out))
    done = judging.judge(
        recipe,
        read(data, device=device),
        models,
        seed=seed,
        encoder=encoder,
        pretrained=pretrained,
        task=task,
        device=device,
        command=command,
        on_progress=on_progress,
    )
    if out is not None:
        from rushlight.jobs.judge.page import judge_report
        from rushlight.present.page import write

        judging.write(done, Path(out))
        write(judge_report(done), Path(out) / "judge.html")
    return done


def curate(
    data: Any,
    recipe: str | Recipe,
    *,
    out: Folder | None = None,
    copy: bool = False,
    budget: str | float | Budget | None = None,
    seed: int = 0,
    encoder: str = "auto",
    weights: str | None = None,
    pretrained: bool = False,
    device: str = "auto",
    command: str | None = None,
    on_progress: OnProgress | None = None,
) -> Curation:
    """Run curators: which images are kept, and why the others are not.

    Args:
        data: a `Dataset`, or anything that `load` takes.
        recipe: one or several curators in a row, such as `"pass(cap=20)"`.
        out: a folder for `curation.csv`, `audit.json`, `review.csv` and `curation.html`; None writes none.
        copy: put the kept files there too, byte for byte.
        budget: image passes or time, for curators that train.
        seed: of every random draw. encoder, weights, pretrained: the model that curators start from.
        device: where they run. command: what repeats this, for the report. on_progress: called now and then.

    Returns:
        A `Curation`: it shows itself, and has `.kept` (a `Dataset`), `.pool`, `.verdict` and `.to_pandas()`.

    Raises:
        UserError: the recipe holds something else than curators, or what they need is missing.
    """
    from rushlight.jobs.curate import run as curation

    recipe = curation.curators(recipe, budget)
    if out is not None:
        check_folder(Path(out))
    data = read(data, device=device)
    if copy and out is None:
        raise UserError("the kept files are copied into the folder out=…: name one")
    if out is not None:
        curation.check_out(Path(out), data, recipe, copy=copy)
    done = curation.curate(
        data,
        recipe,
        budget=budget,
        seed=seed,
        encoder=encoder,
        weights=weights,
        pretrained=pretrained,
        device=device,
        command=command,
        on_progress=on_progress,
    )
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

    check_file(Path(out))
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
    """Return the ledger: for each paper's headline claim, what came out of its small experiment."""
    from rushlight.jobs.claims.result import Ledger
    from rushlight.jobs.claims.run import ledger

    return Ledger(ledger())


def replay(file: str | os.PathLike[str]) -> str:
    """Repeat the one step of a trial whose loss was not finite, with PyTorch's anomaly detection.

    Args:
        file: the `replay.json` that the failed trial left.

    Returns:
        What was found, in a sentence.
    """
    from rushlight.jobs.replay.run import replay as run

    return run(Path(file))
