"""Contrast block by block is the plain form, whatever the block; both forms over two processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from rushlight.losses import contrastive, contrastive_blocks
from rushlight.losses.contrastive_blocks import against_memory_bank_by_blocks, in_batch_by_blocks, info_nce_by_blocks

T = 0.3


def embeddings(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("block", [1, 40, 10**6])
@pytest.mark.parametrize("settings", [{}, {"denominator": "none", "sigma": 0.4, "detach_weight": False}])
def test_blocks_of_any_size_are_the_plain_form(monkeypatch, block, settings):
    views, bank = [embeddings(5, 6, seed=seed) for seed in range(3)], embeddings(4, 6, seed=9)
    monkeypatch.setattr(contrastive_blocks, "BLOCK", block)
    pairs = [
        (info_nce_by_blocks, contrastive.info_nce, (views,), {"per_view": True}),
        (info_nce_by_blocks, contrastive.info_nce, (views,), {}),
        (against_memory_bank_by_blocks, contrastive.against_memory_bank, (*views[:2], bank), {}),
        (in_batch_by_blocks, contrastive.in_batch, views[:2], {}),
    ]
    inputs = (*views, bank)
    for by_blocks, plain, given, more in pairs:
        losses = [form(*given, temperature=T, **settings, **more) for form in (by_blocks, plain)]
        torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-12)
        gradients = [torch.autograd.grad(loss, inputs, allow_unused=True) for loss in losses]
        for mine, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


# Two processes --------------------------------------------------------------------------------------------------------

CASES = """
import torch
from rushlight.losses import contrastive, contrastive_blocks
def losses(a, b, bank):
    plain = [getattr(contrastive, name) for name in NAMES]
    blocks = [getattr(contrastive_blocks, name + "_by_blocks") for name in NAMES]
    return {**{"plain " + k: v for k, v in each(a, b, bank, *plain).items()}, **each(a, b, bank, *blocks)}
NAMES = ("against_memory_bank", "in_batch", "info_nce")
def each(a, b, bank, against_memory_bank, in_batch, info_nce):
    return {
        "views": info_nce([a, b], temperature=0.3),
        "per view": info_nce([a, b], temperature=0.3, per_view=True),
        "three views": info_nce([a, b, a + b], temperature=0.3, denominator="all"),
        "dclw": info_nce([a, b], temperature=0.3, denominator="none", sigma=0.5, detach_weight=False),
        "bank": against_memory_bank(a, b, bank, sigma=0.5, denominator="none"),
        "batch": in_batch(a, b),
        "batch, dclw": in_batch(a, b, denominator="none", sigma=0.5),
    }
"""
WORKER = (
    CASES
    + """
import sys, torch.distributed as dist
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
a, b, bank = torch.load(f"{folder}/in.pt", weights_only=True)
mine = slice(rank * 4, rank * 4 + 4)
weights = torch.eye(5, dtype=torch.float64, requires_grad=True)
out = {}
for name, loss in losses(a[mine] @ weights, b[mine] @ weights, bank).items():
    gradient, = torch.autograd.grad(loss, weights, retain_graph=True)
    dist.all_reduce(gradient)  # as DistributedDataParallel does: the average of the workers' gradients
    out[name] = loss.detach(), gradient / 2
torch.save(out, f"{folder}/out{rank}.pt")
dist.destroy_process_group()
"""
)


def test_two_processes_have_the_loss_and_gradient_of_the_joined_batch(tmp_path):
    a = embeddings(8, 5).detach()
    b = a + 0.8 * embeddings(8, 5, seed=1).detach()
    given = (a, b, embeddings(6, 5, seed=4).detach())
    torch.save(given, tmp_path / "in.pt")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-c", WORKER]
    running = [subprocess.Popen([*command, str(rank), str(tmp_path)], env=environment) for rank in range(2)]
    assert [process.wait(120) for process in running] == [0, 0]
    space: dict = {}
    exec(CASES, space)
    weights = torch.eye(5, dtype=torch.float64, requires_grad=True)
    alone = space["losses"](a @ weights, b @ weights, given[2])
    for rank in range(2):
        out = torch.load(tmp_path / f"out{rank}.pt", weights_only=True)
        for name, loss in alone.items():
            (gradient,) = torch.autograd.grad(loss, weights, retain_graph=True)
            torch.testing.assert_close(out[name][0], loss.detach(), rtol=1e-10, atol=1e-10, msg=name)
            torch.testing.assert_close(out[name][1], gradient, rtol=1e-9, atol=1e-10, msg=name)
