"""Results that survive a crash: every file is written whole, beside its place, flushed, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout
from fsspec.core import url_to_fs
from platformdirs import user_cache_path
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.core.files import check_folder, replace_folder, write_whole
from rushlight.data.dataset import Dataset
from rushlight.data.edit.pool import Pool
from rushlight.run.budget import Spent
from rushlight.run.model import Model
from rushlight.run.stage import Outcome


class Store:
    """A folder of finished trials: one file each, by the key of its spec.

    `trials/KEY.safetensors` holds spec, numbers and parts, and is the same, bit for bit, whenever the trial is run
    again; `trials/KEY.json` holds what varies (seconds, machine); `models/KEY/` the model; `work/KEY/` the
    checkpoints of a trial that is under way, `stages/KEY/` the outcomes of first stages that recipes share.

    Args:
        place: a folder, or any URL that fsspec opens (`s3://bucket/run`). What is finished is then put there too, each
            file under a temporary name that is changed when it is whole; work under way stays in a local mirror.

    Attributes:
        place: as it was given: another process opens the same store by it. folder: where its files lie on this machine.
    """

    def __init__(self, place: str | os.PathLike[str]):
        self.place = os.fspath(place)
        self.remote, self.root = None, ""
        self.folder = Path(place)
        if "://" in self.place:
            self.remote, self.root = url_to_fs(self.place)
            key = hashlib.sha256(self.place.encode()).hexdigest()[:16]
            self.folder = user_cache_path("rushlight") / "stores" / key

    def path(self, key: str) -> Path:
        return self.folder / "trials" / f"{key}.safetensors"

    def model_path(self, key: str) -> Path:
        """Return the folder of a trial's model, fetched where it lies elsewhere."""
        folder = self.folder / "models" / key
        if self.remote is not None and not folder.exists() and self.remote.exists(f"{self.root}/models/{key}"):
            partial = folder.with_name(f".{key}.{os.getpid()}.partial")
            for name in self.remote.ls(f"{self.root}/models/{key}", detail=False):
                write_whole(partial / name.rsplit("/", 1)[-1], self.remote.cat_file(name))
            replace_folder(partial, folder)
        return folder

    def work(self, key: str) -> Path:
        """Return the folder of a running trial's checkpoints."""
        return self.folder / "work" / key

    def stage(self, key: str) -> Path:
        """Return where the outcome of a recipe's first stages is kept, for every recipe that begins with them."""
        return self.folder / "stages" / key

    def has(self, key: str) -> bool:
        return self.path(key).exists() or (
            self.remote is not None and self.remote.exists(f"{self.root}/trials/{key}.safetensors")
        )

    def put(self, key: str, record: dict, parts: dict[str, Tensor], measured: dict, model: Model | None) -> None:
        """Store a finished trial. The trial's own file is written last: where it exists, everything does."""
        folder = self.folder / "models" / key
        if model is not None:
            try:
                model.save(folder)
            except OSError as error:
                raise UserError(
                    f"{folder} could not be written ({error.strerror}): make room there, "
                    "or name another folder with --out"
                ) from error
        write_whole(self.path(key).with_suffix(".json"), json.dumps(measured, indent=1).encode())
        tensors = {name: values.contiguous() for name, values in parts.items()}
        write_whole(self.path(key), save(tensors, metadata={"trial": json.dumps(record, sort_keys=True)}))
        if self.remote is not None:
            for path in [*sorted(folder.glob("*")), self.path(key).with_suffix(".json"), self.path(key)]:
                self._send(path)
        shutil.rmtree(self.work(key), ignore_errors=True)

    def write(self, name: str, content: bytes) -> None:
        """Write a file (a report, a table) beside the trials."""
        write_whole(self.folder / name, content)
        if self.remote is not None:
            self._send(self.folder / name)

    def write_model(self, name: str, model: Model) -> None:
        """Write a model beside the trials."""
        model.save(self.folder / name)
        if self.remote is not None:
            for path in sorted((self.folder / name).glob("*")):
                self._send(path)

    def where(self, name: str) -> str:
        """Return where a file of the store is found: a path, or a URL."""
        return str(self.folder / name) if self.remote is None else f"{self.place.rstrip('/')}/{name}"

    def _send(self, path: Path) -> None:
        """Copy a file to the remote store; it gets its name only when it is whole."""
        target = f"{self.root}/{path.relative_to(self.folder).as_posix()}"
        assert self.remote is not None
        self.remote.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        self.remote.put_file(str(path), f"{target}.partial")
        self.remote.mv(f"{target}.partial", target)

    def _fetch(self, path: Path) -> None:
        """Copy a file of the remote store into the mirror."""
        if self.remote is not None and not path.exists():
            write_whole(path, self.remote.cat_file(f"{self.root}/{path.relative_to(self.folder).as_posix()}"))

    def get(self, key: str) -> tuple[dict, dict[str, Tensor], dict]:
        """Return a finished trial: its record, its parts, and the measurements of the run."""
        path = self.path(key)
        self._fetch(path)
        self._fetch(path.with_suffix(".json"))
        with safe_open(path, framework="pt") as file:
            record = json.loads(file.metadata()["trial"])
            parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return record, parts, json.loads(path.with_suffix(".json").read_text())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one comparison.

        Raises:
            UserError: another one is running in it, or it cannot be written.
        """
        check_folder(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            held = FileLock(self.folder / ".lock").acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another comparison is running in {self.folder}: wait for it, or name another --out"
            ) from None
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written ({error.strerror}): name another folder with --out"
            ) from error
        with held:
            yield


def keep_stage(folder: Path, before: Dataset, model: Model, outcome: Outcome) -> None:
    """Keep a finished stage's outcome (the rows and columns it changed, the model), so that a later run finds it.

    Rows are known by the pool of a curator; where that does not tell which are left, nothing is kept.

    Args:
        before, model: what the stage was given; a model that it handed on as it came is not written again.
    """
    base = _selected(before, outcome.pool)
    if base is None or len(base) != len(outcome.data) or base.names != outcome.data.names:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if outcome.model is not model:
            outcome.model.save(folder / "model")
    except OSError as error:
        raise UserError(
            f"{folder} could not be written ({error.strerror}): make room there, or name another folder with --out"
        ) from error
    columns = {name: outcome.data[name].contiguous() for name in outcome.data.changed(base)}
    save_file(columns, folder / "columns.safetensors")
    if outcome.pool is not None:
        _keep_pool(folder, outcome.pool)
    record = {
        "spent": asdict(outcome.spent),
        "curve": outcome.curve,
        "notes": outcome.notes,
        "pool": outcome.pool is not None,
        "same model": outcome.model is model,
    }
    write_whole(folder / "outcome.json", json.dumps(record).encode())


def finished_stage(folder: Path, before: Dataset, model: Model) -> Outcome | None:
    """Return what `keep_stage` kept of a stage that was given these, or None if the stage has not finished."""
    if not (folder / "outcome.json").exists():
        return None
    record = json.loads((folder / "outcome.json").read_text())
    columns = load_file(folder / "columns.safetensors")
    pool = _kept_pool(folder, tuple(before.names)) if record["pool"] else None
    data = pool.select(before) if pool is not None else before
    return Outcome(
        data.with_columns(**columns) if columns else data,
        model if record["same model"] else Model.load(folder / "model"),
        Spent(**record["spent"]),
        tuple((passes, value) for passes, value in record["curve"]),
        pool=pool,
        notes=tuple(record["notes"]),
    )


def _keep_pool(folder: Path, pool: Pool) -> None:
    """Keep reasons and scores by their numbers: their names are any words."""
    values = [*pool.against.values(), *pool.scores.values()]
    names = {"against": list(pool.against), "scores": list(pool.scores)}
    tensors = {str(number): each.contiguous() for number, each in enumerate(values)}
    write_whole(folder / "pool.safetensors", save(tensors, metadata={"names": json.dumps(names)}))


def _kept_pool(folder: Path, images: tuple[str, ...]) -> Pool:
    with safe_open(folder / "pool.safetensors", framework="pt") as file:
        names = json.loads(file.metadata()["names"])
        values = [file.get_tensor(str(number)) for number in range(len(names["against"]) + len(names["scores"]))]
    against, scores = values[: len(names["against"])], values[len(names["against"]) :]
    return Pool(
        images,
        dict(zip(names["against"], against, strict=True)),
        dict(zip(names["scores"], scores, strict=True)),
    )


def _selected(before: Dataset, pool: Pool | None) -> Dataset | None:
    """Return what a pool keeps of the data; all where there is no pool, None where the pool is of other images."""
    if pool is None:
        return before
    return pool.select(before) if pool.names == tuple(before.names) else None
