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


def keep_stage(folder: Path, before: Dataset, data: Dataset, model: Model, spent: Spent) -> None:
    """Keep what a finished stage gave (the columns it changed, the model), so that a killed recipe goes on after it."""
    model.save(folder / "model")
    changed = {name: data[name].contiguous() for name in data.changed(before)}
    save_file(changed, folder / "columns.safetensors")
    write_whole(folder / "spent.json", json.dumps(asdict(spent)).encode())


def finished_stage(folder: Path, before: Dataset) -> tuple[Dataset, Model, Spent] | None:
    """What `keep_stage` kept, or None if the stage has not finished."""
    if not (folder / "spent.json").exists():
        return None
    columns = load_file(folder / "columns.safetensors")
    spent = Spent(**json.loads((folder / "spent.json").read_text()))
    return (before.with_columns(**columns) if columns else before), Model.load(folder / "model"), spent
