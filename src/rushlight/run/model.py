"""A model: encoders, heads, and what it must know of itself. Saved as safetensors and JSON; pickles are never read.

`model.forward` takes images in [0, 1]; `predict` takes uint8 images, as a data set holds them.
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import ModelHubMixin
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rushlight.core.errors import UserError
from rushlight.core.files import check_folder, replace_folder, standing
from rushlight.data.columns import KINDS
from rushlight.data.dataset import Dataset, Reader
from rushlight.nets import encoders
from rushlight.nets.encoders import Encoder
from rushlight.nets.heads import Head, Sampler, describe, rebuild
from rushlight.run.model_info import ModelInfo

__all__ = ["CONFIG", "WEIGHTS", "Inputs", "Model", "ModelInfo", "check_place"]

WEIGHTS, CONFIG = "model.safetensors", "config.json"
Inputs = Tensor | Mapping[str, Any]
"""What the encoders read, by their names; an encoder of several columns, by the columns' names. A tensor alone is
for the first one."""
PIXELS, MOST = 2**21, 500
"""Of a batch of predictions, at most: pixels (41 images of 224×224), and inputs."""


class Model(nn.Module, ModelHubMixin, library_name="rushlight", tags=["rushlight"]):
    """One or more encoders, with heads.

    Args:
        encoder: values of an input column → features; several by name, the first being that of the short forms.
        heads: by name; that of a task answers it, others (`projector`, `open`) are a method's own.
        info: what the model must know of itself.

    Attributes:
        encoders: by name. encoder: the first of them.
    """

    encoders: nn.ModuleDict
    heads: nn.ModuleDict

    def __init__(
        self,
        encoder: Encoder | Mapping[str, Encoder],
        heads: Mapping[str, nn.Module] | None = None,
        info: ModelInfo | None = None,
    ):
        super().__init__()
        self.encoders = nn.ModuleDict(encoder if isinstance(encoder, Mapping) else {encoder.columns[0]: encoder})
        self.heads = nn.ModuleDict({_key(name): head for name, head in (heads or {}).items()})
        self.info = info or ModelInfo()

    @property
    def encoder(self) -> Encoder:
        return cast(Encoder, next(iter(self.encoders.values())))

    @encoder.setter
    def encoder(self, encoder: Encoder) -> None:
        self.encoders[self.first] = encoder

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "encoder":
            self.encoders[self.first] = value
        else:
            super().__setattr__(name, value)

    @property
    def first(self) -> str:
        """Return the name of the first encoder."""
        return next(iter(self.encoders))

    @property
    def head_names(self) -> list[str]:
        return [name.removesuffix("_head") for name in self.heads]

    def head(self, name: str) -> Head:
        return cast(Head, self.heads[_key(name)])

    def hand_on(self, name: str, head: nn.Module) -> bool:
        """Give the weights of the head of this name to one of equal configuration; return whether they fit."""
        if name not in self.head_names or describe(self.head(name)) != describe(head):
            return False
        head.load_state_dict(self.head(name).state_dict())
        return True

    # From inputs to outputs -------------------------------------------------------------------------------------------

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return the output of every head whose inputs are given; without heads, the `features`.

        Args:
            inputs: images in [0, 1], or what each encoder reads.
        """
        given = self._named(inputs)
        if not self.heads:
            return {"features": self.encoder(given[self.first])}
        sources = {name: self.sources(name) for name in self.head_names}
        readable = [name for name, read in sources.items() if all(encoder in given for encoder, _ in read)]
        return self.answer(given, readable)

    def answer(self, inputs: Inputs, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the outputs of these heads; what several of them read is computed once.

        Raises:
            UserError: a head reads an input that is not given.
        """
        given, sources = self._named(inputs), {name: self.sources(name) for name in names}
        for name, read in sources.items():
            lacking = [encoder for encoder, _ in read if encoder not in given]
            if lacking:
                raise UserError(f"the head '{name}' needs the input of the encoder '{lacking[0]}', which is not given")
        found = self._features(given, dict.fromkeys(source for read in sources.values() for source in read))
        return {name: self.head(name)(*(found[source] for source in read)) for name, read in sources.items()}

    def logits(self, inputs: Inputs, name: str | None = None) -> Tensor:
        """Return one head's output: by default that of the model's task, or of its first head.

        Raises:
            UserError: the head reads an input that is not given.
        """
        name = name or self.info.task or self.head_names[0]
        return self.answer(inputs, [name])[name]

    def _named(self, inputs: Inputs) -> dict[str, Any]:
        """Return the inputs of each encoder, by its name, as far as they are given."""
        given = {self.first: inputs} if isinstance(inputs, Tensor) else inputs
        each = {name: _taken(name, cast(Encoder, encoder), given) for name, encoder in self.encoders.items()}
        return {name: taken for name, taken in each.items() if taken is not None}

    def sources(self, name: str) -> list[tuple[str, str]]:
        """Return what a head reads as (encoder, output): `pooled` is (the first encoder, `pooled`)."""
        reads = self.head(name).reads
        reads = (reads,) if isinstance(reads, str) else reads
        parted = [one.rpartition(".") for one in reads]
        return [(encoder or self.first, output) for encoder, _, output in parted]

    def _features(self, given: Mapping[str, Any], sources: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Any]:
        """Return the encoders' outputs, each computed once."""
        found = {}
        for name, output in sources:
            encoder: Any = self.encoders[name]
            compute: dict[str, Any] = {"pooled": encoder, "maps": encoder.maps, "pyramid": encoder.pyramid}
            found[name, output] = compute[output](given[name])
        return found

    # Prediction -------------------------------------------------------------------------------------------------------

    def predict(
        self,
        data: Inputs | Dataset,
        *,
        rows: Int[Tensor, "n"] | None = None,
        batch: int | None = None,
        names: list[str] | None = None,
    ) -> dict[str, Tensor]:
        """Return the heads' outputs for all rows, in float32 on the CPU: for outputs that fit memory.

        Args:
            data, rows, batch, names: as for `predict_batches`.
        """
        parts = list(self._on_cpu(self.predict_batches(data, rows=rows, batch=batch, names=names)))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _on_cpu(self, batches: Iterable[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        return ({name: values.cpu() for name, values in outputs.items()} for outputs in batches)

    def predict_batches(
        self,
        data: Inputs | Dataset,
        *,
        rows: Int[Tensor, "n"] | None = None,
        batch: int | None = None,
        names: list[str] | None = None,
    ) -> Iterator[dict[str, Tensor]]:
        """Yield the heads' outputs batch by batch, in evaluation mode, in float32 on the model's device.

        No more than a batch of inputs is read, and no more than a batch of outputs is held.

        Args:
            data: a data set, or columns as it holds them (uint8 images), named as `Inputs` are.
            rows: of the data, in this order; None takes all.
            batch: rows at a time; None takes as many as have 2²¹ pixels (2¹⁸ on a CPU), at most 500.
            names: of heads, or `features` (the first encoder's, pooled); None takes every head.

        Raises:
            UserError: a column that an encoder of several reads is missing; no encoder's column is there.
        """
        columns = self._columns(data)
        chosen = torch.arange(len(next(iter(columns.values())))) if rows is None else rows
        for part in chosen.split(batch or self._batch_size(columns)):
            yield self._outputs({name: values[part] for name, values in columns.items()}, names)

    def _columns(self, data: Inputs | Dataset) -> Mapping[str, Tensor | Reader]:
        """Return the columns that the encoders read, as far as they are there, named as `Inputs` are."""
        if not isinstance(data, Dataset):
            return {self.first: data} if isinstance(data, Tensor) else data
        read, needed = dict[str, str](), set[str]()
        for name, encoder in self.encoders.items():
            columns = cast(Encoder, encoder).columns
            read |= {name: columns[0]} if len(columns) == 1 else {column: column for column in columns}
            needed |= set(columns) if len(columns) > 1 else set()
        found = {name: data.reader(column) for name, column in read.items() if column in data}
        lacking = [column for name, column in read.items() if name not in found and (column in needed or not found)]
        if lacking:
            raise UserError(_lacks(list(dict.fromkeys(read.values())), lacking[0], data))
        return found

    def _batch_size(self, columns: Mapping[str, Tensor | Reader]) -> int:
        largest = max(math.prod(values.shape[1:][-2:]) for values in columns.values())
        most = PIXELS if next(self.parameters()).device.type != "cpu" else PIXELS // 8  # a CPU gains nothing by more
        return min(MOST, max(1, most // max(largest, 1)))

    @torch.inference_mode()
    def _outputs(self, columns: Mapping[str, Tensor], names: list[str] | None) -> dict[str, Tensor]:
        device, mode = next(self.parameters()).device, self.training
        self.eval()
        try:
            given = self._named({name: values.to(device) for name, values in columns.items()})
            inputs = {name: cast(Encoder, self.encoders[name]).prepare(taken) for name, taken in given.items()}
            outputs = self(inputs) if names is None else self._several(inputs, names)
        finally:
            self.train(mode)
        return {name: values.float() for name, values in outputs.items()}

    def _several(self, inputs: Mapping[str, Any], names: list[str]) -> dict[str, Tensor]:
        plain = {"features": self.encoder(inputs[self.first])} if "features" in names else {}
        return plain | self.answer(inputs, [name for name in names if name != "features"])

    @torch.inference_mode()
    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Return n new inputs, drawn by the first head (or encoder) that is a `Sampler`, in float32 on the CPU.

        Raises:
            UserError: none of them draws anything.
        """
        parts = [*(self.head(name) for name in self.head_names), *self.encoders.values()]
        sampler = next((part for part in parts if isinstance(part, Sampler)), None)
        if sampler is None:
            heads = f"the heads {', '.join(self.head_names)}" if self.head_names else "no head"
            raise UserError(
                f"this model draws no images: it is the encoder '{self.encoder.name}' with {heads}, "
                "none of which can; train one by a method that generates"
            )
        mode, device = self.training, next(self.parameters()).device
        self.eval()
        try:
            return sampler.sample(n, torch.Generator(device).manual_seed(seed)).float().cpu()
        finally:
            self.train(mode)

    # Copies and files -------------------------------------------------------------------------------------------------

    def with_info(self, **changes: Any) -> Model:
        """Return the same networks with another info."""
        networks = {name: cast(Encoder, encoder) for name, encoder in self.encoders.items()}
        return Model(networks, {name: self.head(name) for name in self.head_names}, replace(self.info, **changes))

    def copy(self) -> Model:
        return copy.deepcopy(self)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `model.safetensors` and `config.json` into a folder, replacing a model that is there.

        The folder is written beside its place and flushed, then the two are exchanged: a kill at any moment leaves the
        old model or the new one, and `load` finds it.

        Raises:
            UserError: the folder holds something else.
        """
        folder = Path(folder)
        check_place(folder)
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self._save_pretrained(partial)
        replace_folder(partial, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Model:
        """Return a saved model.

        Raises:
            UserError: no model there, or not a readable one.
        """
        place = standing(Path(folder))
        if not (place / CONFIG).exists() or not (place / WEIGHTS).exists():
            raise UserError(f"{folder} holds no model: {CONFIG} and {WEIGHTS} are what `rushlight fit --out` writes")
        return cls._from_folder(place)

    def _save_pretrained(self, save_directory: Path) -> None:
        state = {name: values.detach().contiguous().cpu() for name, values in self.state_dict().items()}
        save_file(state, save_directory / WEIGHTS)
        config = {
            "encoders": {name: cast(Encoder, encoder).name for name, encoder in self.encoders.items()},
            "heads": {name: describe(self.head(name)) for name in self.head_names},
            "info": asdict(self.info),
        }
        (save_directory / CONFIG).write_text(json.dumps(config, indent=1))

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **settings: Any) -> Model:
        if Path(model_id).is_dir():
            return cls._from_folder(Path(model_id))
        from huggingface_hub import hf_hub_download

        wanted = {key: settings.get(key) for key in ("revision", "cache_dir", "token")}
        paths = [Path(hf_hub_download(model_id, name, **wanted)) for name in (CONFIG, WEIGHTS)]  # type: ignore[arg-type]
        return cls._from_folder(paths[0].parent)

    @classmethod
    def _from_folder(cls, folder: Path) -> Model:
        try:
            config = json.loads((folder / CONFIG).read_text())
            info = ModelInfo.from_json(config["info"])
            size = max(info.image_size)
            networks = {name: encoders.create(kind, image_size=size) for name, kind in config["encoders"].items()}
            model = cls(networks, {name: rebuild(head) for name, head in config["heads"].items()}, info)
            model.load_state_dict(load_file(folder / WEIGHTS))
        except UserError:
            raise
        except (AttributeError, ImportError, KeyError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
            raise UserError(f"the model in {folder} cannot be read: {str(error).splitlines()[0]}") from error
        return cast(Model, encoders.arrange(model)).eval()  # as it was trained: the same bits


def _lacks(read: list[str], lacking: str, data: Dataset) -> str:
    option = KINDS[lacking].option if lacking in KINDS else ""
    how = f"give its folder with --{option} (load({option}=…))" if option else "add this column"
    return f"the model reads {' and '.join(read)}, and {data.info.source} has no '{lacking}': {how}"


def check_place(folder: Path) -> None:
    """Check, before a training, that a model can be written into a folder.

    Raises:
        UserError: it is a file, holds something else than a model, or cannot be written.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file, and a model is a folder: name another with --out")
    if folder.exists() and not (folder / CONFIG).exists() and any(folder.iterdir()):
        raise UserError(f"{folder} exists and holds no model: name another folder with --out")
    check_folder(folder.absolute().parent)  # it is written beside its place


def _taken(name: str, encoder: Encoder, given: Mapping[str, Any]) -> Any:
    """Return what an encoder takes of the inputs: under its name, or by its columns; None where it is not given.

    Raises:
        UserError: some of its columns are given, and some are not.
    """
    columns = encoder.columns
    inside = given[name] if isinstance(given.get(name), Mapping) else given
    if len(columns) == 1:
        return inside.get(name) if inside is given else inside.get(columns[0])
    lacking = [column for column in columns if column not in inside]
    if lacking and len(lacking) < len(columns):
        raise UserError(f"'{encoder.name}' reads {' and '.join(columns)}, and '{lacking[0]}' is not given")
    return None if lacking else {column: inside[column] for column in columns}


def _key(name: str) -> str:
    """Return the name as nn.ModuleDict takes it: it refuses attributes of modules, and a suffix keeps all usable."""
    return f"{name}_head"
