"""Batch norm over two processes equals batch norm of the joined batch, in value and gradient."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from rushlight.nets.norm import SynchronisedNorm, synchronise


def _halves(rank: int, folder: str, shape: tuple[int, ...]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    whole, weight = torch.randn(8, *shape), torch.randn(8, *shape)
    norm = SynchronisedNorm(shape[0])
    mine = whole.chunk(2)[rank].clone().requires_grad_()
    (norm(mine) * weight.chunk(2)[rank]).sum().backward()
    torch.save((mine.grad, norm.running_mean, norm.running_var), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5)])
def test_two_processes_equal_one(shape: tuple[int, ...], tmp_path: Path) -> None:
    children = []
    for rank in range(2):
        child = os.fork()
        if not child:
            try:
                _halves(rank, str(tmp_path), shape)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    torch.manual_seed(0)
    whole, weight = torch.randn(8, *shape), torch.randn(8, *shape)
    plain = (nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d)(shape[0])
    whole.requires_grad_()
    (plain(whole) * weight).sum().backward()
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), whole.grad, atol=1e-5, rtol=1e-5)
    for part in parts:
        torch.testing.assert_close(part[1], plain.running_mean)
        torch.testing.assert_close(part[2], plain.running_var)


def test_every_norm_is_replaced_and_keeps_its_state() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm1d(5, affine=False)))
    net[1].running_mean.fill_(3.0)
    new = synchronise(net)
    assert isinstance(new[1], SynchronisedNorm)
    assert isinstance(new[2][0], SynchronisedNorm)
    assert bool((new[1].running_mean == 3).all())
    net.eval()
    images = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(new[:2](images), net[:2](images))
