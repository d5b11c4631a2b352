"""Nothing of a learner's step is computed in float64, which Apple's GPUs lack: it would end there with an error."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import rushlight
from rushlight.core.catalogue import cards, load_method
from rushlight.data.dataset import Dataset
from rushlight.train.learner import Learner

LEARNERS = [name for name, card in cards().items() if card.role == "learner" and issubclass(load_method(name), Learner)]
QUICK = ("supervised", "iomatch", "pu-mlc", "mlcd")
ELSEWHERE = ("beta", "dirichlet_tokens", "double", "sincos", "standardise_depth", "_yiq")
"""Functions that move to the CPU by `core.float64` where the device has none, or compute there in any case."""


class Watch(TorchDispatchMode):
    """Collects the lines of this package that compute in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), settings: Any = None) -> Any:
        result = function(*arguments, **(settings or {}))
        if any(isinstance(x, torch.Tensor) and x.dtype == torch.float64 for x in tree_leaves(result)):
            frames = [frame for frame in traceback.extract_stack() if "/src/rushlight/" in frame.filename]
            if not any(frame.name in ELSEWHERE for frame in frames):
                self.lines.add(f"{function} at {frames[-1] if frames else 'no line of ours'}")
        return result


@contextmanager
def watched(kind: type, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Watch every step of a kind of learner."""
    watch, step = Watch(), kind.step  # type: ignore[attr-defined]

    def watched_step(self: Any, batch: Any) -> Any:
        with watch:
            return step(self, batch)

    monkeypatch.setattr(kind, "step", watched_step)
    yield watch


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in LEARNERS]
)
def test_a_step_needs_no_float64(name: str, photos: Dataset, scenes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    task = min(cards()[name].task, default="class")
    data = photos if task == "class" else scenes
    encoder = f"vit64-p{data.height // 4}" if cards()[name].encoder == "vit" else "conv16"
    with watched(load_method(name), monkeypatch) as watch:
        rushlight.fit(data, name, budget=20, encoder=encoder, device="cpu", task=task)
    assert not watch.lines


def test_the_watch_sees_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    from rushlight.losses.supervised import classes

    with Watch() as watch:
        classes(torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.int64))
    assert watch.lines
