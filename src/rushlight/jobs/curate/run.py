"""Curation: run curators in a row, and hand out what they kept, with the account of it.

In the folder: `curation.csv` (a row an image: kept, reasons, scores, licence and creator), `audit.json` (settings,
versions, rates, what may still be hidden), `review.csv` (a drawn sample, for a person's verdicts) and, with
`copy`, `images/` with the kept files, byte for byte.
"""

from __future__ import annotations

import csv
import inspect
import io
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rushlight._version import VERSION
from rushlight.core.catalogue import cards, load_method
from rushlight.core.errors import UserError
from rushlight.core.files import plain_json, write_whole
from rushlight.core.findings import Findings
from rushlight.data.columns import encode_text
from rushlight.data.dataset import Dataset
from rushlight.data.edit.pool import Pool
from rushlight.data.sources import originals
from rushlight.jobs.command import repeat
from rushlight.jobs.curate.result import Curation
from rushlight.nets import encoders
from rushlight.run import choose, hardware
from rushlight.run.budget import Budget, Spent
from rushlight.run.model import Model, ModelInfo
from rushlight.run.recipe import Recipe, Step
from rushlight.run.stage import Progress, RunContext
from rushlight.run.trial import machine

TABLE, AUDIT, REVIEW, COPIES = "curation.csv", "audit.json", "review.csv", "images"


# --- running ---


