"""`rushlight export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rushlight.cli.show import show


def export(
    model: Annotated[str, typer.Argument(help="The folder of a model.")],
    out: Annotated[str | None, typer.Option(help="The file; by default model.onnx in the model's folder.")] = None,
    format: Annotated[str, typer.Option(help="onnx.")] = "onnx",
) -> None:
    """Write a model as ONNX, checked against PyTorch."""
    from rushlight import api
    from rushlight.core.errors import UserError

    if format != "onnx":
        raise UserError(f"--format {format}: use onnx")
    target = Path(out) if out else Path(model) / "model.onnx"
    difference = api.export(model, target)
    show(f"{target}: differs from PyTorch by at most {difference:.1g}")
