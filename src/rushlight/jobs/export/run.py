"""Models as ONNX, checked against PyTorch."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from rushlight.core.errors import UserError
from rushlight.run.model import Model


class _Answer(nn.Module):
    """A model as one function: images in [0, 1] → the logits of its task."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        task = self.model.info.task
        answers = task is not None and task in self.model.head_names
        return self.model.logits(images) if answers else self.model.encoder(images)


def to_onnx(model: Model, path: Path, *, tolerance: float = 1e-4) -> float:
    """Write a model as ONNX and return the largest difference between the two on example images.

    Raises:
        UserError: the extra `onnx` is missing, or the file cannot be written.
        RuntimeError: the exported model answers differently by more than `tolerance`.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(f"exporting needs the package '{error.name}': pip install 'rushlight[onnx]'") from error
    answer = _Answer(model.copy().cpu()).eval()
    examples = _examples(model.info.image_size)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(answer, examples[:2], partial)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path} could not be written ({error.strerror}): name another file with --out") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    theirs = torch.from_numpy(session.run(None, {"images": examples.numpy()})[0])
    with torch.inference_mode():
        difference = float((answer(examples) - theirs).abs().max())
    if not difference <= tolerance:
        path.unlink()
        raise RuntimeError(f"the exported model differs by {difference:.2g}, more than {tolerance:g}: it was removed")
    return difference


def _write(answer: nn.Module, examples: Tensor, path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        torch.onnx.export(
            answer,
            (examples,),
            str(path),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=4096)}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _examples(size: tuple[int, int]) -> Tensor:
    """Noise, black, white and grey images."""
    noise = torch.rand(5, 3, *size, generator=torch.Generator().manual_seed(0))
    flat = torch.stack([torch.full((3, *size), level) for level in (0.0, 0.5, 1.0)])
    return torch.cat([noise, flat])
