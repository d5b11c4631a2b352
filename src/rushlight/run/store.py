"""Results that survive a crash: every file is written whole, beside its place, flushed, then renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from rushlight.core.errors import UserError
from rushlight.core.files import write_whole
from rushlight.data.dataset import Dataset
from rushlight.run.budget import Spent
from rushlight.run.model import Model
from rushlight.run.stage import Outcome


class Store:
    """A folder of finished trials: one file each, by the key of its spec.

    `trials/KEY.safetensors` holds spec, numbers and parts, and is the same, bit for bit, whenever the trial is run
    again; `trials/KEY.json` holds what varies (seconds, machine); `models/KEY/` the model; `work/KEY/` the
    checkpoints of a trial that is under way.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        return self.folder / "trials" / f"{key}.safetensors"

    def model_path(self, key: str) -> Path:
        return self.folder / "models" / key

    def work(self, key: str) -> Path:
        """Where a trial that is under way keeps its checkpoints."""
        return self.folder / "work" / key

    def stage(self, key: str) -> Path:
        """Return where the outcome of a recipe's first stages is kept, for every recipe that begins with them."""
        return self.folder / "stages" / key

    def has(self, key: str) -> bool:
        return self.path(key).exists()

    def put(self, key: str, record: dict, parts: dict[str, Tensor], measured: dict, model: Model | None) -> None:
        """Keep a finished trial. The trial's own file comes last: where it is, everything is."""
        if model is not None:
            try:
                model.save(self.model_path(key))
            except OSError as error:
                raise UserError(
                    f"{self.model_path(key)} could not be written ({error.strerror}): make room there, "
                    "or name another folder with --out"
                ) from error
        write_whole(self.path(key).with_suffix(".json"), json.dumps(measured, indent=1).encode())
        tensors = {name: values.contiguous() for name, values in parts.items()}
        write_whole(self.path(key), save(tensors, metadata={"trial": json.dumps(record, sort_keys=True)}))
        shutil.rmtree(self.work(key), ignore_errors=True)

    def get(self, key: str) -> tuple[dict, dict[str, Tensor], dict]:
        """A finished trial: its record, its parts, and what was measured of the run."""
        path = self.path(key)
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


def keep_stage(folder: Path, before: Dataset, outcome: Outcome) -> None:
    """Keep a finished stage's outcome (the rows and columns it changed, the model), so that a later run finds it.

    What a curator leaves (a pool) is not kept: it is quick to make again.
    """
    if outcome.pool is not None:
        return
    outcome.model.save(folder / "model")
    save_file(
        {name: outcome.data[name].contiguous() for name in outcome.data.changed(before)}, folder / "columns.safetensors"
    )
    record = {"spent": asdict(outcome.spent), "curve": outcome.curve}
    write_whole(folder / "outcome.json", json.dumps(record).encode())


def finished_stage(folder: Path, before: Dataset) -> Outcome | None:
    """Return what `keep_stage` kept, or None if the stage has not finished."""
    if not (folder / "outcome.json").exists():
        return None
    record = json.loads((folder / "outcome.json").read_text())
    columns = load_file(folder / "columns.safetensors")
    return Outcome(
        before.with_columns(**columns) if columns else before,
        Model.load(folder / "model"),
        Spent(**record["spent"]),
        tuple((passes, value) for passes, value in record["curve"]),
    )
