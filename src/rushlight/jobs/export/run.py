"""Models as ONNX, checked against PyTorch."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rushlight import tasks
from rushlight.core.errors import UserError
from rushlight.core.files import write_whole
from rushlight.nets.encoders import Encoder, ImageEncoder
from rushlight.nets.encoders.multimodal import MultiModal
from rushlight.run.model import Model


class _Answer(nn.Module):
    """A model as one function of its inputs: the output of its task's head, or without one each encoder's features."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model
        task = model.info.task
        self.head = task if task in model.head_names else None
        names = [name for name, _ in model.sources(self.head)] if self.head else list(model.encoders)
        self.reads: dict[str, Encoder] = {name: model.encoders[name] for name in names}  # type: ignore[misc]
        self.columns = [(name, column) for name, encoder in self.reads.items() for column in encoder.columns]

    @property
    def inputs(self) -> list[str]:
        return [f"{column if len(self.reads[name].columns) > 1 else name}s" for name, column in self.columns]

    @property
    def outputs(self) -> list[str]:
        several = len(self.reads) > 1
        return ["logits"] if self.head else [f"{name} features" if several else "features" for name in self.reads]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given: dict[str, Any] = {}
        for (name, column), values in zip(self.columns, inputs, strict=True):
            given[name] = values if len(self.reads[name].columns) == 1 else given.get(name, {}) | {column: values}
        if self.head:
            return (self.model.logits(given, self.head),)
        return tuple(encoder(given[name]) for name, encoder in self.reads.items())


def to_onnx(model: Model, path: Path, *, tolerance: float = 1e-4) -> float:
    """Write a model as ONNX and return the largest difference between the two on example inputs.

    The graph has one input a column that an encoder reads (`images`: float, in [0, 1]; `depths`: in any unit, NaN where
    unknown; `texts`: zero-padded UTF-8 bytes) of any batch; the file's metadata hold the names of the outputs, the size
    of the images and their normalisation (`metadata`).

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
    examples = [one for encoder in answer.reads.values() for one in _examples(encoder, model.info.image_size)]
    graph = _graph(answer, [example[:2] for example in examples])
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    difference = max(_difference(answer, session, [each[:n] for each in examples]) for n in (1, len(examples[0])))
    if not difference <= tolerance:
        raise RuntimeError(f"the exported model differs by {difference:.2g}, more than {tolerance:g}: it was not kept")
    write_whole(path, graph)
    return difference


def _graph(answer: _Answer, examples: list[Tensor]) -> bytes:
    """Return the ONNX file's content."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        program = torch.onnx.export(
            answer,
            tuple(examples),
            input_names=answer.inputs,
            output_names=answer.outputs,
            dynamic_shapes=(tuple(_axes(example, batch) for example in examples),),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for key, value in metadata(answer).items():
        proto.metadata_props.add(key=key, value=value)
    return proto.SerializeToString()


def _axes(example: Tensor, batch: Any) -> dict[int, Any]:
    """Return the axes that are free: the batch, and the length of a text."""
    return {0: batch} | ({1: torch.export.Dim("length", min=2, max=65536)} if example.ndim == 2 else {})


def metadata(answer: _Answer) -> dict[str, str]:
    """Return what the file says of itself, each value as JSON.

    `names` are those of the outputs; `inputs` says of each input its size, its range and what the graph itself
    subtracts and divides by.
    """
    info = answer.model.info
    names = tasks.find(info.task).names(info) if info.task in tasks.names() else ()
    told: dict[str, Any] = {"task": info.task, "names": names, "packing": info.packing}
    told |= {"recipe": info.recipe, "seed": info.seed, "budget": info.budget, "version": info.version}
    each = zip(answer.inputs, answer.columns, strict=True)
    told["inputs"] = {said: _input(answer.reads[name], column, info.image_size) for said, (name, column) in each}
    return {key: json.dumps(value, ensure_ascii=False) for key, value in told.items()}


def _input(encoder: Encoder, column: str, size: tuple[int, int]) -> dict[str, Any]:
    said: dict[str, Any] = {"encoder": encoder.name, "column": column}
    if not isinstance(encoder, ImageEncoder | MultiModal):
        return said | {"values": "UTF-8 bytes, padded with zeros"}
    if column != "image":
        return said | {"values": "depth in any unit, NaN where unknown", "size": list(size)}
    said |= {"values": "RGB in [0, 1]", "size": list(size)}
    inside = {"mean": encoder.mean.flatten().tolist(), "std": encoder.std.flatten().tolist()}
    return said | {"normalised inside the graph by": inside}


def _examples(encoder: Encoder, size: tuple[int, int]) -> list[Tensor]:
    """Return noise and flat inputs of each column: black, grey and white images, or empty texts."""
    noise = encoder.example(5, size, torch.Generator().manual_seed(0))
    return [_with_flat(one) for one in (noise.values() if isinstance(noise, dict) else [noise])]


def _with_flat(noise: Tensor) -> Tensor:
    levels = (0.0, 0.5, 1.0) if noise.is_floating_point() else (0, 0, 0)
    return torch.cat([noise, *(torch.full_like(noise[:1], level) for level in levels)])


def _difference(answer: _Answer, session: Any, inputs: list[Tensor]) -> float:
    """Return the largest difference between PyTorch's answers and the file's (relative, of values beyond 1)."""
    theirs = session.run(None, {name: values.numpy() for name, values in zip(answer.inputs, inputs, strict=True)})
    with torch.inference_mode():
        ours = answer(*inputs)
    pairs = [(a, torch.from_numpy(b)) for a, b in zip(ours, theirs, strict=True)]
    return max(float(((a - b).abs() / a.abs().clamp(min=1)).max()) for a, b in pairs)