def curate(
    data: Dataset,
    recipe: str | Recipe,
    *,
    budget: str | float | Budget | None = None,
    seed: int = 0,
    encoder: str = "auto",
    weights: str | None = None,
    pretrained: bool = False,
    device: str = "auto",
    command: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Curation:
    """Run one or several curators in a row; each sees what the one before it kept.

    Args:
        recipe: such as `"pass(cap=20)"`.
        budget: image passes or time, for curators that train; shared as in a recipe.
        encoder, weights, pretrained: the model that they start from.
        on_progress: called now and then with how far a curator is.

    Raises:
        UserError: the recipe holds something else than curators, or one that trains has no budget.
    """
    recipe, started, device = curators(recipe, budget), time.monotonic(), hardware.device(device)
    asked, data = data, data if "name" in data else data.with_columns(name=encode_text(data.names))
    ctx = RunContext(seed=seed, device=device, on_progress=on_progress)
    model = _start(data, recipe, ctx, encoder, weights, pretrained)
    ctx = replace(ctx, precision=hardware.precision(device, model.encoder.name))
    pool, kept, spent = Pool.of(data), data, Spent()
    settings: list[dict[str, Any]] = []
    findings: list[Findings] = []
    for number, (step, share) in enumerate(zip(recipe.steps, recipe.shares(), strict=True)):
        stage, before = step.stage(), kept
        given = Budget.parse(budget or 1).share(share or 1.0)
        done = stage.run(before, model, replace(ctx, seed=seed * 64 + number, budget=given))
        kept, model = done.data, done.model
        pool = pool.then(done.pool if done.pool is not None else _missing(step.name, before, kept))
        spent, settings = spent + done.spent, [*settings, _settings(step)]
        findings += [done.findings] if done.findings is not None else []
        findings += [Findings(step.name, notes=done.notes)] if done.notes else []
    return Curation(
        pool=pool,
        data=data,
        kept=kept,
        recipe=recipe,
        settings=tuple(settings),
        findings=tuple(findings),
        spent=spent,
        seed=seed,
        seconds=time.monotonic() - started,
        machine={**machine(), "device": device, "rushlight": VERSION},
        command=command
        or repeat(
            "curate",
            asked,
            str(recipe),
            budget=budget,
            seed=seed or None,
            encoder=encoder if encoder != "auto" else None,
            weights=weights,
            pretrained=pretrained,
            device=device,
        ),
    )


def curators(text: str | Recipe, budget: object = None) -> Recipe:
    """Parse a recipe that consists of curators only.

    Raises:
        UserError: it cannot be read, holds something else, or trains without a budget.
    """
    recipe = Recipe.parse(text)
    for step in recipe.steps:
        role = cards()[step.name].role
        if role != "curator":
            raise UserError(
                f"'{step.name}' is a {role}, not a curator: `rushlight curate` runs curators, such as {_curator()}"
            )
        if step.stage().spends and budget is None:
            raise UserError(f"'{step.name}' trains, and needs a budget: add --budget 200k (budget='200k')")
    return recipe


def _curator() -> str:
    return next((card.id for card in cards().values() if card.role == "curator"), "none that is installed")


def _start(
    data: Dataset, recipe: Recipe, ctx: RunContext, encoder: str, weights: str | None, pretrained: bool
) -> Model:
    size = max(data.height, data.width)
    choice = choose.encoder(size, ctx.device, recipes=[recipe]) if encoder == "auto" else None
    name, weights = (choice.name, weights or choice.weights) if choice else (encoder, weights)
    network = encoders.create(name, image_size=size, seed=ctx.seed, pretrained=pretrained, weights=weights)
    return Model(network, {}, ModelInfo.of(data.info, (data.height, data.width), ctx.task))


def _missing(name: str, before: Dataset, after: Dataset) -> Pool:
    """Return the pool for a curator that leaves none: each missing image has the curator's name as its reason."""
    left = set(after.names)
    return Pool.of(before).remove(f"{name}: not kept", torch.tensor([one not in left for one in before.names]))


def _settings(step: Step) -> dict[str, Any]:
    """Return all arguments of a curator, including those left at their defaults."""
    known = inspect.signature(load_method(step.name)).parameters
    defaults = {name: each.default for name, each in known.items() if each.default is not inspect.Parameter.empty}
    return {"method": step.name, **{k: v if _plain(v) else str(v) for k, v in {**defaults, **step.arguments}.items()}}


def _plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


# --- handing out ---


def check_out(out: Path, data: Dataset, recipe: Recipe, *, copy: bool) -> None:
    """Check, before a long run, that its results can be written.

    Raises:
        UserError: verdicts would be lost, there are no files to copy, or they would land among the images.
    """
    review = out / REVIEW
    reads = any(str(value) for step in recipe.steps for key, value in step.arguments.items() if key == "verdicts")
    if review.is_file() and _has_verdicts(review) and not reads:
        raise UserError(f"{review} holds verdicts: have them read with verdicts={str(review)!r}, or name another --out")
    copies, known = (out / COPIES).exists(), (out / AUDIT).is_file()
    if not copy:
        if copies and known:
            raise UserError(f"{out / COPIES} holds copies of an earlier run: add --copy to replace them, or name "
                            "another --out")  # fmt: skip
        return
    root = originals.folder(data)
    if root is None:
        raise UserError(f"there are no files of '{data.info.source}' to copy: --copy needs a folder of images")
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(f"--out {out} lies inside '{root}': the copies would be read as images of it; name another")
    if copies and not known:
        raise UserError(f"{out / COPIES} exists and is no curation's: name another folder with --out")


def _has_verdicts(path: Path) -> bool:
    from rushlight.data.edit import reviews

    return bool(reviews.verdicts(str(path)))


def write(curation: Curation, out: Path, *, copy: bool = False) -> None:
    """Write everything into a folder; each file is written whole.

    Raises:
        UserError: as `check_out`, or the folder cannot be written.
    """
    check_out(out, curation.data, curation.recipe, copy=copy)
    texts = curation.texts()
    if copy:
        copy_files(curation, out / COPIES)
    write_whole(out / TABLE, curation.pool.to_csv(**texts).encode())
    if "review" in curation.pool.scores and not ((out / REVIEW).is_file() and _has_verdicts(out / REVIEW)):
        write_whole(out / REVIEW, _review(curation.pool).encode())
    write_whole(out / AUDIT, plain_json(curation.audit()) + b"\n")


def _review(pool: Pool) -> str:
    """Return the drawn sample in its order; any first part of it is a sample too."""
    drawn = pool.scores["review"]
    order = drawn.nan_to_num(torch.inf).argsort()[: int((~drawn.isnan()).sum())]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "verdict", "remark"])
    writer.writerows([pool.names[row], "", ""] for row in order.tolist())
    return text.getvalue()


def copy_files(curation: Curation, target: Path) -> int:
    """Copy the kept files, byte for byte, into a folder that replaces one of an earlier run.

    Returns:
        How many were copied.

    Raises:
        UserError: a file is gone, leads out of the folder, or cannot be written.
    """
    root = originals.folder(curation.data)
    assert root is not None
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    names = curation.kept.names
    try:
        for name in names:
            path, place = originals.file(root, name), partial / name
            if path is None or not place.resolve().is_relative_to(partial.resolve()):
                raise UserError(
                    f"'{name}' is no file in '{root}' (any more), or leads out of it: read the folder again"
                )
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        partial.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    except OSError as error:
        raise UserError(
            f"{target} could not be written ({error.strerror}): make room, or name another --out"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return len(names)
