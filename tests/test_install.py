"""The installed PyTorch and torchvision fit each other."""

from __future__ import annotations

import torch
import torchvision


def test_the_compiled_operators_of_torchvision_load() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4.1], [5, 5, 9, 9]])
    assert torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]
