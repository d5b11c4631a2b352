"""One judge of the catalogue on one model, on several side by side, or on none: what `rushlight judge` runs.

Models are folders of our own, encoders by name (any of timm's, with their pretrained weights or with a local file's),
or none: then the judge gets an untrained encoder that suits the data, which a study that trains models of its own
starts from.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rushlight import tasks
from rushlight._version import VERSION
from rushlight.core.catalogue import cards
from rushlight.core.errors import UserError, nearest
from rushlight.core.files import write_whole
from rushlight.data.dataset import Dataset
from rushlight.jobs.command import repeat
from rushlight.jobs.judge.result import Judged
from rushlight.measure.preprocessing import TIMM
from rushlight.nets import encoders
from rushlight.present.table import csv
from rushlight.run import choose, hardware
from rushlight.run import recipe as recipes
from rushlight.run.model import CONFIG, Model, ModelInfo
from rushlight.run.stage import Progress, RunContext
from rushlight.run.trial import machine

HUB = "hf:"
Models = Model | Mapping[str, Model] | str | Sequence[str] | None


# --- judging ---


def judge(
    recipe: str,
    data: Dataset,
    models: Models = None,
    *,
    seed: int = 0,
    encoder: str = "auto",
    pretrained: bool = False,
    task: str | None = None,
    device: str = "auto",
    command: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Judged:
    """Run one judge.

    Args:
        recipe: the judge with its arguments, such as `"backbones(shots=5)"`.
        models: see `named`; None gives the judge an untrained encoder.
        seed: of every random draw.
        encoder: which one, where no model is named; `auto` chooses by the data.
        pretrained: give timm's models their pretrained weights (fetched from the Hub where they are not here).
        task: the column that is judged; by default what is known.
        device: where the models run. command: what repeats this; by default it is written from the arguments.
        on_progress: called now and then.

    Raises:
        UserError: no such judge or model, or data that lacks what the judge needs.
    """
    began, step, device = time.monotonic(), recipes.judge(recipe), hardware.device(device)
    if not len(data):
        raise UserError(f"{data.info.source} holds no image: there is nothing to judge on")
    task = tasks.chosen(data, task)
    lacks = cards()[step.name].lacks(data, task)
    if lacks:
        raise UserError(f"'{step.name}' does not fit {data.info.source}: it {lacks}")
    given = named(models, data, seed=seed, encoder=encoder, pretrained=pretrained, device=device)
    given = {name: model.copy().to(device).eval() for name, model in given.items()}
    precision = hardware.precision(device, next(iter(given.values())).encoder.name)
    ctx = RunContext(seed=seed, task=task, device=device, precision=precision, on_progress=on_progress)
    if len(given) == 1:
        found = step.judge().judge(next(iter(given.values())), data, ctx)
    else:
        found = step.judge().judge_all(given, data, ctx)
    return Judged(
        findings=found,
        recipe=str(step),
        models={name: about(model) for name, model in given.items()},
        data=data,
        command=command
        or repeat(
            "judge",
            data,
            before=[str(step)],
            models=_words(models),
            seed=seed or None,
            encoder=encoder if encoder != "auto" else None,
            pretrained=pretrained,
            task=task,
            device=device,
        ),
        seconds=time.monotonic() - began,
        machine={**machine(), "device": device, "rushlight": VERSION},
    )


def about(model: Model) -> str:
    """Describe a model in one line: its encoder, its size, its origin."""
    parameters = sum(p.numel() for p in model.encoder.parameters())
    height, width = model.info.image_size
    return f"{model.encoder.name}, {parameters:,} parameters, {height}×{width} px, {model.info.recipe or 'untrained'}"


def _words(models: Models) -> str | None:
    """Return models in the form of `--models`; `MODELS` stands for those that exist only in Python."""
    if models is None or isinstance(models, str):
        return models
    return "MODELS" if isinstance(models, Model | Mapping) else ", ".join(models)


# --- models ---


def named(
    models: Models,
    data: Dataset,
    *,
    seed: int = 0,
    encoder: str = "auto",
    pretrained: bool = False,
    device: str = "cpu",
) -> dict[str, Model]:
    """Return models by name.

    Args:
        models: a `Model`; a mapping; or names (a list, or text separated by commas), each of which is the folder of
            a model, `hf:ORG/NAME` for one of ours on the Hub, or `NAME[@SIZE][=FILE.safetensors]`: an encoder, the
            side of the images that it reads, and weights for it. None gives an untrained encoder that suits the data.
        seed: of the initial weights of what is not trained.
        pretrained: give timm's models their pretrained weights.

    Raises:
        UserError: nothing of that name, or the same one twice.
    """
    side = max(data.height, data.width)
    if models is None:
        name = choose.encoder(side, device).name if encoder == "auto" else encoder
        return {name: _encoder(f"{name}@{side}", side, seed, pretrained)}
    if isinstance(models, Model):
        return {"model": models}
    if isinstance(models, Mapping):
        return dict(models)
    found: dict[str, Model] = {}
    for text in split(models):
        if text in found:
            raise UserError(f"the model '{text}' is named twice: name each of them once")
        found[text] = _named(text, side, seed, pretrained)
    if not found:
        raise UserError("no model is named: give folders or names of encoders, separated by commas")
    return found


def _named(text: str, side: int, seed: int, pretrained: bool) -> Model:
    if text.startswith(HUB):
        return _from_hub(text.removeprefix(HUB))
    return Model.load(text) if _is_folder(text) else _encoder(text, side, seed, pretrained)


def _from_hub(name: str) -> Model:
    try:
        return Model.from_pretrained(name)
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no model '{name}' could be fetched from the Hub ({type(error).__name__}): it holds what "
            "`model.push_to_hub` wrote, or name a folder"
        ) from error


def split(models: str | Sequence[str]) -> list[str]:
    """Return the names in a list, or in text separated by commas."""
    parts = models.split(",") if isinstance(models, str) else [str(part) for part in models]
    return [part.strip() for part in parts if part.strip()]


def check(models: str | None) -> None:
    """Check that each name can be the name of a model, before anything is read.

    Raises:
        UserError: one cannot; the nearest encoder is suggested.
    """
    for text in split(models or ""):
        if not (_is_folder(text) or text.startswith(HUB)):
            _parsed(text)


def _is_folder(text: str) -> bool:
    return (Path(text) / CONFIG).exists() or text.endswith("/") or (Path(text).is_dir() and "=" not in text)


def _parsed(text: str) -> tuple[str, int | None, str | None]:
    """Return (name, size, weights) of `NAME[@SIZE][=FILE]`."""

    import timm  # isort: skip

    found = re.fullmatch(r"(?P<name>[^@=]+)(@(?P<size>\d+))?(=(?P<weights>.+))?", text)
    if found is None:
        raise UserError(f"cannot read the model '{text}': write a folder, or NAME@SIZE=FILE.safetensors")
    name, size, weights = found["name"].strip(), found["size"], found["weights"]
    if not _is_small(name) and not timm.is_model(name.partition("+")[0].removeprefix("timm/")):
        hint = nearest(name, [*encoders.SMALL, *timm.list_models()])
        raise UserError(f"'{text}' is neither the folder of a model nor an encoder.{hint}")
    return name, int(size) if size else None, weights


def _encoder(text: str, side: int, seed: int, pretrained: bool) -> Model:
    """Return a bare encoder; one of timm's reads images of its own size where none is named."""
    name, size, weights = _parsed(text)
    fetch = pretrained and weights is None and not _is_small(name)
    size = size or _own_size(name) or side
    encoder = encoders.create(name, image_size=size, seed=seed, pretrained=fetch, weights=weights)
    origin = f"weights of {Path(weights).name}" if weights else f"{TIMM} {_tag(encoder)}" if fetch else ""
    return Model(encoder, {}, ModelInfo(image_size=(size, size), recipe=origin, seed=seed))


def _is_small(name: str) -> bool:
    return name.partition("+")[0].partition("-p")[0] in encoders.SMALL


def _own_size(name: str) -> int | None:
    """Return the image side that a timm model was made for."""
    import timm

    config = None if _is_small(name) else timm.get_pretrained_cfg(name.partition("+")[0].removeprefix("timm/"))
    return int(config.input_size[-1]) if config is not None else None


def _tag(encoder: Any) -> str:
    config = getattr(encoder.model, "pretrained_cfg", None) or {}
    return str(config.get("tag") or encoder.name)


# --- files ---


def write(done: Judged, folder: Path) -> None:
    """Write each table (and the numbers) as a CSV file into a folder, replacing each file as a whole.

    Raises:
        UserError: the folder cannot be written.
    """
    for table in done.tables():
        write_whole(folder / f"{file_name(table.name)}.csv", csv(table).encode())


def file_name(table: str) -> str:
    """Return a table's name as a file name: letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", table.lower()).strip("-") or "table"
