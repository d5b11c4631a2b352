"""What a model must know of itself to be used again."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from rushlight.data.dataset import Info

SUFFIX = "_names"


@dataclass(frozen=True)
class ModelInfo:
    """What a model must know of itself to be used again.

    `names["tag"]` is `tag_names` too, as in a data set's `Info`.

    Attributes:
        image_size: (height, width) of the images it was trained on.
        packing: how images were brought to that size (the pack's settings).
        names: what its outputs are called, by what they are: `class`, `tag`, `mask`, `keypoint`, …
        skeleton: joints, by number, between which pictures draw lines.
        task: the id of what it predicts; None for a bare encoder.
        origin: how the encoder came to its weights: the stages that trained it, or `weights`; empty for fresh ones.
        recipe, seed, budget: how it came about; version: of this library.
        notes: what else must be known of its training, such as that memory ran out and the batch was halved.
    """

    image_size: tuple[int, int] = (32, 32)
    packing: dict[str, Any] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    skeleton: tuple[tuple[int, int], ...] = ()
    task: str | None = None
    origin: str = ""
    recipe: str = ""
    seed: int = 0
    budget: str = ""
    version: str = ""
    notes: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> tuple[str, ...]:
        if name.endswith(SUFFIX) and not name.startswith("_"):
            return self.names.get(name.removesuffix(SUFFIX), ())
        raise AttributeError(f"a model's info has no '{name}'")

    @property
    def canvas(self) -> dict[str, Any]:
        """Return the settings of `load` that bring images to the model's canvas."""
        return {"size": self.image_size, "fit": self.packing.get("fit", "squash")}

    @classmethod
    def of(cls, info: Info, image_size: tuple[int, int], task: str | None) -> ModelInfo:
        """Return what a model of this data knows."""
        found = {one.name.removesuffix(SUFFIX): getattr(info, one.name) for one in fields(info)
                 if one.name.endswith(SUFFIX)}  # fmt: skip
        names = {name: values for name, values in found.items() if values}
        return cls(image_size, info.settings, names, info.keypoint_skeleton, task)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> ModelInfo:
        """Return the info from the output of `dataclasses.asdict`, read back from a file."""
        names = {name: tuple(values) for name, values in raw["names"].items()}
        skeleton = tuple((one, other) for one, other in raw.get("skeleton", ()))
        notes = tuple(raw.get("notes", ()))
        size = tuple(raw["image_size"])
        return cls(**{**raw, "names": names, "skeleton": skeleton, "image_size": size, "notes": notes})
