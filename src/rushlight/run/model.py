"""A model: an encoder, heads on it, and what the images were like. It saves, loads and exports itself.

Saved models are safetensors and JSON in the Hub's mixin convention, so `push_to_hub` and `from_pretrained` work.
Nothing that is loaded is executed.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rushlight.core.errors import UserError
from rushlight.data.dataset import Info
from rushlight.nets import encoders
from rushlight.nets.encoders import Encoder
from rushlight.nets.heads import Head, Reads, describe, rebuild

WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class ModelInfo:
    """What a model must know of itself to be used again.

    Attributes:
        image_size: (height, width) of the images it was trained on.
        packing: how images were brought to that size (the pack's settings).
        class_names, tag_names, mask_names: of its outputs.
        task: what it predicts: `class`, `tags` or `mask`; None for a bare encoder.
        recipe, seed, budget: how it came about; version: of this library.
    """

    image_size: tuple[int, int] = (32, 32)
    packing: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    tag_names: tuple[str, ...] = ()
    mask_names: tuple[str, ...] = ()
    task: str | None = None
    recipe: str = ""
    seed: int = 0
    budget: str = ""
    version: str = ""

    @classmethod
    def of(cls, info: Info, image_size: tuple[int, int], task: str | None) -> ModelInfo:
        return cls(
            image_size=image_size,
            packing=info.settings,
            class_names=info.class_names,
            tag_names=info.tag_names,
            mask_names=info.mask_names,
            task=task,
        )


class Model(nn.Module, ModelHubMixin, library_name="rushlight", tags=["rushlight"]):
    """An encoder with heads.

    Args:
        encoder: images in [0, 1] → features.
        heads: by name; `class`, `tags` and `mask` answer those tasks, others (`projector`, `open`) are a method's own.
        facts: what the model must know of itself.
    """

    def __init__(self, encoder: Encoder, heads: dict[str, nn.Module] | None = None, info: ModelInfo | None = None):
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict({_key(name): head for name, head in (heads or {}).items()})
        self.info = info or ModelInfo()

    @property
    def head_names(self) -> list[str]:
        return [name.removesuffix("_head") for name in self.heads]

    def head(self, name: str) -> Head:
        return self.heads[_key(name)]

    def _features(self, images: Tensor, reads: Reads) -> Any:
        return {"pooled": self.encoder, "maps": self.encoder.maps, "pyramid": self.encoder.pyramid}[reads](images)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """Every head's output for images in [0, 1]; without heads, the `features`."""
        if not self.heads:
            return {"features": self.encoder(images)}
        read = {self.head(name).reads for name in self.head_names}
        inputs: dict[Any, Any] = {name: self._features(images, name) for name in read}
        return {name: self.head(name)(inputs[self.head(name).reads]) for name in self.head_names}

    def logits(self, images: Float[Tensor, "batch 3 height width"], name: str | None = None) -> Tensor:
        """One head's output (by default that of the model's task) for images in [0, 1]."""
        head = self.head(name or self.info.task or "class")
        return head(self._features(images, head.reads))

    @torch.inference_mode()
    def predict(
        self, images: UInt8[Tensor, "n 3 height width"], *, batch: int = 500, names: list[str] | None = None
    ) -> dict[str, Tensor]:
        """Every head's output (or the named ones') for uint8 images, in float32 on the CPU, in evaluation mode."""
        device, mode = next(self.parameters()).device, self.training
        self.eval()
        try:
            parts = [self._outputs(part.to(device).float() / 255, names) for part in images.split(batch)]
        finally:
            self.train(mode)
        return {name: torch.cat([part[name].float().cpu() for part in parts]) for name in parts[0]} if parts else {}

    def _outputs(self, images: Tensor, names: list[str] | None) -> dict[str, Tensor]:
        images = images.contiguous(memory_format=torch.channels_last)
        if names is None:
            return self(images)
        return {name: self.encoder(images) if name == "features" else self.logits(images, name) for name in names}

    def with_info(self, **changes: Any) -> Model:
        """The same networks with other facts."""
        return Model(self.encoder, {name: self.head(name) for name in self.head_names}, replace(self.info, **changes))

    def copy(self) -> Model:
        return copy.deepcopy(self)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `model.safetensors` and `config.json` into a folder, replacing a model that is there.

        The folder is written beside its place and then renamed, so that a crash leaves the old model or the new one.
        """
        folder = Path(folder)
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self._save_pretrained(partial)
        if folder.exists():
            if not (folder / CONFIG).exists() and any(folder.iterdir()):
                shutil.rmtree(partial)
                raise UserError(f"{folder} exists and holds no model: name another folder with --out")
            shutil.rmtree(folder)
        partial.rename(folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Model:
        """A saved model.

        Raises:
            UserError: no model there, or not a readable one.
        """
        folder = Path(folder)
        if not (folder / CONFIG).exists() or not (folder / WEIGHTS).exists():
            raise UserError(f"{folder} holds no model: {CONFIG} and {WEIGHTS} are what `rushlight fit --out` writes")
        return cls._from_folder(folder)

    def _save_pretrained(self, save_directory: Path) -> None:
        state = {name: values.detach().contiguous().cpu() for name, values in self.state_dict().items()}
        save_file(state, save_directory / WEIGHTS)
        config = {
            "encoder": self.encoder.name,
            "heads": {name: describe(self.head(name)) for name in self.head_names},
            "facts": asdict(self.info),
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
            kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config["facts"].items()}
            info = ModelInfo(**kept)
            encoder = encoders.create(config["encoder"], image_size=max(info.image_size))
            model = cls(encoder, {name: rebuild(head) for name, head in config["heads"].items()}, info)
            model.load_state_dict(load_file(folder / WEIGHTS))
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise UserError(f"the model in {folder} cannot be read: {str(error).splitlines()[0]}") from error
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as it was trained: the same bits
        return model.eval()


def _key(name: str) -> str:
    """nn.ModuleDict refuses names that are attributes of modules; a suffix keeps every name usable."""
    return f"{name}_head"
